//! `/readyz` does not say that a gateway serves while the gateway's commands fail.
//!
//! Judged is only a time in which the test itself was on the processor: it asks five times a second, and where two answers
//! lie half a second apart, programs and servers had to wait as well.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::{Index, Violation, is_ack};
use crate::history::{History, What};

/// For so long it may not have noticed.
const UNNOTICED_MS: u64 = 2_000;
/// And where a disk that is written once a second has the time for that: `broker/write_check.rs` looks each second, for 2.3 s.
const UNNOTICED_ON_DISK_MS: u64 = 3_600;
/// Longest time between two answers of `/readyz` that belong together.
const TOGETHER_MS: u64 = 500;
/// So many failures are no accident of one command.
const FAILURES: usize = 3;

/// What was seen of one gateway, by time.
#[derive(Default)]
struct Gateway {
    /// Whether a command failed, or did not.
    commands: Vec<(u64, bool)>,
    /// Whether `/readyz` said that the test's tenant is served.
    looks: Vec<(u64, bool)>,
}

pub fn check(history: &History, _: &Index<'_>) -> Vec<Violation> {
    let (mut gateways, mut sockets) = (BTreeMap::<usize, Gateway>::new(), HashMap::new());
    for event in &history.events {
        match &event.what {
            What::Opened { socket, gateway, .. } => {
                let number = gateway.strip_prefix("gateway-").and_then(|rest| rest.split(' ').next()?.parse().ok());
                sockets.extend(number.map(|number: usize| (*socket, number)));
            }
            What::Saw { socket, message } => {
                let Some((gateway, failed)) = sockets.get(socket).zip(has_failed(message)) else { continue };
                gateways.entry(*gateway).or_default().commands.push((event.at, failed));
            }
            What::Ready { gateway, serves } => gateways.entry(*gateway).or_default().looks.push((event.at, *serves)),
            _ => {}
        }
    }
    let unnoticed_ms = if history.waits_for_disk { UNNOTICED_ON_DISK_MS } else { UNNOTICED_MS };
    gateways.iter().flat_map(|(number, gateway)| judge(*number, gateway, unnoticed_ms)).collect()
}

/// Whether an answer says that a command could not be taken. `None`: it says nothing of Redis and SQL.
fn has_failed(message: &Value) -> Option<bool> {
    match message["error"].as_str() {
        Some("unavailable" | "outcome_unknown") => Some(true),
        Some("permission_denied" | "rate_limit_exceeded" | "request_conflict" | "queue_full") => Some(false),
        _ => is_ack(message).then_some(false),
    }
}

fn judge(number: usize, gateway: &Gateway, unnoticed_ms: u64) -> Vec<Violation> {
    let mut found = Vec::new();
    for failing in gateway.commands.chunk_by(|one, other| one.1 == other.1).filter(|run| run[0].1) {
        let (first, last) = (failing[0].0, failing[failing.len() - 1].0);
        let looks: Vec<_> = gateway.looks.iter().filter(|(at, _)| (first..=last).contains(at)).collect();
        let together = |one: &&(u64, bool), other: &&(u64, bool)| one.1 == other.1 && other.0 - one.0 <= TOGETHER_MS;
        for run in looks.chunk_by(together).filter(|run| run[0].1) {
            let (from, to) = (run[0].0, run[run.len() - 1].0);
            let failed = failing.iter().filter(|(at, _)| (from..=to).contains(at)).count();
            if to - from > unnoticed_ms && failed >= FAILURES {
                let what = format!("gateway-{number} said 200 from {from} to {to} ms, while {failed} commands failed");
                found.push(Violation::general("ready while commands fail", what));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{all, sample_history};
    use crate::history::{Event, History, What};

    /// For four seconds every command fails at Ann's gateway, and `/readyz`, asked each 200 ms, says this of each moment.
    fn failing(ready: impl Fn(u64) -> bool) -> History {
        let mut history = sample_history::sound();
        for at in (10_000..14_000).step_by(200) {
            history.events.push(Event { at, what: What::Ready { gateway: 0, serves: ready(at) } });
            let message = json!({"type": "error", "error": "unavailable", "request_id": "of-nobody"});
            history.events.push(Event { at, what: What::Saw { socket: 0, message } });
        }
        history
    }

    #[test]
    fn two_seconds_unnoticed_are_allowed_and_three_are_not() {
        assert_eq!(all(&failing(|at| at < 11_900)), []);
        assert_eq!(all(&failing(|_| false)), []);
        sample_history::reports(&failing(|at| at < 13_000), "ready while commands fail");
        sample_history::reports(&failing(|at| at > 11_500), "ready while commands fail");
    }

    #[test]
    fn a_disk_may_take_longer_and_is_noticed_as_well() {
        let failing_on_disk = |ready: fn(u64) -> bool| History { waits_for_disk: true, ..failing(ready) };
        assert_eq!(all(&failing_on_disk(|at| at < 13_500)), []);
        sample_history::reports(&failing_on_disk(|_| true), "ready while commands fail");
    }

    #[test]
    fn a_command_that_is_taken_and_a_test_that_had_to_wait_itself_excuse_it() {
        let mut history = failing(|_| true);
        for event in history.events.iter_mut().filter(|event| event.at == 12_000) {
            if let What::Saw { message, .. } = &mut event.what {
                message["error"] = "rate_limit_exceeded".into();
            }
        }
        assert_eq!(all(&history), []);
        let mut history = failing(|_| true);
        history.events.retain(|event| !(11_500..12_500).contains(&event.at));
        assert_eq!(all(&history), []);
    }
}
