//! The model: every change of a row is what the transition table lets the command do that was applied then, or what
//! the surroundings may cause. Results say what was applied, and the row ends where the last change left it.

use std::collections::{HashMap, HashSet};

use wheelhouse::domain::transition::{self, Decision};
use wheelhouse::domain::{Action, CampaignStatus, JobStatus};

use super::order::SUPERSEDED;
use super::{Index, Violation};
use crate::history::{Change, Effect, History, Nature, Subject};

/// What a command is answered with when there is nothing (left) to command.
const REFUSED: &str = "not found or already completed";
/// Whether it was applied is not known; the answer says so.
const GIVEN_UP: &str = "The database did not answer for too long";

pub fn check(history: &History, index: &Index<'_>) -> Vec<Violation> {
    let mut found = replay(history, index);
    found.extend(results(history, index));
    found
}

/// What is known of one resource on the way through the effects.
struct Known<'a> {
    subject: &'a Subject,
    status: &'a str,
    /// Changes that no command has explained yet: from, to, and whether the surroundings may have caused it.
    open: Vec<(&'a str, &'a str, bool)>,
}

impl Known<'_> {
    fn unexplained(&mut self, found: &mut Vec<Violation>) {
        for (from, to, explained) in self.open.drain(..) {
            if !explained {
                let what = format!("the row went from {from} to {to}, and no command did that");
                found.push(Violation::new("model", &self.subject.name, what));
            }
        }
    }
}

/// Goes through the effects in the order of SQL's commits.
fn replay(history: &History, index: &Index<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut known: HashMap<&str, Known<'_>> = history
        .subjects
        .iter()
        .map(|subject| (subject.name.as_str(), Known { subject, status: &subject.status, open: Vec::new() }))
        .collect();
    let cancels = index.accepted.values().filter(|(_, row)| row.action == "cancel");
    let cancels: HashSet<&str> = cancels.map(|(_, row)| row.resource.as_str()).collect();
    for (n, effect) in history.record.effects.iter().enumerate() {
        match &effect.change {
            Change::Row { resource, status } => {
                let Some(before) = known.get(resource.as_str()).map(|known| known.status) else { continue };
                let next = next_status(&history.record.effects[n + 1..], resource);
                let explained = by_surroundings(&known, &cancels, resource, status, next);
                if let Some(known) = known.get_mut(resource.as_str()) {
                    known.open.push((before, status, explained));
                    known.status = status;
                }
            }
            Change::Applied { command, outcome } => {
                let Some((_, row)) = index.accepted.get(command.as_str()) else { continue };
                let Some(known) = known.get_mut(row.resource.as_str()) else { continue };
                let action = Action::parse(&row.action);
                if !action.is_some_and(|action| fits(known, action, outcome)) {
                    let what = format!(
                        "{command} ({}) was applied as {outcome:?}, the row is {:?} after {:?}",
                        row.action, known.status, known.open
                    );
                    found.push(Violation::new("model", &row.resource, what));
                }
                known.unexplained(&mut found);
            }
        }
    }
    for known in known.values_mut() {
        known.unexplained(&mut found);
        let name = &known.subject.name;
        let is = history.record.rows.get(name).map(String::as_str).unwrap_or("gone");
        if is != known.status {
            let what = format!("the row says {is}, the last change {}", known.status);
            found.push(Violation::new("final state", name, what));
        }
    }
    found
}

/// Whether something else than a command may have moved the row there, at this point of the history.
/// `cancels`: what somebody wanted cancelled.
fn by_surroundings(
    known: &HashMap<&str, Known<'_>>,
    cancels: &HashSet<&str>,
    resource: &str,
    to: &str,
    next: Option<&str>,
) -> bool {
    let Some(it) = known.get(resource) else { return false };
    let campaign = it.subject.campaign.as_deref().and_then(|name| known.get(name));
    if to == "cancelled" && !is_final(it.status) && campaign.is_some_and(|campaign| campaign.status == "cancelled") {
        return true;
    }
    match it.subject.nature {
        Nature::External => false,
        Nature::Queued => matches!((it.status, to), ("pending", "running") | ("running", "pending")),
        Nature::Foreign => match (it.status, to) {
            ("pending", "running") | ("running", "pending") => true,
            // A process that a cancel has ended says so itself, where the worker died that had told it.
            ("running" | "paused", "cancelled") => cancels.contains(resource),
            _ => false,
        },
        // A paused one whose program is gone fails by way of running, in one transaction: nothing goes straight there.
        Nature::Attached => match (it.status, to) {
            ("running", "failed") => true,
            ("paused", "running") => next == Some("failed"),
            _ => false,
        },
        Nature::Campaign => {
            let mut members = known.values().filter(|k| k.subject.campaign.as_deref() == Some(resource));
            (it.status, to) == ("active", "completed") && members.all(|member| is_final(member.status))
        }
    }
}

/// What the resource's next change is.
fn next_status<'a>(effects: &'a [Effect], resource: &str) -> Option<&'a str> {
    effects.iter().find_map(|effect| match &effect.change {
        Change::Row { resource: changed, status } if changed == resource => Some(status.as_str()),
        _ => None,
    })
}

fn is_final(status: &str) -> bool {
    matches!(status, "completed" | "failed" | "cancelled")
}

/// Whether the outcome is the table's. Takes the change that the command made from what is to be explained.
fn fits(known: &mut Known<'_>, action: Action, outcome: &str) -> bool {
    if outcome == "refused" {
        return is_final(known.status);
    }
    if outcome != known.status {
        return false;
    }
    let nature = known.subject.nature;
    if let Some((from, to, _)) = known.open.last()
        && moves(nature, from, action, to)
    {
        known.open.pop();
        return true;
    }
    stays(nature, known.status, action)
}

fn moves(nature: Nature, from: &str, action: Action, to: &str) -> bool {
    match nature {
        Nature::Campaign => {
            let (from, to) = (CampaignStatus::parse(from), CampaignStatus::parse(to));
            matches!((from, to), (Some(from), Some(to)) if transition::campaign_transition(from, action) == Decision::Move(to))
        }
        _ => {
            let (Some(from), Some(to)) = (JobStatus::parse(from), JobStatus::parse(to)) else { return false };
            // Where a paused job goes back to depends on whether a worker holds it.
            let back = [JobStatus::Pending, JobStatus::Running];
            back.into_iter().any(|back| transition::job_transition(from, action, back) == Decision::Move(to))
        }
    }
}

fn stays(nature: Nature, status: &str, action: Action) -> bool {
    match nature {
        Nature::Campaign => CampaignStatus::parse(status)
            .is_some_and(|status| transition::campaign_transition(status, action) == Decision::Unchanged),
        _ => JobStatus::parse(status).is_some_and(|status| {
            transition::job_transition(status, action, JobStatus::Pending) == Decision::Unchanged
        }),
    }
}

/// What the trail and the result message say is what was applied.
fn results(history: &History, index: &Index<'_>) -> Vec<Violation> {
    let mut applied = HashMap::<&str, &str>::new();
    for effect in &history.record.effects {
        if let Change::Applied { command, outcome } = &effect.change {
            applied.insert(command, outcome);
        }
    }
    let messages = history.record.messages();
    let mut found = Vec::new();
    for row in history.record.audit.iter().filter(|row| row.is_end()) {
        let Some(command) = row.command.as_deref() else { continue };
        if !index.accepted.contains_key(command) {
            continue;
        }
        let (event, outcome) = (row.event.as_str(), row.outcome.as_deref().unwrap_or_default());
        let applied = applied.get(command).copied();
        let so = match event {
            "succeeded" => applied == Some(outcome) && outcome != "refused",
            "failed" if outcome.ends_with(REFUSED) => applied == Some("refused"),
            "failed" if outcome == SUPERSEDED => applied.is_none(),
            "failed" => outcome.starts_with(GIVEN_UP),
            _ => applied.is_none(),
        };
        if !so {
            let what = format!("{command} ended {event} with {outcome:?}, applied was {applied:?}");
            found.push(Violation::new("result and effect differ", &row.resource, what));
        }
        let Some(message) = messages.get(command) else { continue };
        let (kind, said) = match event {
            "succeeded" => (format!("{}_succeeded", row.action), &message["status"]),
            _ => (format!("{}_failed", row.action), &message["error"]),
        };
        if message["type"] != kind.as_str() || (event != "expired" && said != outcome) {
            let what = format!("the trail says {event} {outcome:?}, the message {message}");
            found.push(Violation::new("results differ", &row.resource, what));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::order::SUPERSEDED;
    use super::super::{all, sample_history};
    use crate::history::{Change, Effect, History};

    fn moved(history: &mut History, resource: &str, status: &str) {
        let change = Change::Row { resource: resource.to_owned(), status: status.to_owned() };
        history.record.effects.push(Effect { at: sample_history::BEGAN + 9_000, change });
        history.record.rows.insert(resource.to_owned(), status.to_owned());
    }

    #[test]
    fn a_final_state_that_differs_is_reported() {
        let mut history = sample_history::sound();
        history.record.rows.insert("job:j0".to_owned(), "running".to_owned());
        sample_history::reports(&history, "final state");
        let mut history = sample_history::sound();
        history.record.rows.remove("job:j0");
        sample_history::reports(&history, "final state");
    }

    #[test]
    fn a_row_that_moves_without_a_command_is_reported() {
        let mut history = sample_history::sound();
        // As if the first command had been applied once more, long after the last.
        moved(&mut history, "job:j0", "paused");
        sample_history::reports(&history, "model");
    }

    #[test]
    fn a_command_that_does_what_the_table_does_not_say_is_reported() {
        let mut history = sample_history::sound();
        let (row, line) = sample_history::effects_of(&history, "c1");
        history.record.effects[row].change =
            Change::Row { resource: "job:j0".to_owned(), status: "completed".to_owned() };
        history.record.effects[line].change =
            Change::Applied { command: "c1".to_owned(), outcome: "completed".to_owned() };
        sample_history::reports(&history, "model");
    }

    #[test]
    fn a_success_that_was_not_applied_is_reported() {
        let mut history = sample_history::sound();
        let (row, line) = sample_history::effects_of(&history, "c3");
        history.record.effects.drain(row..=line);
        history.record.rows.insert("job:j0".to_owned(), "running".to_owned());
        sample_history::reports(&history, "result and effect differ");
    }

    #[test]
    fn one_that_was_applied_and_is_called_superseded_is_reported() {
        let mut history = sample_history::sound();
        let end = history.record.audit.iter_mut().find(|row| row.is_end() && row.command.as_deref() == Some("c2"));
        let end = end.expect("its end");
        (end.event, end.outcome) = ("failed".to_owned(), Some(SUPERSEDED.to_owned()));
        sample_history::rename_result(&mut history, "c2", "resume_failed", SUPERSEDED);
        sample_history::reports(&history, "result and effect differ");
    }

    #[test]
    fn a_message_that_says_something_else_than_the_trail_is_reported() {
        let mut history = sample_history::sound();
        sample_history::rename_result(&mut history, "c1", "pause_failed", "Job not found or already completed");
        sample_history::reports(&history, "results differ");
    }

    #[test]
    fn what_the_surroundings_may_do_is_told_from_what_they_may_not() {
        let mut history = sample_history::sound();
        moved(&mut history, "job:j1", "running");
        moved(&mut history, "job:j1", "pending");
        assert_eq!(all(&history), [], "a worker took it up and died");
        let mut ended = history.clone();
        moved(&mut ended, "job:j1", "cancelled");
        sample_history::reports(&ended, "model");
        let mut history = sample_history::sound();
        // Its campaign is cancelled, which takes it along; what cancelled the campaign is missing.
        moved(&mut history, "campaign:c0", "cancelled");
        moved(&mut history, "job:j1", "cancelled");
        let found = all(&history);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert_eq!(found[0].resource.as_deref(), Some("campaign:c0"));
    }
}
