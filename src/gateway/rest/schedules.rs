//! Scheduled commands over HTTP: what is to come, and taking it back.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::Rest;
use super::answer::{Answer, Failure};
use super::request::Request;
use crate::broker::scripts::schedules::Scheduled;
use crate::domain::{CommandId, Permission, ResourceKind};
use crate::gateway::schedules;
use crate::protocol::server;

/// `GET /api/v1/schedules`: of the resources that the caller may read, the next to run first.
pub(super) async fn list(rest: &Rest, request: &Request) -> Result<Answer, Failure> {
    request.query(&[])?;
    let caller = request.caller(rest).await?;
    let mut readable = Vec::new();
    for kind in ResourceKind::ALL {
        if rest.policy().check(&caller, &Permission::read(kind)).await? {
            readable.push(kind);
        }
    }
    if readable.is_empty() {
        return Err(Failure::forbidden("read scheduled commands"));
    }
    let all = rest.broker().schedules(&caller.tenant).await?;
    let shown: Vec<Value> = all.iter().filter(|one| readable.contains(&one.resource.kind)).map(entry).collect();
    Ok(Answer::json(StatusCode::OK, &json!({"schedules": shown})))
}

/// `DELETE /api/v1/schedules/{schedule_id}`.
pub(super) async fn withdraw(rest: &Rest, request: &Request, text: &str) -> Result<Answer, Failure> {
    request.query(&[])?;
    let caller = request.caller(rest).await?;
    let schedule: CommandId = text.parse().map_err(|_| Failure::invalid("A schedule_id is a UUID"))?;
    let address = request.address();
    let taken = schedules::withdraw(&rest.gateway, &caller, schedule, None, address.as_deref()).await;
    let taken = taken.map_err(|refusal| Failure::new(refusal.code, refusal.message))?;
    Ok(Answer::message(StatusCode::OK, server::withdrawn(taken.action, &taken.resource, schedule, None)))
}

fn entry(one: &Scheduled) -> Value {
    json!({
        "schedule_id": one.command.to_string(),
        one.resource.kind.id_field(): one.resource.id,
        "tenant_id": one.resource.tenant,
        "action": one.action.as_str(),
        "run_at": server::format_time(one.run_at),
        "asked_at": server::format_time(one.asked_at),
        "user_id": one.user,
        "request_id": one.request_id,
        "reason": one.reason,
    })
}
