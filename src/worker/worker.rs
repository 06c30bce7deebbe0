//! A worker as a program sees it: built from settings and job code, it runs until it is asked to leave.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::context::WorkerContext;
use super::error::WorkerError;
use super::maintenance::audit_pruner;
use super::maintenance::audit_shipper::AuditShipper;
use super::maintenance::periodic::PeriodicTasks;
use super::parts::WorkerParts;
use super::run::job_queue::{JobQueue, JobTypes};
use super::run::paused_jobs::PausedJobs;
use super::run::runner::JobRunner;
use super::sdk::files::JobFiles;
use super::sdk::job::Job;
use super::signals;
use crate::broker::Broker;
use crate::config::Settings;
use crate::doctor;
use crate::domain::WorkerId;
use crate::store::{Store, StoreError};

/// The least grace period of jobs when their worker leaves: recording where they are takes a moment.
const MIN_GRACE: Duration = Duration::from_secs(1);
/// Longest wait, at the start, for the answer whether SQL can be written.
const WRITABLE_TIMEOUT: Duration = Duration::from_secs(2);
/// The wait before it is tried again to record that a worker leaves.
const LEAVING_RETRY_DELAY: Duration = Duration::from_millis(200);

/// Puts a worker together.
pub struct WorkerBuilder {
    settings: Settings,
    id: Option<WorkerId>,
    types: JobTypes,
}

impl WorkerBuilder {
    /// A worker that carries out commands and knows no kind of job yet.
    pub fn new(settings: impl Into<Settings>) -> Self {
        Self { settings: settings.into(), id: None, types: JobTypes::default() }
    }

    /// Its name; without it one is made up. No two workers may have the same at the same time.
    pub fn id(mut self, id: WorkerId) -> Self {
        self.id = Some(id);
        self
    }

    /// Teaches it a type of job. Of two with the same [`Job::TYPE`] the later one counts.
    pub fn job<J: Job>(mut self, code: J) -> Self {
        self.types.insert(J::TYPE.to_owned(), Arc::new(code));
        self
    }

    /// The worker.
    pub fn build(self) -> Worker {
        let id = self.id.unwrap_or_else(WorkerId::generate);
        Worker { settings: self.settings, id, types: self.types }
    }
}

/// One worker, ready to run.
pub struct Worker {
    settings: Settings,
    id: WorkerId,
    types: JobTypes,
}

impl Worker {
    /// Its name.
    pub fn id(&self) -> &WorkerId {
        &self.id
    }

    /// Works until this program is asked to leave: by SIGTERM (a deployment), SIGINT (Ctrl-C) or SIGHUP (its terminal
    /// has gone). Then it takes up nothing new, hands its jobs back at their next checkpoint (within
    /// `worker.grace_seconds`), finishes the commands under way, and returns. None of that counts as a death in its
    /// jobs, whatever happens before it is done. A second SIGTERM or SIGINT ends the process at once. Signals that were
    /// ignored when the program started stay ignored.
    pub async fn run(self) -> Result<(), WorkerError> {
        let stop = signals::stop_signals().map_err(WorkerError::Signals)?;
        // Boxed, so that the program that awaits this need not compile its whole depth.
        Box::pin(self.run_until(stop)).await
    }

    /// As [`Self::run`], for a program that has other work beside and decides by itself when the worker leaves: when
    /// `stop` is cancelled. Signals are then its own business, and [`signals::stop_signals`] gives a fitting token.
    pub async fn run_until(self, stop: CancellationToken) -> Result<(), WorkerError> {
        if let Some(root) = &self.settings.worker.files_root {
            let files = JobFiles::new(Some(root.clone()));
            files.check().map_err(|error| WorkerError::FilesRoot(root.clone(), error))?;
        }
        doctor::warn_at_start(&self.settings, doctor::Program::Worker);
        let store = Store::open(&self.settings.database).await?;
        if !store.is_migrated().await? {
            return Err(WorkerError::NotMigrated);
        }
        match store.prove_updates(WRITABLE_TIMEOUT).await {
            // A standby that is about to be the master, a full disk: it may pass, and each command is tried again.
            Some(Err(error @ StoreError::Unavailable(_))) => tracing::warn!(%error, "worker.sql_not_writable"),
            Some(Err(error)) => return Err(error.into()),
            Some(Ok(())) | None => {}
        }
        let broker = Broker::connect(&self.settings.redis).await?;
        broker.warn_of_loss();
        let grace = self.settings.worker.grace.max(MIN_GRACE);
        let ctx = WorkerContext::new(self.id, self.settings.worker.tenants.clone(), self.settings, store, broker);
        // Whatever way this ends, also by being dropped, no task of it goes on.
        let _end = ctx.end.clone().drop_guard();

        let (parts, found) = WorkerParts::new(ctx.clone());
        let mut types: Vec<String> = self.types.keys().cloned().collect();
        types.sort();
        let events = parts.register(types, ctx.settings.worker.concurrency).await?;
        parts.scheduler.start(events, found);
        let runner = Arc::new(JobRunner::new(ctx.clone(), parts.runs.clone(), parts.lifecycle.clone()));
        let job_queue = JobQueue::new(&parts, runner.clone(), self.types);
        let taking_jobs = ctx.spawn(async move { job_queue.run().await });
        ctx.spawn(PausedJobs::new(ctx.clone(), parts.runs.clone()).run());
        let notifier = parts.notifier.clone();
        ctx.spawn(async move { notifier.end_left_runs().await });
        let notifier = parts.notifier.clone();
        ctx.spawn(async move { notifier.take_turns().await });
        let rescuer = parts.rescuer.clone();
        ctx.spawn(async move { rescuer.run().await });
        let shipper = AuditShipper::new(ctx.clone(), parts.leadership.clone());
        ctx.spawn(async move { shipper.run().await });
        ctx.spawn(audit_pruner::run(ctx.clone()));
        parts.start_notifying();
        #[cfg(feature = "server")]
        let remote = super::remote::RemoteWorkers::start(&parts).await?;
        #[cfg(not(feature = "server"))]
        if ctx.settings.worker.listen.is_some() {
            tracing::warn!(
                "worker.listen is set, and this program was built without the listener: only `wheelhouse worker` has it"
            );
        }
        let periodic = PeriodicTasks::new(&parts);
        ctx.spawn(async move { periodic.run().await });
        tracing::info!(worker_id = %ctx.id, concurrency = ctx.settings.worker.concurrency, "worker.started");

        stop.cancelled().await;
        tracing::info!(worker_id = %ctx.id, jobs = parts.runs.len(), "worker.draining");
        ctx.stop.cancel();
        ctx.spawn(record_leaving(ctx.clone()));
        #[cfg(feature = "server")]
        if let Some(remote) = &remote {
            remote.leave().await;
        }
        // A job that SQL is just giving to this worker must be registered before all jobs are released.
        let _ = tokio::time::timeout(grace, taking_jobs).await;
        ctx.spawn(record_leaving(ctx.clone())); // Once more, for that job.
        // Two grace periods: job code may use up the first, and SQL the second.
        runner.release_jobs(grace * 2).await;
        parts.scheduler.drained(grace).await;
        parts.campaigns.publish_pending().await;
        parts.announcer.finish(grace).await;
        ctx.leave().await;
        tracing::info!(worker_id = %ctx.id, "worker.stopped");
        Ok(())
    }
}

/// Records that this worker leaves its runs on purpose, before anything else: its process manager may not give it the time
/// to release all of them.
async fn record_leaving(ctx: Arc<WorkerContext>) {
    while let Err(error) = ctx.store.leave_runs(&ctx.id).await {
        tracing::debug!(%error, "worker.leaving_not_recorded");
        tokio::time::sleep(LEAVING_RETRY_DELAY).await;
    }
}
