//! Commands over HTTP, and what became of them.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::LOCATION;

use super::answer::Answer;
use super::callers::Callers;
use super::input;
use super::query::WaitQuery;
use super::request::{Request, id};
use super::resources::exists;
use crate::broker::Broker;
use crate::domain::{Action, CommandId, Resource, ResourceKind};
use crate::gateway::commands::CommandSubmitter;
use crate::gateway::results::waiter::ResultWaiter;
use crate::http::Refusal;
use crate::protocol::ErrorCode;
use crate::protocol::client::MAX_FRAME;
use crate::protocol::frame::Frame;
use crate::store::Store;

const UNKNOWN: &str =
    "There is no such command: this job or campaign was not given it, or its result is not kept any more (a day)";

/// Takes commands and tells what became of them.
pub(super) struct CommandApi {
    pub(super) callers: Callers,
    pub(super) broker: Broker,
    pub(super) store: Store,
    pub(super) commands: Arc<CommandSubmitter>,
    pub(super) waiter: ResultWaiter,
}

impl CommandApi {
    /// `POST /api/v1/jobs/{job_id}/cancel` and its five like.
    pub(super) async fn command(
        &self,
        request: &mut Request,
        kind: ResourceKind,
        action: Action,
        text: &str,
    ) -> Result<Answer, Refusal> {
        let caller = self.callers.caller(request).await?;
        let wait = request.query::<WaitQuery>()?.wait;
        let resource = Resource { tenant: caller.tenant.clone(), kind, id: id(text)? };
        let body = self.callers.body(request, &caller, MAX_FRAME).await?;
        let asked = input::command(&body, action, &resource)?;
        if let Err(missing) = exists(&self.store, &resource).await {
            // Whoever may not do this learns that, and not what exists: the submission says so, and counts it.
            let may = self.callers.policy.check(&caller, &action.permission(kind)).await;
            if may.as_ref().map_or(true, |may| *may) {
                let refused = may.map_err(Refusal::from).and(Err::<Answer, _>(missing));
                return self.commands.revise(&caller, &resource, &asked, refused);
            }
        }
        let address = request.address();
        let accepted = self.commands.submit(&caller, &resource, &asked, address.as_deref()).await?;
        let command = accepted.command;
        let ack = Answer::message(StatusCode::ACCEPTED, accepted.message(&resource, &asked));
        if accepted.is_for_later() {
            return Ok(ack.with(LOCATION, &format!("/api/v1/schedules/{command}")));
        }
        if let Some(wait) = wait {
            let result = match accepted.result {
                Some(result) => Some(result),
                None => self.waiter.wait(&resource, command, wait).await,
            };
            if let Some(result) = result {
                return Ok(Answer::message(StatusCode::OK, result.message));
            }
        }
        Ok(ack.with(LOCATION, &format!("/api/v1/{}/{}/commands/{command}", kind.plural(), resource.id)))
    }

    /// `GET /api/v1/jobs/{job_id}/commands/{command_id}`.
    pub(super) async fn result(
        &self,
        request: &Request,
        kind: ResourceKind,
        text: &str,
        command: &str,
    ) -> Result<Answer, Refusal> {
        let caller = self.callers.require_read(request, kind).await?;
        let wait = request.query::<WaitQuery>()?.wait;
        let resource = Resource { tenant: caller.tenant, kind, id: id(text)? };
        let command: CommandId = command.parse().map_err(|_| Refusal::invalid("A command_id is a UUID"))?;
        exists(&self.store, &resource).await?;
        let found = if self.broker.is_pending(&resource, command).await? {
            match self.waiter.wait(&resource, command, wait.unwrap_or_default()).await {
                Some(result) => result.message,
                None => {
                    let workers = self.broker.live_workers(&resource.tenant).await?;
                    let pending = Frame::new("pending").resource(&resource).ascii("command_id", &command.to_string());
                    pending.json("workers_online", &workers.len()).end()
                }
            }
        } else {
            let result = self.broker.result_of(&resource, command).await?;
            result.ok_or_else(|| Refusal::new(ErrorCode::NotFound, UNKNOWN))?
        };
        Ok(Answer::message(StatusCode::OK, found))
    }
}
