//! What makes jobs, of one body or of a stream: how much of that goes on at once, and how it is written.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::auth::Caller;
use crate::broker::Broker;
use crate::broker::scripts::updates::JobWake;
use crate::domain::TenantId;
use crate::http::Refusal;
use crate::protocol::ErrorCode;
use crate::store::{NewJob, Store, StoreError};

/// What whoever may not make jobs is told that they may not do.
pub(super) const CREATE_JOB: &str = "create job";

/// Largest body that makes one job.
pub(super) const JOB_BODY: usize = 1024 * 1024;
/// Largest body that makes a campaign, or many jobs.
pub(super) const LARGE_BODY: usize = 16 * 1024 * 1024;
/// Large bodies from which campaigns and jobs are made at once, in all and for one tenant: each is in memory as its text and
/// as its jobs, and is one long write of the database, behind which everybody waits where only one may write (SQLite). So
/// one tenant writes one of them at a time, and the others are next. More of them wait their turn. A place is taken when
/// the body is here and not before: clients that send theirs slowly keep nobody waiting.
const PLACES: (usize, usize) = (3, 1);
/// A body of so many bytes needs no place, if it makes few jobs.
pub(super) const SMALL_BODY: usize = 256 * 1024;
pub(super) const FEW_JOBS: usize = 500;
/// Longest wait for a write: ten thousand jobs take a while.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// The way to SQL for what makes jobs.
pub(super) struct JobWriter {
    pub(super) broker: Broker,
    pub(super) store: Store,
    places: Places,
}

impl JobWriter {
    pub(super) fn new(broker: Broker, store: Store) -> Self {
        Self { broker, store, places: Places::new() }
    }

    /// A place for a large body, if one is needed.
    pub(super) async fn place_if(&self, is_needed: bool, caller: &Caller) -> Result<Option<Place>, Refusal> {
        self.places.take_if(is_needed, caller).await
    }

    /// Tells workers that jobs wait.
    pub(super) async fn wake(&self, wake: JobWake) {
        if let Err(error) = self.broker.wake_dispatch(&wake).await {
            tracing::debug!(%error, "http.wake_up_failed");
        }
    }
}

/// The places of those that make something of large bodies.
struct Places {
    all: Arc<Semaphore>,
    /// Only of tenants that have one, or wait for one.
    of_tenants: Mutex<HashMap<TenantId, Weak<Semaphore>>>,
}

impl Places {
    fn new() -> Self {
        Self { all: Arc::new(Semaphore::new(PLACES.0)), of_tenants: Mutex::default() }
    }

    /// A place, given back when dropped, if one is needed. The tenant's own first: whoever waits for that keeps nothing from
    /// others.
    async fn take_if(&self, is_needed: bool, caller: &Caller) -> Result<Option<Place>, Refusal> {
        if !is_needed {
            return Ok(None);
        }
        let of_tenant = {
            let mut of_tenants = self.of_tenants.lock();
            of_tenants.retain(|_, places| places.strong_count() > 0);
            let known = of_tenants.get(&caller.tenant).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let new = Arc::new(Semaphore::new(PLACES.1));
                of_tenants.insert(caller.tenant.clone(), Arc::downgrade(&new));
                new
            })
        };
        let mut places = Vec::with_capacity(2);
        for level in [of_tenant, self.all.clone()] {
            match tokio::time::timeout(WRITE_TIMEOUT, level.acquire_owned()).await {
                Ok(Ok(place)) => places.push(place),
                Ok(Err(_)) | Err(_) => {
                    let message = "Many large bodies are being read just now; nothing was made: try again shortly";
                    return Err(Refusal::new(ErrorCode::Unavailable, message));
                }
            }
        }
        Ok(Some(Place { _held: places }))
    }
}

/// A place, as long as it is kept.
pub(super) struct Place {
    _held: Vec<OwnedSemaphorePermit>,
}

/// What a body of so many bytes holds. A large one is read on a thread of its own: it takes a tenth of a second, and
/// everybody else's requests and sockets would wait for as long behind it.
pub(super) async fn parsed<T: Send + 'static>(
    length: usize,
    parse: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    if length <= SMALL_BODY {
        return parse();
    }
    tokio::task::spawn_blocking(parse).await.map_err(|_| Refusal::internal())?
}

/// What is said of each of many: enough to find it.
pub(super) fn made(job: &NewJob) -> Value {
    json!({"id": job.id, "campaign_id": job.campaign, "job_type": job.job_type, "status": "pending"})
}

/// A write: without an answer in time it may have been done all the same.
pub(super) async fn with_store_error<T>(
    write: impl Future<Output = Result<T, StoreError>>,
    what: &str,
) -> Result<T, Refusal> {
    let late = |_| {
        let message = format!(
            "The database did not answer in time; the {what} may have been made or changed: look before you send it again"
        );
        Refusal::new(ErrorCode::OutcomeUnknown, message)
    };
    Ok(tokio::time::timeout(WRITE_TIMEOUT, write).await.map_err(late)??)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn caller(tenant: &str) -> Caller {
        Caller {
            user: "ann".parse().expect("id"),
            tenant: tenant.parse().expect("id"),
            token_id: None,
            expires_at: 0,
            issued_at: None,
            permissions: None,
        }
    }

    #[tokio::test]
    async fn of_many_large_bodies_of_one_tenant_one_is_written_and_another_tenants_is_next() {
        let places = Places::new();
        let (acme, globex) = (caller("acme"), caller("globex"));
        let mut waiting: Vec<_> = (0..4).map(|_| Box::pin(places.take_if(true, &acme))).collect();
        let first = waiting.remove(0).now_or_never().expect("at once").expect("a place");
        for other in &mut waiting {
            assert!(other.now_or_never().is_none(), "the first of them is being written");
        }
        let of_globex = places.take_if(true, &globex).now_or_never().expect("at once").expect("a place");
        assert!(of_globex.is_some());
        assert!(places.take_if(false, &acme).now_or_never().expect("at once").expect("none is needed").is_none());
        drop(first);
        let second = waiting.remove(0).now_or_never().expect("its turn").expect("a place");
        assert!(second.is_some() && waiting.remove(0).now_or_never().is_none());
    }
}
