//! All runs that are active in this process.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::active_run::{ActiveRun, ExitReason, Phase};
use super::pause_gate::Directive;
use crate::domain::{JobStatus, Resource, TenantId};
use crate::store::Run;
use crate::worker::context::WorkerContext;
use crate::worker::sdk::error::Cancelled;

/// The active runs, each under its job.
#[derive(Default)]
pub(crate) struct RunRegistry {
    runs: Mutex<HashMap<Resource, Arc<ActiveRun>>>,
    /// As many runs of job code are held here as may be (`super::paused_jobs`).
    pub(crate) is_full: AtomicBool,
}

impl RunRegistry {
    fn lock(&self) -> MutexGuard<'_, HashMap<Resource, Arc<ActiveRun>>> {
        self.runs.lock()
    }

    pub(crate) fn insert(&self, run: Arc<ActiveRun>) {
        self.lock().insert(run.resource().clone(), run);
    }

    pub(crate) fn get(&self, job: &Resource) -> Option<Arc<ActiveRun>> {
        self.lock().get(job).cloned()
    }

    pub(crate) fn contains(&self, job: &Resource) -> bool {
        self.lock().contains_key(job)
    }

    pub(crate) fn contains_run(&self, run: &Run) -> bool {
        self.lock().get(&run.job).is_some_and(|active| active.run() == run)
    }

    /// Removes a run. From then on it counts as exited, for this reason.
    pub(crate) fn remove(&self, run: &ActiveRun, reason: ExitReason) {
        {
            let mut runs = self.lock();
            if runs.get(run.resource()).is_some_and(|there| there.run() == run.run()) {
                runs.remove(run.resource());
            }
        }
        run.phase.send_if_modified(|phase| {
            if matches!(phase, Phase::Exited(_)) {
                return false;
            }
            *phase = Phase::Exited(reason);
            true
        });
    }

    pub(crate) fn all(&self) -> Vec<Arc<ActiveRun>> {
        self.lock().values().cloned().collect()
    }

    /// How many runs count against the worker's concurrency: a paused job stays in its worker and does not count, and the
    /// work of a foreign process takes no place here, nor does a job of a tenant that is not served.
    pub(crate) fn running(&self, is_served: impl Fn(&TenantId) -> bool) -> usize {
        let counts = |run: &ActiveRun| {
            run.gate.is_some() && *run.status.borrow() == JobStatus::Running && is_served(&run.resource().tenant)
        };
        self.lock().values().filter(|run| counts(run)).count()
    }

    /// Whether a job runs here during which so many workers have crashed since it last saved a new resume point: nothing is to
    /// run beside it.
    pub(crate) fn runs_suspect(&self, crashes: i64) -> bool {
        let is_suspect = |run: &ActiveRun| {
            let is_running = run.gate.is_some() && *run.status.borrow() == JobStatus::Running;
            is_running && run.job.deaths >= crashes && !run.got_further.load(Ordering::Relaxed)
        };
        self.lock().values().any(|run| is_suspect(run))
    }

    /// How many runs of job code are held here, paused ones included.
    pub(crate) fn held(&self) -> usize {
        self.lock().values().filter(|run| run.gate.is_some()).count()
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// The job belongs to another run now: ends the work and writes nothing.
    pub(crate) fn drop_run(&self, ctx: &WorkerContext, run: &Arc<ActiveRun>) {
        if run.advance(&[Phase::Open, Phase::Cancelling, Phase::EndedPaused], Phase::Closing).is_err() {
            return;
        }
        tracing::warn!(job_id = %run.resource().id, tenant_id = %run.resource().tenant, run = run.run().number, "worker.job_lost");
        self.remove(run, ExitReason::Elsewhere);
        let run = run.clone();
        ctx.spawn(async move {
            let reason = Cancelled::lost();
            // Job code ends also where a program of it cannot be ended: a command would be refused then.
            if let Some(gate) = &run.gate {
                gate.set_directive(Directive::Cancel(reason.clone()));
            }
            run.work.cancel(&reason.by, reason.reason.as_deref()).await;
        });
    }
}
