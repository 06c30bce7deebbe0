//! What every part of a worker uses: who the worker is, its settings, its ways to SQL and to Redis, and the tasks that end
//! with it. This file knows none of the parts.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::{Broker, BrokerError};
use crate::config::Settings;
use crate::domain::{TenantId, WorkerId};
use crate::store::Store;

/// How long tasks that were told to end are waited for.
const FINAL_TASKS_TIMEOUT: Duration = Duration::from_secs(2);

/// One worker, or the host of one attached job.
pub(crate) struct WorkerContext {
    pub(crate) id: WorkerId,
    /// The tenants that this worker serves; `None` stands for all of them.
    pub(crate) tenants: Option<Vec<TenantId>>,
    pub(crate) settings: Settings,
    pub(crate) store: Store,
    pub(crate) broker: Broker,
    pub(crate) tracker: TaskTracker,
    /// Cancelled when the worker is to take up nothing new.
    pub(crate) stop: CancellationToken,
    /// Cancelled when every task is to end at once.
    pub(crate) end: CancellationToken,
}

impl WorkerContext {
    pub(crate) fn new(
        id: WorkerId,
        tenants: Option<Vec<TenantId>>,
        settings: Settings,
        store: Store,
        broker: Broker,
    ) -> Arc<Self> {
        let clock = broker.clone();
        let store = store.by_clock(move || clock.now_ms());
        Arc::new(Self {
            id,
            tenants,
            settings,
            store,
            broker,
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
            end: CancellationToken::new(),
        })
    }

    pub(crate) fn serves(&self, tenant: &TenantId) -> bool {
        self.tenants.as_ref().is_none_or(|tenants| tenants.contains(tenant))
    }

    /// Spawns a task that belongs to this worker and ends with it.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        // Boxed: a future that is moved into another one takes its room twice, and there are several for each run.
        let (end, task) = (self.end.clone(), Box::pin(task));
        self.tracker.spawn(async move {
            tokio::select! {
                () = end.cancelled() => {}
                () = task => {}
            }
        })
    }

    /// Tells the other workers that this one has left, ends every task, and waits a moment for the tasks.
    pub(crate) async fn leave(&self) {
        if let Err(error) = self.broker.leave(&self.id, self.tenants.as_deref()).await {
            tracing::debug!(%error, "worker.leave_failed"); // It counts as alive for a few seconds more.
        }
        self.end.cancel();
        self.tracker.close();
        if tokio::time::timeout(FINAL_TASKS_TIMEOUT, self.tracker.wait()).await.is_err() {
            tracing::warn!(worker_id = %self.id, "worker.tasks_left_behind");
        }
    }
}

/// Makes a call to Redis that is safe to repeat, a few times within about two seconds.
pub(crate) async fn retry_idempotent<T, F>(mut call: impl FnMut() -> F) -> Result<T, BrokerError>
where
    F: Future<Output = Result<T, BrokerError>>,
{
    let mut wait = Duration::from_millis(50);
    loop {
        match call().await {
            Err(BrokerError::Unavailable(_) | BrokerError::NotServing(_) | BrokerError::Unknown(_))
                if wait < Duration::from_secs(1) =>
            {
                tokio::time::sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                wait *= 2;
            }
            answer => return answer,
        }
    }
}

/// The wait before the next attempt: see [`crate::domain::full_jitter_backoff`].
pub(crate) fn full_jitter_backoff(base: Duration, longest: Duration, attempts: u32) -> Duration {
    crate::domain::full_jitter_backoff(base, longest, attempts, fastrand::f64())
}
