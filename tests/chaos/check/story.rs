//! A short history in which everything is as promised, for tests that break it.

use std::collections::BTreeMap;

use serde_json::json;

use super::{all, result_of};
use crate::history::{Audit, Change, Effect, Event, History, Nature, Record, Subject, What};

/// Redis's clock at the monotonic clock's zero.
pub const BEGAN: i64 = 1_700_000_000_000;

/// Ann (socket 0) pauses, resumes and cancels the external job j0, Bob (socket 1) watches; both stay.
pub fn sound() -> History {
    let mut history = History {
        events: Vec::new(),
        record: Record::default(),
        subjects: vec![
            subject("job:j0", Nature::External, None, "running"),
            subject("job:j1", Nature::Queued, Some("campaign:c0"), "pending"),
            subject("campaign:c0", Nature::Campaign, None, "active"),
        ],
        rights: BTreeMap::from([
            ("ann".to_owned(), vec!["jobs.*".to_owned()]),
            ("bob".to_owned(), vec!["jobs.read".to_owned()]),
        ]),
        began: BEGAN,
        unanswered: Vec::new(),
    };
    for (socket, user) in ["ann", "bob"].iter().enumerate() {
        let (user, resource) = ((*user).to_owned(), "job:j0".to_owned());
        let opened = What::Opened { socket, client: user.clone(), user, resource, gateway: "gateway-0".to_owned() };
        history.events.push(Event { at: 0, what: opened });
    }
    let commands = [("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")];
    for (n, (action, status)) in commands.iter().enumerate() {
        command(&mut history, n + 1, action, status);
    }
    let rows = [("job:j0", "cancelled"), ("job:j1", "pending"), ("campaign:c0", "active")];
    history.record.rows = rows.map(|(name, status)| (name.to_owned(), status.to_owned())).into();
    history
}

fn subject(name: &str, nature: Nature, campaign: Option<&str>, status: &str) -> Subject {
    Subject { name: name.to_owned(), nature, campaign: campaign.map(str::to_owned), status: status.to_owned() }
}

/// The n-th command, `cN` of request `rN`, from the first byte to the last.
fn command(history: &mut History, n: usize, action: &str, status: &str) {
    let at = n as u64 * 100;
    let (id, request) = (format!("c{n}"), format!("r{n}"));
    let sent = json!({"type": format!("{action}_job"), "request_id": request}).to_string();
    let ack = json!({"type": format!("{action}_requested"), "command_id": id, "request_id": request});
    let result =
        json!({"type": format!("{action}_succeeded"), "command_id": id, "status": status, "request_id": request});
    let mut happened = |after: u64, what| history.events.push(Event { at: at + after, what });
    happened(0, What::Sent { socket: 0, request: request.clone(), text: sent, try_no: 1 });
    happened(10, What::Saw { socket: 0, message: ack });
    happened(20, What::Saw { socket: 0, message: result.clone() });
    happened(20, What::Saw { socket: 1, message: result.clone() });
    for (after, event, outcome) in [(5, "accepted", None), (15, "succeeded", Some(status))] {
        history.record.audit.push(Audit {
            at: BEGAN + at as i64 + after,
            event: event.to_owned(),
            user: "ann".to_owned(),
            resource: "job:j0".to_owned(),
            action: action.to_owned(),
            command: Some(id.clone()),
            request: Some(request.clone()),
            outcome: outcome.map(str::to_owned),
            attempts: outcome.map(|_| 1),
            intact: true,
        });
    }
    let changes = [
        Change::Row { resource: "job:j0".to_owned(), status: status.to_owned() },
        Change::Applied { command: id.clone(), outcome: status.to_owned() },
    ];
    history.record.effects.extend(changes.map(|change| Effect { at: BEGAN + at as i64 + 12, change }));
    history.record.results.entry("job:j0".to_owned()).or_default().push((id, result.to_string()));
}

/// The checks report this rule.
pub fn reports(history: &History, rule: &str) {
    let found = all(history);
    assert!(found.iter().any(|violation| violation.rule == rule), "no {rule:?} among {found:#?}");
}

pub fn is_result(event: &Event) -> bool {
    matches!(&event.what, What::Saw { message, .. } if result_of(message).is_some())
}

pub fn is_ack(event: &Event) -> bool {
    matches!(&event.what, What::Saw { message, .. } if super::is_ack(message))
}

/// The positions of the effects of a command: the row's change and the line of the command.
pub fn effects_of(history: &History, command: &str) -> (usize, usize) {
    let is_it = |effect: &Effect| matches!(&effect.change, Change::Applied { command: c, .. } if c == command);
    let at = history.record.effects.iter().position(is_it).expect("the command was applied");
    (at - 1, at)
}

/// A command's result is another, wherever it stands.
pub fn rename_result(history: &mut History, command: &str, kind: &str, error: &str) {
    let failed = |request: &serde_json::Value| json!({"type": kind, "command_id": command, "error": error, "request_id": request});
    for event in &mut history.events {
        if let What::Saw { message, .. } = &mut event.what
            && result_of(message) == Some(command)
        {
            *message = failed(&message["request_id"]);
        }
    }
    for (id, message) in history.record.results.values_mut().flatten() {
        if id == command {
            let before: serde_json::Value = serde_json::from_str(message).expect("JSON");
            *message = failed(&before["request_id"]).to_string();
        }
    }
}
