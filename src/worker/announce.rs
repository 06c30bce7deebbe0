//! Status messages that are owed (see [`crate::store::announcements`]): published, and crossed off.
//!
//! Whoever changes a row publishes its status at once and crosses the announcement off a little later, many together. Of
//! what a dead worker has left, any other finds out by looking twice: what stands there unchanged at the second look has
//! nobody who is at it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::Notify;

use super::WorkerError;
use super::core::{Core, Desired};
use crate::broker::scripts::updates::Update;
use crate::domain::{JobStatus, Resource, ResourceKind};
use crate::protocol::server;
use crate::store::{About, Announcement, StoreError};

/// What was said within this time is crossed off in one transaction.
const FOLD: Duration = Duration::from_millis(250);
/// Jobs of one page.
const PAGE: u32 = 500;
/// Messages under way to Redis at once.
const TOGETHER: usize = 32;
/// Announcements of one look.
const LOOK_MOST: u32 = 1_000;

/// What this worker has said and not yet crossed off: no more than the jobs that ended here within [`FOLD`].
#[derive(Default)]
pub(crate) struct Announcements {
    said: Mutex<Vec<Announcement>>,
    changed: Notify,
}

impl Announcements {
    /// This one has been published.
    pub(crate) fn said(&self, owed: Announcement) {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).push(owed);
        self.changed.notify_one();
    }

    fn take(&self) -> Vec<Announcement> {
        std::mem::take(&mut *self.said.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What was owed at the last look, and how far it had been said.
pub(crate) type LastLook = HashMap<Announcement, i64>;

/// Crosses off what was said, until the worker ends.
pub(crate) async fn run(core: Arc<Core>) {
    loop {
        core.announcements.changed.notified().await;
        tokio::time::sleep(FOLD).await;
        cross_off(&core).await;
    }
}

/// Crosses off what has been said so far. Where SQL is away it is said once more by another worker.
pub(crate) async fn cross_off(core: &Core) {
    if let Err(error) = core.store.announced(&core.announcements.take()).await {
        tracing::debug!(%error, "worker.announcements_not_crossed_off");
    }
}

/// Publishes what stands there as at the last look.
pub(crate) async fn look(core: &Core, last: &mut LastLook) -> Result<(), StoreError> {
    let now: LastLook = core.store.announcements(LOOK_MOST).await?.into_iter().collect();
    let before = std::mem::replace(last, now.clone());
    let left = now.into_iter().filter(|(owed, so_far)| before.get(owed) == Some(so_far));
    for (owed, _) in left {
        if core.stop.is_cancelled() {
            break;
        }
        tracing::info!(resource = %owed.resource, "worker.announcement_taken_over");
        core.announce(&owed).await;
    }
    Ok(())
}

impl Core {
    /// Publishes what is owed, and crosses it off; what cannot be published stays owed.
    pub(crate) async fn announce(&self, owed: &Announcement) {
        let said = match (owed.about, owed.resource.kind) {
            (About::Jobs, _) => self.announce_jobs(owed).await,
            (About::Status, ResourceKind::Job) => self.announce_job(&owed.resource).await,
            (About::Status, ResourceKind::Campaign) => self.announce_campaign(&owed.resource).await,
        };
        match said {
            Ok(()) => self.announcements.said(owed.clone()),
            Err(error) => tracing::warn!(resource = %owed.resource, %error, "worker.announcement_delayed"),
        }
    }

    async fn announce_job(&self, job: &Resource) -> Result<(), WorkerError> {
        let mut told = None;
        loop {
            let row = self.store.job_without_contents(job).await?;
            let now = row.as_ref().map(|row| row.status);
            // A job that has not ended may have moved on before the message was out: then this was not the last word.
            let Some(status) = now.filter(|_| now != told) else {
                if let Some(row) = &row {
                    self.job_moved(row);
                }
                return Ok(());
            };
            // Of an ended job nothing is desired any more; of another one, whoever hosts it knows.
            let desired = status.is_final().then_some(None);
            let message = server::job_status(job, status, None);
            self.broker.publish_update(job, &Update { run: None, message, progress: None, desired }).await?;
            told = now;
        }
    }

    async fn announce_campaign(&self, campaign: &Resource) -> Result<(), WorkerError> {
        if let Some(row) = self.store.campaign(campaign).await? {
            let message = server::campaign_status(&row, None);
            self.broker.publish_update(campaign, &Update { run: None, message, progress: None, desired: None }).await?;
        }
        Ok(())
    }

    /// Tells whoever watches one of the cancelled jobs of a campaign, from where the last one stopped.
    async fn announce_jobs(&self, owed: &Announcement) -> Result<(), WorkerError> {
        let Some(mut after) = self.store.announced_so_far(owed).await? else { return Ok(()) };
        loop {
            let (jobs, last) = self.store.cancelled_jobs(&owed.resource, after, PAGE).await?;
            let Some(last) = last else { return Ok(()) };
            stream::iter(jobs)
                .map(|job| async move {
                    let message = server::job_status(&job, JobStatus::Cancelled, None);
                    let update = Update { run: None, message, progress: None, desired: Some(None) };
                    self.broker.publish_update(&job, &update).await.map(drop)
                })
                .buffer_unordered(TOGETHER)
                .try_collect::<()>()
                .await?;
            self.store.announced_to(owed, last).await?;
            after = last;
        }
    }

    /// As [`Self::publish_status`], for a job that has left a run: crossed off where it could be said.
    pub(crate) async fn announce_end_of_run(&self, job: &Resource, status: JobStatus, run: i64) {
        if self.publish_status(job, status, Desired::Nothing).await {
            self.announcements.said(Announcement { resource: job.clone(), about: About::Status, run });
        }
    }
}
