//! Campaigns whose jobs have moved: their progress is told at most four times a second, and a campaign
//! whose jobs have all ended is completed.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::core::Core;
use crate::broker::scripts::updates::Update;
use crate::domain::Resource;
use crate::protocol::server;
use crate::store::{About, Announcement};

/// Between two looks at the campaigns that moved.
const FOLD: Duration = Duration::from_millis(250);
/// After SQL did not answer.
const LATER: Duration = Duration::from_secs(1);

/// Campaigns with news. Holds each once, so it is never longer than the jobs that moved since the last look.
#[derive(Default)]
pub(crate) struct CampaignNews {
    moved: Mutex<HashSet<Resource>>,
    changed: Notify,
}

impl CampaignNews {
    pub(crate) fn mark(&self, campaign: Resource) {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner).insert(campaign);
        self.changed.notify_one();
    }

    fn take(&self) -> Vec<Resource> {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner).drain().collect()
    }
}

/// Tells the news until the worker ends.
pub(crate) async fn run(core: Arc<Core>) {
    loop {
        core.news.changed.notified().await;
        tell(&core).await;
        tokio::time::sleep(FOLD).await;
    }
}

/// Tells what there is to tell now.
pub(crate) async fn tell(core: &Arc<Core>) {
    for campaign in core.news.take() {
        if let Err(error) = tell_one(core, &campaign).await {
            tracing::warn!(%campaign, %error, "worker.campaign_news_delayed");
            tokio::time::sleep(LATER).await;
            core.news.mark(campaign);
        }
    }
}

async fn tell_one(core: &Arc<Core>, campaign: &Resource) -> Result<(), crate::store::StoreError> {
    let Some(row) = core.store.campaign(campaign).await? else { return Ok(()) };
    let message = server::campaign_progress(&row);
    core.publish(campaign, &Update { run: None, message, progress: None, desired: None }).await;
    if !row.is_open
        && row.items_processed >= row.items_total
        && let Some(completed) = core.store.complete_campaign(campaign).await?
    {
        tracing::info!(campaign_id = %campaign.id, tenant_id = %campaign.tenant, "worker.campaign_completed");
        let message = server::campaign_status(&completed, None);
        if core.publish(campaign, &Update { run: None, message, progress: None, desired: None }).await {
            core.announcements.said(Announcement { resource: campaign.clone(), about: About::Status, run: 0 });
        }
    }
    Ok(())
}
