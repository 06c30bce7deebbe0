//! What a job in a test has said, over all its runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use crate::domain::{self, FailedItem, JobStatus, JsonText, Progress};

/// What a job has said, over all its runs.
#[derive(Default)]
pub(crate) struct Record {
    state: Mutex<RecordState>,
    pub(crate) progress: watch::Sender<Progress>,
}

#[derive(Default)]
pub(crate) struct RecordState {
    pub(crate) runs: i64,
    pub(crate) is_running: bool,
    pub(crate) saved: Vec<serde_json::Value>,
    pub(crate) resume_point: Option<serde_json::Value>,
    pub(crate) failed: Vec<FailedItem>,
}

impl Record {
    pub(crate) fn lock(&self) -> MutexGuard<'_, RecordState> {
        self.state.lock()
    }
}

/// Takes down what one run says, until that run is over or killed.
pub(crate) struct Recorder {
    pub(crate) record: Arc<Record>,
    is_open: AtomicBool,
}

impl Recorder {
    pub(crate) fn new(record: Arc<Record>) -> Self {
        Self { record, is_open: AtomicBool::new(true) }
    }

    pub(crate) fn close(&self) {
        // Under the lock: what is being taken down at this moment is whole, and nothing comes after it.
        let _state = self.record.lock();
        self.is_open.store(false, Ordering::SeqCst);
    }

    fn is_open(&self) -> bool {
        self.is_open.load(Ordering::SeqCst)
    }

    pub(crate) fn progress(&self, progress: Progress) {
        if self.is_open() {
            self.record.progress.send_replace(progress);
        }
    }

    pub(crate) fn save(&self, point: &JsonText) {
        // What is saved has numbers of 64 bits at most, so a value holds it.
        let point: serde_json::Value = point.read().unwrap_or_default();
        let mut state = self.record.lock();
        if self.is_open() {
            state.saved.push(point.clone());
            state.resume_point = Some(point);
        }
    }

    pub(crate) fn failed_item(&self, item: &str, error: &str) {
        let mut state = self.record.lock();
        if !self.is_open() {
            return;
        }
        match state.failed.iter_mut().find(|failed| failed.item == item) {
            Some(failed) => error.clone_into(&mut failed.error),
            None => state.failed.push(FailedItem { item: item.to_owned(), error: error.to_owned() }),
        }
    }
}

/// A name that is known to be well formed.
pub(crate) fn known<T: std::str::FromStr>(name: &str) -> T {
    name.parse().unwrap_or_else(|_| unreachable!("{name} is an id"))
}

/// A job that was just taken by a worker.
pub(crate) fn blank_job(job_type: &str) -> domain::Job {
    domain::Job {
        fence: 0,
        id: known("job"),
        tenant_id: known("tenant"),
        campaign_id: None,
        job_type: job_type.to_owned(),
        title: None,
        status: JobStatus::Running,
        progress: Progress::default(),
        parameters: domain::JsonText::default(),
        result: domain::JsonText::default(),
        error_message: None,
        max_retries: 0,
        retry_count: 0,
        run_after: None,
        timeout_seconds: None,
        contact_lost_at: None,
        created_by: None,
        cancelled_by: None,
        created_at: None,
        started_at: None,
        completed_at: None,
        cancelled_at: None,
        updated_at: None,
        running_seconds: Some(0.0),
        paused_seconds: Some(0.0),
        worker: None,
        rerun_of: None,
        reruns: Vec::new(),
        control: domain::Control::Live,
        waiting_for: None,
        is_queued: true,
    }
}
