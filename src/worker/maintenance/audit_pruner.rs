//! Deletes rows of the audit trail that are older than they are to be kept.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::clocks;
use crate::worker::context::WorkerContext;

/// Before the first look for rows that are too old, and between two looks.
const FIRST_PRUNE_MS: std::ops::Range<u64> = 1_000..5_000;
const PRUNE_INTERVAL_MS: std::ops::Range<u64> = 300_000..900_000;
/// Before the next look where the clocks do not agree, and between two warnings of it.
const CLOCK_RETRY_DELAY: Duration = Duration::from_secs(5);
const WARN_INTERVAL: Duration = Duration::from_secs(3_600);
/// Between two batches of rows: others want to write, too.
const BATCH_PAUSE: Duration = Duration::from_millis(100);

/// Deletes rows older than `audit.keep_days`, until told to stop.
pub(crate) async fn run(ctx: Arc<WorkerContext>) {
    let Some(keep) = ctx.settings.audit.keep else { return };
    let mut wait = Duration::from_millis(fastrand::u64(FIRST_PRUNE_MS));
    let mut warned: Option<Instant> = None;
    loop {
        tokio::select! {
            () = ctx.stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        wait = Duration::from_millis(fastrand::u64(PRUNE_INTERVAL_MS));
        let keep_ms = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
        let clocks = match clocks::read_agreed_for_audit(&ctx, keep_ms).await {
            Ok(Some(clocks)) => clocks,
            Ok(None) => continue,
            Err(disagreement) => {
                // The clocks are compared again soon, and the warning is repeated once in a while. Where nothing has been
                // written to the trail for long, the next command ends this.
                wait = CLOCK_RETRY_DELAY;
                if warned.is_none_or(|at| at.elapsed() >= WARN_INTERVAL) {
                    tracing::warn!(doubt = %disagreement, "worker.audit_not_pruned");
                    warned = Some(Instant::now());
                }
                continue;
            }
        };
        match ctx.store.prune_audit(keep, &clocks).await {
            Ok(pruned) => {
                if pruned.rows > 0 {
                    tracing::info!(rows = pruned.rows, "worker.audit_pruned");
                }
                if let Some(row) = pruned.broken {
                    tracing::error!(row, "worker.audit_broken");
                }
                if pruned.more {
                    wait = BATCH_PAUSE;
                }
            }
            Err(error) => tracing::warn!(%error, "worker.audit_prune_delayed"),
        }
    }
}
