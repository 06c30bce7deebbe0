//! Paused jobs that this worker holds. Each costs memory, so there can be only so many, and a worker that holds as many as it
//! may takes no more jobs, of any tenant.
//!
//! Those that another worker could go on with go back to SQL after a while (`worker.paused_release_seconds`), and at once
//! where room is needed: they stay paused there, without a host, and start from their resume point when they are resumed.
//! A job without a resume point would begin anew, and a program cannot move, so these stay. That a worker is full of them
//! is said in the log, in its metrics, by `/readyz`, and by each job that waits for room.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::active_run::{ActiveRun, Phase};
use super::pause_gate::Directive;
use super::registry::RunRegistry;
use crate::domain::{JobStatus, Resource};
use crate::telemetry::metrics;
use crate::worker::context::WorkerContext;

/// Between two looks.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Between two warnings of the same.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

pub(crate) struct PausedJobs {
    ctx: Arc<WorkerContext>,
    runs: Arc<RunRegistry>,
    /// Since when each run is paused, by its number.
    since: HashMap<(Resource, i64), Instant>,
    warned_at: Option<Instant>,
}

impl PausedJobs {
    pub(crate) fn new(ctx: Arc<WorkerContext>, runs: Arc<RunRegistry>) -> Self {
        Self { ctx, runs, since: HashMap::new(), warned_at: None }
    }

    /// Looks until told to stop.
    pub(crate) async fn run(mut self) {
        loop {
            tokio::select! {
                () = self.ctx.stop.cancelled() => return,
                () = tokio::time::sleep(POLL_INTERVAL) => self.look(Instant::now()),
            }
        }
    }

    fn look(&mut self, now: Instant) {
        let worker = &self.ctx.settings.worker;
        let held: Vec<Arc<ActiveRun>> = self.runs.all().into_iter().filter(|run| run.gate.is_some()).collect();
        let is_paused = |run: &&Arc<ActiveRun>| *run.status.borrow() == JobStatus::Paused;
        let key = |run: &ActiveRun| (run.resource().clone(), run.run().number);
        let mut before = std::mem::take(&mut self.since);
        let mut paused: Vec<(Instant, &Arc<ActiveRun>)> = Vec::new();
        for run in held.iter().filter(is_paused) {
            let since = before.remove(&key(run)).unwrap_or(now);
            self.since.insert(key(run), since);
            paused.push((since, run));
        }
        paused.sort_by_key(|(since, _)| *since);
        let is_full = held.len() >= worker.max_held_jobs;
        // Some room at a time: those that were paused last are the most likely to be resumed soon.
        let needed = if is_full { (worker.max_held_jobs / 10).max(1) } else { 0 };
        let is_due = |since: &Instant| worker.paused_release.is_some_and(|after| now.duration_since(*since) >= after);
        let can_go = paused.iter().filter(|(_, run)| can_go(run)).enumerate();
        for (_, (_, run)) in can_go.filter(|(n, (since, _))| *n < needed || is_due(since)) {
            if let Some(gate) = &run.gate {
                tracing::info!(
                    job_id = %run.resource().id, tenant_id = %run.resource().tenant, run = run.run().number,
                    "worker.paused_job_released"
                );
                gate.set_directive(Directive::Leave);
            }
        }
        metrics::held_jobs(held.len(), paused.len(), worker.max_held_jobs);
        self.runs.is_full.store(is_full, Ordering::Relaxed);
        if is_full && self.warned_at.is_none_or(|at| now.duration_since(at) >= WARN_INTERVAL) {
            self.warned_at = Some(now);
            tracing::warn!(
                held = held.len(),
                paused = paused.len(),
                "worker.full_of_paused_jobs: this worker holds as many jobs as it may (worker.max_held_jobs) and takes no more until some are resumed or cancelled"
            );
        }
    }
}

/// Whether another worker could go on with a paused job where it is now.
fn can_go(run: &ActiveRun) -> bool {
    let has_resume_point = run.job.resume_point.is_some() || run.got_further.load(Ordering::Relaxed);
    has_resume_point && run.phase() == Phase::Open && run.work.can_move()
}
