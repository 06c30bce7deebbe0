//! Tells everyone concerned what has become of a job: those who watch it, its campaign, and the workers that look for jobs.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::announcements::Announcements;
use super::campaign_progress::CampaignProgress;
use super::updates::{Desired, publish_status};
use crate::domain::{Job, JobStatus, Resource};
use crate::store::{Announcement, AnnouncementKind};
use crate::worker::context::{WorkerContext, retry_idempotent};

/// Jobs that are due later than this were written by a clock that was wrong: the longest wait between two tries is a minute.
const MAX_WAKE_AHEAD_MS: u64 = 62_000;

pub(crate) struct JobNotifier {
    ctx: Arc<WorkerContext>,
    announcements: Arc<Announcements>,
    pub(crate) campaigns: Arc<CampaignProgress>,
    /// Notified when this worker may find a job in SQL that it can run.
    pub(crate) job_available: Notify,
    /// SQL did not answer when this worker asked for a job, and may have given it one.
    pub(crate) claim_failed: AtomicBool,
    /// The seconds at whose beginning workers are told of jobs that are due: no more than [`MAX_WAKE_AHEAD_MS`] has.
    wakes: Arc<Mutex<HashSet<i64>>>,
}

impl JobNotifier {
    pub(crate) fn new(
        ctx: Arc<WorkerContext>,
        announcements: Arc<Announcements>,
        campaigns: Arc<CampaignProgress>,
    ) -> Self {
        Self {
            ctx,
            announcements,
            campaigns,
            job_available: Notify::new(),
            claim_failed: AtomicBool::new(false),
            wakes: Arc::default(),
        }
    }

    /// A run of a job is over, in this worker or in a dead one, and the job's row has its status now.
    pub(crate) async fn run_left(&self, job: &Job, run: i64) {
        let resource = Resource::job(job.tenant_id.clone(), job.id.clone());
        if publish_status(&self.ctx.broker, &resource, job.status, Desired::Nothing).await {
            self.announcements.mark_published(Announcement {
                resource: resource.clone(),
                about: AnnouncementKind::Status,
                run,
            });
        }
        self.end_run(&resource, run).await;
        self.campaigns.mark_campaign_of(job);
        if job.status == JobStatus::Pending {
            self.wake_workers().await;
            self.wake_when_due(job);
        }
    }

    /// A job that waits to be tried again can be taken later: then the workers are told once more. Those that are due within
    /// the same second are told of together. A leader of the fleet finds them as well, where it knows their types.
    fn wake_when_due(&self, job: &Job) {
        let due = job.run_after.as_deref().and_then(|at| at.parse::<jiff::Timestamp>().ok());
        let Some(due) = due.map(|due| due.as_millisecond()) else { return };
        let now = self.ctx.broker.now_ms();
        let second = due.div_euclid(1_000) + 1;
        let wait = u64::try_from(second * 1_000 - now).unwrap_or_default();
        if due <= now || wait > MAX_WAKE_AHEAD_MS || !self.wakes.lock().insert(second) {
            return;
        }
        let (broker, wakes) = (self.ctx.broker.clone(), self.wakes.clone());
        self.ctx.spawn(async move {
            tokio::time::sleep(Duration::from_millis(wait)).await;
            wakes.lock().remove(&second);
            if let Err(error) = broker.wake_dispatch().await {
                tracing::debug!(%error, "worker.wake_failed");
            }
        });
    }

    /// Tells Redis that a run is over, so that commands for the job are no longer kept for its host.
    pub(crate) async fn end_run(&self, job: &Resource, run: i64) {
        let ended = retry_idempotent(|| self.ctx.broker.end_run(job, run)).await;
        if let Err(error) = ended {
            // The next run has a higher number, and a dead host is passed over: this costs time only.
            tracing::warn!(%job, %error, "worker.end_run_failed");
        }
    }

    /// Tells this worker and all others that a job waits in SQL.
    pub(crate) async fn wake_workers(&self) {
        self.job_available.notify_one();
        if let Err(error) = self.ctx.broker.wake_dispatch().await {
            tracing::debug!(%error, "worker.wake_failed"); // The leader of the fleet looks each second, the others now and then.
        }
    }
}
