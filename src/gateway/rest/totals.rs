//! How many jobs are in each status. To count a million rows takes a while, so what was counted is believed for a
//! multiple of the time that it took, and asked for once however many want it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;

use super::answer::with_timeout;
use crate::domain::{JobCounts, ResourceId, TenantId};
use crate::http::Refusal;
use crate::store::Store;

/// A count is believed for so many times what it took: counting takes a twentieth of the database's time at most.
const BELIEVED: u32 = 20;
/// And no longer than that.
const LONGEST: Duration = Duration::from_secs(10);
/// Counts remembered; beyond it the memory starts anew.
const MAX_COUNTS: usize = 4_096;

type Subject = (TenantId, Option<ResourceId>);

/// One count: when it was begun, what it took, what it gave.
type Counted = Option<(Instant, Duration, JobCounts)>;

/// Counts of the last seconds.
pub(super) struct Totals {
    store: Store,
    counted: Mutex<HashMap<Subject, Arc<AsyncMutex<Counted>>>>,
}

impl Totals {
    pub(super) fn new(store: Store) -> Self {
        Self { store, counted: Mutex::default() }
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
        Ok(counts)
    }
}
