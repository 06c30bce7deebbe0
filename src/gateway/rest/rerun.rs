//! Running jobs again: new jobs with the same parameters. Nothing leaves its end.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::LOCATION;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::answer::{Answer, no_such, with_timeout};
use super::callers::Callers;
use super::input::object;
use super::job_writer::with_store_error;
use super::request::{Request, id};
use crate::auth::Caller;
use crate::broker::Broker;
use crate::broker::scripts::updates::JobWake;
use crate::domain::{
    AuditEntry, AuditEvent, CommandId, JobStatus, Permission, RequestId, Resource, ResourceId, ResourceKind,
};
use crate::http::Refusal;
use crate::protocol::ErrorCode;
use crate::protocol::client::MAX_REASON;
use crate::store::{Rerun, RerunFilter, RerunWish, Store};

/// Most jobs that one request runs again.
const MAX_RERUNS: u32 = 1_000;
/// Largest body: a thousand ids.
const MAX_BODY: usize = 256 * 1024;
/// What whoever may not is told that they may not do.
const RERUN_JOB: &str = "rerun job";
/// What the audit trail calls it.
const ACTION: &str = "rerun";

/// Runs jobs again.
pub(super) struct RerunApi {
    pub(super) callers: Callers,
    pub(super) broker: Broker,
    pub(super) store: Store,
}

/// What `POST /api/v1/jobs/{job_id}/rerun` takes.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct OneBody {
    request_id: Option<RequestId>,
    reason: Option<String>,
}

/// What `POST /api/v1/jobs/rerun` takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ManyBody {
    job_ids: Option<Vec<ResourceId>>,
    filter: Option<FilterBody>,
    #[serde(default)]
    dry_run: bool,
    request_id: Option<RequestId>,
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FilterBody {
    campaign_id: Option<ResourceId>,
    job_type: Option<String>,
    #[serde(default = "failed")]
    status: Vec<JobStatus>,
}

fn failed() -> Vec<JobStatus> {
    vec![JobStatus::Failed]
}

/// Who asks, why, and by which name.
struct Asked<'a> {
    caller: &'a Caller,
    request_id: Option<RequestId>,
    reason: Option<String>,
    address: Option<String>,
}

impl RerunApi {
    /// `POST /api/v1/jobs/{job_id}/rerun`.
    pub(super) async fn one(&self, request: &mut Request, text: &str) -> Result<Answer, Refusal> {
        let caller = self.caller(request).await?;
        request.no_query()?;
        let of = id(text)?;
        let body = self.body(request, &caller).await?;
        let body: OneBody = if body.is_empty() { OneBody::default() } else { object(&body)? };
        let asked = Asked {
            caller: &caller,
            request_id: key(request, body.request_id)?,
            reason: checked(body.reason)?,
            address: request.address(),
        };
        let wish = asked.wish(&of);
        let mut outcomes = self.rerun(&asked, std::slice::from_ref(&wish)).await?;
        let status = match outcomes.pop() {
            Some(Rerun::Made) => StatusCode::CREATED,
            Some(Rerun::Known) => StatusCode::OK,
            Some(Rerun::Refused(why)) => return Err(Refusal::new(ErrorCode::Conflict, why)),
            Some(Rerun::Missing) | None => return Err(no_such(ResourceKind::Job)),
        };
        let made = Resource::job(caller.tenant.clone(), wish.id);
        let row = with_timeout(self.store.job(&made)).await?.ok_or_else(|| no_such(ResourceKind::Job))?;
        Ok(Answer::json(status, &row).with(LOCATION, &format!("/api/v1/jobs/{}", row.id)))
    }

    /// `POST /api/v1/jobs/rerun`: the jobs that are named, or the newest that fit a filter and have not been run again.
    pub(super) async fn many(&self, request: &mut Request) -> Result<Answer, Refusal> {
        let caller = self.caller(request).await?;
        request.no_query()?;
        let body: ManyBody = object(&self.body(request, &caller).await?)?;
        let asked = Asked {
            caller: &caller,
            request_id: key(request, body.request_id)?,
            reason: checked(body.reason)?,
            address: request.address(),
        };
        let (ids, more) = match (body.job_ids, body.filter) {
            (Some(ids), None) => (named(ids)?, false),
            (None, Some(filter)) => self.fitting(&asked, filter).await?,
            _ => return Err(Refusal::invalid("Give either \"job_ids\" or \"filter\"")),
        };
        let wishes: Vec<RerunWish> = ids.iter().map(|of| asked.wish(of)).collect();
        let outcomes = match body.dry_run {
            true => with_timeout(self.store.can_rerun(&caller.tenant, &ids)).await?,
            false => self.rerun(&asked, &wishes).await?,
        };
        let is_good = |outcome: &&Rerun| matches!(outcome, Rerun::Made | Rerun::Known);
        let accepted = outcomes.iter().filter(is_good).count();
        let items: Vec<Value> =
            wishes.iter().zip(&outcomes).map(|(wish, outcome)| item(wish, outcome, body.dry_run)).collect();
        let answer = json!({
            "dry_run": body.dry_run,
            "total": outcomes.len(),
            "accepted": accepted,
            "refused": outcomes.len() - accepted,
            "more": more,
            "items": items,
        });
        let status = if body.dry_run || accepted == 0 { StatusCode::OK } else { StatusCode::CREATED };
        Ok(Answer::json(status, &answer))
    }

    async fn caller(&self, request: &Request) -> Result<Caller, Refusal> {
        self.callers.require_permission(request, &Permission::create(ResourceKind::Job), RERUN_JOB).await
    }

    async fn body(&self, request: &mut Request, caller: &Caller) -> Result<Bytes, Refusal> {
        let permission = Permission::create(ResourceKind::Job);
        self.callers.permitted_body(request, caller, &permission, RERUN_JOB, MAX_BODY).await
    }

    async fn fitting(&self, asked: &Asked<'_>, filter: FilterBody) -> Result<(Vec<ResourceId>, bool), Refusal> {
        if filter.status.is_empty() || filter.status.iter().any(|status| !status.is_final()) {
            return Err(Refusal::invalid(
                "\"status\" may name completed, failed and cancelled: what has not ended cannot be run again",
            ));
        }
        let filter = RerunFilter {
            tenant: asked.caller.tenant.clone(),
            status: filter.status,
            campaign: filter.campaign_id,
            job_type: filter.job_type,
        };
        let mut ids = with_timeout(self.store.ended_jobs(&filter, asked.name().as_deref(), MAX_RERUNS + 1)).await?;
        let more = ids.len() > MAX_RERUNS as usize;
        ids.truncate(MAX_RERUNS as usize);
        Ok((ids, more))
    }

    /// Asks the store, with an entry in the audit trail before and after: without the first nothing is done.
    async fn rerun(&self, asked: &Asked<'_>, wishes: &[RerunWish]) -> Result<Vec<Rerun>, Refusal> {
        let tenant = &asked.caller.tenant;
        let ids: Vec<ResourceId> = wishes.iter().map(|wish| wish.of.clone()).collect();
        let possible = with_timeout(self.store.can_rerun(tenant, &ids)).await?;
        let entries: Vec<Option<AuditEntry>> = wishes
            .iter()
            .zip(&possible)
            .map(|(wish, possible)| (*possible == Rerun::Made).then(|| asked.entry(&wish.of)))
            .collect();
        let accepted: Vec<_> = entries.iter().flatten().map(|entry| (AuditEvent::Accepted, entry.clone())).collect();
        self.broker.audit_append(tenant, &accepted).await?;
        let outcomes = with_store_error(
            self.store.rerun_jobs(tenant, wishes, &asked.caller.user, asked.name().as_deref()),
            "jobs",
        )
        .await;
        let mut ends = Vec::new();
        for (number, entry) in entries.into_iter().enumerate() {
            let Some(entry) = entry else { continue };
            let outcome = match &outcomes {
                Ok(outcomes) => outcomes.get(number),
                Err(_) => None,
            };
            ends.push(match outcome {
                Some(Rerun::Made) => (AuditEvent::Succeeded, said(entry, &format!("job {}", wishes[number].id))),
                Some(Rerun::Known) => {
                    (AuditEvent::Succeeded, said(entry, &format!("job {} was made before", wishes[number].id)))
                }
                Some(Rerun::Refused(why)) => (AuditEvent::Failed, said(entry, why)),
                Some(Rerun::Missing) => (AuditEvent::Failed, said(entry, "No such job")),
                None => (AuditEvent::Failed, said(entry, "The database did not answer; the job may have been made")),
            });
        }
        if let Err(error) = self.broker.audit_append(tenant, &ends).await {
            tracing::warn!(%error, "http.rerun_end_not_audited");
        }
        if let Err(error) = self.broker.wake_dispatch(&JobWake::jobs(wishes.len())).await {
            tracing::debug!(%error, "http.wake_up_failed");
        }
        outcomes
    }
}

fn said(entry: AuditEntry, outcome: &str) -> AuditEntry {
    AuditEntry { outcome: Some(outcome.to_owned()), ..entry }
}

impl Asked<'_> {
    /// What the request is called, if the client has given it a name: another user's is another one.
    fn name(&self) -> Option<String> {
        self.request_id.as_ref().map(|id| format!("{} {id}", self.caller.user.as_str()))
    }

    /// The same wish of the same user under the same name makes the same job.
    fn wish(&self, of: &ResourceId) -> RerunWish {
        let Some(key) = &self.request_id else { return RerunWish { of: of.clone(), id: ResourceId::generate() } };
        let hash = Sha256::digest(format!("rerun|{}|{}|{of}|{key}", self.caller.tenant, self.caller.user.as_str()));
        let hex = hex::encode(&hash[..16]);
        // As a UUID of version 8, which is for such ids.
        let text = format!("{}-{}-8{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..]);
        RerunWish { of: of.clone(), id: text.parse().unwrap_or_else(|_| ResourceId::generate()) }
    }

    fn entry(&self, of: &ResourceId) -> AuditEntry {
        AuditEntry {
            tenant_id: self.caller.tenant.to_string(),
            user_id: self.caller.user.to_string(),
            resource_kind: ResourceKind::Job.as_str().to_owned(),
            resource_id: of.to_string(),
            action: ACTION.to_owned(),
            command_id: Some(CommandId::generate().to_string()),
            request_id: self.request_id.as_ref().map(ToString::to_string),
            reason: self.reason.clone(),
            address: self.address.clone(),
            token_id: self.caller.token_id.clone(),
            ..AuditEntry::default()
        }
    }
}

fn item(wish: &RerunWish, outcome: &Rerun, is_dry: bool) -> Value {
    match outcome {
        Rerun::Made | Rerun::Known if is_dry => json!({"job_id": wish.of}),
        Rerun::Made | Rerun::Known => json!({"job_id": wish.of, "rerun": wish.id}),
        Rerun::Refused(why) => json!({"job_id": wish.of, "error": "conflict", "message": why}),
        Rerun::Missing => json!({"job_id": wish.of, "error": "not_found", "message": "No such job"}),
    }
}

fn named(ids: Vec<ResourceId>) -> Result<Vec<ResourceId>, Refusal> {
    if ids.is_empty() || ids.len() > MAX_RERUNS as usize {
        return Err(Refusal::invalid(format!("\"job_ids\" must have 1 to {MAX_RERUNS} ids")));
    }
    let mut seen = std::collections::HashSet::new();
    match ids.iter().find(|id| !seen.insert(*id)) {
        Some(twice) => Err(Refusal::invalid(format!("\"job_ids\" has {twice} twice"))),
        None => Ok(ids),
    }
}

/// The client's name for the request: in the body, or as a header.
fn key(request: &Request, in_body: Option<RequestId>) -> Result<Option<RequestId>, Refusal> {
    let Some(header) = request.headers().get("idempotency-key") else { return Ok(in_body) };
    let text = header.to_str().unwrap_or_default().trim().trim_matches('"');
    let wrong = "Idempotency-Key must be 1 to 128 letters, digits, '.', '_' or '-', and start with a letter or digit";
    let header: RequestId = text.parse().map_err(|_| Refusal::invalid(wrong))?;
    match in_body {
        Some(other) if other != header => {
            Err(Refusal::invalid("Idempotency-Key and \"request_id\" differ: give one of them"))
        }
        _ => Ok(Some(header)),
    }
}

fn checked(reason: Option<String>) -> Result<Option<String>, Refusal> {
    match reason {
        Some(reason) if reason.chars().count() > MAX_REASON => {
            Err(Refusal::invalid(format!("\"reason\" may have {MAX_REASON} characters at most")))
        }
        reason => Ok(reason),
    }
}
