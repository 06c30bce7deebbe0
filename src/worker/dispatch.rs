//! Takes jobs that wait in SQL, as long as this worker has room for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use super::job::AnyJob;

/// The kinds of job that this worker knows.
pub(crate) type Kinds = HashMap<String, Arc<dyn AnyJob>>;

/// Between two looks without being woken: jitter, so that workers do not look in step.
const LOOK_MS: std::ops::Range<u64> = 700..1_300;
/// Jobs held at once, paused ones included; each costs memory even while it stands still.
const HELD_MOST: usize = 1_000;

/// Starts jobs until told to stop.
pub(crate) async fn run(core: Arc<Core>, kinds: Kinds) {
    let names: Vec<String> = kinds.keys().cloned().collect();
    if names.is_empty() {
        return;
    }
    loop {
        fill(&core, &kinds, &names).await;
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = core.dispatch.notified() => {}
            () = tokio::time::sleep(Duration::from_millis(fastrand::u64(LOOK_MS))) => {}
        }
    }
}

/// Takes jobs until there is no room, or none waits.
async fn fill(core: &Arc<Core>, kinds: &Kinds, names: &[String]) {
    while !core.stop.is_cancelled()
        && core.hosts.running() < core.settings.worker.concurrency
        && core.hosts.len() < HELD_MOST
    {
        match core.store.claim_job(&core.id, core.tenants.as_deref(), names).await {
            Ok(Some(job)) => match kinds.get(&job.job.job_type) {
                Some(code) => core.start_job(job, code.clone()).await,
                None => return, // SQL was asked for known kinds only; the reaper gives it back.
            },
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "worker.dispatch_delayed");
                return;
            }
        }
    }
}
