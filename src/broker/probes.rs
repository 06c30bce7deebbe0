//! Whether what is published at each server is heard: a subscriber publishes to itself, at one server after the other.
//!
//! In a cluster a message travels from the node where it was published to the one where it is heard. Either may be well
//! for whoever talks to it, and cut off from the other: then the messages of some tenants are lost, and nothing else says
//! so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Client;
use super::connection::Connection;

/// Between two probes at one server.
const PROBE_INTERVAL: Duration = Duration::from_millis(1_500);
/// Shortest time between two probes, where there are many servers.
const MIN_TURN: Duration = Duration::from_millis(100);
/// A probe that was published and has not been heard for so long is lost.
const LOST_AFTER: Duration = Duration::from_secs(1);

/// What was published where and heard; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Probes(Arc<Mutex<BTreeMap<String, ServerProbe>>>);

#[derive(Default)]
struct ServerProbe {
    heard_at: Option<Instant>,
    /// When the oldest probe was sent that was published and not heard since.
    waiting_since: Option<Instant>,
}

impl Probes {
    /// The server whose turn it is, and the time until the next turn.
    pub(super) fn next(client: &Client, turn: usize) -> (Option<(String, Connection)>, Duration) {
        let mut servers = client.servers();
        let count = u32::try_from(servers.len()).unwrap_or(u32::MAX).max(1);
        let server = (!servers.is_empty()).then(|| servers.swap_remove(turn % servers.len()));
        (server, (PROBE_INTERVAL / count).max(MIN_TURN))
    }

    /// Publishes a probe at a server, which names the server.
    pub(super) async fn publish(self, server: String, node: Connection, channel: String) {
        let sent_at = Instant::now();
        if node.send(redis::cmd("PUBLISH").arg(channel).arg(&server), false).await.is_ok() {
            self.published(&server, sent_at);
        }
    }

    fn published(&self, server: &str, sent_at: Instant) {
        let mut servers = self.0.lock();
        let probe = servers.entry(server.to_owned()).or_default();
        if probe.heard_at.is_none_or(|heard| heard < sent_at) {
            probe.waiting_since.get_or_insert(sent_at);
        }
    }

    /// A probe was heard. `true`: the one before it was lost.
    pub(super) fn heard(&self, server: &str) -> bool {
        let mut servers = self.0.lock();
        let probe = servers.entry(server.to_owned()).or_default();
        probe.heard_at = Some(Instant::now());
        probe.waiting_since.take().is_some_and(|since| since.elapsed() > LOST_AFTER)
    }

    /// Those of these servers whose probes are lost.
    pub(super) fn unheard(&self, of: &[String]) -> Vec<String> {
        let servers = self.0.lock();
        let is_lost = |server: &&String| {
            servers.get(*server).and_then(|probe| probe.waiting_since).is_some_and(|at| at.elapsed() > LOST_AFTER)
        };
        of.iter().filter(is_lost).cloned().collect()
    }

    /// A new connection hears nothing of what was published before it.
    pub(super) fn reset(&self) {
        self.0.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_that_was_published_and_not_heard_in_time_is_lost_until_another_is_heard() {
        let probes = Probes::default();
        let names = ["a".to_owned(), "b".to_owned()];
        let long_ago = Instant::now().checked_sub(2 * LOST_AFTER).expect("a machine that runs for some seconds");
        assert!(!probes.heard("a"));
        probes.published("a", long_ago);
        assert!(probes.unheard(&names).is_empty(), "it was heard before Redis had said that it was published");
        probes.published("b", long_ago);
        assert_eq!(probes.unheard(&names), ["b"]);
        assert!(probes.heard("b"), "the one before was lost");
        assert!(probes.unheard(&names).is_empty() && !probes.heard("b"));
        probes.published("a", Instant::now());
        assert!(probes.unheard(&names).is_empty(), "it may still come");
        probes.published("c", long_ago);
        probes.reset();
        assert!(probes.unheard(&["c".to_owned()]).is_empty());
    }
}
