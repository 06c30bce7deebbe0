//! One job whose work belongs to this very program (`wheelhouse run`): the same control loop as in a
//! worker, for a single piece of work.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use super::core::{Core, Desired};
use super::gate::CONFIRMED_FOR;
use super::hosted::Controlled;
use super::hosts::{Gone, Hosted, Phase};
use super::report::Report;
use super::{WorkerError, announce, control, job_types, news, reaper, timeout};
use crate::broker::{Broker, Subscriber};
use crate::config::Settings;
use crate::domain::{Job, Progress, Resource};
use crate::store::{HostedJob, RunEnd, Store};

/// Longest wait for a command under way when the work is over.
const LAST_COMMAND: Duration = Duration::from_secs(5);

/// Between two looks whether there is contact.
const CONTACT_LOOK: Duration = Duration::from_millis(500);

/// How the end of attached work was recorded.
#[derive(Debug)]
pub enum Settled {
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
    core: Arc<Core>,
    hosted: Arc<Hosted>,
}

impl AttachedHost {
    /// Starts listening for commands on the job and keeps the run alive.
    pub async fn start(
        settings: &Settings,
        store: Store,
        broker: Broker,
        hosted: HostedJob,
        work: Arc<dyn Controlled>,
    ) -> Result<Self, WorkerError> {
        let tenant = hosted.run.job.tenant.clone();
        let core = Core::new(hosted.run.host.clone(), Some(vec![tenant]), settings.clone(), store, broker);
        let report = Arc::new(Report::starting_at(hosted.job.progress.clone()));
        let (resource, status) = (hosted.run.job.clone(), hosted.job.status);
        let (hosted, hear_flush) = Hosted::new(hosted, work, report, None);
        let host = Self { core: core.clone(), hosted: hosted.clone() };
        // It takes no other job, of whatever type.
        job_types::announce(&core, &[]).await;
        reaper::beat(&core).await?;
        core.spawn(job_types::run(core.clone(), Vec::new()));
        let (subscriber, events) =
            Subscriber::start(&settings.redis, &core.broker, &core.tracker, core.end.clone()).await?;
        control::subscribe(&subscriber).await?;
        core.spawn(reaper::heartbeat(core.clone()));
        core.host(&hosted, hear_flush).await;
        core.spawn(control::listen(core.clone(), events));
        core.spawn(control::poll(core.clone()));
        core.spawn(control::seat(core.clone()));
        core.spawn(news::run(core.clone()));
        core.spawn(show_hindrances(hosted.work.hindrance(), 0, hosted.report.clone(), resource.clone()));
        core.spawn(announce::run(core.clone()));
        core.publish_status(&resource, status, Desired::Nothing).await;
        Ok(host)
    }

    /// Tells everyone who watches how far the work is: at most four times a second, the last one always.
    pub fn progress(&self, progress: Progress) {
        self.hosted.report.progress(progress);
    }

    /// Returns, with the words for it, when the job has been running for as long as it may; the time that it stands
    /// paused does not count. End the work then, and report that as a failure. Never, if there is no limit.
    pub async fn timed_out(&self) -> String {
        let limit = timeout::limit(&self.hosted.job.job);
        timeout::words(timeout::used_up(self.hosted.status.subscribe(), limit).await)
    }

    /// Returns if another run has taken the job, or another system has ended its row: the work is being
    /// cancelled, and nothing of it is written any more.
    pub async fn lost(&self) {
        let mut phase = self.hosted.phase.subscribe();
        let gone = phase.wait_for(|phase| *phase == Phase::Gone(Gone::Elsewhere)).await;
        if gone.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Returns when contact with Redis is lost or back, where the caller knows it as `had` (at the start: there). The
    /// work goes on without: nobody else can take it over.
    pub async fn contact(&self, had: bool) -> bool {
        loop {
            let has = self.hosted.last_renewed.borrow().elapsed() <= CONFIRMED_FOR;
            if has != had {
                return has;
            }
            tokio::time::sleep(CONTACT_LOOK).await;
        }
    }

    /// The work has ended by itself, or because a command cancelled it: this finds out which, records it,
    /// and says goodbye. Keeps trying while SQL is away; waits for the resume of a job that ended while paused.
    pub async fn finish(self, end: RunEnd) -> Settled {
        self.hosted.report.hindrance(0, None);
        let (gone, row) = self.core.settle(&self.hosted, end).await;
        self.core.stop.cancel();
        self.core.commands_done(LAST_COMMAND).await;
        news::tell(&self.core).await;
        self.core.announced(LAST_COMMAND).await;
        if let Err(error) = self.core.broker.leave(&self.core.id, self.core.tenants.as_deref()).await {
            tracing::debug!(%error, "worker.leave_failed"); // It counts as alive for a few seconds more.
        }
        self.core.close().await;
        match (gone, row) {
            (Gone::Recorded, Some(row)) => Settled::Recorded(row),
            (Gone::Cancelled, _) => Settled::Cancelled,
            (Gone::Recorded | Gone::Elsewhere, _) => Settled::Lost,
        }
    }
}

/// Shows in the log and in the job's progress what keeps work from going on though nobody has paused it. Ends with the
/// work. `program` tells several programs of one job apart.
pub(crate) async fn show_hindrances(
    mut changes: BoxStream<'static, Option<String>>,
    program: i32,
    report: Arc<Report>,
    job: Resource,
) {
    while let Some(hindrance) = changes.next().await {
        match &hindrance {
            Some(words) => {
                tracing::warn!(job_id = %job.id, tenant_id = %job.tenant, hindrance = words, "worker.program_stopped");
            }
            None => tracing::info!(job_id = %job.id, tenant_id = %job.tenant, "worker.program_goes_on"),
        }
        report.hindrance(program, hindrance);
    }
    report.hindrance(program, None);
}

impl Drop for AttachedHost {
    fn drop(&mut self) {
        // Dropped without `finish`: as after a crash, others find out by the missing heartbeat.
        self.core.stop.cancel();
        self.core.end.cancel();
    }
}
