//! A worker that runs jobs says in SQL as well that it lives. A Redis that a failover has put in place, or one that is cut off
//! from the others, may know nothing of its heartbeats; its jobs are well all the same.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::store::StoreError;
use crate::worker::context::WorkerContext;
use crate::worker::run::registry::RunRegistry;

/// Between two renewals: [`LEASE_TTL`](super::failure_detector::LEASE_TTL) is worth two that are lost.
const RENEW_INTERVAL: Duration = Duration::from_millis(1_300);
/// Between two looks whether anything runs here: a worker without a job writes nothing.
const POLL_INTERVAL: Duration = Duration::from_millis(300);

/// Renews the lease while anything runs here, until everything ends.
pub(crate) async fn run(ctx: Arc<WorkerContext>, runs: Arc<RunRegistry>) {
    let mut renewed: Option<Instant> = None;
    loop {
        let is_due = renewed.is_none_or(|renewed| renewed.elapsed() >= RENEW_INTERVAL);
        let done = match (runs.len() > 0, renewed.is_some()) {
            (true, _) if is_due => {
                renewed = Some(Instant::now());
                ctx.store.renew_worker_lease(&ctx.id).await
            }
            (false, true) => end(&ctx, &mut renewed).await,
            _ => Ok(()),
        };
        if let Err(error) = done {
            tracing::debug!(%error, "worker.lease_delayed");
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

async fn end(ctx: &WorkerContext, renewed: &mut Option<Instant>) -> Result<(), StoreError> {
    ctx.store.end_worker_lease(&ctx.id).await?;
    *renewed = None;
    Ok(())
}
