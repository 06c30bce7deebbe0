//! Commands over HTTP, and what became of them.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::LOCATION;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::answer::Answer;
use super::callers::Callers;
use super::input;
use super::query::WaitQuery;
use super::request::{Request, id};
use super::resources::exists;
use crate::broker::Broker;
use crate::domain::{Action, CommandId, Resource, ResourceKind};
use crate::gateway::commands::{CommandAnswer, CommandSubmitter};
use crate::http::Refusal;
use crate::protocol::ErrorCode;
use crate::protocol::client::MAX_FRAME;
use crate::protocol::frame::Frame;
use crate::store::Store;

/// First and longest pause between two looks for a result: most come within milliseconds, and a minute of
/// waiting must not cost thousands of looks.
const LOOKS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

const UNKNOWN: &str =
    "There is no such command: this job or campaign was not given it, or its result is not kept any more (a day)";

/// Takes commands and tells what became of them.
pub(super) struct CommandApi {
    pub(super) callers: Callers,
    pub(super) broker: Broker,
    pub(super) store: Store,
    pub(super) commands: Arc<CommandSubmitter>,
    pub(super) stopping: CancellationToken,
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
        let wait = request.query::<WaitQuery>()?.wait;
        let caller = self.callers.caller(request).await?;
        let resource = Resource { tenant: caller.tenant.clone(), kind, id: id(text)? };
        let body = request.body(MAX_FRAME).await?;
        let asked = input::command(&body, kind, action)?;
        if let Err(missing) = exists(&self.store, &resource).await {
            // Whoever may not do this learns that, and not what exists: the submission says so, and counts it.
            if self.callers.policy.check(&caller, &action.permission(kind)).await? {
                return Err(missing);
            }
        }
        let address = request.address();
        let answer = self.commands.submit(&caller, &resource, &asked, address.as_deref()).await;
        if let CommandAnswer::Refused(refusal) = answer {
            return Err(refusal);
        }
        let message = answer.message(&resource, &asked);
        let Some((command, known)) = answer.known() else { return Ok(Answer::message(StatusCode::ACCEPTED, message)) };
        if let (CommandAnswer::Scheduled { .. }, None) = (&answer, known) {
            // Nobody waits for a result that may be days away.
            return Ok(
                Answer::message(StatusCode::ACCEPTED, message).with(LOCATION, &format!("/api/v1/schedules/{command}"))
            );
        }
        let place = format!("/api/v1/{}/{}/commands/{command}", kind.plural(), resource.id);
        if let Some(wait) = wait {
            let result = match known {
                Some(result) => Some(result.message.clone()),
                // It has been accepted: whatever goes wrong with waiting, the ack is the truth to tell.
                None => self.wait_for(&resource, command, wait).await.unwrap_or(None),
            };
            if let Some(result) = result {
                return Ok(Answer::message(StatusCode::OK, result));
            }
        }
        Ok(Answer::message(StatusCode::ACCEPTED, message).with(LOCATION, &place))
    }

    /// `GET /api/v1/jobs/{job_id}/commands/{command_id}`.
    pub(super) async fn result(
        &self,
        request: &Request,
        kind: ResourceKind,
        text: &str,
        command: &str,
    ) -> Result<Answer, Refusal> {
        let wait = request.query::<WaitQuery>()?.wait;
        let caller = self.callers.reader(request, kind).await?;
        let resource = Resource { tenant: caller.tenant, kind, id: id(text)? };
        let command: CommandId = command.parse().map_err(|_| Refusal::invalid("A command_id is a UUID"))?;
        exists(&self.store, &resource).await?;
        let found = if self.broker.is_pending(&resource, command).await? {
            match self.wait_for(&resource, command, wait.unwrap_or_default()).await? {
                Some(result) => result,
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

    /// Looks for a result until it is there, the time is up, or the gateway leaves.
    async fn wait_for(
        &self,
        resource: &Resource,
        command: CommandId,
        wait: Duration,
    ) -> Result<Option<String>, Refusal> {
        let until = Instant::now() + wait;
        let mut pause = LOOKS.0;
        loop {
            // The record is asked, not the channel: a message that was lost costs nothing here.
            if let Some(result) = self.broker.result_of(resource, command).await? {
                return Ok(Some(result));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            tokio::select! {
                () = self.stopping.cancelled() => return Ok(None),
                () = tokio::time::sleep(pause.min(left)) => {}
            }
            pause = (pause * 2).min(LOOKS.1);
        }
    }
}
