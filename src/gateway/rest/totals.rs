//! How many jobs are in each status. To count a million rows takes a while, so what was counted is believed for a
//! multiple of the time that it took, and asked for once however many want it.
//!
//! On PostgreSQL whoever counts has to add the changes that no worker has added up yet. Where no worker lives (a fleet that is down while
//! somebody else writes rows) there may be any number of them, so a gateway that is asked for counts adds them up as well.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio_util::sync::CancellationToken;

use super::answer::with_timeout;
use crate::domain::{JobCounts, ResourceId, TenantId};
use crate::http::Refusal;
use crate::store::Store;

/// A count is believed for so many times what it took: counting takes a twentieth of the database's time at most.
const BELIEVED: u32 = 20;
/// And no longer than that.
const LONGEST: Duration = Duration::from_secs(10);
/// Between two times that changes are added up.
const ADD_UP_INTERVAL: Duration = Duration::from_secs(2);
/// Counts remembered; beyond it the memory starts anew.
const MAX_COUNTS: usize = 4_096;

type Subject = (TenantId, Option<ResourceId>);

/// One count: when it was begun, what it took, what it gave.
type Counted = Option<(Instant, Duration, JobCounts)>;

/// Counts of the last seconds.
pub struct Totals {
    store: Store,
    counted: Mutex<HashMap<Subject, Arc<AsyncMutex<Counted>>>>,
    /// Notified whenever SQL was asked.
    asked: Notify,
}

impl Totals {
    /// Of these rows.
    pub fn new(store: Store) -> Self {
        Self { store, counted: Mutex::default(), asked: Notify::new() }
    }

    /// Adds changes up after somebody has asked for counts, until told to stop.
    pub async fn add_up(self: Arc<Self>, stop: CancellationToken) {
        let adding = async {
            loop {
                self.asked.notified().await;
                if let Err(error) = self.store.add_up_job_counts(false).await {
                    // A role of before has not the right to it: then the workers do it, as ever.
                    tracing::debug!(%error, "gateway.job_counts_not_added_up");
                }
                tokio::time::sleep(ADD_UP_INTERVAL).await;
            }
        };
        stop.run_until_cancelled(adding).await;
    }

    /// Of a tenant, or of one of its campaigns.
    pub(super) async fn of(&self, tenant: &TenantId, campaign: Option<&ResourceId>) -> Result<JobCounts, Refusal> {
        let subject = (tenant.clone(), campaign.cloned());
        let place = {
            let mut counted = self.counted.lock();
            if counted.len() >= MAX_COUNTS && !counted.contains_key(&subject) {
                counted.clear();
            }
            Arc::clone(counted.entry(subject).or_default())
        };
        // Whoever comes while it is counted waits here and finds it done.
        let mut place = place.lock().await;
        if let Some((begun, took, counts)) = *place
            && begun.elapsed() < (took * BELIEVED).min(LONGEST)
        {
            return Ok(counts);
        }
        let begun = Instant::now();
        let counts = with_timeout(self.store.job_totals(tenant, campaign)).await?;
        *place = Some((begun, begun.elapsed(), counts));
        self.asked.notify_one();
        Ok(counts)
    }
}
