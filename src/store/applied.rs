//! What is noted of commands that have been applied, so that the same one again does nothing and says the same.

use std::collections::HashMap;
use std::time::Duration;

use super::sql::{Tx, Value};
use super::{ApplyOutcome, CommandChange, StoreError, rows};
use crate::domain::{Action, CommandId, Control, Resource, UserId};

/// For so long a request id stands for its first command, as in Redis.
pub(super) const REQUEST_TTL: Duration = Duration::from_secs(24 * 3600);

/// What is noted of a command; `None`: it was not applied, and may be yet.
pub(super) fn outcome_of(applied: &ApplyOutcome) -> Option<(&str, Option<Control>)> {
    match applied {
        ApplyOutcome::Succeeded { status, control, .. } => Some((status, *control)),
        ApplyOutcome::Refused => Some((REFUSED, None)),
        ApplyOutcome::Hosted(_) | ApplyOutcome::Stale => None,
    }
}

/// What is noted of a command that was applied before.
pub(super) struct Noted {
    outcome: String,
    control: Option<Control>,
}

impl Noted {
    /// The inverse of [`outcome_of`], for a repeat.
    pub fn applied(&self) -> ApplyOutcome {
        match self.outcome.as_str() {
            REFUSED => ApplyOutcome::Refused,
            status => ApplyOutcome::Succeeded { status: status.to_owned(), changed: false, control: self.control },
        }
    }
}

const REFUSED: &str = "refused";

/// Those of these commands that were applied before, with what was noted.
pub(super) async fn applied_before(
    tx: &mut Tx,
    commands: &[CommandId],
) -> Result<HashMap<CommandId, Noted>, StoreError> {
    let values: Vec<Value> = commands.iter().map(|command| command.to_string().into()).collect();
    let placeholders: Vec<_> = (1..=values.len()).map(|n| tx.placeholder(n)).collect();
    let text = format!(
        "SELECT command_id, outcome, control FROM applied_commands WHERE command_id IN ({})",
        placeholders.join(", ")
    );
    let mut known = HashMap::new();
    for row in tx.rows(&text, &values).await? {
        if let Ok(command) = row.required("command_id")?.parse() {
            let control = row.text("control")?.and_then(|word| Control::parse(&word));
            known.insert(command, Noted { outcome: row.required("outcome")?, control });
        }
    }
    Ok(known)
}

/// The client's request, as one text: the same thing, asked for by the same user under the same id.
pub(super) fn request_key(change: &CommandChange) -> Option<String> {
    Some(request_text(&change.resource, &change.user, change.request_id.as_ref()?, change.action))
}

pub(super) fn request_text(resource: &Resource, user: &UserId, id: &str, action: Action) -> String {
    format!("{resource}|{user}|{id}|{}", action.as_str())
}

/// What another command did that came by the same request: the Redis that had accepted it is gone, and the one that
/// accepted this one did not know the request. `None`: there was none within a day.
pub(super) async fn repeated_request(tx: &mut Tx, change: &CommandChange) -> Result<Option<ApplyOutcome>, StoreError> {
    let Some(key) = request_key(change) else { return Ok(None) };
    let text = "SELECT command_id, outcome, control, CAST(at AS TEXT) AS at, CAST({now} AS TEXT) AS now
        FROM applied_commands WHERE request = $1";
    let Some(row) = tx.row(text, &[key.into()]).await? else { return Ok(None) };
    let time = |column: &str| {
        let time = rows::time(row.text(column)?).and_then(|text| text.parse::<jiff::Timestamp>().ok());
        Ok::<_, StoreError>(time.map(jiff::Timestamp::as_millisecond))
    };
    let age = time("at")?.zip(time("now")?).map(|(at, now)| now - at);
    if age.is_none_or(|age| u128::try_from(age).is_ok_and(|age| age >= REQUEST_TTL.as_millis())) {
        let old = row.required("command_id")?;
        tx.execute("UPDATE applied_commands SET request = NULL WHERE command_id = $1", &[old.into()]).await?;
        return Ok(None);
    }
    let control = row.text("control")?.and_then(|word| Control::parse(&word));
    Ok(Some(Noted { outcome: row.required("outcome")?, control }.applied()))
}
