//! Follows each command that this gateway accepted to its result, for the metrics.
//!
//! A worker's own counters would be in another process, and a socket may be gone before its result: so the
//! record is asked, soon at first and ever more rarely. How often does not blur the latency, because the
//! record says when the command ended.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::domain::{Action, CommandId, Resource};
use crate::telemetry::metrics;

/// Accepted commands that may wait to be taken in. When it is full the next ones are not followed, and counted.
const INBOX: usize = 8_192;
/// Commands followed at once; the same beyond that. About 300 bytes each.
const FOLLOWED: usize = 20_000;
/// Commands asked about in one go: they share the round trip.
const AT_ONCE: usize = 256;
/// First and longest time between two looks for one result.
const LOOKS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(10));
/// How much longer than the command itself may live the result is looked for.
const PATIENCE: Duration = Duration::from_secs(120);

/// Takes in accepted commands; cheap to clone.
#[derive(Clone)]
pub struct Results(mpsc::Sender<Followed>);

/// One accepted command.
struct Followed {
    resource: Resource,
    action: Action,
    command: CommandId,
    /// Unix ms by Redis's clock.
    accepted_at: i64,
    since: Instant,
}

/// The other end of [`Results`].
pub struct Follower {
    inbox: mpsc::Receiver<Followed>,
    broker: Broker,
    give_up: Duration,
    /// By the time of the next look; the number keeps apart what falls on the same instant.
    waiting: BTreeMap<(Instant, u64), Followed>,
    number: u64,
}

impl Results {
    /// `ttl`: how long a command may wait for a worker.
    pub fn new(broker: Broker, ttl: Duration) -> (Self, Follower) {
        let (sender, inbox) = mpsc::channel(INBOX);
        let follower = Follower { inbox, broker, give_up: ttl + PATIENCE, waiting: BTreeMap::new(), number: 0 };
        (Self(sender), follower)
    }

    /// A command was accepted just now.
    pub fn follow(&self, resource: &Resource, action: Action, command: CommandId, accepted_at: i64) {
        let followed = Followed { resource: resource.clone(), action, command, accepted_at, since: Instant::now() };
        if self.0.try_send(followed).is_err() {
            metrics::command_unfollowed();
        }
    }
}

impl Follower {
    /// Follows until told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let next = self.waiting.first_key_value().map(|((at, _), _)| *at);
            let due = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                followed = self.inbox.recv() => match followed {
                    Some(followed) => self.take_in(followed),
                    None => return,
                },
                () = due => {
                    let looked = stop.run_until_cancelled(self.look()).await;
                    if looked.is_none() {
                        return;
                    }
                }
            }
        }
    }

    fn take_in(&mut self, followed: Followed) {
        if self.waiting.len() >= FOLLOWED {
            metrics::command_unfollowed();
            return;
        }
        self.wait(followed);
    }

    fn wait(&mut self, followed: Followed) {
        let pause = (followed.since.elapsed() / 4).clamp(LOOKS.0, LOOKS.1);
        self.number += 1;
        self.waiting.insert((Instant::now() + pause, self.number), followed);
    }

    async fn look(&mut self) {
        let now = Instant::now();
        let mut due = Vec::new();
        while due.len() < AT_ONCE && self.waiting.first_key_value().is_some_and(|((at, _), _)| *at <= now) {
            due.extend(self.waiting.pop_first().map(|(_, followed)| followed));
        }
        let results =
            join_all(due.iter().map(|followed| self.broker.ended(&followed.resource, followed.command))).await;
        for (followed, result) in due.into_iter().zip(results) {
            match result {
                Ok(Some(ended)) => {
                    let succeeded =
                        ended.message.starts_with(&format!("{{\"type\":\"{}_succeeded\"", followed.action.word()));
                    let latency = u64::try_from(ended.at - followed.accepted_at).unwrap_or_default();
                    metrics::command_result(
                        followed.resource.kind,
                        followed.action,
                        succeeded,
                        Duration::from_millis(latency),
                    );
                }
                // Only recent results are kept: it has come and gone, or Redis lost it.
                Ok(None) if followed.since.elapsed() > self.give_up => metrics::command_unfollowed(),
                Ok(None) | Err(_) => self.wait(followed),
            }
        }
    }
}
