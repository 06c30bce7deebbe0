//! Says which types of job this worker knows, so that a job of a type that nobody knows can be told from one that only
//! waits for room.

use std::sync::Arc;
use std::time::Duration;

use super::core::Core;

/// Between two times.
const AGAIN: Duration = Duration::from_secs(3);
/// How long it holds: it may fail a few times before gateways find that a live worker has not said what it knows.
const LASTS: Duration = Duration::from_secs(15);

/// Says it once.
pub(crate) async fn announce(core: &Core, types: &[String]) {
    if let Err(error) = core.broker.announce_job_types(&core.id, types, LASTS).await {
        tracing::debug!(%error, "worker.job_types_not_announced");
    }
}

/// Says it again and again, until the worker ends. Once it has left it is not alive, and what it said counts for nothing.
pub(crate) async fn run(core: Arc<Core>, types: Vec<String>) {
    loop {
        tokio::time::sleep(AGAIN).await;
        announce(&core, &types).await;
    }
}
