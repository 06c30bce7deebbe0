//! Making jobs and campaigns, one or many; adding jobs to a campaign, and closing it.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::LOCATION;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::answer::{Answer, no_such, with_timeout};
use super::callers::Callers;
use super::input::{self, JobList, JobOwner};
use super::request::{Request, id, too_large};
use super::resources::exists;
use crate::auth::Caller;
use crate::broker::Broker;
use crate::broker::scripts::updates::Update;
use crate::domain::{Permission, Resource, ResourceId, ResourceKind};
use crate::http::Refusal;
use crate::protocol::{ErrorCode, server};
use crate::store::{Announcement, AnnouncementKind, NewJob, Store, StoreError};

/// Largest body that makes one job.
const JOB_BODY: usize = 1024 * 1024;
/// Largest body that makes a campaign, or many jobs.
const LARGE_BODY: usize = 16 * 1024 * 1024;
/// Campaigns, and lists of jobs, that are read and made at once: each holds its body of up to 16 MiB and its jobs in memory.
/// More of them wait their turn; their bodies wait in the network.
const LARGE_BODIES: usize = 4;
/// Longest wait for a write: ten thousand jobs take a while.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Makes jobs and campaigns.
pub(super) struct CreationApi {
    callers: Callers,
    broker: Broker,
    store: Store,
    large_bodies: Semaphore,
}

impl CreationApi {
    pub(super) fn new(callers: Callers, broker: Broker, store: Store) -> Self {
        Self { callers, broker, store, large_bodies: Semaphore::new(LARGE_BODIES) }
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
        let owner = JobOwner { tenant: &caller.tenant, user: &caller.user };
        let lines = request.is_json_lines();
        let small = request.announces_at_most(JOB_BODY);
        // Few large ones at a time: each may hold its whole body, and its jobs, in memory.
        let place =
            if small { None } else { Some(self.large_bodies.acquire().await.map_err(|_| Refusal::unavailable())?) };
        let body = request.body(if small { JOB_BODY } else { LARGE_BODY }).await?;
        let length = body.len();
        let jobs = input::jobs(&body, lines, campaign, &owner)?;
        drop(body);
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
        let Ok(_place) = self.large_bodies.acquire().await else { return Err(Refusal::unavailable()) };
        let body = request.body(LARGE_BODY).await?;
        let campaign = input::campaign(&body, &JobOwner { tenant: &caller.tenant, user: &caller.user })?;
        drop(body);
        let ids = std::slice::from_ref(&campaign.id);
        if !with_timeout(self.store.existing(&campaign.tenant, ResourceKind::Campaign, ids)).await?.is_empty() {
            // Said here in the client's words; of two at once the second still finds a conflict below.
            return Err(Refusal::new(ErrorCode::Conflict, format!("there is a campaign {} already", campaign.id)));
        }
        let row = with_store_error(self.store.create_campaign(&campaign), "campaign").await?;
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

/// What is said of each of many: enough to find it.
fn made(job: &NewJob) -> Value {
    json!({"id": job.id, "campaign_id": job.campaign, "job_type": job.job_type, "status": "pending"})
}

/// A write: without an answer in time it may have been done all the same.
async fn with_store_error<T>(write: impl Future<Output = Result<T, StoreError>>, what: &str) -> Result<T, Refusal> {
    let late = |_| {
        let message = format!(
            "The database did not answer in time; the {what} may have been made or changed: look before you send it again"
        );
        Refusal::new(ErrorCode::OutcomeUnknown, message)
    };
    Ok(tokio::time::timeout(WRITE_TIMEOUT, write).await.map_err(late)??)
}
