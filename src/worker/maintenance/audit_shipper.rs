//! Moves audit entries from Redis into SQL.
//!
//! The leader of a partition moves its entries, so that workers need not all read the same. Entries that stay where they are
//! all the same are moved by any worker that sees it, and a few look: SQL lets one at a time through, and nothing is written
//! twice or left out. A leader that cannot write to SQL leaves it to another.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::leadership::Leadership;
use crate::broker::{BrokerError, Partition};
use crate::store::StoreError;
use crate::worker::context::WorkerContext;

/// Between two rounds over all partitions: jitter, so that workers seldom meet.
const SHIP_INTERVAL_MS: std::ops::Range<u64> = 600..1_100;
/// Entries of one transaction: on SQLite commands wait for its end, so it is to last a few ms.
const BATCH_SIZE: usize = 100;
/// Between two looks at the partitions of other workers. Where the oldest entry is the same in both, nobody moves them.
const STALLED_AFTER: Duration = Duration::from_secs(6);
/// For so long SQL may refuse what this worker ships before another one shall lead.
const STEPS_DOWN_AFTER: Duration = Duration::from_secs(5);
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

pub(crate) struct AuditShipper {
    ctx: Arc<WorkerContext>,
    leadership: Arc<Leadership>,
}

impl AuditShipper {
    pub(crate) fn new(ctx: Arc<WorkerContext>, leadership: Arc<Leadership>) -> Self {
        Self { ctx, leadership }
    }

    /// Moves entries until everything ends. A worker that drains goes on with it, for the entries of its last results.
    pub(crate) async fn run(&self) {
        let (mut warned_at, mut saw_others_at) = (Instant::now(), Instant::now());
        let mut oldest = HashMap::new();
        let mut failed_since: Option<Instant> = None;
        loop {
            tokio::time::sleep(Duration::from_millis(fastrand::u64(SHIP_INTERVAL_MS))).await;
            let warns = warned_at.elapsed() >= WARN_INTERVAL;
            let sees_others = saw_others_at.elapsed() >= STALLED_AFTER;
            if sees_others {
                saw_others_at = Instant::now();
            }
            let mut sql_failed = false;
            for partition in self.ctx.broker.keys().partitions() {
                let shipped = if self.leadership.leads(partition) {
                    self.ship_partition(partition).await
                } else if sees_others && self.leadership.watches(partition) {
                    self.ship_if_stalled(partition, &mut oldest).await
                } else {
                    Ok(())
                };
                sql_failed |= matches!(shipped, Err(AuditError::Store(_)));
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
            if !sql_failed {
                failed_since = None;
            } else if failed_since.get_or_insert_with(Instant::now).elapsed() >= STEPS_DOWN_AFTER {
                // Others may reach the database.
                failed_since = None;
                self.leadership.step_down().await;
            }
            if warns {
                if self.leadership.leads_fleet() {
                    self.warn_of_backlog().await;
                }
                warned_at = Instant::now();
            }
        }
    }

    /// A partition that another worker leads, or none: its entries are moved if the oldest one is the same as
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
