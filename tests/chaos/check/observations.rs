//! Every result was seen by every socket that stayed.
//!
//! A socket counts for a command if its snapshot was there before the command was first sent (one clock, that of
//! this test) and it never closed. Of cancels that follow from a campaign's nobody knows when they were sent, and a
//! scheduled command is not heard of before its time: for them the trail's time counts, with some distance between the
//! two clocks. The tenant-wide socket is told of everything, unless it was told to list again: then it is owed the
//! results of its own batches alone, which `batches` looks for.

use std::collections::{HashMap, HashSet};

use super::{Index, Violation, result_of};
use crate::history::{History, What};
use crate::plan::WHOLE;

/// Between this test's clock and Redis's.
const CLOCKS_MS: i64 = 2_000;

pub fn check(history: &History, index: &Index<'_>) -> Vec<Violation> {
    let (mut open, mut seen) = (HashMap::new(), HashSet::new());
    for event in &history.events {
        match &event.what {
            What::Opened { socket, .. } => drop(open.insert(*socket, event.at)),
            What::Closed { socket, .. } => drop(open.remove(socket)),
            What::Saw { socket, message } if message["type"] == "resynchronize" => drop(open.remove(socket)),
            What::Saw { socket, message } => drop(result_of(message).map(|command| seen.insert((*socket, command)))),
            _ => {}
        }
    }
    let mut found = Vec::new();
    for (command, row) in index.with_result() {
        let sent = match row.request.as_ref().and_then(|request| index.requests.get(request)) {
            Some(request) if !index.scheduled.contains_key(command) => request.first as i64,
            _ => row.at - history.began - CLOCKS_MS,
        };
        for (socket, since) in &open {
            let watches = index.sockets.get(socket).is_some_and(|on| *on == row.resource || *on == WHOLE);
            if watches && (*since as i64) < sent && !seen.contains(&(*socket, command)) {
                let what = format!("socket {socket}, open since {since} ms, never saw the result of {command}");
                found.push(Violation::new("unseen result", &row.resource, what));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::{all, sample_history};
    use crate::history::{Event, What};

    fn without_bobs_last_result() -> crate::history::History {
        let mut history = sample_history::sound();
        history.events.retain(
            |event| !matches!(&event.what, What::Saw { socket: 1, message } if message["type"] == "cancel_succeeded"),
        );
        history
    }

    #[test]
    fn a_socket_that_stayed_must_see_the_result() {
        sample_history::reports(&without_bobs_last_result(), "unseen result");
    }

    #[test]
    fn a_socket_that_left_or_came_too_late_need_not() {
        let mut history = without_bobs_last_result();
        history.events.push(Event { at: 900, what: What::Closed { socket: 1, how: "left".to_owned() } });
        assert_eq!(all(&history), []);
        let mut history = sample_history::sound();
        let (user, resource) = ("bob".to_owned(), "job:j0".to_owned());
        let opened = What::Opened { socket: 2, client: user.clone(), user, resource, gateway: "g".to_owned() };
        history.events.push(Event { at: 305, what: opened });
        assert_eq!(all(&history), []);
    }
}
