//! One job whose work belongs to this very program (`wheelhouse run`): the same parts as in a worker, for a single piece of
//! work.

use std::sync::Arc;
use std::time::Duration;

use super::context::WorkerContext;
use super::error::WorkerError;
use super::parts::WorkerParts;
use super::run::active_run::{ActiveRun, ExitReason, Phase};
use super::run::control::Controlled;
use super::run::control_problem::report_control_problems;
use super::run::output_writer;
use super::run::pause_gate::CONFIRMATION_TTL;
use super::run::run_output::LineKeeper;
use super::run::run_progress::RunProgress;
use super::run::timeout;
use crate::broker::Broker;
use crate::config::Settings;
use crate::domain::{Job, OutputStream, Progress};
use crate::store::{ClaimedJob, RunEnd, Store};

/// Longest wait for a command under way when the work is over.
const FINAL_COMMAND_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait for SQL to take the last lines of the output.
const LAST_LINES_TIMEOUT: Duration = Duration::from_secs(2);

const CONTACT_POLL_INTERVAL: Duration = Duration::from_millis(500);

/// How the end of attached work was recorded.
#[derive(Debug)]
pub enum AttachedEnd {
    /// As it ended: the row is completed or failed.
    Recorded(Box<Job>),
    /// A cancel command ended it, and has been answered.
    Cancelled,
    /// The job was no longer this run's; nothing was written.
    Lost,
}

/// Keeps one attached job under live control: heartbeats, commands, progress.
///
/// `hosted` comes from [`Store::create_attached_job`]; its `run.host` is the worker id used here.
/// Start the work before (or right after) the host; report its end with [`finish`](Self::finish).
/// While it lives, this program also carries out commands on other jobs of the tenant, as any worker does.
pub struct AttachedHost {
    parts: WorkerParts,
    run: Arc<ActiveRun>,
}

impl AttachedHost {
    /// Starts listening for commands on the job and keeps the run alive.
    pub async fn start(
        settings: &Settings,
        store: Store,
        broker: Broker,
        hosted: ClaimedJob,
        work: Arc<dyn Controlled>,
    ) -> Result<Self, WorkerError> {
        let tenant = hosted.run.job.tenant.clone();
        let ctx = WorkerContext::new(hosted.run.host.clone(), Some(vec![tenant]), settings.clone(), store, broker);
        let progress = Arc::new(RunProgress::starting_at(hosted.job.progress.clone()));
        let resource = hosted.run.job.clone();
        let (run, flush_requests) = ActiveRun::new(hosted, work, progress.clone(), None);
        let (parts, found) = WorkerParts::new(ctx.clone());
        let host = Self { parts, run: run.clone() };
        let parts = &host.parts;
        // It takes no other job, of whatever type.
        let events = parts.register(Vec::new(), 0).await?;
        parts.lifecycle.start(&run, flush_requests).await;
        parts.scheduler.start(events, found);
        ctx.spawn(report_control_problems(run.work.control_problem(), 0, progress, resource.clone()));
        parts.start_notifying();
        Ok(host)
    }

    /// Tells everyone who watches how far the work is: at most four times a second, the last one always.
    pub fn progress(&self, progress: Progress) {
        self.run.progress.progress(progress);
    }

    /// Keeps one stream of the program's output, for whoever looks at the job.
    pub(crate) fn output_keeper(&self, stream: OutputStream) -> LineKeeper {
        LineKeeper::new(self.run.progress.output.clone(), stream)
    }

    /// Returns, with the words for it, when the job has been running for as long as it may; the time that it is
    /// paused does not count. End the work then, and report that as a failure. Never, if there is no limit.
    pub async fn timed_out(&self) -> String {
        timeout::message(timeout::expired(self.run.status.subscribe(), self.run.time_limit.clone()).await)
    }

    /// Returns if another run has taken the job, or another system has ended its row: the work is being
    /// cancelled, and nothing of it is written any more.
    pub async fn lost(&self) {
        let mut phase = self.run.phase.subscribe();
        let exited = phase.wait_for(|phase| *phase == Phase::Exited(ExitReason::Elsewhere)).await;
        if exited.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Returns when contact with Redis is lost or back, where the caller knows it as `had` (at the start: there). The
    /// work goes on without: nobody else can take it over.
    pub async fn contact(&self, had: bool) -> bool {
        loop {
            let has = self.run.last_renewed.borrow().elapsed() <= CONFIRMATION_TTL;
            if has != had {
                return has;
            }
            tokio::time::sleep(CONTACT_POLL_INTERVAL).await;
        }
    }

    /// The work has ended by itself, or because a command cancelled it: this finds out which, records it,
    /// and says goodbye. Keeps trying while SQL is away; waits for the resume of a job that ended while paused.
    pub async fn finish(self, end: RunEnd) -> AttachedEnd {
        self.run.progress.control_problem(0, None);
        // Before the end: whoever waits for that finds all of the output. A database that is away holds nobody up for it.
        let last_lines = output_writer::write(&self.parts.ctx, &self.run, true);
        let _ = tokio::time::timeout(LAST_LINES_TIMEOUT, last_lines).await;
        let (reason, row) = self.parts.lifecycle.record_end(&self.run, end).await;
        self.parts.ctx.stop.cancel();
        self.parts.scheduler.drained(FINAL_COMMAND_TIMEOUT).await;
        self.parts.campaigns.publish_pending().await;
        self.parts.announcer.finish(FINAL_COMMAND_TIMEOUT).await;
        self.parts.ctx.leave().await;
        match (reason, row) {
            (ExitReason::Recorded, Some(row)) => AttachedEnd::Recorded(row),
            (ExitReason::Cancelled, _) => AttachedEnd::Cancelled,
            (ExitReason::Recorded | ExitReason::Elsewhere, _) => AttachedEnd::Lost,
        }
    }
}

impl Drop for AttachedHost {
    fn drop(&mut self) {
        // Dropped without `finish`: as after a crash, others find out by the missing heartbeat.
        self.parts.ctx.stop.cancel();
        self.parts.ctx.end.cancel();
    }
}
