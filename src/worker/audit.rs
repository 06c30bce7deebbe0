//! Moves audit entries from Redis into SQL, and removes rows that are older than they are to be kept. Every worker
//! tries; SQL lets one at a time through, and nothing is written twice or left out.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::core::Core;
use crate::broker::{BrokerError, Partition};
use crate::store::StoreError;

/// Between two rounds over all partitions: jitter, so that workers seldom meet.
const ROUND_MS: std::ops::Range<u64> = 250..750;
/// Entries of one transaction: on SQLite commands wait for its end, so it is to last a few ms.
const BATCH: usize = 100;
/// So many entries of one partition waiting for SQL are worth a warning: about 5 MB in Redis.
const BACKLOG: u64 = 10_000;
/// Between two looks at how many wait, and between two complaints about the same.
const COMPLAIN: Duration = Duration::from_secs(10);
/// Before the first look for rows that are too old, and between two.
const FIRST_PRUNE_MS: std::ops::Range<u64> = 1_000..5_000;
const PRUNE_MS: std::ops::Range<u64> = 300_000..900_000;
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

/// Moves entries until everything ends: also while this worker drains, for its last results' sake.
pub(crate) async fn run(core: Arc<Core>) {
    let mut looked = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(ROUND_MS))).await;
        let complain = looked.elapsed() >= COMPLAIN;
        for partition in core.broker.keys().partitions() {
            match move_all(&core, partition).await {
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
    loop {
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        wait = Duration::from_millis(fastrand::u64(PRUNE_MS));
        match core.store.prune_audit(keep).await {
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
