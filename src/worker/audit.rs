//! Moves audit entries from Redis into SQL. Every worker tries; the position kept in SQL lets one win,
//! and nothing is written twice or left out.

use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use crate::broker::{BrokerError, Partition};
use crate::store::StoreError;

/// Between two rounds over all partitions: jitter, so that workers seldom meet.
const ROUND_MS: std::ops::Range<u64> = 250..750;
/// Entries of one transaction: on SQLite commands wait for its end, so it is to last a few ms.
const BATCH: usize = 100;

/// Why a round broke off; the next begins where SQL says.
#[derive(Debug, thiserror::Error)]
enum AuditError {
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Moves entries until everything ends: also while this worker drains, for its last results' sake.
pub(crate) async fn run(core: Arc<Core>) {
    loop {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(ROUND_MS))).await;
        if let Err(error) = round(&core).await {
            tracing::debug!(%error, "worker.audit_delayed");
        }
    }
}

async fn round(core: &Core) -> Result<(), AuditError> {
    for partition in core.broker.keys().partitions() {
        while move_some(core, partition).await? {}
    }
    Ok(())
}

/// `true`: there may be more.
async fn move_some(core: &Core, partition: Partition) -> Result<bool, AuditError> {
    // Whatever is in the stream is mostly new: entries are forgotten once they are in SQL.
    if core.broker.audit_after(partition, "0", 1).await?.is_empty() {
        return Ok(false);
    }
    let stream = format!("audit:{partition}");
    let position = core.store.audit_position(&stream).await?;
    let entries = core.broker.audit_after(partition, &position, BATCH).await?;
    let Some(last) = entries.last().map(|entry| entry.id.clone()) else {
        // In SQL, and not yet forgotten: its writer died in between.
        core.broker.audit_forget(partition, &position).await?;
        return Ok(false);
    };
    if !core.store.append_audit(&stream, &position, &entries).await? {
        return Ok(false); // Another worker was first, and goes on.
    }
    core.broker.audit_forget(partition, &last).await?;
    Ok(entries.len() == BATCH)
}
