//! Whether Redis does what commands need, looked at all the time: a connection that answers PING may still refuse every
//! command, because Redis is full, lacks replicas, or does not permit this user what the scripts do.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Broker, BrokerError, Partition};

/// Between two looks.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Longest wait for an answer.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// Every so many looks all is tried that scripts do, and not one write only: a right that somebody takes away is
/// noticed within this many seconds, and the append-only file does not grow by it each second.
const CHECKS_PER_FULL_CHECK: usize = 15;
/// Partitions of a cluster that are looked at together. There may be a thousand, on a few servers.
const BATCH_SIZE: usize = 64;

/// What was found; cheap to clone.
#[derive(Clone, Default)]
pub struct WriteCheck(Arc<Mutex<Option<BrokerError>>>);

impl WriteCheck {
    /// Why Redis does not do what commands need; `None`: it does.
    pub fn problem(&self) -> Option<BrokerError> {
        self.lock().clone()
    }

    /// Looks once at every partition, and goes on looking until told to stop. `channel`: where the script publishes.
    /// A right that is missing is an error, for only an operator can mend it. What passes (a full memory, too few
    /// replicas) is not: the program starts, says so, and is not ready.
    pub(super) async fn start(
        broker: Broker,
        channel: String,
        tracker: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, BrokerError> {
        let proof = Self::default();
        let all: Vec<Partition> = broker.keys().partitions().collect();
        let mut found = Ok(());
        for some in all.chunks(BATCH_SIZE) {
            found = found.and(look(&broker, some, &channel, true).await);
        }
        if let Err(error) = &found
            && error.is_denied()
        {
            return found.map(|()| proof);
        }
        proof.note(found);
        let task = proof.clone().keep(broker, channel, all);
        tracker.spawn(stop.run_until_cancelled_owned(task));
        Ok(proof)
    }

    async fn keep(self, broker: Broker, channel: String, all: Vec<Partition>) {
        let mut tick = tokio::time::interval(CHECK_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tick.tick().await;
        // One server has all partitions, and what it does for one it does for all, but for rights on keys: these are
        // seen in turn. The servers of a cluster differ.
        let at_once = if broker.is_cluster() { BATCH_SIZE } else { 1 };
        let mut turn = all.iter().copied().cycle();
        for look_number in 1_usize.. {
            tick.tick().await;
            let some: Vec<Partition> = turn.by_ref().take(at_once.min(all.len())).collect();
            // While something is amiss all is tried, so that a right that is still missing is not taken for mended.
            let full = look_number.is_multiple_of(CHECKS_PER_FULL_CHECK) || self.problem().is_some();
            self.note(look(&broker, &some, &channel, full).await);
        }
    }

    /// Remembers what was found, and says it where it is new.
    fn note(&self, found: Result<(), BrokerError>) {
        let found = found.err();
        let before = std::mem::replace(&mut *self.lock(), found.clone());
        match (before, found) {
            (Some(_), None) => tracing::info!("redis.serving_again"),
            (before, Some(error)) if before.as_ref().is_none_or(|before| !is_same(before, &error)) => {
                tracing::warn!(%error, "redis.not_serving");
            }
            _ => {}
        }
    }

    fn lock(&self) -> parking_lot::MutexGuard<'_, Option<BrokerError>> {
        self.0.lock()
    }
}

/// Not by the whole text: it may hold numbers that differ each time.
fn is_same(one: &BrokerError, other: &BrokerError) -> bool {
    std::mem::discriminant(one) == std::mem::discriminant(other) && one.code() == other.code()
}

/// Whether the servers of these partitions do what commands need. In a cluster one that does is enough: the tenants of
/// the others are told of their own commands.
async fn look(broker: &Broker, some: &[Partition], channel: &str, full: bool) -> Result<(), BrokerError> {
    let looks = some.iter().map(async |partition| {
        let late = |_| Err(BrokerError::Unknown("no answer to a write".to_owned()));
        tokio::time::timeout(CHECK_TIMEOUT, broker.prove_writes(*partition, channel, full)).await.unwrap_or_else(late)
    });
    let found: Vec<Result<(), BrokerError>> = join_all(looks).await;
    if broker.is_cluster() && found.iter().any(Result::is_ok) {
        for (partition, error) in some.iter().zip(&found).filter_map(|(p, found)| Some((p, found.as_ref().err()?))) {
            tracing::debug!(%partition, %error, "redis.partition_not_serving");
        }
        return Ok(());
    }
    found.into_iter().collect()
}
