//! Jobs and campaigns: listing, making, showing.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::LOCATION;
use serde_json::{Value, json};

use super::Rest;
use super::answer::{Answer, Failure};
use super::input::{self, Owner, Query};
use super::request::{Request, id};
use crate::auth::Caller;
use crate::broker::scripts::updates::Live;
use crate::domain::{JobStatus, Permission, Resource, ResourceKind};
use crate::protocol::ErrorCode;
use crate::store::{CampaignFilter, JobFilter, StoreError};

/// Largest body that makes a job.
const JOB_BODY: usize = 1024 * 1024;
/// Largest body that makes a campaign.
const CAMPAIGN_BODY: usize = 16 * 1024 * 1024;
/// Longest wait for a read.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for a write: ten thousand jobs take a while.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// `GET /api/v1/jobs`, `GET /api/v1/campaigns`.
pub(super) async fn list(rest: &Rest, request: &Request, kind: ResourceKind) -> Result<Answer, Failure> {
    let known: &[&str] = match kind {
        ResourceKind::Job => &["status", "campaign_id", "job_type", "limit", "after"],
        ResourceKind::Campaign => &["limit", "after"],
    };
    let query = request.query(known)?;
    let (after, limit) = (query.after()?, query.limit()?);
    let caller = request.reader(rest, kind).await?;
    let tenant = caller.tenant;
    let (items, next) = match kind {
        ResourceKind::Job => {
            let filter = JobFilter {
                tenant,
                status: status(&query)?,
                campaign: query.get("campaign_id").map(id).transpose()?,
                job_type: query.get("job_type").map(str::to_owned),
                after,
                limit,
            };
            let page = timely(rest.store().jobs(&filter)).await?;
            (json!(page.items), page.next)
        }
        ResourceKind::Campaign => {
            let page = timely(rest.store().campaigns(&CampaignFilter { tenant, after, limit })).await?;
            (json!(page.items), page.next)
        }
    };
    Ok(Answer::json(StatusCode::OK, &json!({kind.plural(): items, "next": next})))
}

fn status(query: &Query) -> Result<Option<JobStatus>, Failure> {
    let Some(word) = query.get("status") else { return Ok(None) };
    JobStatus::from_word(word).map(Some).ok_or_else(|| {
        let all: Vec<&str> = JobStatus::ALL.iter().map(|status| status.word()).collect();
        Failure::invalid(format!("\"status\" must be one of {}", all.join(", ")))
    })
}

/// `POST /api/v1/jobs`, `POST /api/v1/campaigns`. Needs SQL only: workers find what waits there also
/// without the wake-up.
pub(super) async fn create(rest: &Rest, request: &mut Request, kind: ResourceKind) -> Result<Answer, Failure> {
    request.query(&[])?;
    let what = format!("create {}", kind.word());
    let caller = request.permitted(rest, &Permission::create(kind), &what).await?;
    let (id, row) = match kind {
        ResourceKind::Job => create_job(rest, request, &caller).await?,
        ResourceKind::Campaign => create_campaign(rest, request, &caller).await?,
    };
    if let Err(error) = rest.broker().wake_dispatch().await {
        tracing::debug!(%error, "http.wake_up_failed");
    }
    let place = format!("/api/v1/{}/{id}", kind.plural());
    Ok(Answer::json(StatusCode::CREATED, &row).with(LOCATION, &place))
}

async fn create_job(rest: &Rest, request: &mut Request, caller: &Caller) -> Result<(String, Value), Failure> {
    let body = request.body(JOB_BODY).await?;
    let job = input::job(&body, &Owner { tenant: &caller.tenant, user: &caller.user })?;
    let row = written(rest.store().create_job(&job), ResourceKind::Job).await?;
    Ok((row.id.to_string(), json!(row)))
}

async fn create_campaign(rest: &Rest, request: &mut Request, caller: &Caller) -> Result<(String, Value), Failure> {
    // Few at a time: each may hold its whole body, and its jobs, in memory.
    let Ok(_place) = rest.large_bodies.acquire().await else { return Err(Failure::unavailable()) };
    let body = request.body(CAMPAIGN_BODY).await?;
    let campaign = input::campaign(&body, &Owner { tenant: &caller.tenant, user: &caller.user })?;
    drop(body);
    let resource = Resource::campaign(campaign.tenant.clone(), campaign.id.clone());
    let row = match rest.store().campaign(&resource).await? {
        // Said here in the client's words; of two at once the second still finds a conflict below.
        Some(_) => Err(Failure::new(ErrorCode::Conflict, format!("there is a campaign {} already", campaign.id))),
        None => written(rest.store().create_campaign(&campaign), ResourceKind::Campaign).await,
    }?;
    Ok((row.id.to_string(), json!(row)))
}

/// `GET /api/v1/jobs/{id}`, `GET /api/v1/campaigns/{id}`: the row, and what Redis knows beyond it.
pub(super) async fn show(rest: &Rest, request: &Request, kind: ResourceKind, text: &str) -> Result<Answer, Failure> {
    request.query(&[])?;
    let caller = request.reader(rest, kind).await?;
    let resource = Resource { tenant: caller.tenant, kind, id: id(text)? };
    // In this order, so that the row is at least as new as `seq`.
    let live = rest.broker().live(&resource).await?;
    let row = match kind {
        ResourceKind::Job => timely(rest.store().job(&resource)).await?.map(|job| json!(job)),
        ResourceKind::Campaign => timely(rest.store().campaign(&resource)).await?.map(|campaign| json!(campaign)),
    };
    let mut row = row.ok_or_else(|| Failure::no_such(kind))?;
    complete(&mut row, &resource, live);
    Ok(Answer::json(StatusCode::OK, &row))
}

fn complete(row: &mut Value, resource: &Resource, live: Live) {
    row[resource.kind.id_field()] = json!(resource.id);
    if let Some(desired) = live.desired {
        row["desired"] = desired.into();
    }
    row["seq"] = live.seq.into();
}

/// Whether there is such a resource in the tenant.
pub(super) async fn exists(rest: &Rest, resource: &Resource) -> Result<(), Failure> {
    let found = match resource.kind {
        ResourceKind::Job => timely(rest.store().job(resource)).await?.is_some(),
        ResourceKind::Campaign => timely(rest.store().campaign(resource)).await?.is_some(),
    };
    if found { Ok(()) } else { Err(Failure::no_such(resource.kind)) }
}

/// A read that has to come in time.
async fn timely<T>(read: impl Future<Output = Result<T, StoreError>>) -> Result<T, Failure> {
    let late = |_| Failure::from(StoreError::Unavailable("no answer in time".to_owned()));
    Ok(tokio::time::timeout(READ_TIMEOUT, read).await.map_err(late)??)
}

/// A write: without an answer in time it may have been done all the same.
async fn written<T>(write: impl Future<Output = Result<T, StoreError>>, kind: ResourceKind) -> Result<T, Failure> {
    let late = |_| {
        let what = kind.word();
        let message = format!(
            "The database did not answer in time; the {what} may have been made: look before you send it again"
        );
        Failure::new(ErrorCode::OutcomeUnknown, message)
    };
    Ok(tokio::time::timeout(WRITE_TIMEOUT, write).await.map_err(late)??)
}
