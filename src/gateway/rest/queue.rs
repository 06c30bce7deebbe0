//! Commands that have no result yet, and commands that failed for good: looking at them, asking again, forgetting them.

use std::sync::Arc;

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::Answer;
use super::callers::Callers;
use super::query::PageQuery;
use super::request::{Request, id};
use crate::auth::Caller;
use crate::broker::Broker;
use crate::broker::scripts::failed::FailedCommand;
use crate::broker::scripts::waiting::WaitingCommand;
use crate::domain::{CommandId, Permission, Resource, ResourceKind, When};
use crate::gateway::commands::CommandSubmitter;
use crate::http::Refusal;
use crate::protocol::{CommandRequest, ErrorCode, server};

/// Jobs and campaigns whose waiting commands are shown at once: whoever has more of them looks for a cause, not for one of them.
const MAX_RESOURCES: usize = 200;

/// What `GET /api/v1/queue/waiting` takes.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WaitingQuery {
    /// Only those of this job or campaign.
    resource: Option<String>,
}

/// Lists commands that wait and those that failed for good, and asks for the latter again.
pub(super) struct QueueApi {
    pub(super) callers: Callers,
    pub(super) broker: Broker,
    pub(super) commands: Arc<CommandSubmitter>,
}

impl QueueApi {
    /// `GET /api/v1/queue/waiting`: commands without a result, of the resources that the caller may read; those that have
    /// waited for the longest time come first.
    pub(super) async fn waiting(&self, request: &Request) -> Result<Answer, Refusal> {
        let (caller, readable) = self.callers.reader_of_any(request, "read waiting commands").await?;
        let WaitingQuery { resource } = request.query()?;
        let mut resources = match resource {
            Some(text) => {
                let (tenant, id) = (caller.tenant, id(&text)?);
                ResourceKind::ALL.map(|kind| Resource { tenant: tenant.clone(), kind, id: id.clone() }).to_vec()
            }
            None => self.broker.resources_with_commands(&caller.tenant, MAX_RESOURCES + 1).await?,
        };
        let more = resources.len() > MAX_RESOURCES;
        resources.truncate(MAX_RESOURCES);
        resources.retain(|resource| readable.contains(&resource.kind));
        let found = self.broker.waiting_commands(&resources).await?;
        let shown: Vec<Value> = found.iter().map(waiting_entry).collect();
        Ok(Answer::json(StatusCode::OK, &json!({"waiting": shown, "more": more})))
    }

    /// `GET /api/v1/queue/failed`: of the resources that the caller may read, the newest first.
    pub(super) async fn list(&self, request: &Request) -> Result<Answer, Refusal> {
        let (caller, readable) = self.callers.reader_of_any(request, "read failed commands").await?;
        let PageQuery { limit, after } = request.query()?;
        let (limit, offset) = (limit as usize, after.and_then(|after| after.parse().ok()).unwrap_or(0_usize));
        let page = self.broker.failed(&caller.tenant, offset, limit).await?;
        let next = (page.len() == limit).then(|| (offset + limit).to_string());
        let shown: Vec<Value> = page.iter().filter(|one| readable.contains(&one.resource.kind)).map(entry).collect();
        Ok(Answer::json(StatusCode::OK, &json!({"failed": shown, "next": next})))
    }

    /// `GET /api/v1/queue/failed/{command_id}`.
    pub(super) async fn show(&self, request: &Request, text: &str) -> Result<Answer, Refusal> {
        let caller = self.callers.caller(request).await?;
        request.no_query()?;
        let found = self.find(&caller, text).await?;
        if !self.callers.policy.check(&caller, &Permission::read(found.resource.kind)).await? {
            return Err(Refusal::forbidden("read failed commands"));
        }
        Ok(Answer::json(StatusCode::OK, &entry(&found)))
    }

    /// `POST /api/v1/queue/failed/{command_id}/requeue`: the same action on the same resource, as a command of the
    /// caller's own, with the caller's permission and budget.
    pub(super) async fn requeue(&self, request: &Request, text: &str) -> Result<Answer, Refusal> {
        let caller = self.callers.caller(request).await?;
        request.no_query()?;
        let found = self.find(&caller, text).await?;
        let asked = CommandRequest {
            action: found.action,
            request_id: None,
            reason: Some(match &found.reason {
                Some(reason) => format!("again after {}: {reason}", found.command),
                None => format!("again after {}", found.command),
            }),
            when: When::Now,
        };
        // One id whoever asks how often: two operators who requeue the same at once cause one command.
        let again = self.broker.derived_command(found.command, &found.resource).await?;
        let address = request.address();
        let answer = self.commands.submit_as(again, &caller, &found.resource, &asked, address.as_deref()).await?;
        self.broker.drop_failed(&caller.tenant, found.command).await?;
        Ok(Answer::message(StatusCode::ACCEPTED, answer.message(&found.resource, &asked)))
    }

    /// `DELETE /api/v1/queue/failed/{command_id}`.
    pub(super) async fn forget(&self, request: &Request, text: &str) -> Result<Answer, Refusal> {
        let caller = self.callers.caller(request).await?;
        request.no_query()?;
        let found = self.find(&caller, text).await?;
        let permission = found.action.permission(found.resource.kind);
        if !self.callers.policy.check(&caller, &permission).await? {
            return Err(Refusal::new(
                ErrorCode::PermissionDenied,
                server::permission_denied_message(found.action, found.resource.kind),
            ));
        }
        if !self.broker.drop_failed(&caller.tenant, found.command).await? {
            return Err(gone()); // Somebody else was faster.
        }
        Ok(Answer::json(StatusCode::OK, &json!({"dropped": found.command.to_string()})))
    }

    async fn find(&self, caller: &Caller, text: &str) -> Result<FailedCommand, Refusal> {
        let command: CommandId = text.parse().map_err(|_| Refusal::invalid("A command_id is a UUID"))?;
        let found = self.broker.failed_command(&caller.tenant, command).await?;
        found.ok_or_else(gone)
    }
}

fn gone() -> Refusal {
    let message = "There is no such failed command: it was requeued or dropped, or it is older than a week";
    Refusal::new(ErrorCode::NotFound, message)
}

fn entry(one: &FailedCommand) -> Value {
    json!({
        "command_id": one.command.to_string(),
        one.resource.kind.id_field(): one.resource.id,
        "tenant_id": one.resource.tenant,
        "action": one.action.as_str(),
        "event": one.event,
        "error": one.error,
        "failed_at": server::format_time(one.failed_at),
        "user_id": one.user,
        "reason": one.reason,
    })
}

fn waiting_entry(one: &WaitingCommand) -> Value {
    json!({
        "command_id": one.command.to_string(),
        one.resource.kind.id_field(): one.resource.id,
        "tenant_id": one.resource.tenant,
        "action": one.action.as_str(),
        "state": if one.is_claimed { "claimed" } else { "waiting" },
        "accepted_at": server::format_time(one.accepted_at),
        "user_id": one.user,
        "reason": one.reason,
    })
}
