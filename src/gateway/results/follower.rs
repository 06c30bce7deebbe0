//! Follows each command that this gateway accepted to its result, for the metrics.
//!
//! A worker's own counters would be in another process. Where somebody here watches the resource, the hub hears of
//! the result and says so at once; a socket may be gone before that, so the record is asked as well, ever more
//! rarely. How often does not blur the latency, because the record says when the command ended.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::awaited::{AwaitedResults, look_up};
use crate::broker::Broker;
use crate::broker::scripts::results::CommandResult;
use crate::domain::{Action, CommandId, Resource, ResourceKind};
use crate::telemetry::metrics;

/// Commands followed at once; those beyond are counted and not followed. About 300 bytes each.
const MAX_FOLLOWED: usize = 20_000;
/// Between two rounds of questions.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Shortest and longest time between two questions about one result.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Takes in accepted commands; cheap to clone.
#[derive(Clone)]
pub struct ResultFollower(Arc<FollowerShared>);

struct FollowerShared {
    broker: Broker,
    /// How long a command may wait for a worker.
    ttl: Duration,
    awaited: Mutex<AwaitedResults<FollowedCommand>>,
}

/// What the metrics say of an accepted command.
struct FollowedCommand {
    kind: ResourceKind,
    action: Action,
    /// Unix ms by Redis's clock.
    accepted_at: i64,
}

impl ResultFollower {
    /// `ttl`: how long a command may wait for a worker.
    pub fn new(broker: Broker, ttl: Duration) -> Self {
        Self(Arc::new(FollowerShared { broker, ttl, awaited: Mutex::new(AwaitedResults::new(PAUSES)) }))
    }

    /// A command was accepted just now.
    pub fn follow(&self, resource: &Resource, action: Action, command: CommandId, accepted_at: i64) {
        let mut awaited = self.lock();
        if awaited.len() >= MAX_FOLLOWED {
            metrics::command_unfollowed();
            return;
        }
        let followed = FollowedCommand { kind: resource.kind, action, accepted_at };
        awaited.expect(resource.clone(), command, followed, PAUSES.0);
    }

    /// A result was read from the record, perhaps of a command of another gateway.
    pub fn on_result(&self, result: &CommandResult) {
        let followed = self.lock().remove(result.command);
        if let Some(FollowedCommand { kind, action, accepted_at }) = followed {
            let latency = Duration::from_millis(u64::try_from(result.ended_at - accepted_at).unwrap_or_default());
            metrics::command_result(kind, action, result.has_succeeded(), latency);
        }
    }

    /// Looks for the results that nobody here hears of, until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let following = async {
            loop {
                tokio::time::sleep(POLL_INTERVAL).await;
                self.poll().await;
            }
        };
        stop.run_until_cancelled(following).await;
    }

    async fn poll(&self) {
        let now = Instant::now();
        for _ in self.lock().take_expired(self.0.ttl, now) {
            metrics::command_unfollowed();
        }
        loop {
            let due = self.lock().take_due(now);
            if due.is_empty() {
                return;
            }
            for result in look_up(&self.0.broker, &due).await {
                self.on_result(&result);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, AwaitedResults<FollowedCommand>> {
        self.0.awaited.lock()
    }
}
