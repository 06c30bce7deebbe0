//! Takes jobs that wait in SQL, as long as this worker has room for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use super::job::AnyJob;
use crate::store::{Company, HostedJob, StoreError};

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
    let deaths = suspected_after(core.settings.worker.max_worker_crashes);
    let makes_room = core.settings.worker.concurrency > 1 && core.makes_room(names, deaths).await;
    while !core.stop.is_cancelled()
        && core.hosts.running() < core.settings.worker.concurrency
        && core.hosts.len() < HELD_MOST
    {
        let companies: &[Company] = match (core.hosts.running(), makes_room) {
            _ if core.hosts.runs_suspect(deaths) => return,
            (0, true) => &[Company::Awaited(deaths), Company::None],
            (0, false) => &[Company::None],
            (_, true) => return,
            (_, false) => &[Company::Others(deaths)],
        };
        match core.claim_beside(names, companies).await {
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

/// A job in which so many workers have died runs alone: whatever kills them is then known, and no other job is taken
/// along and counted out in the end. One death tells little (a machine goes, a neighbour was it); from the second on it
/// counts. Where fewer deaths than that end a job, the first must be enough, so that the last one is a lonely one.
fn suspected_after(max_worker_crashes: u32) -> i64 {
    (i64::from(max_worker_crashes) - 1).clamp(1, 2)
}

impl Core {
    async fn claim_beside(&self, names: &[String], companies: &[Company]) -> Result<Option<HostedJob>, StoreError> {
        for company in companies {
            let taken = self.store.claim_job_beside(&self.id, self.tenants.as_deref(), names, *company).await?;
            if taken.is_some() {
                return Ok(taken);
            }
        }
        Ok(None)
    }

    /// Whether this worker makes room for a job that must run alone: it takes nothing new until it runs nothing, and
    /// then that job. Otherwise such a job would wait for ever where every worker is always busy. One worker makes room
    /// for one such job, and any other that happens to run nothing may be first.
    async fn makes_room(&self, names: &[String], deaths: i64) -> bool {
        let suspects = match self.store.suspects(self.tenants.as_deref(), names, deaths).await {
            Ok(suspects) => suspects,
            Err(error) => {
                tracing::debug!(%error, "worker.suspects_not_read");
                return false;
            }
        };
        if suspects.iter().any(|(_, by)| by.as_ref() == Some(&self.id)) {
            return true;
        }
        for (job, by) in &suspects {
            let is_taken = match by {
                // One that is gone makes room for nobody any more.
                Some(by) => self.broker.live_workers(&job.tenant).await.is_ok_and(|live| live.contains(by)),
                None => false,
            };
            if !is_taken && matches!(self.store.make_room(job, &self.id, by.as_ref()).await, Ok(true)) {
                return true;
            }
        }
        false
    }
}
