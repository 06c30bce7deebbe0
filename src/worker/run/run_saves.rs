//! Writes what runs of this worker have reported into SQL, many to a transaction.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::store::{Run, SaveOutcome, SavedRun, StoreError};
use crate::worker::batcher::{BatchLimits, Batcher};
use crate::worker::context::WorkerContext;

/// The interval is the longest wait of a report that nobody waits for.
const LIMITS: BatchLimits =
    BatchLimits { items: 128, bytes: 1024 * 1_024, interval: Duration::from_millis(50), at_once: 1, waiting: 1_024 };
/// Reports that are written each by itself at once: the other connections are for others.
const MAX_ALONE: usize = 2;

type Report = Arc<(Run, SavedRun)>;

pub(crate) struct RunSaves {
    ctx: Arc<WorkerContext>,
    batcher: Batcher<Report, Result<SaveOutcome, StoreError>>,
    alone: Semaphore,
}

impl RunSaves {
    pub(crate) fn new(ctx: Arc<WorkerContext>) -> Arc<Self> {
        let store = ctx.store.clone();
        let batcher = Batcher::start(LIMITS, &ctx.tracker, &ctx.end, move |reports: Vec<Report>| {
            let store = store.clone();
            async move {
                match store.save_many(&reports).await {
                    Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
                    // Of one of them, perhaps: again, so that it fails alone.
                    Err(error) if !error.is_transient() => reports.iter().map(|_| Ok(SaveOutcome::Passed)).collect(),
                    Err(error) => reports.iter().map(|_| Err(error.clone())).collect(),
                }
            }
        });
        Arc::new(Self { ctx, batcher, alone: Semaphore::new(MAX_ALONE) })
    }

    /// Writes what a run has to say, as [`crate::store::Store::save`] does. `is_urgent`: somebody waits for that.
    pub(crate) async fn save(&self, run: &Run, report: SavedRun, is_urgent: bool) -> Result<bool, StoreError> {
        let (size, report) = (size_of(&report), Arc::new((run.clone(), report)));
        let ended = || StoreError::Unavailable("the worker is ending".to_owned());
        match self.batcher.submit(report.clone(), size, is_urgent).await.ok_or_else(ended)?? {
            SaveOutcome::Saved => Ok(true),
            SaveOutcome::Lost => Ok(false),
            SaveOutcome::Passed => {
                let _place = self.alone.acquire().await;
                Box::pin(self.ctx.store.save(run, &report.1)).await // Boxed: it is rare, and each run has room for it.
            }
        }
    }

    /// Somebody waits by now for what was last reported.
    pub(crate) fn hurry(&self) {
        self.batcher.hurry();
    }
}

fn size_of(report: &SavedRun) -> usize {
    let failed: usize = report.failed_items.iter().map(|failed| failed.item.len() + failed.error.len()).sum();
    let point = report.resume_point.as_ref().map_or(0, |point| point.as_str().len());
    256 + failed + point + report.progress.current_item.as_ref().map_or(0, String::len)
}
