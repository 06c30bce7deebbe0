//! Nothing refused ever ran, and nothing ran that nobody asked for or had no right to.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::{Index, Violation, is_ack};
use crate::history::{Change, History};

pub fn check(history: &History, index: &Index<'_>) -> Vec<Violation> {
    let mut found = refused(history, index);
    found.extend(unasked(history, index));
    found
}

/// Requests to which every try was answered with a refusal.
fn refused(history: &History, index: &Index<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let events = |event: &str| -> HashSet<&str> {
        // What was denied when its time had come had been asked for with success.
        let rows = history.record.audit.iter().filter(|row| row.event == event && !row.is_denied_late());
        rows.filter_map(|row| row.request.as_deref()).collect()
    };
    let (accepted, denied, limited) = (events("accepted"), events("denied"), events("rate_limited"));
    let scheduled = events("scheduled");
    // What a user was refused too often within a minute is counted, and one row tells of it.
    let mut counted: HashMap<(&str, &str), i64> = HashMap::new();
    for row in &history.record.audit {
        *counted.entry((&row.event, &row.user)).or_default() += row.refusals.unwrap_or(0);
    }
    for (id, request) in &index.requests {
        let answers = request.answers.iter().filter(|(_, answer)| !is_for_want_of_memory(answer));
        let errors: HashSet<&str> = answers.filter_map(|(_, answer)| answer["error"].as_str()).collect();
        // A try without an answer may have been accepted, and so may one whose outcome is unknown.
        let certain = request.answers.len() == request.tries as usize
            && !request.answers.iter().any(|(_, answer)| is_ack(answer))
            && !errors.contains("outcome_unknown");
        if certain && (accepted.contains(id.as_str()) || scheduled.contains(id.as_str())) {
            let what = format!("request {id} of {} was refused ({errors:?}) and accepted", request.user);
            found.push(Violation::new("refused and ran", request.resource, what));
        }
        for (error, event, rows) in
            [("permission_denied", "denied", &denied), ("rate_limit_exceeded", "rate_limited", &limited)]
        {
            if errors.contains(error) && !rows.contains(id.as_str()) {
                let left = counted.entry((event, request.user)).or_default();
                *left -= 1;
                if *left >= 0 {
                    continue;
                }
                let what = format!("request {id} was answered {error}, and the trail does not have it");
                found.push(Violation::new("audit", request.resource, what));
            }
        }
        if denied.contains(id.as_str()) && (accepted.contains(id.as_str()) || scheduled.contains(id.as_str())) {
            found.push(Violation::new("refused and ran", request.resource, format!("request {id} was denied")));
        }
    }
    found
}

/// A gateway has no memory for a request just now, before anybody asks what it is: such a refusal is in no trail.
fn is_for_want_of_memory(answer: &Value) -> bool {
    answer["message"].as_str().is_some_and(|message| message.contains("memory"))
}

fn unasked(history: &History, index: &Index<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for (command, (_, row)) in &index.accepted {
        let Some(request) = row.request.as_deref() else {
            // What follows from a campaign's cancel; every client of the test gives its requests an id.
            if row.action != "cancel" {
                found.push(Violation::new("nobody asked", &row.resource, format!("{command} has no request_id")));
            }
            continue;
        };
        let asked = index.requests.get(request).is_some_and(|request| {
            let kind = row.resource.split(':').next().unwrap_or_default();
            request.user == row.user
                && request.targets.contains(&row.resource)
                && request.asked.contains(&format!(
                    "{}_{kind}{}",
                    row.action,
                    if row.batch.is_some() { "s" } else { "" }
                ))
        });
        if !asked {
            found.push(Violation::new("nobody asked", &row.resource, format!("{command}, request {request}")));
        }
        if !may(history, &row.user, &row.resource, &row.action) {
            let what = format!("{} had no right to {command} ({})", row.user, row.action);
            found.push(Violation::new("refused and ran", &row.resource, what));
        }
    }
    for effect in &history.record.effects {
        if let Change::Applied { command, .. } = &effect.change
            && !index.accepted.contains_key(command.as_str())
        {
            found.push(Violation::general("refused and ran", format!("{command} was applied, and never accepted")));
        }
    }
    found
}

pub fn may(history: &History, user: &str, resource: &str, action: &str) -> bool {
    let area = resource.split(':').next().unwrap_or_default();
    let held = history.rights.get(user).map(Vec::as_slice).unwrap_or_default();
    held.iter().any(|right| *right == format!("{area}s.{action}") || *right == format!("{area}s.*"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::sample_history;
    use super::{Index, refused};
    use crate::history::{Change, Effect, History, What};

    #[test]
    fn a_refused_command_that_ran_is_reported() {
        for error in ["unavailable", "permission_denied", "rate_limit_exceeded", "queue_full"] {
            let mut history = sample_history::sound();
            for event in &mut history.events {
                if let What::Saw { message, .. } = &mut event.what
                    && message["type"] == "pause_requested"
                {
                    *message = json!({"type": "error", "error": error, "request_id": "r1"});
                }
            }
            sample_history::reports(&history, "refused and ran");
        }
    }

    #[test]
    fn refusals_that_no_audit_row_tells_of_are_reported() {
        let mut history = sample_history::sound();
        for event in &mut history.events {
            if let What::Saw { message, .. } = &mut event.what
                && message["type"] == "pause_requested"
            {
                *message = json!({"type": "error", "error": "rate_limit_exceeded", "request_id": "r1"});
            }
        }
        let told = |history: &History| {
            let index = Index::of(history);
            !refused(history, &index)
                .iter()
                .any(|violation| violation.to_string().contains("the trail does not have it"))
        };
        assert!(!told(&history));
        let mut without_memory = history.clone();
        for event in &mut without_memory.events {
            if let What::Saw { message, .. } = &mut event.what
                && message["error"] == "rate_limit_exceeded"
            {
                message["message"] = "Other requests of your tenant hold all the memory".into();
            }
        }
        assert!(told(&without_memory), "it was refused before anybody asked what it is");
        let row = history.record.audit[0].clone();
        let (event, request) = ("rate_limited".to_owned(), Some("another".to_owned()));
        history.record.audit.push(crate::history::Audit { event, request, refusals: Some(2), ..row });
        assert!(told(&history));
    }

    #[test]
    fn a_command_without_the_right_to_it_is_reported() {
        let mut history = sample_history::sound();
        history.rights.insert("ann".to_owned(), vec!["jobs.read".to_owned(), "jobs.pause".to_owned()]);
        sample_history::reports(&history, "refused and ran");
    }

    #[test]
    fn a_command_that_nobody_sent_is_reported() {
        let mut history = sample_history::sound();
        history.events.retain(|event| !matches!(&event.what, What::Sent { request, .. } if request == "r2"));
        sample_history::reports(&history, "nobody asked");
        let mut history = sample_history::sound();
        let change = Change::Applied { command: "c9".to_owned(), outcome: "refused".to_owned() };
        history.record.effects.push(Effect { at: sample_history::BEGAN, change });
        sample_history::reports(&history, "refused and ran");
    }
}
