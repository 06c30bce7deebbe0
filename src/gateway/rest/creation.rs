//! Making jobs and campaigns, one or many; adding jobs to a campaign, and closing it.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::LOCATION;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::answer::{Answer, no_such, with_timeout};
use super::callers::Callers;
use super::input::{self, JobList, JobOwner};
use super::request::{Request, id, too_large};
use super::resources::exists;
use crate::auth::Caller;
use crate::broker::Broker;
use crate::broker::scripts::updates::Update;
use crate::domain::{Permission, Resource, ResourceId, ResourceKind, TenantId};
use crate::http::Refusal;
use crate::protocol::{ErrorCode, server};
use crate::store::{Announcement, AnnouncementKind, NewJob, Store, StoreError};

/// Largest body that makes one job.
const JOB_BODY: usize = 1024 * 1024;
/// Largest body that makes a campaign, or many jobs.
const LARGE_BODY: usize = 16 * 1024 * 1024;
/// Large bodies from which campaigns and jobs are made at once, in all and for one tenant: each is in memory as its text and
/// as its jobs, and is one long write of the database, behind which everybody waits where only one may write (SQLite). So
/// one tenant writes one of them at a time, and the others are next. More of them wait their turn. A place is taken when
/// the body is here and not before: clients that send theirs slowly keep nobody waiting.
const PLACES: (usize, usize) = (3, 1);
/// A body of so many bytes needs no place, if it makes few jobs.
const SMALL_BODY: usize = 256 * 1024;
const FEW_JOBS: usize = 500;
/// Longest wait for a write: ten thousand jobs take a while.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Makes jobs and campaigns.
pub(super) struct CreationApi {
    callers: Callers,
    broker: Broker,
    store: Store,
    places: Places,
}

impl CreationApi {
    pub(super) fn new(callers: Callers, broker: Broker, store: Store) -> Self {
        Self { callers, broker, store, places: Places::new() }
    }

    /// `POST /api/v1/jobs`, `POST /api/v1/campaigns`. Needs SQL only: workers find what waits there also
    /// without the wake-up.
    pub(super) async fn create(&self, request: &mut Request, kind: ResourceKind) -> Result<Answer, Refusal> {
        let what = format!("create {}", kind.as_str());
        let caller = self.callers.require_permission(request, &Permission::create(kind), &what).await?;
        request.no_query()?;
        let answer = match kind {
            ResourceKind::Job => self.create_jobs(request, &caller, None).await?,
            ResourceKind::Campaign => self.create_campaign(request, &caller).await?,
        };
        self.wake().await;
        Ok(answer)
    }

    /// `POST /api/v1/campaigns/{id}/jobs`: as `POST /api/v1/jobs`, for jobs of this campaign.
    pub(super) async fn add_jobs(&self, request: &mut Request, text: &str) -> Result<Answer, Refusal> {
        let caller =
            self.callers.require_permission(request, &Permission::create(ResourceKind::Job), "create job").await?;
        request.no_query()?;
        let campaign = Resource::campaign(caller.tenant.clone(), id(text)?);
        exists(&self.store, &campaign).await?;
        let answer = self.create_jobs(request, &caller, Some(&campaign.id)).await?;
        self.wake().await;
        Ok(answer)
    }

    async fn wake(&self) {
        if let Err(error) = self.broker.wake_dispatch().await {
            tracing::debug!(%error, "http.wake_up_failed");
        }
    }

    async fn create_jobs(
        &self,
        request: &mut Request,
        caller: &Caller,
        campaign: Option<&ResourceId>,
    ) -> Result<Answer, Refusal> {
        let lines = request.is_json_lines();
        let small = request.announces_at_most(JOB_BODY);
        let body = request.body(if small { JOB_BODY } else { LARGE_BODY }).await?;
        let length = body.len();
        let mut place = self.places.take_if(length > SMALL_BODY, caller).await?;
        let (own_campaign, own_caller) = (campaign.cloned(), caller.clone());
        let jobs = parsed(length, move || {
            let owner = JobOwner { tenant: &own_caller.tenant, user: &own_caller.user };
            input::jobs(&body, lines, own_campaign.as_ref(), &owner)
        })
        .await?;
        if let (JobList::Many(jobs), None) = (&jobs, &place) {
            place = self.places.take_if(jobs.len() > FEW_JOBS, caller).await?;
        }
        let answer = match jobs {
            JobList::One(_) if length > JOB_BODY => return Err(too_large(JOB_BODY)),
            JobList::One(job) => {
                let row = with_store_error(self.store.create_job(&job), "job").await?;
                Answer::json(StatusCode::CREATED, &row).with(LOCATION, &format!("/api/v1/jobs/{}", row.id))
            }
            JobList::Many(jobs) => {
                with_store_error(self.store.create_jobs(&jobs), "jobs").await?;
                let made: Vec<Value> = jobs.iter().map(made).collect();
                Answer::json(StatusCode::CREATED, &json!({"jobs": made}))
            }
        };
        drop(place);
        Ok(answer)
    }

    async fn create_campaign(&self, request: &mut Request, caller: &Caller) -> Result<Answer, Refusal> {
        let body = request.body(LARGE_BODY).await?;
        let length = body.len();
        let mut place = self.places.take_if(length > SMALL_BODY, caller).await?;
        let own_caller = caller.clone();
        let campaign = parsed(length, move || {
            input::campaign(&body, &JobOwner { tenant: &own_caller.tenant, user: &own_caller.user })
        })
        .await?;
        if place.is_none() {
            place = self.places.take_if(campaign.jobs.len() > FEW_JOBS, caller).await?;
        }
        let ids = std::slice::from_ref(&campaign.id);
        if !with_timeout(self.store.existing(&campaign.tenant, ResourceKind::Campaign, ids)).await?.is_empty() {
            // Said here in the client's words; of two at once the second still finds a conflict below.
            return Err(Refusal::new(ErrorCode::Conflict, format!("there is a campaign {} already", campaign.id)));
        }
        let row = with_store_error(self.store.create_campaign(&campaign), "campaign").await?;
        drop(place);
        Ok(Answer::json(StatusCode::CREATED, &row).with(LOCATION, &format!("/api/v1/campaigns/{}", row.id)))
    }

    /// `POST /api/v1/campaigns/{id}/close`: it gets no more jobs, and is completed when those it has have ended. Closing it
    /// again changes nothing and answers the same.
    pub(super) async fn close(&self, request: &mut Request, text: &str) -> Result<Answer, Refusal> {
        let caller = self
            .callers
            .require_permission(request, &Permission::create(ResourceKind::Campaign), "close campaign")
            .await?;
        request.no_query()?;
        let campaign = Resource::campaign(caller.tenant, id(text)?);
        let closed = with_store_error(self.store.close_campaign(&campaign), "campaign").await?;
        let closed = closed.ok_or_else(|| no_such(ResourceKind::Campaign))?;
        if closed.has_completed {
            // That this is owed stands in SQL: where it cannot be said here, a worker says it.
            let message = server::campaign_status(&closed.campaign, None);
            let update = Update { run: None, message, progress: None, desired: None };
            if self.broker.publish_update(&campaign, &update).await.is_ok() {
                let said = Announcement { resource: campaign, about: AnnouncementKind::Status, run: 0 };
                if let Err(error) = self.store.mark_announced(&[said]).await {
                    tracing::debug!(%error, "http.announcement_not_crossed_off");
                }
            }
        }
        Ok(Answer::json(StatusCode::OK, &closed.campaign))
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
struct Place {
    _held: Vec<OwnedSemaphorePermit>,
}

/// What a body of so many bytes holds. A large one is read on a thread of its own: it takes a tenth of a second, and
/// everybody else's requests and sockets would wait for as long behind it.
async fn parsed<T: Send + 'static>(
    length: usize,
    parse: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    if length <= SMALL_BODY {
        return parse();
    }
    tokio::task::spawn_blocking(parse).await.map_err(|_| Refusal::internal())?
}

/// What is said of each of many: enough to find it.
fn made(job: &NewJob) -> Value {
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
