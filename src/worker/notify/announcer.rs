//! Publishes announcements, that is status messages that SQL says are still to be sent (see
//! [`crate::store::announcements`]).
//!
//! Whoever changes a row publishes its status at once and deletes the announcement a little later, many together. What a
//! dead worker has left behind any other worker finds by polling twice: an announcement that has not changed between two
//! polls has nobody who is working on it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio_util::task::TaskTracker;

use super::announcements::Announcements;
use super::campaign_progress::CampaignProgress;
use super::updates::publish_row;
use crate::broker::scripts::updates::Update;
use crate::domain::{JobStatus, Resource, ResourceKind};
use crate::protocol::server;
use crate::store::{Announcement, AnnouncementKind, StoreError};
use crate::worker::context::WorkerContext;
use crate::worker::error::WorkerError;

/// Jobs in one page.
const PAGE_SIZE: u32 = 500;
/// Messages that are on their way to Redis at once.
const MAX_CONCURRENT: usize = 32;
/// Announcements read in one poll.
const MAX_PER_POLL: u32 = 1_000;

/// The announcements of the last poll, each with the number of its jobs that had been published.
pub(crate) type LastPoll = HashMap<Announcement, i64>;

pub(crate) struct Announcer {
    ctx: Arc<WorkerContext>,
    announcements: Arc<Announcements>,
    campaigns: Arc<CampaignProgress>,
    /// Tasks that are publishing: a worker that leaves lets them finish.
    publishing: TaskTracker,
}

impl Announcer {
    pub(crate) fn new(
        ctx: Arc<WorkerContext>,
        announcements: Arc<Announcements>,
        campaigns: Arc<CampaignProgress>,
    ) -> Self {
        Self { ctx, announcements, campaigns, publishing: TaskTracker::new() }
    }

    /// Publishes what has not changed since the last poll.
    pub(crate) async fn poll(&self, last: &mut LastPoll) -> Result<(), StoreError> {
        let now: LastPoll = self.ctx.store.announcements(MAX_PER_POLL).await?.into_iter().collect();
        let before = std::mem::replace(last, now.clone());
        let unchanged = now.into_iter().filter(|(announcement, so_far)| before.get(announcement) == Some(so_far));
        for (announcement, _) in unchanged {
            if self.ctx.stop.is_cancelled() {
                break;
            }
            tracing::info!(resource = %announcement.resource, "worker.announcement_taken_over");
            self.publish(&announcement).await;
        }
        Ok(())
    }

    /// Publishes one announcement in a task of its own. SQL keeps it until then, so a worker that dies loses nothing.
    pub(crate) fn publish_in_background(self: &Arc<Self>, announcement: Announcement) {
        let announcer = self.clone();
        let publishing = self.publishing.track_future(async move { announcer.publish(&announcement).await });
        self.ctx.spawn(publishing);
    }

    /// Lets the tasks that are publishing finish within this time, and deletes what has been published. Other workers find
    /// what is left.
    pub(crate) async fn finish(&self, within: Duration) {
        self.publishing.close();
        let _ = tokio::time::timeout(within, self.publishing.wait()).await;
        self.announcements.delete_published(&self.ctx.store).await;
    }

    /// Publishes one announcement and marks it as published. One that cannot be published stays in SQL.
    async fn publish(&self, announcement: &Announcement) {
        let published = match (announcement.about, announcement.resource.kind) {
            (AnnouncementKind::Jobs, _) => self.publish_cancelled_jobs(announcement).await,
            (AnnouncementKind::Status, ResourceKind::Job) => self.publish_job(&announcement.resource).await,
            (AnnouncementKind::Status, ResourceKind::Campaign) => self.publish_campaign(&announcement.resource).await,
        };
        match published {
            Ok(()) => self.announcements.mark_published(announcement.clone()),
            Err(error) => {
                tracing::warn!(resource = %announcement.resource, %error, "worker.announcement_delayed");
            }
        }
    }

    async fn publish_job(&self, job: &Resource) -> Result<(), WorkerError> {
        if let Some(row) = publish_row(&self.ctx.store, &self.ctx.broker, job).await? {
            self.campaigns.mark_campaign_of(&row);
        }
        Ok(())
    }

    async fn publish_campaign(&self, campaign: &Resource) -> Result<(), WorkerError> {
        if let Some(row) = self.ctx.store.campaign(campaign).await? {
            let message = server::campaign_status(&row, None);
            let update = Update { message, desired: None };
            self.ctx.broker.publish_update(campaign, &update).await?;
        }
        Ok(())
    }

    /// Publishes the status of each cancelled job of a campaign, from where the last attempt stopped.
    async fn publish_cancelled_jobs(&self, announcement: &Announcement) -> Result<(), WorkerError> {
        let WorkerContext { store, broker, .. } = &*self.ctx;
        let Some(mut after) = store.announced_count(announcement).await? else { return Ok(()) };
        loop {
            let (jobs, last) = store.cancelled_jobs(&announcement.resource, after, PAGE_SIZE).await?;
            let Some(last) = last else { return Ok(()) };
            stream::iter(jobs)
                .map(|job| async move {
                    let message = server::job_status(&job, JobStatus::Cancelled, None);
                    let update = Update { message, desired: Some(None) };
                    broker.publish_update(&job, &update).await.map(drop)
                })
                .buffer_unordered(MAX_CONCURRENT)
                .try_collect::<()>()
                .await?;
            store.mark_announced_to(announcement, last).await?;
            after = last;
        }
    }
}
