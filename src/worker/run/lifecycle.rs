//! The lifecycle of a run in this worker: it is renewed, its progress is written, and its end is recorded or it is released.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};

use super::active_run::{ActiveRun, ExitReason, FlushRequest, Phase};
use super::output_writer;
use super::progress_writer;
use super::registry::RunRegistry;
use super::run_saves::RunSaves;
use super::run_updates::RunUpdates;
use crate::domain::{Job, JobStatus, Resource};
use crate::store::{FinishOutcome, HandBack, RunEnd, SavedRun, StoreError};
use crate::worker::context::{WorkerContext, full_jitter_backoff};
use crate::worker::notify::job_notifier::JobNotifier;

/// Between two renewals: the longest that a lost wake-up of a hosted job's command can last.
const RENEW_INTERVAL: Duration = Duration::from_secs(1);
/// Renewals in a second beyond which the interval grows, and how far it grows: within
/// [`CONFIRMATION_TTL`](super::pause_gate::CONFIRMATION_TTL).
const RUNS_PER_SECOND: usize = 10_000;
const MAX_INTERVALS: u32 = 3;
/// Writes of output into SQL at once.
const MAX_OUTPUT_WRITES: usize = 2;
/// Until it is looked again whether a job that was paused by plain SQL runs again.
const PAUSED_ROW_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) struct RunLifecycle {
    ctx: Arc<WorkerContext>,
    runs: Arc<RunRegistry>,
    notifier: Arc<JobNotifier>,
    updates: Arc<RunUpdates>,
    saves: Arc<RunSaves>,
    /// Turns of those who write output into SQL: everything else has the other connections.
    output_writes: Arc<Semaphore>,
}

impl RunLifecycle {
    pub(crate) fn new(
        ctx: Arc<WorkerContext>,
        runs: Arc<RunRegistry>,
        notifier: Arc<JobNotifier>,
        commands_found: mpsc::Sender<Resource>,
    ) -> Self {
        let output_writes = Arc::new(Semaphore::new(MAX_OUTPUT_WRITES));
        let updates = RunUpdates::new(ctx.clone(), runs.clone(), commands_found);
        let saves = RunSaves::new(ctx.clone());
        Self { ctx, runs, notifier, updates, saves, output_writes }
    }

    /// Registers a run, tells those who watch its status, and looks after it until it has exited.
    pub(crate) async fn start(self: &Arc<Self>, run: &Arc<ActiveRun>, flush_requests: mpsc::Receiver<FlushRequest>) {
        self.runs.insert(run.clone());
        // Before anything else: from now on its commands are for this worker alone.
        self.updates.begin(run).await;
        let (lifecycle, renewed) = (self.clone(), run.clone());
        self.ctx.spawn(async move { lifecycle.run_renewal(&renewed).await });
        self.ctx.spawn(output_writer::run(self.ctx.clone(), run.clone(), self.output_writes.clone()));
        let ways = (self.updates.clone(), self.saves.clone());
        self.ctx.spawn(progress_writer::run(self.ctx.clone(), self.runs.clone(), run.clone(), ways, flush_requests));
    }

    /// Renews a run while it is active, unless its progress was told a moment ago: that renews it, too.
    async fn run_renewal(&self, run: &Arc<ActiveRun>) {
        let mut tried = run.started;
        while !run.has_exited() {
            let last = tried.max(*run.last_renewed.borrow());
            let left = self.renew_interval().saturating_sub(last.elapsed());
            if left.is_zero() {
                tried = Instant::now();
                self.updates.renew(run).await;
                continue;
            }
            tokio::select! {
                () = run.exited() => return,
                () = tokio::time::sleep(left) => {}
            }
        }
    }

    /// Longer where very many runs are here, which only runs of foreign processes are.
    fn renew_interval(&self) -> Duration {
        let many = u32::try_from(self.runs.len() / RUNS_PER_SECOND).unwrap_or(u32::MAX);
        RENEW_INTERVAL * many.clamp(1, MAX_INTERVALS)
    }

    /// Records how work ended that no command has ended; waits for SQL as long as it takes. Returns why the run has exited,
    /// and the row if this call has written the end into it.
    pub(crate) async fn record_end(&self, run: &Arc<ActiveRun>, end: RunEnd) -> (ExitReason, Option<Box<Job>>) {
        // Boxed, as the other ends are: a run that goes on, perhaps among ten thousand, needs no room for how it ends.
        Box::pin(self.record_this_end(run, end)).await
    }

    async fn record_this_end(&self, run: &Arc<ActiveRun>, end: RunEnd) -> (ExitReason, Option<Box<Job>>) {
        let mut phase = run.phase.subscribe();
        let mut status = run.status.subscribe();
        let mut attempts = 0;
        loop {
            if let Err(now) = run.advance(&[Phase::Open, Phase::EndedPaused], Phase::Closing) {
                // A command is ending the work as well: that command finds out which came first.
                if let Phase::Exited(reason) = now {
                    return (reason, None);
                }
                if phase.changed().await.is_err() {
                    return (ExitReason::Elsewhere, None);
                }
                continue;
            }
            match self.try_record(run, &end, &mut attempts).await {
                RecordOutcome::Recorded(job) => {
                    self.notifier.run_left(&job, run.run().number).await;
                    self.runs.remove(run, ExitReason::Recorded);
                    self.notifier.slot_freed();
                    return (ExitReason::Recorded, Some(job));
                }
                RecordOutcome::NotOurs => {
                    self.notifier.end_run(run.resource(), run.run().number).await;
                    self.runs.remove(run, ExitReason::Elsewhere);
                    return (ExitReason::Elsewhere, None);
                }
                RecordOutcome::Paused => {
                    if run.advance(&[Phase::Closing], Phase::EndedPaused).is_err() {
                        continue;
                    }
                    if *status.borrow() == JobStatus::Running {
                        // Paused by plain SQL: nobody tells this worker when that ends.
                        tokio::time::sleep(PAUSED_ROW_INTERVAL).await;
                        continue;
                    }
                    tokio::select! {
                        _ = status.wait_for(|status| *status == JobStatus::Running) => {}
                        _ = phase.wait_for(|phase| !matches!(phase, Phase::EndedPaused)) => {}
                    }
                }
            }
        }
    }

    async fn try_record(&self, run: &ActiveRun, end: &RunEnd, attempts: &mut u32) -> RecordOutcome {
        let store = &self.ctx.store;
        loop {
            // The last reports of the work go first: once its end is in SQL, nothing more of it can be written.
            if !run.flush_before_end().await {
                tokio::time::sleep(full_jitter_backoff(Duration::from_millis(200), Duration::from_secs(5), *attempts))
                    .await;
                *attempts = attempts.saturating_add(1);
                continue;
            }
            let progress = run.progress.latest().progress;
            let answer = match store.finish(run.run(), &progress, end).await {
                Ok(FinishOutcome::Done(job)) => return RecordOutcome::Recorded(job),
                // Not running, or not ours any more: a write that only needs it to be ours tells which.
                Ok(FinishOutcome::Lost) => store.save(run.run(), &SavedRun { progress, ..SavedRun::default() }).await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(true) => return RecordOutcome::Paused,
                Ok(false) => return RecordOutcome::NotOurs,
                Err(error) => {
                    log_store_error(run, &error, "worker.end_not_recorded");
                    tokio::time::sleep(full_jitter_backoff(
                        Duration::from_millis(200),
                        Duration::from_secs(5),
                        *attempts,
                    ))
                    .await;
                    *attempts = attempts.saturating_add(1);
                }
            }
        }
    }

    /// Releases a run whose work has stopped and was dropped: another worker may take the job.
    pub(crate) async fn release_run(&self, run: &Arc<ActiveRun>) {
        self.hand_back(run, HandBack::default()).await;
    }

    /// As [`Self::release_run`], for a job whose own queue says when and how it goes on.
    pub(crate) async fn hand_back(&self, run: &Arc<ActiveRun>, how: HandBack) {
        Box::pin(self.hand_this_back(run, how)).await;
    }

    async fn hand_this_back(&self, run: &Arc<ActiveRun>, how: HandBack) {
        if run.advance(&[Phase::Open, Phase::Cancelled, Phase::EndedPaused], Phase::Closing).is_err() {
            return;
        }
        let mut attempts = 0;
        loop {
            if run.flush().await {
                match self.ctx.store.hand_back(run.run(), &how).await {
                    Ok(_) => break,
                    Err(error) => log_store_error(run, &error, "worker.hand_back_delayed"),
                }
            }
            tokio::time::sleep(full_jitter_backoff(Duration::from_millis(100), Duration::from_secs(1), attempts)).await;
            attempts += 1;
        }
        match self.ctx.store.job_without_contents(run.resource()).await {
            Ok(Some(job)) => self.notifier.run_left(&job, run.run().number).await,
            Ok(None) | Err(_) => self.notifier.end_run(run.resource(), run.run().number).await,
        }
        tracing::info!(job_id = %run.resource().id, tenant_id = %run.resource().tenant, run = run.run().number, "worker.job_handed_back");
        self.runs.remove(run, ExitReason::Elsewhere);
    }
}

/// What the row says when an end is to be recorded.
enum RecordOutcome {
    Recorded(Box<Job>),
    Paused,
    NotOurs,
}

fn log_store_error(run: &ActiveRun, error: &StoreError, event: &'static str) {
    if error.is_transient() {
        tracing::warn!(job = %run.resource(), %error, "{event}");
    } else {
        tracing::error!(job = %run.resource(), %error, "{event}");
    }
}
