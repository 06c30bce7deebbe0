//! Moves audit entries from Redis into SQL, and removes rows that are older than they are to be kept.
//!
//! Live workers share the partitions out, so that they need not all read the same entries. What stands still all the
//! same is moved by whoever sees it: SQL lets one at a time through, and nothing is written twice or left out.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::clocks;
use super::core::Core;
use super::live;
use crate::broker::{BrokerError, Partition};
use crate::domain::WorkerId;
use crate::store::StoreError;

/// Between two rounds over all partitions: jitter, so that workers seldom meet.
const ROUND_MS: std::ops::Range<u64> = 250..750;
/// Entries of one transaction: on SQLite commands wait for its end, so it is to last a few ms.
const BATCH: usize = 100;
/// Between two looks at the partitions of others: what is the oldest entry in both stands still.
const STILL: Duration = Duration::from_secs(2);
/// So many entries of one partition waiting for SQL are worth a warning: about 5 MB in Redis.
const BACKLOG: u64 = 10_000;
/// Between two looks at how many wait, and between two complaints about the same.
const COMPLAIN: Duration = Duration::from_secs(10);
/// Before the first look for rows that are too old, and between two.
const FIRST_PRUNE_MS: std::ops::Range<u64> = 1_000..5_000;
const PRUNE_MS: std::ops::Range<u64> = 300_000..900_000;
/// Before the next look where the clocks do not agree, and between two warnings of it.
const DOUBT: Duration = Duration::from_secs(5);
const WARN_AGAIN: Duration = Duration::from_secs(3_600);
/// Between two batches of them: others want to write too.
const BREATH: Duration = Duration::from_millis(100);

/// Why a round broke off; the next begins with what is there.
#[derive(Debug, thiserror::Error)]
enum AuditError {
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AuditError {
    /// It passes by itself.
    fn passes(&self) -> bool {
        match self {
            Self::Broker(error) => !matches!(error, BrokerError::Refused(_)),
            Self::Store(error) => error.is_transient(),
        }
    }
}

/// The partitions whose entries this worker moves.
#[derive(Default)]
pub(crate) struct AuditShares(Mutex<HashSet<Partition>>);

impl AuditShares {
    /// Of each partition with its live workers one takes it.
    pub(crate) fn share_out(&self, me: &WorkerId, alive: impl Iterator<Item = (Partition, Vec<WorkerId>)>) {
        let mine = alive.filter(|(partition, workers)| live::is_for(me, workers, &partition.to_string()));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = mine.map(|(partition, _)| partition).collect();
    }

    fn is_mine(&self, partition: Partition) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&partition)
    }
}

/// Moves entries until everything ends: also while this worker drains, for its last results' sake.
pub(crate) async fn run(core: Arc<Core>) {
    let (mut looked, mut saw_others) = (Instant::now(), Instant::now());
    let mut oldest = HashMap::new();
    loop {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(ROUND_MS))).await;
        let complain = looked.elapsed() >= COMPLAIN;
        let look_at_others = saw_others.elapsed() >= STILL;
        if look_at_others {
            saw_others = Instant::now();
        }
        for partition in core.broker.keys().partitions() {
            let moved = if core.audit_shares.is_mine(partition) {
                move_all(&core, partition).await
            } else if look_at_others {
                move_what_stands(&core, partition, &mut oldest).await
            } else {
                Ok(())
            };
            match moved {
                Ok(()) => {}
                Err(error) if error.passes() => {
                    // Another partition may lie on another server.
                    tracing::debug!(%partition, %error, "worker.audit_delayed");
                }
                // This partition's entries stay where they are until somebody mends it; the others' go on.
                Err(error) if complain => tracing::error!(%partition, %error, "worker.audit_refused"),
                Err(_) => {}
            }
        }
        if complain {
            look(&core).await;
            looked = Instant::now();
        }
    }
}

/// Another worker's share, or nobody's: moved where the oldest entry is the same as at the last look.
async fn move_what_stands(
    core: &Core,
    partition: Partition,
    oldest: &mut HashMap<Partition, String>,
) -> Result<(), AuditError> {
    let now = core.broker.audit_after(partition, "0", 1).await?.pop().map(|entry| entry.id);
    let before = match &now {
        Some(id) => oldest.insert(partition, id.clone()),
        None => oldest.remove(&partition),
    };
    if now.is_some() && now == before { move_all(core, partition).await } else { Ok(()) }
}

async fn move_all(core: &Core, partition: Partition) -> Result<(), AuditError> {
    let stream = format!("audit:{partition}");
    loop {
        // From the beginning: what is in SQL is forgotten, so whatever is there is new, or its writer died in between.
        let entries = core.broker.audit_after(partition, "0", BATCH).await?;
        if entries.is_empty() {
            return Ok(());
        }
        core.store.append_audit(&stream, &entries).await?;
        core.broker.audit_forget(partition, &entries).await?;
        if entries.len() < BATCH {
            return Ok(());
        }
    }
}

/// Nothing is ever trimmed to make room: somebody has to know while there still is some.
async fn look(core: &Core) {
    match core.broker.audit_backlog().await {
        Ok(partitions) => {
            for (partition, entries) in partitions.into_iter().filter(|(_, entries)| *entries > BACKLOG) {
                tracing::warn!(%partition, entries, "worker.audit_backlog");
            }
        }
        Err(error) => tracing::debug!(%error, "worker.audit_backlog_unknown"),
    }
}

/// Removes rows older than `audit.keep_days`, until told to stop.
pub(crate) async fn prune(core: Arc<Core>) {
    let Some(keep) = core.settings.audit.keep else { return };
    let mut wait = Duration::from_millis(fastrand::u64(FIRST_PRUNE_MS));
    let mut warned: Option<Instant> = None;
    loop {
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        wait = Duration::from_millis(fastrand::u64(PRUNE_MS));
        let keep_ms = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
        let clocks = match clocks::read_for_audit(&core, keep_ms).await {
            Ok(Some(clocks)) => clocks,
            Ok(None) => continue,
            Err(doubt) => {
                // Looked at again soon, and told of once in a while: where it is the trail that is quiet, the next
                // command ends the doubt.
                wait = DOUBT;
                if warned.is_none_or(|at| at.elapsed() >= WARN_AGAIN) {
                    tracing::warn!(%doubt, "worker.audit_not_pruned");
                    warned = Some(Instant::now());
                }
                continue;
            }
        };
        match core.store.prune_audit(keep, &clocks).await {
            Ok(pruned) => {
                if pruned.rows > 0 {
                    tracing::info!(rows = pruned.rows, "worker.audit_pruned");
                }
                if let Some(row) = pruned.broken {
                    tracing::error!(row, "worker.audit_broken");
                }
                if pruned.more {
                    wait = BREATH;
                }
            }
            Err(error) => tracing::warn!(%error, "worker.audit_prune_delayed"),
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
            let share = AuditShares::default();
            share.share_out(me, partitions.clone().map(|partition| (partition, workers.to_vec())));
            (me, share)
        });
        let shares: Vec<_> = shares.collect();
        let of = |p| shares.iter().filter(|(_, share)| share.is_mine(p)).map(|(me, _)| (*me).clone()).collect();
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
