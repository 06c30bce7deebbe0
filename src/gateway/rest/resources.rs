//! Jobs and campaigns: listing and showing.

use std::sync::Arc;

use hyper::StatusCode;
use serde_json::json;

use super::answer::{Answer, READ_TIMEOUT, no_such, with_timeout};
use super::callers::Callers;
use super::fields::Fields;
use super::list_query::{CampaignListQuery, JobListQuery};
use super::query::PageQuery;
use super::request::{Request, id};
use super::totals::Totals;
use crate::domain::{Resource, ResourceKind};
use crate::gateway::job_types::JobTypes;
use crate::gateway::snapshot::{SnapshotError, SnapshotReader};
use crate::http::Refusal;
use crate::store::{FailedItemFilter, Store};

/// Bytes of parameters and results of one page of a list.
const MAX_CONTENT_BYTES: usize = 4 * 1024 * 1024;

/// Lists and shows jobs and campaigns.
pub(super) struct ResourceApi {
    pub(super) callers: Callers,
    pub(super) store: Store,
    pub(super) snapshots: SnapshotReader,
    pub(super) job_types: Arc<JobTypes>,
    pub(super) totals: Arc<Totals>,
}

impl ResourceApi {
    /// `GET /api/v1/jobs`, `GET /api/v1/campaigns`.
    pub(super) async fn list(&self, request: &Request, kind: ResourceKind) -> Result<Answer, Refusal> {
        let tenant = self.callers.require_read(request, kind).await?.tenant;
        let (items, next, searched, totals) = match kind {
            ResourceKind::Job => {
                let (filter, view) = request.query::<JobListQuery>()?.into_filter(tenant)?;
                let fields = Fields::requested(view.fields.as_deref())?;
                let mut page = match fields.with_contents() {
                    true => with_timeout(self.store.jobs_with_contents(&filter, MAX_CONTENT_BYTES)).await?,
                    false => with_timeout(self.store.jobs(&filter)).await?,
                };
                self.job_types.explain(&filter.tenant, &mut page.items).await;
                let totals = match view.totals {
                    true => Some(self.totals.of(&filter.tenant, filter.campaign.as_ref()).await?),
                    false => None,
                };
                (fields.rows(&page.items), page.next, page.searched, totals)
            }
            ResourceKind::Campaign => {
                let filter = request.query::<CampaignListQuery>()?.into_filter(tenant)?;
                let page = with_timeout(self.store.campaigns(&filter)).await?;
                (serde_json::to_string(&page.items).unwrap_or_default(), page.next, page.searched, None)
            }
        };
        let mut body = format!("{{\"{}\":{items},\"next\":{}", kind.plural(), json!(next));
        if let Some(searched) = searched {
            body.push_str(&format!(",\"searched\":{searched}"));
        }
        if let Some(totals) = totals {
            body.push_str(&format!(",\"totals\":{}", json!(totals)));
        }
        body.push('}');
        Ok(Answer::message(StatusCode::OK, body))
    }

    /// `GET /api/v1/jobs/{id}`, `GET /api/v1/campaigns/{id}`: the row, and what Redis knows beyond it.
    pub(super) async fn show(&self, request: &Request, kind: ResourceKind, text: &str) -> Result<Answer, Refusal> {
        let caller = self.callers.require_read(request, kind).await?;
        request.no_query()?;
        let resource = Resource { tenant: caller.tenant, kind, id: id(text)? };
        let reading = tokio::time::timeout(READ_TIMEOUT, self.snapshots.read(&resource)).await;
        let snapshot = match reading {
            Ok(Ok(found)) => found.ok_or_else(|| no_such(kind))?,
            Ok(Err(SnapshotError::Broker(error))) => return Err(error.into()),
            Ok(Err(SnapshotError::Store(error))) => return Err(error.into()),
            Err(_) => return Err(Refusal::unavailable()),
        };
        let snapshot = self.snapshots.explain(snapshot).await;
        Ok(Answer::message(StatusCode::OK, snapshot.state()))
    }

    /// `GET /api/v1/jobs/{id}/failed_items`, in the order in which they failed.
    pub(super) async fn failed_items(&self, request: &Request, text: &str) -> Result<Answer, Refusal> {
        let caller = self.callers.require_read(request, ResourceKind::Job).await?;
        let PageQuery { limit, after } = request.query()?;
        let job = Resource::job(caller.tenant, id(text)?);
        exists(&self.store, &job).await?;
        let page = with_timeout(self.store.failed_items(&FailedItemFilter { job, after, limit })).await?;
        Ok(Answer::json(StatusCode::OK, &json!({ "failed_items": page.items, "next": page.next })))
    }

    /// `GET /api/v1/jobs/{id}/error`: all of it, where the row shows the beginning and the end.
    pub(super) async fn error(&self, request: &Request, text: &str) -> Result<Answer, Refusal> {
        let caller = self.callers.require_read(request, ResourceKind::Job).await?;
        request.no_query()?;
        let job = Resource::job(caller.tenant, id(text)?);
        let error = with_timeout(self.store.job_error(&job)).await?.ok_or_else(|| no_such(job.kind))?;
        Ok(Answer::json(StatusCode::OK, &json!({"job_id": job.id, "error_message": error})))
    }
}

/// Whether there is such a resource in the tenant.
pub(super) async fn exists(store: &Store, resource: &Resource) -> Result<(), Refusal> {
    let ids = std::slice::from_ref(&resource.id);
    let found = with_timeout(store.existing(&resource.tenant, resource.kind, ids)).await?;
    if found.contains(&resource.id) { Ok(()) } else { Err(no_such(resource.kind)) }
}
