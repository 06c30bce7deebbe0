//! Who, what, when: the caller, the live workers, the audit trail.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::Rest;
use super::answer::{Answer, Failure};
use super::request::{Request, id};
use crate::domain::{Permission, ResourceKind};
use crate::store::{AuditFilter, AuditRow};

/// `GET /api/v1/me`.
pub(super) async fn me(rest: &Rest, request: &Request) -> Result<Answer, Failure> {
    request.query(&[])?;
    let caller = request.caller(rest).await?;
    let permissions = rest.policy().held(&caller).await?;
    let body = json!({
        "user_id": caller.user,
        "tenant_id": caller.tenant,
        "expires_at": caller.expires_at,
        "permissions": permissions,
    });
    Ok(Answer::json(StatusCode::OK, &body))
}

/// `GET /api/v1/workers`.
pub(super) async fn workers(rest: &Rest, request: &Request) -> Result<Answer, Failure> {
    request.query(&[])?;
    let caller = request.reader(rest, ResourceKind::Job).await?;
    let workers = rest.broker().live_workers(&caller.tenant).await?;
    let workers: Vec<Value> = workers.into_iter().map(|id| json!({"id": id})).collect();
    Ok(Answer::json(StatusCode::OK, &json!({"workers": workers})))
}

/// `GET /api/v1/audit`: the caller's tenant only, whatever is asked.
pub(super) async fn audit(rest: &Rest, request: &Request) -> Result<Answer, Failure> {
    let query = request.query(&["resource", "limit", "after"])?;
    let caller = request.permitted(rest, &Permission::read_audit(), "read the audit trail").await?;
    let filter = AuditFilter {
        tenant: Some(caller.tenant),
        resource: query.get("resource").map(id).transpose()?,
        after: query.after()?,
        limit: query.limit()?,
    };
    let page = rest.store().audit(&filter).await?;
    let entries: Vec<Value> = page.items.iter().map(entry).collect();
    Ok(Answer::json(StatusCode::OK, &json!({"entries": entries, "next": page.next})))
}

/// One row. Row and entry both have an id and a time: the row's own go out, the stream's id stays inside.
fn entry(row: &AuditRow) -> Value {
    let mut value = serde_json::to_value(&row.entry).unwrap_or_default();
    value["id"] = row.id.into();
    value["at"] = row.time.clone().into();
    value["previous_hash"] = row.previous_hash.clone().into();
    value["hash"] = row.hash.clone().into();
    value
}
