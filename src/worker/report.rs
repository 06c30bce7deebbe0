//! What a piece of work says about itself, until the writer passes it on: only the newest counts.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::domain::Progress;

/// The newest progress and resume point of one run. Holds one of each: what is not yet passed on is replaced.
#[derive(Default)]
pub(crate) struct Report {
    latest: Mutex<Latest>,
    pub(crate) changed: Notify,
}

#[derive(Default, Clone)]
pub(crate) struct Latest {
    pub(crate) progress: Progress,
    pub(crate) resume_point: Option<serde_json::Value>,
    /// Grow with each change.
    pub(crate) progress_version: u64,
    pub(crate) resume_version: u64,
}

impl Report {
    pub(crate) fn starting_at(progress: Progress) -> Self {
        Self { latest: Mutex::new(Latest { progress, ..Latest::default() }), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Latest> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn progress(&self, mut progress: Progress) {
        progress.progress_percent = progress.progress_percent.min(100);
        let mut latest = self.lock();
        if latest.progress != progress {
            latest.progress = progress;
            latest.progress_version += 1;
            self.changed.notify_one();
        }
    }

    pub(crate) fn save(&self, point: serde_json::Value) {
        let mut latest = self.lock();
        latest.resume_point = Some(point);
        latest.resume_version += 1;
        self.changed.notify_one();
    }

    pub(crate) fn latest(&self) -> Latest {
        self.lock().clone()
    }
}
