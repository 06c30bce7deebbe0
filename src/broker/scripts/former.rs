//! The shapes in which version 0.1 stored its records, which are found in Redis for a while after an upgrade: numbers and
//! words between bars, and JSON behind them. This file goes one version later, as `lua/lib/former.lua` does.

use crate::domain::{Action, Control};
use crate::protocol::{CommandError, Outcome};

/// `accepted (Unix ms)|workers online|JSON`: the two numbers, and the JSON. A record that has nothing in front is its own JSON.
pub(super) fn split_command(stored: &str) -> (Option<i64>, Option<i64>, &str) {
    let mut parts = stored.splitn(3, '|');
    match (parts.next().and_then(number), parts.next().and_then(number), parts.next()) {
        (Some(accepted), Some(workers), Some(json)) => (Some(accepted), Some(workers), json),
        _ => (None, None, stored),
    }
}

/// `run at (Unix ms)|asked at (Unix ms)|resource|JSON`: the two times, and the JSON.
pub(super) fn split_schedule(stored: &str) -> (Option<i64>, Option<i64>, &str) {
    let mut parts = stored.splitn(4, '|');
    match (parts.next().and_then(number), parts.next().and_then(number), parts.nth(1)) {
        (Some(run_at), Some(asked_at), Some(json)) => (Some(run_at), Some(asked_at), json),
        _ => (None, None, stored),
    }
}

/// What version 0.1 wrote in front of the JSON of a failed command.
pub(super) struct FailedHead {
    pub(super) failed_at: i64,
    pub(super) event: String,
    pub(super) error: CommandError,
}

/// `ended (Unix ms)|event|resource|result message`, a line break, JSON: what stands in front, and the JSON.
pub(super) fn split_failed(stored: &str) -> (Option<FailedHead>, &str) {
    #[derive(serde::Deserialize)]
    struct FailureMessage {
        error: String,
    }
    let Some((head, json)) = stored.split_once('\n') else { return (None, stored) };
    let mut parts = head.splitn(4, '|');
    let (at, event, message) = (parts.next().and_then(number), parts.next(), parts.nth(1));
    let message = message.and_then(|message| serde_json::from_str::<FailureMessage>(message).ok());
    match (at, event, message) {
        (Some(failed_at), Some(event), Some(FailureMessage { error: message })) => {
            let error = CommandError::Uncoded { message };
            (Some(FailedHead { failed_at, event: event.to_owned(), error }), json)
        }
        _ => (None, json),
    }
}

/// A result as version 0.1 stored it, under its id.
pub(super) struct FormerResult<'a> {
    pub(super) ended_at: i64,
    pub(super) workers_online: i64,
    /// Shown as it stands.
    pub(super) message: &'a str,
    pub(super) outcome: Outcome,
    pub(super) control: Option<Control>,
}

/// `ended (Unix ms)|workers online|message`.
pub(super) fn read_result(stored: &str) -> Option<FormerResult<'_>> {
    #[derive(Default, serde::Deserialize)]
    #[serde(default)]
    struct Message {
        r#type: String,
        status: String,
        error: String,
        control: Option<Control>,
    }
    let mut parts = stored.splitn(3, '|');
    let (ended_at, workers_online) = (number(parts.next()?)?, number(parts.next()?)?);
    let message = parts.next()?;
    // Whatever stands there is shown, as version 0.1 does.
    let read: Message = serde_json::from_str(message).unwrap_or_default();
    let has_succeeded = Action::ALL.iter().any(|action| read.r#type == format!("{}_succeeded", action.as_str()));
    let outcome = match has_succeeded {
        true => Outcome::Succeeded(read.status),
        false => Outcome::Failed(CommandError::Uncoded { message: read.error }),
    };
    Some(FormerResult { ended_at, workers_online, message, outcome, control: read.control })
}

fn number(text: &str) -> Option<i64> {
    text.parse().ok()
}

/// The first three parts of what version 0.1 remembers of a batch, `body|outcome|id|ids|all or more`, and the last two.
pub(super) fn split_batch(stored: &str) -> Option<[&str; 5]> {
    let mut parts = stored.splitn(5, '|');
    Some([parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?])
}
