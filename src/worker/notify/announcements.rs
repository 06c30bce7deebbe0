//! Announcements that have been published and are still to be deleted from SQL (see [`crate::store::announcements`]).

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::store::{Announcement, Store};

/// What was published within this time is deleted in one transaction.
const BATCH_DELAY: Duration = Duration::from_millis(250);

/// What this worker has published and not yet deleted: no more than the jobs that ended here within [`BATCH_DELAY`].
#[derive(Default)]
pub(crate) struct Announcements {
    published: Mutex<Vec<Announcement>>,
    changed: Notify,
}

impl Announcements {
    pub(crate) fn mark_published(&self, announcement: Announcement) {
        self.published.lock().push(announcement);
        self.changed.notify_one();
    }

    fn take_published(&self) -> Vec<Announcement> {
        std::mem::take(&mut *self.published.lock())
    }

    /// Deletes what has been published, until the worker ends.
    pub(crate) async fn run(&self, store: &Store) {
        loop {
            self.changed.notified().await;
            tokio::time::sleep(BATCH_DELAY).await;
            self.delete_published(store).await;
        }
    }

    /// Deletes what has been published so far. Where SQL does not answer, another worker publishes it once more.
    pub(crate) async fn delete_published(&self, store: &Store) {
        if let Err(error) = store.mark_announced(&self.take_published()).await {
            tracing::debug!(%error, "worker.announcements_not_crossed_off");
        }
    }
}
