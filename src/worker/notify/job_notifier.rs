//! Tells everyone concerned what has become of a job: those who watch it, its campaign, and the workers that look for jobs.

use std::sync::Arc;

use tokio::sync::Notify;

use super::announcements::Announcements;
use super::campaign_progress::CampaignProgress;
use super::updates::{Desired, publish_status};
use crate::domain::{Job, JobStatus, Resource};
use crate::store::{Announcement, AnnouncementKind};
use crate::worker::context::{WorkerContext, retry_idempotent};

pub(crate) struct JobNotifier {
    ctx: Arc<WorkerContext>,
    announcements: Arc<Announcements>,
    pub(crate) campaigns: Arc<CampaignProgress>,
    /// Notified when this worker may find a job in SQL that it can run.
    pub(crate) job_available: Notify,
}

impl JobNotifier {
    pub(crate) fn new(
        ctx: Arc<WorkerContext>,
        announcements: Arc<Announcements>,
        campaigns: Arc<CampaignProgress>,
    ) -> Self {
        Self { ctx, announcements, campaigns, job_available: Notify::new() }
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
        }
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
            tracing::debug!(%error, "worker.wake_failed"); // Every worker looks by itself each second.
        }
    }
}
