//! Follows each command that this gateway accepted to its result, for the metrics.
//!
//! A worker's own counters would be in another process. Where somebody here watches the resource, the hub hears of
//! the result and says so at once; a socket may be gone before that, so the record is asked as well, ever more
//! rarely. How often does not blur the latency, because the record says when the command ended.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::broker::scripts::results::CommandResult;
use crate::domain::{Action, CommandId, Resource};
use crate::telemetry::metrics;

/// Commands followed at once; those beyond are counted and not followed. About 300 bytes each.
const FOLLOWED: usize = 20_000;
/// Commands asked about in one go: they share the round trip.
const AT_ONCE: usize = 256;
/// Between two rounds of looking.
const ROUND: Duration = Duration::from_millis(250);
/// First and longest time between two looks for one result.
const LOOKS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How much longer than the command itself may live the result is looked for.
const PATIENCE: Duration = Duration::from_secs(120);

/// Takes in accepted commands; cheap to clone.
#[derive(Clone)]
pub struct Results(Arc<Shared>);

struct Shared {
    broker: Broker,
    give_up: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: HashMap<CommandId, Followed>,
    /// By the time of the next look. What is not in `waiting` any more has been heard of meanwhile.
    looks: BTreeMap<(Instant, CommandId), ()>,
}

/// One accepted command.
#[derive(Clone)]
struct Followed {
    resource: Resource,
    action: Action,
    /// Unix ms by Redis's clock.
    accepted_at: i64,
    since: Instant,
}

impl Results {
    /// `ttl`: how long a command may wait for a worker.
    pub fn new(broker: Broker, ttl: Duration) -> Self {
        Self(Arc::new(Shared { broker, give_up: ttl + PATIENCE, state: Mutex::default() }))
    }

    /// A command was accepted just now.
    pub fn follow(&self, resource: &Resource, action: Action, command: CommandId, accepted_at: i64) {
        let since = Instant::now();
        let mut state = self.lock();
        if state.waiting.len() >= FOLLOWED {
            metrics::command_unfollowed();
            return;
        }
        state.waiting.insert(command, Followed { resource: resource.clone(), action, accepted_at, since });
        state.looks.insert((since + LOOKS.0, command), ());
    }

    /// A result was read from the record, perhaps of a command of another gateway.
    pub fn heard(&self, ended: &CommandResult) {
        let followed = self.lock().waiting.remove(&ended.command);
        if let Some(followed) = followed {
            count(&followed, ended);
        }
    }

    /// Looks for the results that nobody here hears of, until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let looking = async {
            loop {
                tokio::time::sleep(ROUND).await;
                while let Some(due) = self.take_due() {
                    self.look(due).await;
                }
            }
        };
        stop.run_until_cancelled(looking).await;
    }

    /// Some that are to be looked for now.
    fn take_due(&self) -> Option<Vec<(CommandId, Followed)>> {
        let now = Instant::now();
        let mut state = self.lock();
        let mut due = Vec::new();
        while due.len() < AT_ONCE && state.looks.first_key_value().is_some_and(|((at, _), ())| *at <= now) {
            let command = state.looks.pop_first().map(|((_, command), ())| command);
            due.extend(command.and_then(|command| Some((command, state.waiting.get(&command)?.clone()))));
        }
        (!due.is_empty()).then_some(due)
    }

    async fn look(&self, due: Vec<(CommandId, Followed)>) {
        let asked = due.iter().map(|(command, followed)| self.0.broker.command_result(&followed.resource, *command));
        for ((command, followed), result) in due.iter().zip(join_all(asked).await) {
            match result {
                Ok(Some(ended)) => self.heard(&ended),
                // Only recent results are kept: it has come and gone, or Redis lost it.
                Ok(None) if followed.since.elapsed() > self.0.give_up => {
                    self.lock().waiting.remove(command);
                    metrics::command_unfollowed();
                }
                Ok(None) | Err(_) => {
                    let pause = (followed.since.elapsed() / 2).clamp(LOOKS.0, LOOKS.1);
                    self.lock().looks.insert((Instant::now() + pause, *command), ());
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }
}

fn count(followed: &Followed, ended: &CommandResult) {
    let succeeded = ended.has_succeeded();
    let latency = Duration::from_millis(u64::try_from(ended.ended_at - followed.accepted_at).unwrap_or_default());
    metrics::command_result(followed.resource.kind, followed.action, succeeded, latency);
}
