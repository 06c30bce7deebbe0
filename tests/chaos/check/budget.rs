//! No user used more than 30 units of the budget in any 60 s: an accepted or denied command is one, a scheduled one when
//! it is asked for and not when it is accepted, and of a batch each hundred or part of it.

use std::collections::HashMap;

use super::{Index, Violation};
use crate::history::History;

const COMMANDS: usize = 30;
/// Commands of a batch that are one unit.
const PART: usize = 100;
const WINDOW_MS: i64 = 60_000;
/// The script reads the clock before it writes the entry, whose time this is; Redis may have to wait for a processor
/// in between, on either side of the window.
const SLACK_MS: i64 = 500;

pub fn check(history: &History, index: &Index<'_>) -> Vec<Violation> {
    let mut times = HashMap::<&str, Vec<i64>>::new();
    let mut batches = HashMap::<&str, usize>::new();
    for row in &history.record.audit {
        let uses = match row.event.as_str() {
            "accepted" => row.command.as_deref().is_none_or(|command| !index.scheduled.contains_key(command)),
            "denied" => !row.is_denied_late(),
            event => event == "scheduled",
        };
        let paid_for = row.batch.as_deref().is_some_and(|batch| {
            let of_batch = batches.entry(batch).or_default();
            *of_batch += usize::from(uses);
            *of_batch % PART != 1
        });
        // What follows from a campaign's cancel has no request, and uses no budget.
        if uses && row.request.is_some() && !paid_for {
            times.entry(&row.user).or_default().push(row.at);
        }
    }
    let mut found = Vec::new();
    for (user, times) in times {
        let over = times.windows(COMMANDS + 1).find(|some| some[COMMANDS] - some[0] < WINDOW_MS - SLACK_MS);
        if let Some(some) = over {
            let took = some[COMMANDS] - some[0];
            found.push(Violation::general("over the budget", format!("{user}: {} in {took} ms", COMMANDS + 1)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::sample_history;
    use crate::history::History;

    /// Denied commands of Bob, one every so many ms.
    fn hasty(count: i64, every_ms: i64) -> History {
        let mut history = sample_history::sound();
        for n in 0..count {
            let mut row = history.record.audit[0].clone();
            (row.event, row.command) = ("denied".to_owned(), None);
            (row.user, row.request) = ("bob".to_owned(), Some(format!("b{n}")));
            row.at += n * every_ms;
            history.record.audit.push(row);
        }
        history
    }

    #[test]
    fn thirty_one_in_sixty_seconds_are_reported() {
        sample_history::reports(&hasty(31, 1_900), "over the budget");
        sample_history::reports(&hasty(31, 0), "over the budget");
    }

    #[test]
    fn a_scheduled_command_counts_when_it_is_asked_for_and_not_when_it_is_accepted() {
        let mut history = hasty(0, 0);
        for event in ["scheduled", "accepted"] {
            for row in hasty(31, 0).record.audit.into_iter().filter(|row| row.user == "bob") {
                let command = row.request.clone();
                history.record.audit.push(crate::history::Audit { event: event.to_owned(), command, ..row });
            }
        }
        sample_history::reports(&history, "over the budget");
        for row in history.record.audit.iter_mut().filter(|row| row.event == "scheduled") {
            let number: i64 = row.request.as_deref().expect("a request")[1..].parse().expect("a number");
            row.at -= if number < 15 { 60_000 } else { 0 };
        }
        let found = super::super::all(&history);
        assert!(found.iter().all(|violation| violation.rule != "over the budget"), "{found:#?}");
    }

    #[test]
    fn a_batch_counts_once_for_each_hundred() {
        let reported = |parts: i64, of_each: i64| {
            let mut history = hasty(parts * of_each, 0);
            for (n, row) in history.record.audit.iter_mut().filter(|row| row.user == "bob").enumerate() {
                (row.event, row.command) = ("accepted".to_owned(), Some(format!("b{n}")));
                row.batch = Some(format!("B{}", n as i64 / of_each));
            }
            super::super::all(&history).iter().any(|violation| violation.rule == "over the budget")
        };
        assert!(!reported(30, 8) && !reported(15, 101));
        assert!(reported(31, 8) && reported(16, 101));
    }

    #[test]
    fn thirty_at_once_and_thirty_more_a_minute_later_are_not() {
        let mut history = hasty(30, 0);
        for row in hasty(30, 0).record.audit {
            if row.user == "bob" {
                history.record.audit.push(crate::history::Audit { at: row.at + 60_000, ..row });
            }
        }
        assert_eq!(super::super::all(&history), []);
    }
}
