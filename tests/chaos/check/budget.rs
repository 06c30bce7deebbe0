//! No user had more than 30 accepted or denied commands in any 60 s.

use std::collections::HashMap;

use super::{Index, Violation};
use crate::history::History;

const COMMANDS: usize = 30;
const WINDOW_MS: i64 = 60_000;
/// The script reads the clock before it writes the entry, whose time this is; Redis may have to wait for a processor
/// in between, on either side of the window.
const SLACK_MS: i64 = 500;

pub fn check(history: &History, _: &Index<'_>) -> Vec<Violation> {
    let mut times = HashMap::<&str, Vec<i64>>::new();
    for row in &history.record.audit {
        // What follows from a campaign's cancel has no request, and uses no budget.
        if matches!(row.event.as_str(), "accepted" | "denied") && row.request.is_some() {
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
    use super::super::story;
    use crate::history::History;

    /// Denied commands of Bob, one every so many ms.
    fn hasty(count: i64, every_ms: i64) -> History {
        let mut history = story::sound();
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
        story::reports(&hasty(31, 1_900), "over the budget");
        story::reports(&hasty(31, 0), "over the budget");
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
