//! Jobs and campaigns: listing, making, showing.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::LOCATION;
use serde_json::json;

use super::Rest;
use super::answer::{Answer, Failure};
use super::input::{self, Owner, Query};
use super::request::{Request, id};
use crate::auth::Caller;
use crate::domain::{JobStatus, Permission, Resource, ResourceId, ResourceKind};
use crate::gateway::snapshot::{self, SnapshotError};
use crate::protocol::ErrorCode;
use crate::store::{CampaignFilter, FailedItemFilter, JobFilter, StoreError};

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
    // Written straight from the rows, whose fields stand in the order of the table.
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
            (serde_json::to_string(&page.items), page.next)
        }
        ResourceKind::Campaign => {
            let page = timely(rest.store().campaigns(&CampaignFilter { tenant, after, limit })).await?;
            (serde_json::to_string(&page.items), page.next)
        }
    };
    let body = format!("{{\"{}\":{},\"next\":{}}}", kind.plural(), items.unwrap_or_default(), json!(next));
    Ok(Answer::message(StatusCode::OK, body))
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
    let (id, answer) = match kind {
        ResourceKind::Job => create_job(rest, request, &caller).await?,
        ResourceKind::Campaign => create_campaign(rest, request, &caller).await?,
    };
    if let Err(error) = rest.broker().wake_dispatch().await {
        tracing::debug!(%error, "http.wake_up_failed");
    }
    Ok(answer.with(LOCATION, &format!("/api/v1/{}/{id}", kind.plural())))
}

async fn create_job(rest: &Rest, request: &mut Request, caller: &Caller) -> Result<(ResourceId, Answer), Failure> {
    let body = request.body(JOB_BODY).await?;
    let job = input::job(&body, &Owner { tenant: &caller.tenant, user: &caller.user })?;
    let row = written(rest.store().create_job(&job), ResourceKind::Job).await?;
    Ok((row.id.clone(), Answer::json(StatusCode::CREATED, &row)))
}

async fn create_campaign(rest: &Rest, request: &mut Request, caller: &Caller) -> Result<(ResourceId, Answer), Failure> {
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
    Ok((row.id.clone(), Answer::json(StatusCode::CREATED, &row)))
}

/// `GET /api/v1/jobs/{id}`, `GET /api/v1/campaigns/{id}`: the row, and what Redis knows beyond it.
pub(super) async fn show(rest: &Rest, request: &Request, kind: ResourceKind, text: &str) -> Result<Answer, Failure> {
    request.query(&[])?;
    let caller = request.reader(rest, kind).await?;
    let resource = Resource { tenant: caller.tenant, kind, id: id(text)? };
    let reading = tokio::time::timeout(READ_TIMEOUT, snapshot::read(rest.broker(), rest.store(), &resource)).await;
    let snapshot = match reading {
        Ok(Ok(found)) => found.ok_or_else(|| Failure::no_such(kind))?,
        Ok(Err(SnapshotError::Broker(error))) => return Err(error.into()),
        Ok(Err(SnapshotError::Store(error))) => return Err(error.into()),
        Err(_) => return Err(Failure::unavailable()),
    };
    // What a socket would be told, but for the type.
    let head = format!("\"type\":\"{}_snapshot\",", kind.word());
    Ok(Answer::message(StatusCode::OK, snapshot.message().replacen(&head, "", 1)))
}

/// `GET /api/v1/jobs/{id}/failed_items`, in the order in which they failed.
pub(super) async fn failed_items(rest: &Rest, request: &Request, text: &str) -> Result<Answer, Failure> {
    let query = request.query(&["limit", "after"])?;
    let (after, limit) = (query.after()?, query.limit()?);
    let caller = request.reader(rest, ResourceKind::Job).await?;
    let job = Resource::job(caller.tenant, id(text)?);
    exists(rest, &job).await?;
    let page = timely(rest.store().failed_items(&FailedItemFilter { job, after, limit })).await?;
    Ok(Answer::json(StatusCode::OK, &json!({ "failed_items": page.items, "next": page.next })))
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
