//! Moves audit entries from Redis into SQL.
//!
//! Live workers share the partitions out, so that they need not all read the same entries. Entries that stay where they are
//! all the same are moved by any worker that sees it: SQL lets one at a time through, and nothing is written twice or left
//! out.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::live_workers;
use crate::broker::{BrokerError, Partition};
use crate::domain::WorkerId;
use crate::store::StoreError;
use crate::worker::context::WorkerContext;

/// Between two rounds over all partitions: jitter, so that workers seldom meet.
const SHIP_INTERVAL_MS: std::ops::Range<u64> = 250..750;
/// Entries of one transaction: on SQLite commands wait for its end, so it is to last a few ms.
const BATCH_SIZE: usize = 100;
/// Between two looks at the partitions of other workers. Where the oldest entry is the same in both, nobody moves them.
const STALLED_AFTER: Duration = Duration::from_secs(2);
/// So many entries of one partition waiting for SQL are worth a warning: about 5 MB in Redis.
const BACKLOG_WARNING: u64 = 10_000;
/// Between two counts of the entries that wait, and between two warnings about the same.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// Why a round broke off; the next begins with what is there.
#[derive(Debug, thiserror::Error)]
enum AuditError {
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AuditError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Broker(error) => !matches!(error, BrokerError::Refused(_)),
            Self::Store(error) => error.is_transient(),
        }
    }
}

/// The partitions whose entries this worker moves.
#[derive(Default)]
pub(crate) struct PartitionAssignment(Mutex<HashSet<Partition>>);

impl PartitionAssignment {
    /// Given the live workers of some partitions, assigns each of these to one of them. The others stay as they are.
    pub(crate) fn assign(&self, me: &WorkerId, alive: impl Iterator<Item = (Partition, Vec<WorkerId>)>) {
        let mut assigned = self.0.lock();
        for (partition, workers) in alive {
            match live_workers::is_owner(me, &workers, &partition.to_string()) {
                true => assigned.insert(partition),
                false => assigned.remove(&partition),
            };
        }
    }

    fn is_assigned(&self, partition: Partition) -> bool {
        self.0.lock().contains(&partition)
    }
}

pub(crate) struct AuditShipper {
    ctx: Arc<WorkerContext>,
    partitions: Arc<PartitionAssignment>,
}

impl AuditShipper {
    pub(crate) fn new(ctx: Arc<WorkerContext>, partitions: Arc<PartitionAssignment>) -> Self {
        Self { ctx, partitions }
    }

    /// Moves entries until everything ends. A worker that drains goes on with it, for the entries of its last results.
    pub(crate) async fn run(&self) {
        let (mut warned_at, mut saw_others_at) = (Instant::now(), Instant::now());
        let mut oldest = HashMap::new();
        loop {
            tokio::time::sleep(Duration::from_millis(fastrand::u64(SHIP_INTERVAL_MS))).await;
            let warns = warned_at.elapsed() >= WARN_INTERVAL;
            let sees_others = saw_others_at.elapsed() >= STALLED_AFTER;
            if sees_others {
                saw_others_at = Instant::now();
            }
            for partition in self.ctx.broker.keys().partitions() {
                let shipped = if self.partitions.is_assigned(partition) {
                    self.ship_partition(partition).await
                } else if sees_others {
                    self.ship_if_stalled(partition, &mut oldest).await
                } else {
                    Ok(())
                };
                match shipped {
                    Ok(()) => {}
                    Err(error) if error.is_transient() => {
                        // Another partition may lie on another server.
                        tracing::debug!(%partition, %error, "worker.audit_delayed");
                    }
                    // This partition's entries stay where they are until somebody mends it; the others' go on.
                    Err(error) if warns => tracing::error!(%partition, %error, "worker.audit_refused"),
                    Err(_) => {}
                }
            }
            if warns {
                self.warn_of_backlog().await;
                warned_at = Instant::now();
            }
        }
    }

    /// A partition that is assigned to another worker or to none: its entries are moved if the oldest one is the same as
    /// when this was last called.
    async fn ship_if_stalled(
        &self,
        partition: Partition,
        oldest: &mut HashMap<Partition, String>,
    ) -> Result<(), AuditError> {
        let now = self.ctx.broker.audit_after(partition, "0", 1).await?.pop().map(|entry| entry.id);
        let before = match &now {
            Some(id) => oldest.insert(partition, id.clone()),
            None => oldest.remove(&partition),
        };
        if now.is_some() && now == before { self.ship_partition(partition).await } else { Ok(()) }
    }

    async fn ship_partition(&self, partition: Partition) -> Result<(), AuditError> {
        let WorkerContext { store, broker, .. } = &*self.ctx;
        let stream = format!("audit:{partition}");
        loop {
            // From the beginning: entries that are in SQL are deleted from Redis, so those that are there are new, or the
            // worker that moved them has died in between.
            let entries = broker.audit_after(partition, "0", BATCH_SIZE).await?;
            if entries.is_empty() {
                return Ok(());
            }
            store.append_audit(&stream, &entries).await?;
            broker.audit_forget(partition, &entries).await?;
            if entries.len() < BATCH_SIZE {
                return Ok(());
            }
        }
    }

    /// Nothing is ever trimmed to make room: somebody has to know while there still is some.
    async fn warn_of_backlog(&self) {
        match self.ctx.broker.audit_backlog().await {
            Ok(partitions) => {
                for (partition, entries) in partitions.into_iter().filter(|(_, entries)| *entries > BACKLOG_WARNING) {
                    tracing::warn!(%partition, entries, "worker.audit_backlog");
                }
            }
            Err(error) => tracing::debug!(%error, "worker.audit_backlog_unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Keys;

    fn holders(workers: &[WorkerId]) -> Vec<Vec<WorkerId>> {
        let partitions = Keys::new(64).partitions();
        let shares = workers.iter().map(|me| {
            let share = PartitionAssignment::default();
            share.assign(me, partitions.clone().map(|partition| (partition, workers.to_vec())));
            (me, share)
        });
        let shares: Vec<_> = shares.collect();
        let of = |p| shares.iter().filter(|(_, share)| share.is_assigned(p)).map(|(me, _)| (*me).clone()).collect();
        partitions.map(of).collect()
    }

    #[test]
    fn each_partition_is_the_share_of_one_live_worker_and_stays_so_when_another_leaves() {
        let workers: Vec<WorkerId> = ["a", "b", "c"].map(|id| id.parse().expect("id")).into();
        let (three, two) = (holders(&workers), holders(&workers[..2]));
        for (before, after) in three.iter().zip(&two) {
            assert_eq!((before.len(), after.len()), (1, 1));
            assert!(before == after || before[0] == workers[2], "{before:?} {after:?}");
        }
        assert!(workers.iter().all(|worker| three.iter().any(|holder| holder[0] == *worker)));
    }
}
