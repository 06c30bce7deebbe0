//! Scheduled commands over HTTP: what is to come, and taking it back.

use std::sync::Arc;

use hyper::StatusCode;
use serde_json::{Value, json};

use super::answer::Answer;
use super::callers::Callers;
use super::request::Request;
use crate::broker::Broker;
use crate::broker::scripts::schedules::Scheduled;
use crate::domain::CommandId;
use crate::gateway::schedules::Schedules;
use crate::http::Refusal;
use crate::protocol::server;

/// Lists scheduled commands and takes them back.
pub(super) struct ScheduleApi {
    pub(super) callers: Callers,
    pub(super) broker: Broker,
    pub(super) schedules: Arc<Schedules>,
}

impl ScheduleApi {
    /// `GET /api/v1/schedules`: of the resources that the caller may read, the next to run first.
    pub(super) async fn list(&self, request: &Request) -> Result<Answer, Refusal> {
        let (caller, readable) = self.callers.reader_of_any(request, "read scheduled commands").await?;
        request.no_query()?;
        let all = self.broker.schedules(&caller.tenant).await?;
        let shown: Vec<Value> = all.iter().filter(|one| readable.contains(&one.resource.kind)).map(entry).collect();
        Ok(Answer::json(StatusCode::OK, &json!({"schedules": shown})))
    }

    /// `DELETE /api/v1/schedules/{schedule_id}`.
    pub(super) async fn withdraw(&self, request: &Request, text: &str) -> Result<Answer, Refusal> {
        let caller = self.callers.caller(request).await?;
        request.no_query()?;
        let schedule: CommandId = text.parse().map_err(|_| Refusal::invalid("A schedule_id is a UUID"))?;
        let address = request.address();
        let taken = self.schedules.withdraw(&caller, schedule, None, address.as_deref()).await?;
        Ok(Answer::message(StatusCode::OK, server::withdrawn(taken.action, &taken.resource, schedule, None)))
    }
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
