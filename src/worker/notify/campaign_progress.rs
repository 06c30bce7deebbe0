//! Progress of campaigns: of a campaign whose jobs have changed it is published at most four times a second, and a campaign
//! whose jobs have all ended is completed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::announcements::Announcements;
use super::updates::publish;
use crate::broker::scripts::updates::Update;
use crate::domain::{Job, Resource};
use crate::protocol::server;
use crate::store::{Announcement, AnnouncementKind, StoreError};
use crate::worker::context::WorkerContext;

const PUBLISH_INTERVAL: Duration = Duration::from_millis(250);
/// The wait after SQL did not answer.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Campaigns whose jobs have changed since their progress was published. It holds each campaign once, so it is never longer
/// than the number of jobs that have changed.
pub(crate) struct CampaignProgress {
    ctx: Arc<WorkerContext>,
    announcements: Arc<Announcements>,
    dirty: Mutex<HashSet<Resource>>,
    changed: Notify,
}

impl CampaignProgress {
    pub(crate) fn new(ctx: Arc<WorkerContext>, announcements: Arc<Announcements>) -> Self {
        Self { ctx, announcements, dirty: Mutex::default(), changed: Notify::new() }
    }

    pub(crate) fn mark_dirty(&self, campaign: Resource) {
        self.dirty.lock().insert(campaign);
        self.changed.notify_one();
    }

    /// A job has changed: its campaign, if it has one, counts it.
    pub(crate) fn mark_campaign_of(&self, job: &Job) {
        if let Some(campaign) = &job.campaign_id {
            self.mark_dirty(Resource::campaign(job.tenant_id.clone(), campaign.clone()));
        }
    }

    fn take_dirty(&self) -> Vec<Resource> {
        self.dirty.lock().drain().collect()
    }

    /// Publishes progress until the worker ends.
    pub(crate) async fn run(&self) {
        loop {
            self.changed.notified().await;
            self.publish_pending().await;
            tokio::time::sleep(PUBLISH_INTERVAL).await;
        }
    }

    /// Publishes the progress of each campaign that has changed.
    pub(crate) async fn publish_pending(&self) {
        for campaign in self.take_dirty() {
            if let Err(error) = self.publish_campaign(&campaign).await {
                tracing::warn!(%campaign, %error, "worker.campaign_news_delayed");
                tokio::time::sleep(RETRY_DELAY).await;
                self.mark_dirty(campaign);
            }
        }
    }

    async fn publish_campaign(&self, campaign: &Resource) -> Result<(), StoreError> {
        let WorkerContext { store, broker, .. } = &*self.ctx;
        let Some(row) = store.campaign(campaign).await? else { return Ok(()) };
        let message = server::campaign_progress(&row);
        publish(broker, campaign, &Update { message, desired: None }).await;
        if !row.is_open
            && row.items_processed >= row.items_total
            && let Some(completed) = store.complete_campaign(campaign).await?
        {
            tracing::info!(campaign_id = %campaign.id, tenant_id = %campaign.tenant, "worker.campaign_completed");
            let message = server::campaign_status(&completed, None);
            if publish(broker, campaign, &Update { message, desired: None }).await {
                self.announcements.mark_published(Announcement {
                    resource: campaign.clone(),
                    about: AnnouncementKind::Status,
                    run: 0,
                });
            }
        }
        Ok(())
    }
}
