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
        work: Vec::new(),
        unanswered: Vec::new(),
        waits_for_disk: false,
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
            run_at: None,
            batch: None,
            refusals: None,
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

/// What a command on a job that has ended is answered with.
pub const ENDED: &str = "Job not found or already completed";

/// After all that Ann asks for a resume a second later, as `c4`; it finds the job cancelled.
pub fn scheduled() -> History {
    let mut history = sound();
    let request = json!("r4");
    let ack = json!({
        "type": "resume_scheduled", "command_id": "c4", "schedule_id": "c4", "run_at": "soon", "request_id": request,
    });
    let text = json!({"type": "resume_job", "delay_seconds": 1, "request_id": request}).to_string();
    let sent = What::Sent { socket: 0, request: "r4".to_owned(), text, try_no: 1 };
    history.events.push(Event { at: 400, what: sent });
    history.events.push(Event { at: 410, what: What::Saw { socket: 0, message: ack } });
    let row = Audit {
        at: BEGAN + 405,
        event: "scheduled".to_owned(),
        action: "resume".to_owned(),
        command: Some("c4".to_owned()),
        request: Some("r4".to_owned()),
        run_at: Some(BEGAN + 1_405),
        ..history.record.audit[0].clone()
    };
    let accepted = Audit { event: "accepted".to_owned(), at: BEGAN + 1_406, run_at: None, ..row.clone() };
    history.record.audit.extend([row, accepted.clone()]);
    refused(&mut history, accepted, &[0, 1]);
    history
}

/// Nothing came of `c4`.
pub fn forget_run(history: &mut History) {
    let record = &mut history.record;
    record.audit.retain(|row| row.command.as_deref() != Some("c4") || row.event == "scheduled");
    record.effects.pop();
    record.results.get_mut("job:j0").expect("results").pop();
    history
        .events
        .retain(|event| !matches!(&event.what, What::Saw { message, .. } if result_of(message) == Some("c4")));
}

/// After all that Ann pauses both jobs in one batch, on the tenant-wide socket 2: j0, which has ended, as `c5`, and j1
/// as `c6`.
pub fn batch() -> History {
    let mut history = sound();
    let (user, resource) = ("ann".to_owned(), "tenant".to_owned());
    let opened = What::Opened { socket: 2, client: user.clone(), user, resource, gateway: "gateway-0".to_owned() };
    let text = json!({"type": "pause_jobs", "job_ids": ["j0", "j1"], "request_id": "r6"}).to_string();
    let sent = What::Sent { socket: 2, request: "r6".to_owned(), text, try_no: 1 };
    let items = json!([{"job_id": "j0", "command_id": "c5"}, {"job_id": "j1", "command_id": "c6"}]);
    let ack = json!({"type": "batch_requested", "batch_id": "B1", "total": 2, "items": items, "request_id": "r6"});
    let saw = |message| What::Saw { socket: 2, message };
    history.events.extend([(500, opened), (600, sent), (610, saw(ack))].map(|(at, what)| Event { at, what }));
    let row = |command: &str, resource: &str, event: &str, of: &History| Audit {
        at: BEGAN + 605,
        event: event.to_owned(),
        resource: resource.to_owned(),
        command: Some(command.to_owned()),
        request: Some("r6".to_owned()),
        batch: Some("B1".to_owned()),
        ..of.record.audit[0].clone()
    };
    let (one, other) = (row("c5", "job:j0", "accepted", &history), row("c6", "job:j1", "accepted", &history));
    history.record.audit.extend([one.clone(), other]);
    refused(&mut history, one, &[0, 1, 2]);
    let ended = row("c6", "job:j1", "succeeded", &history);
    history.record.audit.push(Audit { outcome: Some("paused".to_owned()), batch: None, ..ended });
    let changes = [
        Change::Row { resource: "job:j1".to_owned(), status: "paused".to_owned() },
        Change::Applied { command: "c6".to_owned(), outcome: "paused".to_owned() },
    ];
    history.record.effects.extend(changes.map(|change| Effect { at: BEGAN + 612, change }));
    history.record.rows.insert("job:j1".to_owned(), "paused".to_owned());
    let result = json!({"type": "pause_succeeded", "command_id": "c6", "status": "paused", "request_id": "r6"});
    history.record.results.insert("job:j1".to_owned(), vec![("c6".to_owned(), result.to_string())]);
    let summary = json!({
        "type": "batch_completed", "batch_id": "B1", "total": 2, "succeeded": 1, "failed": 1, "refused": 0,
        "request_id": "r6",
    });
    history.events.extend([saw(result), saw(summary)].map(|what| Event { at: 630, what }));
    history
}

/// The accepted command ends: the job has ended before.
fn refused(history: &mut History, accepted: Audit, sockets: &[usize]) {
    let command = accepted.command.clone().expect("a command");
    let result = json!({
        "type": format!("{}_failed", accepted.action), "command_id": command, "error": ENDED,
        "request_id": accepted.request,
    });
    let change = Change::Applied { command: command.clone(), outcome: "refused".to_owned() };
    history.record.effects.push(Effect { at: accepted.at + 6, change });
    for socket in sockets {
        let what = What::Saw { socket: *socket, message: result.clone() };
        history.events.push(Event { at: (accepted.at - BEGAN) as u64 + 14, what });
    }
    let results = history.record.results.entry(accepted.resource.clone()).or_default();
    results.push((command, result.to_string()));
    let (event, outcome) = ("failed".to_owned(), Some(ENDED.to_owned()));
    history.record.audit.push(Audit { event, outcome, at: accepted.at + 9, ..accepted });
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
