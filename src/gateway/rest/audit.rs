//! Who, what, when: the caller, the audit trail.

use hyper::StatusCode;
use hyper::header::{CONTENT_DISPOSITION, HeaderName};
use serde::{Deserialize, Deserializer};
use serde_json::json;

use super::answer::{Answer, with_timeout};
use super::callers::Callers;
use super::query::{after, default_limit, limit, optional, parsed};
use super::request::Request;
use crate::domain::audit::parse_time_or_age;
use crate::domain::{Action, AuditEvent, Permission, ResourceId, UserId};
use crate::http::Refusal;
use crate::store::audit::export;
use crate::store::{AuditBreak, AuditFilter, AuditOrder, Store};

/// What `GET /api/v1/audit` takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AuditQuery {
    #[serde(default, deserialize_with = "parsed")]
    resource: Option<ResourceId>,
    #[serde(default, deserialize_with = "parsed")]
    user: Option<UserId>,
    #[serde(default, deserialize_with = "action")]
    action: Option<Action>,
    #[serde(default, deserialize_with = "parsed")]
    event: Option<AuditEvent>,
    #[serde(default, deserialize_with = "parsed")]
    since: Option<String>,
    #[serde(default, deserialize_with = "parsed")]
    until: Option<String>,
    #[serde(default, deserialize_with = "order")]
    order: Option<AuditOrder>,
    #[serde(default, deserialize_with = "parsed")]
    format: Option<String>,
    #[serde(default = "default_limit", deserialize_with = "limit")]
    limit: u32,
    #[serde(default, deserialize_with = "after")]
    after: Option<String>,
}

/// What `GET /api/v1/audit/verify` takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VerifyQuery {
    #[serde(default = "default_rows", deserialize_with = "rows")]
    rows: u32,
}

/// Rows that one request checks: read and hashed in some ten milliseconds.
const MAX_ROWS: u32 = 10_000;
/// Of more things that are wrong the first are told; `wheelhouse audit verify` prints all of them, in words.
const MAX_BREAKS: usize = 100;

fn default_rows() -> u32 {
    MAX_ROWS
}

fn rows<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let read = |text: &str| text.parse().ok().filter(|rows| (1..=MAX_ROWS).contains(rows));
    let rows = optional(deserializer, read, "\"rows\" must be a number from 1 to 10000")?;
    Ok(rows.unwrap_or(MAX_ROWS))
}

fn action<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Action>, D::Error> {
    optional(deserializer, Action::parse, "\"action\" must be cancel, pause or resume")
}

fn order<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<AuditOrder>, D::Error> {
    optional(deserializer, AuditOrder::parse, "\"order\" must be oldest or newest")
}

/// Answers questions about the caller and the audit trail.
pub(super) struct AuditApi {
    pub(super) callers: Callers,
    pub(super) store: Store,
}

impl AuditApi {
    /// `GET /api/v1/me`.
    pub(super) async fn me(&self, request: &Request) -> Result<Answer, Refusal> {
        let caller = self.callers.caller(request).await?;
        request.no_query()?;
        let permissions = self.callers.policy.permissions_of(&caller).await?;
        let body = json!({
            "user_id": caller.user,
            "tenant_id": caller.tenant,
            "expires_at": caller.expires_at,
            "permissions": permissions,
        });
        Ok(Answer::json(StatusCode::OK, &body))
    }

    /// `GET /api/v1/audit/verify`: the newest rows of the one chain that all tenants share. So it says where something is
    /// wrong, and nothing of what stands there.
    pub(super) async fn verify(&self, request: &Request) -> Result<Answer, Refusal> {
        self.callers.require_permission(request, &Permission::read_audit(), "read the audit trail").await?;
        let query = request.query::<VerifyQuery>()?;
        let mut breaks = Vec::new();
        let told = |found: AuditBreak| {
            if breaks.len() < MAX_BREAKS {
                breaks.push(json!({"kind": found.kind, "first": found.first, "last": found.last}));
            }
        };
        let (after, verified) = with_timeout(self.store.verify_newest_audit(query.rows, told)).await?;
        let body = json!({
            "intact": verified.breaks == 0,
            "rows": verified.rows,
            "after": after,
            "last": verified.end,
            "breaks": breaks,
            "checked_at": jiff::Timestamp::now().to_string(),
        });
        Ok(Answer::json(StatusCode::OK, &body))
    }

    /// `GET /api/v1/audit`: the caller's tenant only, whatever is asked.
    pub(super) async fn audit(&self, request: &Request) -> Result<Answer, Refusal> {
        let caller =
            self.callers.require_permission(request, &Permission::read_audit(), "read the audit trail").await?;
        let query = request.query::<AuditQuery>()?;
        let now = jiff::Timestamp::now().as_millisecond();
        let time = |name: &str, text: Option<String>| -> Result<Option<i64>, Refusal> {
            let read = text.map(|text| parse_time_or_age(&text, now)).transpose();
            read.map_err(|problem| Refusal::invalid(format!("{name:?}: {problem}")))
        };
        let filter = AuditFilter {
            tenant: Some(caller.tenant),
            resource: query.resource,
            user: query.user,
            action: query.action,
            event: query.event,
            since: time("since", query.since)?,
            until: time("until", query.until)?,
            order: query.order.unwrap_or_default(),
            after: query.after,
            limit: query.limit,
        };
        let format = query.format.as_deref().unwrap_or("json");
        if !["json", "csv", "jsonl"].contains(&format) {
            return Err(Refusal::invalid("\"format\" must be json, csv or jsonl"));
        }
        let page = self.store.audit(&filter).await?;
        let answer = match format {
            // The header once only, so that pages put together make one file.
            "csv" if filter.after.is_none() => file(CSV, export::csv_header() + &export::csv(&page.items)),
            "csv" => file(CSV, export::csv(&page.items)),
            "jsonl" => file(JSON_LINES, export::jsonl(&page.items)),
            _ => return Ok(Answer::json(StatusCode::OK, &json!({"entries": page.items, "next": page.next}))),
        };
        Ok(match page.next {
            Some(next) => answer.with(NEXT_CURSOR_HEADER, &next),
            None => answer,
        })
    }
}

const CSV: (&str, &str) = ("text/csv; charset=utf-8", "attachment; filename=\"audit.csv\"");
const JSON_LINES: (&str, &str) = ("application/x-ndjson", "attachment; filename=\"audit.jsonl\"");
/// Where these two have no place for `next`.
const NEXT_CURSOR_HEADER: HeaderName = HeaderName::from_static("x-next");

fn file((content_type, disposition): (&'static str, &str), body: String) -> Answer {
    Answer::text(content_type, body).with(CONTENT_DISPOSITION, disposition)
}
