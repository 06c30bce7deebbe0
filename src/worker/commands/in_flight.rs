//! The resources whose commands this worker is carrying out, one command at a time each.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::domain::Resource;

#[derive(Default)]
pub(crate) struct InFlight {
    entries: Mutex<HashMap<Resource, InFlightEntry>>,
}

struct InFlightEntry {
    /// The worker heard of the resource again meanwhile: it asks Redis once more before it finishes.
    again: bool,
    /// Tells the command under way that another one may wait behind it.
    notify: Arc<Notify>,
}

impl InFlight {
    fn lock(&self) -> MutexGuard<'_, HashMap<Resource, InFlightEntry>> {
        self.entries.lock()
    }

    /// `None`: a command of it is in flight already, and has been notified that there may be more.
    pub(crate) fn begin(&self, resource: &Resource) -> Option<Arc<Notify>> {
        let mut entries = self.lock();
        if let Some(entry) = entries.get_mut(resource) {
            entry.again = true;
            entry.notify.notify_one();
            return None;
        }
        let notify = Arc::new(Notify::new());
        entries.insert(resource.clone(), InFlightEntry { again: false, notify: notify.clone() });
        Some(notify)
    }

    /// `false`: the worker heard of the resource again meanwhile, and it stays in flight.
    pub(crate) fn finish(&self, resource: &Resource) -> bool {
        let mut entries = self.lock();
        if let Some(entry) = entries.get_mut(resource)
            && entry.again
        {
            entry.again = false;
            return false;
        }
        entries.remove(resource);
        true
    }

    /// Finishes it, whatever the worker heard meanwhile: the next poll finds it.
    pub(crate) fn give_up(&self, resource: &Resource) {
        self.lock().remove(resource);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}
