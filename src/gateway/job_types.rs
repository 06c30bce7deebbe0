//! Whether any live worker knows the type of a job that waits.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::broker::Broker;
use crate::broker::scripts::job_types::KnownJobTypes;
use crate::domain::{Job, JobStatus, TenantId};

/// How long it is believed.
const CACHE_TTL: Duration = Duration::from_secs(1);
/// Longest wait for Redis: a list must not wait for what it can do without.
const TIMEOUT: Duration = Duration::from_millis(500);
/// Tenants remembered; beyond it the memory starts anew.
const MAX_TENANTS: usize = 4_096;

/// `None`: not known.
type KnownTypes = Option<Arc<KnownJobTypes>>;

/// The types of job that live workers know, by tenant, as last seen.
pub struct JobTypes {
    broker: Broker,
    seen: Mutex<HashMap<TenantId, (Instant, KnownTypes)>>,
}

impl JobTypes {
    /// Nothing has been seen yet.
    pub fn new(broker: Broker) -> Self {
        Self { broker, seen: Mutex::default() }
    }

    /// Writes into those of the jobs of this tenant that wait for a worker nobody has, what they wait for.
    pub async fn explain(&self, tenant: &TenantId, jobs: &mut [Job]) {
        let waits = |job: &Job| job.is_queued && job.status == JobStatus::Pending;
        if !jobs.iter().any(waits) {
            return;
        }
        let Some(known) = self.known_types(tenant).await else { return };
        for job in jobs.iter_mut().filter(|job| waits(job)) {
            if !known.all.contains(&job.job_type) {
                job.waiting_for = Some(format!("a worker for {}", job.job_type));
            } else if !known.with_room.contains(&job.job_type) {
                job.waiting_for = Some(format!(
                    "room: every worker for {} holds as many paused jobs as it may (worker.max_held_jobs)",
                    job.job_type
                ));
            }
        }
    }

    async fn known_types(&self, tenant: &TenantId) -> KnownTypes {
        let fresh = {
            let seen = self.seen.lock();
            seen.get(tenant).filter(|(at, _)| at.elapsed() < CACHE_TTL).map(|(_, known)| known.clone())
        };
        if let Some(known) = fresh {
            return known;
        }
        let asked = tokio::time::timeout(TIMEOUT, self.broker.known_job_types(tenant)).await;
        let known = asked.ok().and_then(Result::ok).flatten().map(Arc::new);
        let mut seen = self.seen.lock();
        if seen.len() >= MAX_TENANTS {
            seen.clear();
        }
        seen.insert(tenant.clone(), (Instant::now(), known.clone()));
        known
    }
}
