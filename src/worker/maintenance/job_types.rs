//! Says which types of job this worker knows, so that a job of a type that nobody knows can be told from one that only
//! waits for room.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::worker::context::WorkerContext;
use crate::worker::run::registry::RunRegistry;

const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(4);
/// How long one announcement holds: the next one may fail a few times before gateways find that a live worker has not said
/// what it knows.
const ANNOUNCEMENT_TTL: Duration = Duration::from_secs(15);

/// Announces them once. `has_room`: it takes jobs of them just now.
pub(crate) async fn announce(ctx: &WorkerContext, types: &[String], has_room: bool) {
    if let Err(error) = ctx.broker.announce_job_types(&ctx.id, types, has_room, ANNOUNCEMENT_TTL).await {
        tracing::debug!(%error, "worker.job_types_not_announced");
    }
}

/// Announces them again and again, until the worker ends. A worker that has left is not alive, and what it announced counts
/// for nothing.
pub(crate) async fn run(ctx: Arc<WorkerContext>, runs: Arc<RunRegistry>, types: Vec<String>) {
    loop {
        tokio::time::sleep(ANNOUNCE_INTERVAL).await;
        announce(&ctx, &types, !runs.is_full.load(Ordering::Relaxed)).await;
    }
}
