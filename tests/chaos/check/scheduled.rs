//! A scheduled command has one fate: withdrawn, accepted once when its time has come, or denied then because its
//! sender had lost the right. Whoever was told that it is withdrawn, or that it is not, was told the truth.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde_json::Value;

use super::refused::may;
use super::{Index, Violation, is_ack};
use crate::history::{Audit, Change, History, What};

/// A right that changed no longer ago may be taken for what it was: 5 s are promised, and a process or a connection
/// that stands still in between makes it longer.
const RIGHTS_MS: i64 = 15_000;
/// Between this test's clock and Redis's.
const CLOCKS_MS: i64 = 1_000;

pub fn check(history: &History, index: &Index<'_>) -> Vec<Violation> {
    let mut found = fates(history, index);
    found.extend(denials(history, index));
    found.extend(withdrawals(history, index));
    found.extend(acks(index));
    found
}

/// The rows of one kind of event, by command.
fn rows<'a>(history: &'a History, event: &str) -> HashMap<&'a str, Vec<&'a Audit>> {
    let mut rows = HashMap::<&str, Vec<&Audit>>::new();
    for row in history.record.audit.iter().filter(|row| row.event == event) {
        if let Some(command) = row.command.as_deref() {
            rows.entry(command).or_default().push(row);
        }
    }
    rows
}

fn fates(history: &History, index: &Index<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let [scheduled, withdrawn, accepted, denied] =
        ["scheduled", "withdrawn", "accepted", "denied"].map(|event| rows(history, event));
    let applied: HashSet<&str> = history
        .record
        .effects
        .iter()
        .filter_map(|effect| match &effect.change {
            Change::Applied { command, .. } => Some(command.as_str()),
            Change::Row { .. } => None,
        })
        .collect();
    for (command, rows) in &scheduled {
        let (row, count) = (rows[0], |fates: &HashMap<&str, Vec<&Audit>>| fates.get(command).map_or(0, Vec::len));
        let (taken, ran, refused) = (count(&withdrawn), count(&accepted), count(&denied));
        let fates = format!("{command}: withdrawn {taken}, accepted {ran}, denied {refused} times");
        if rows.len() > 1 {
            found.push(Violation::new("scheduled twice", &row.resource, *command));
        }
        match taken + ran + refused {
            0 => found.push(Violation::new("lost schedule", &row.resource, *command)),
            1 => {}
            _ => found.push(Violation::new("more than one fate", &row.resource, fates)),
        }
        if taken + refused > 0 && applied.contains(command) {
            found.push(Violation::new("refused and ran", &row.resource, format!("{command} was applied all the same")));
        }
        let Some(at) = accepted.get(command).map(|rows| rows[0].at) else { continue };
        if row.run_at.is_none_or(|run_at| at < run_at) {
            let what = format!("{command} was to run at {:?} and was accepted at {at}", row.run_at);
            found.push(Violation::new("ran too early", &row.resource, what));
        }
    }
    for (command, rows) in withdrawn.iter().chain(&denied) {
        if !index.scheduled.contains_key(command) {
            let what = format!("{command} was {}, and never scheduled", rows[0].event);
            found.push(Violation::new("nobody asked", &rows[0].resource, what));
        }
    }
    found
}

/// Denied when it was to run: only who had lost the right; and not accepted from who had lost it long before.
fn denials(history: &History, index: &Index<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let messages = history.record.messages();
    for (command, row) in &index.denied_late {
        if right(history, row) == Some(true) {
            let what = format!("{command} of {}, who had the right all the time", row.user);
            found.push(Violation::new("denied without cause", &row.resource, what));
        }
        let kind = row.resource.split(':').next().unwrap_or_default();
        let words = format!("Insufficient permissions to {} {kind}", row.action);
        let Some(message) = messages.get(command) else { continue };
        if message["type"] != format!("{}_failed", row.action) || message["error"] != words.as_str() {
            let what = format!("{command} was denied, its result is {message}");
            found.push(Violation::new("results differ", &row.resource, what));
        }
    }
    for (command, (_, row)) in &index.accepted {
        if row.request.is_some() && right(history, row) == Some(false) {
            let what = format!("{} had lost the right to {command} ({}) long before", row.user, row.action);
            found.push(Violation::new("refused and ran", &row.resource, what));
        }
    }
    found
}

/// Whether the row's user had the right to it then; `None`: that changed shortly before.
fn right(history: &History, row: &Audit) -> Option<bool> {
    let at = row.at - history.began;
    let mut held = may(history, &row.user, &row.resource, &row.action);
    for event in &history.events {
        let since = event.at as i64;
        match &event.what {
            What::Rights { user, held: now } if *user == row.user && since < at + CLOCKS_MS => {
                if since > at - RIGHTS_MS {
                    return None;
                }
                held = *now;
            }
            _ => {}
        }
    }
    Some(held)
}

/// What was answered to `cancel_scheduled` is what became of the schedule.
fn withdrawals(history: &History, index: &Index<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let withdrawn = rows(history, "withdrawn");
    let mut asked = BTreeSet::new();
    for event in &history.events {
        let What::Sent { request, text, .. } = &event.what else { continue };
        let sent: Value = serde_json::from_str(text).unwrap_or_default();
        if let (true, Some(schedule)) = (sent["type"] == "cancel_scheduled", sent["schedule_id"].as_str()) {
            asked.insert((request.clone(), schedule.to_owned()));
        }
    }
    // Who may have done it: who was told so, and whose try had no answer or an unknown outcome.
    let mut may_have = BTreeSet::new();
    for (id, schedule) in &asked {
        let Some(request) = index.requests.get(id) else { continue };
        let mut answers = request.answers.iter().map(|(_, answer)| *answer);
        if !withdrawn.contains_key(schedule.as_str())
            && answers.clone().any(|answer| answer["type"] == "schedule_withdrawn")
        {
            let what = format!("{id} was told that {schedule} is withdrawn, and it is not");
            found.push(Violation::new("not withdrawn", request.resource, what));
        }
        let refused = request.answers.len() == request.tries as usize
            && answers.all(|answer| answer["type"] == "error" && answer["error"] != "outcome_unknown");
        if !refused {
            may_have.insert(schedule.as_str());
        }
    }
    for (command, rows) in &withdrawn {
        if !asked.iter().any(|(_, schedule)| schedule == command) {
            found.push(Violation::new("nobody asked", &rows[0].resource, format!("{command} was withdrawn")));
        } else if !may_have.contains(command) {
            let what = format!("{command} is withdrawn, and whoever asked for that was refused");
            found.push(Violation::new("refused and ran", &rows[0].resource, what));
        }
    }
    found
}

/// Whoever asks again for a scheduled command gets the very same ack.
fn acks(index: &Index<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for (id, request) in &index.requests {
        let acks: BTreeSet<String> = request
            .answers
            .iter()
            .filter(|(_, answer)| is_ack(answer) && answer.get("schedule_id").is_some())
            .map(|(_, answer)| answer.to_string())
            .collect();
        if acks.len() > 1 {
            found.push(Violation::new("answers differ", request.resource, format!("{id}: {acks:?}")));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{all, sample_history};
    use crate::history::{Audit, Change, Effect, Event, History, What};

    fn row(history: &mut History, event: &str) -> Option<usize> {
        history.record.audit.iter().position(|row| row.event == event && row.command.as_deref() == Some("c4"))
    }

    /// An answer to Ann's `cancel_scheduled`, which is `r5`.
    fn answered(history: &mut History, answer: serde_json::Value) {
        let text = json!({"type": "cancel_scheduled", "schedule_id": "c4", "request_id": "r5"}).to_string();
        let sent = What::Sent { socket: 0, request: "r5".to_owned(), text, try_no: 1 };
        history.events.push(Event { at: 450, what: sent });
        history.events.push(Event { at: 460, what: What::Saw { socket: 0, message: answer } });
    }

    /// Taken back, as it should be.
    fn withdrawn() -> History {
        let mut history = sample_history::scheduled();
        sample_history::forget_run(&mut history);
        let asked = row(&mut history, "scheduled").expect("it is scheduled");
        let taken = Audit { event: "withdrawn".to_owned(), ..history.record.audit[asked].clone() };
        history.record.audit.push(taken);
        answered(&mut history, json!({"type": "schedule_withdrawn", "schedule_id": "c4", "request_id": "r5"}));
        history
    }

    /// Ann had lost the right when it was to run.
    fn denied() -> History {
        let mut history = sample_history::scheduled();
        let words = "Insufficient permissions to resume job";
        sample_history::rename_result(&mut history, "c4", "resume_failed", words);
        let accepted = row(&mut history, "accepted").expect("it is accepted");
        let denied = &mut history.record.audit[accepted];
        (denied.event, denied.outcome) = ("denied".to_owned(), Some(words.to_owned()));
        let end = row(&mut history, "failed").expect("its end");
        history.record.audit.remove(end);
        let applied = history.record.effects.len() - 1;
        history.record.effects.remove(applied);
        history.events.push(Event { at: 300, what: What::Rights { user: "ann".to_owned(), held: false } });
        history
    }

    #[test]
    fn each_of_the_three_fates_is_as_promised() {
        assert_eq!(all(&sample_history::scheduled()), []);
        assert_eq!(all(&withdrawn()), []);
        assert_eq!(all(&denied()), []);
    }

    #[test]
    fn one_without_a_fate_is_lost() {
        let mut history = sample_history::scheduled();
        sample_history::forget_run(&mut history);
        sample_history::reports(&history, "lost schedule");
    }

    #[test]
    fn one_that_was_withdrawn_and_ran_is_reported() {
        let mut history = sample_history::scheduled();
        let asked = row(&mut history, "scheduled").expect("it is scheduled");
        let taken = Audit { event: "withdrawn".to_owned(), ..history.record.audit[asked].clone() };
        history.record.audit.push(taken);
        sample_history::reports(&history, "more than one fate");
        sample_history::reports(&history, "nobody asked");
        let mut history = withdrawn();
        let change = Change::Applied { command: "c4".to_owned(), outcome: "refused".to_owned() };
        history.record.effects.push(Effect { at: sample_history::BEGAN + 9_000, change });
        sample_history::reports(&history, "refused and ran");
    }

    #[test]
    fn one_that_was_accepted_or_scheduled_twice_is_reported() {
        for (event, rule) in [("accepted", "more than one fate"), ("scheduled", "scheduled twice")] {
            let mut history = sample_history::scheduled();
            let at = row(&mut history, event).expect("a row");
            let again = history.record.audit[at].clone();
            history.record.audit.push(again);
            sample_history::reports(&history, rule);
        }
    }

    #[test]
    fn one_that_ran_before_its_time_is_reported() {
        let mut history = sample_history::scheduled();
        let at = row(&mut history, "scheduled").expect("it is scheduled");
        history.record.audit[at].run_at = Some(sample_history::BEGAN + 500_000);
        sample_history::reports(&history, "ran too early");
    }

    #[test]
    fn a_withdrawal_that_is_told_and_not_done_or_done_and_refused_is_reported() {
        let mut history = sample_history::scheduled();
        answered(&mut history, json!({"type": "schedule_withdrawn", "schedule_id": "c4", "request_id": "r5"}));
        sample_history::reports(&history, "not withdrawn");
        let mut history = withdrawn();
        let last = history.events.len() - 1;
        let refused = json!({"type": "error", "error": "unavailable", "request_id": "r5"});
        history.events[last].what = What::Saw { socket: 0, message: refused };
        sample_history::reports(&history, "refused and ran");
        // Refused, because she had withdrawn it before.
        let mut history = withdrawn();
        let again = json!({"type": "cancel_scheduled", "schedule_id": "c4", "request_id": "r6"}).to_string();
        let sent = What::Sent { socket: 0, request: "r6".to_owned(), text: again, try_no: 1 };
        history.events.push(Event { at: 470, what: sent });
        let refused = json!({"type": "error", "error": "not_found", "request_id": "r6"});
        history.events.push(Event { at: 480, what: What::Saw { socket: 0, message: refused } });
        assert_eq!(all(&history), []);
    }

    #[test]
    fn a_denial_without_cause_or_with_an_effect_or_another_result_is_reported() {
        let mut history = denied();
        history.events.retain(|event| !matches!(event.what, What::Rights { .. }));
        sample_history::reports(&history, "denied without cause");
        let mut history = denied();
        let change = Change::Applied { command: "c4".to_owned(), outcome: "refused".to_owned() };
        history.record.effects.push(Effect { at: sample_history::BEGAN + 9_000, change });
        sample_history::reports(&history, "refused and ran");
        let mut history = denied();
        sample_history::rename_result(&mut history, "c4", "resume_failed", "Job not found or already completed");
        sample_history::reports(&history, "results differ");
        let mut history = denied();
        history.record.results.get_mut("job:j0").expect("results").pop();
        sample_history::reports(&history, "lost result");
    }

    #[test]
    fn what_runs_long_after_the_right_is_gone_is_reported() {
        let mut history = sample_history::scheduled();
        history.events.push(Event { at: 0, what: What::Rights { user: "ann".to_owned(), held: false } });
        assert_eq!(all(&history), [], "a moment ago");
        for row in history.record.audit.iter_mut().filter(|row| row.command.as_deref() == Some("c4")) {
            row.at += 30_000;
        }
        sample_history::reports(&history, "refused and ran");
    }

    #[test]
    fn a_repeat_that_is_answered_otherwise_is_reported() {
        let mut history = sample_history::scheduled();
        let ack =
            |event: &&Event| matches!(&event.what, What::Saw { message, .. } if message["type"] == "resume_scheduled");
        let mut again = history.events.iter().find(ack).expect("an ack").clone();
        if let What::Saw { message, .. } = &mut again.what {
            message["run_at"] = "later".into();
        }
        history.events.push(again);
        sample_history::reports(&history, "answers differ");
    }
}
