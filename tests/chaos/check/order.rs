//! Per resource, commands end and are applied in the order in which they were accepted. Only a waiting pause or
//! resume that a later cancel superseded may end early.

use std::collections::HashMap;

use super::{Index, Violation};
use crate::history::{Audit, Change, History};

pub const SUPERSEDED: &str = "Superseded by cancel";

pub fn check(history: &History, index: &Index<'_>) -> Vec<Violation> {
    let mut found = ends(history, index);
    found.extend(effects(history, index));
    found
}

fn ends(history: &History, index: &Index<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut last = HashMap::<&str, (usize, &str)>::new();
    for (place, row) in history.record.audit.iter().enumerate().filter(|(_, row)| row.is_end()) {
        let Some(command) = row.command.as_deref() else { continue };
        let Some((accepted, _)) = index.accepted.get(command) else { continue };
        if row.outcome.as_deref() == Some(SUPERSEDED) {
            if row.action == "cancel" || !cancel_between(&history.record.audit, *accepted, place, &row.resource) {
                let what = format!("{command} ({}) was superseded, but by nothing", row.action);
                found.push(Violation::new("order of ends", &row.resource, what));
            }
            continue;
        }
        if let Some((before, other)) = last.insert(&row.resource, (*accepted, command))
            && before > *accepted
        {
            let what = format!("{command} was accepted before {other} and ended after it");
            found.push(Violation::new("order of ends", &row.resource, what));
        }
    }
    found
}

fn cancel_between(audit: &[Audit], after: usize, before: usize, resource: &str) -> bool {
    let between = audit.get(after..before).unwrap_or_default();
    between.iter().any(|row| row.is_accepted() && row.action == "cancel" && row.resource == resource)
}

fn effects(history: &History, index: &Index<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut last = HashMap::<&str, (usize, &str)>::new();
    for effect in &history.record.effects {
        let Change::Applied { command, .. } = &effect.change else { continue };
        // What was never accepted is `refused`'s business.
        let Some((accepted, row)) = index.accepted.get(command.as_str()) else { continue };
        if let Some((before, other)) = last.insert(&row.resource, (*accepted, command))
            && before >= *accepted
        {
            let what = format!("{command} was accepted before {other} and applied after it");
            found.push(Violation::new("order of effects", &row.resource, what));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::{all, sample_history};
    use super::SUPERSEDED;

    #[test]
    fn effects_in_another_order_than_acceptance_are_reported() {
        let mut history = sample_history::sound();
        let ((row, line), (row2, line2)) =
            (sample_history::effects_of(&history, "c1"), sample_history::effects_of(&history, "c2"));
        history.record.effects.swap(row, row2);
        history.record.effects.swap(line, line2);
        sample_history::reports(&history, "order of effects");
    }

    #[test]
    fn a_command_applied_again_is_reported() {
        let mut history = sample_history::sound();
        let (_, line) = sample_history::effects_of(&history, "c3");
        history.record.effects.push(history.record.effects[line].clone());
        sample_history::reports(&history, "order of effects");
    }

    #[test]
    fn ends_in_another_order_than_acceptance_are_reported() {
        let mut history = sample_history::sound();
        let ends: Vec<usize> = (0..history.record.audit.len()).filter(|n| history.record.audit[*n].is_end()).collect();
        history.record.audit.swap(ends[1], ends[2]);
        let late = history.record.audit.remove(ends[0]);
        history.record.audit.push(late);
        sample_history::reports(&history, "order of ends");
    }

    #[test]
    fn only_a_later_cancel_supersedes() {
        // c2 was waiting when the cancel c3 came: it ends early, and was never applied.
        let mut history = sample_history::sound();
        let (row, line) = sample_history::effects_of(&history, "c2");
        history.record.effects.drain(row..=line);
        let end = history.record.audit.iter().position(|r| r.is_end() && r.command.as_deref() == Some("c2"));
        let mut end = history.record.audit.remove(end.expect("its end"));
        (end.event, end.outcome) = ("failed".to_owned(), Some(SUPERSEDED.to_owned()));
        sample_history::rename_result(&mut history, "c2", "resume_failed", SUPERSEDED);
        let mut early = history.clone();
        let cancel = history.record.audit.iter().position(|r| r.is_accepted() && r.action == "cancel");
        history.record.audit.insert(cancel.expect("the cancel") + 1, end.clone());
        assert_eq!(all(&history), []);
        early.record.audit.insert(cancel.expect("the cancel"), end);
        sample_history::reports(&early, "order of ends");
    }
}
