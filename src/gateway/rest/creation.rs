//! Making jobs and campaigns, one or many; adding jobs to a campaign, and closing it.

use hyper::StatusCode;
use hyper::header::LOCATION;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, no_such, with_timeout};
use super::callers::Callers;
use super::input::{self, JobList, JobOwner};
use super::job_lines;
use super::job_writer::{
    CREATE_JOB, FEW_JOBS, JOB_BODY, JobWriter, LARGE_BODY, SMALL_BODY, made, parsed, with_store_error,
};
use super::query::parsed as parsed_value;
use super::request::{Request, id, too_large};
use super::resources::exists;
use crate::auth::Caller;
use crate::broker::Broker;
use crate::broker::scripts::updates::{JobWake, Update};
use crate::domain::{Permission, RequestId, Resource, ResourceId, ResourceKind};
use crate::http::Refusal;
use crate::protocol::{ErrorCode, server};
use crate::store::{Announcement, AnnouncementKind, Store};

/// Makes jobs and campaigns.
pub(super) struct CreationApi {
    callers: Callers,
    writer: JobWriter,
}

impl CreationApi {
    pub(super) fn new(callers: Callers, broker: Broker, store: Store) -> Self {
        Self { callers, writer: JobWriter::new(broker, store) }
    }

    /// `POST /api/v1/jobs`, `POST /api/v1/campaigns`. Needs SQL only: workers find what waits there also
    /// without the wake-up.
    pub(super) async fn create(&self, request: &mut Request, kind: ResourceKind) -> Result<Answer, Refusal> {
        let what = format!("create {}", kind.as_str());
        let caller = self.callers.require_permission(request, &Permission::create(kind), &what).await?;
        match kind {
            ResourceKind::Job => self.create_jobs(request, &caller, None).await,
            ResourceKind::Campaign => {
                request.no_query()?;
                let made = self.create_campaign(request, &caller).await?;
                self.writer.wake(JobWake::Any).await;
                Ok(made)
            }
        }
    }

    /// `POST /api/v1/campaigns/{id}/jobs`: as `POST /api/v1/jobs`, for jobs of this campaign.
    pub(super) async fn add_jobs(&self, request: &mut Request, text: &str) -> Result<Answer, Refusal> {
        let caller =
            self.callers.require_permission(request, &Permission::create(ResourceKind::Job), CREATE_JOB).await?;
        let campaign = Resource::campaign(caller.tenant.clone(), id(text)?);
        exists(&self.writer.store, &campaign).await?;
        self.create_jobs(request, &caller, Some(&campaign.id)).await
    }

    async fn create_jobs(
        &self,
        request: &mut Request,
        caller: &Caller,
        campaign: Option<&ResourceId>,
    ) -> Result<Answer, Refusal> {
        let LinesQuery { request_id } = request.query()?;
        if request.is_json_lines() {
            return job_lines::create(&self.callers, &self.writer, request, caller, campaign, request_id).await;
        }
        if request_id.is_some() {
            let message = "\"request_id\" is for jobs that are sent as lines, with the Content-Type application/x-ndjson; \
                           a job that is sent by itself is made once by its \"id\"";
            return Err(Refusal::invalid(message));
        }
        let small = request.announces_at_most(JOB_BODY);
        let limit = if small { JOB_BODY } else { LARGE_BODY };
        let (permission, what) = (Permission::create(ResourceKind::Job), CREATE_JOB);
        let body = self.callers.permitted_body(request, caller, &permission, what, limit).await?;
        let length = body.len();
        let mut place = self.writer.place_if(length > SMALL_BODY, caller).await?;
        let (own_campaign, own_caller) = (campaign.cloned(), caller.clone());
        let jobs = parsed(length, move || {
            let owner = JobOwner { tenant: &own_caller.tenant, user: &own_caller.user };
            input::jobs(&body, own_campaign.as_ref(), &owner)
        })
        .await?;
        if let (JobList::Many(jobs), None) = (&jobs, &place) {
            place = self.writer.place_if(jobs.len() > FEW_JOBS, caller).await?;
        }
        let mut count = 1;
        let answer = match jobs {
            JobList::One(_) if length > JOB_BODY => return Err(too_large(JOB_BODY)),
            JobList::One(job) => {
                let row = with_store_error(self.writer.store.create_job(&job), "job").await?;
                Answer::json(StatusCode::CREATED, &row).with(LOCATION, &format!("/api/v1/jobs/{}", row.id))
            }
            JobList::Many(jobs) => {
                with_store_error(self.writer.store.create_jobs(&jobs), "jobs").await?;
                count = jobs.len();
                let made: Vec<Value> = jobs.iter().map(made).collect();
                Answer::json(StatusCode::CREATED, &json!({"jobs": made}))
            }
        };
        drop(place);
        self.writer.wake(JobWake::jobs(count)).await;
        Ok(answer)
    }

    async fn create_campaign(&self, request: &mut Request, caller: &Caller) -> Result<Answer, Refusal> {
        let (permission, what) = (Permission::create(ResourceKind::Campaign), "create campaign");
        let body = self.callers.permitted_body(request, caller, &permission, what, LARGE_BODY).await?;
        let length = body.len();
        let mut place = self.writer.place_if(length > SMALL_BODY, caller).await?;
        let own_caller = caller.clone();
        let campaign = parsed(length, move || {
            input::campaign(&body, &JobOwner { tenant: &own_caller.tenant, user: &own_caller.user })
        })
        .await?;
        if place.is_none() {
            place = self.writer.place_if(campaign.jobs.len() > FEW_JOBS, caller).await?;
        }
        let ids = std::slice::from_ref(&campaign.id);
        if !with_timeout(self.writer.store.existing(&campaign.tenant, ResourceKind::Campaign, ids)).await?.is_empty() {
            // Said here in the client's words; of two at once the second still finds a conflict below.
            return Err(Refusal::new(ErrorCode::Conflict, format!("there is a campaign {} already", campaign.id)));
        }
        let row = with_store_error(self.writer.store.create_campaign(&campaign), "campaign").await?;
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
        let closed = with_store_error(self.writer.store.close_campaign(&campaign), "campaign").await?;
        let closed = closed.ok_or_else(|| no_such(ResourceKind::Campaign))?;
        if closed.has_completed {
            // That this is owed stands in SQL: where it cannot be said here, a worker says it.
            let message = server::campaign_status(&closed.campaign, None);
            let update = Update { message, desired: None };
            if self.writer.broker.publish_update(&campaign, &update).await.is_ok() {
                let said = Announcement { resource: campaign, about: AnnouncementKind::Status, run: 0 };
                if let Err(error) = self.writer.store.mark_announced(&[said]).await {
                    tracing::debug!(%error, "http.announcement_not_crossed_off");
                }
            }
        }
        Ok(Answer::json(StatusCode::OK, &closed.campaign))
    }
}

/// What the paths take that make jobs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LinesQuery {
    #[serde(default, deserialize_with = "parsed_value")]
    request_id: Option<RequestId>,
}
