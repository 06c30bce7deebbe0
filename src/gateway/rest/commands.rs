//! Commands over HTTP, and what became of them.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::LOCATION;
use tokio::time::Instant;

use super::Rest;
use super::answer::{Answer, Failure};
use super::input;
use super::request::{Request, id};
use super::resources;
use crate::domain::{Action, CommandId, Resource, ResourceKind};
use crate::gateway::commands::{CommandAnswer, submit};
use crate::protocol::ErrorCode;
use crate::protocol::client::MAX_FRAME;
use crate::protocol::frame::Frame;

/// First and longest pause between two looks for a result: most come within milliseconds, and a minute of
/// waiting must not cost thousands of looks.
const LOOKS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

/// `POST /api/v1/jobs/{job_id}/cancel` and its five like.
pub(super) async fn command(
    rest: &Rest,
    request: &mut Request,
    kind: ResourceKind,
    action: Action,
    text: &str,
) -> Result<Answer, Failure> {
    let wait = request.query(&["wait"])?.wait()?;
    let caller = request.caller(rest).await?;
    let resource = Resource { tenant: caller.tenant.clone(), kind, id: id(text)? };
    let body = request.body(MAX_FRAME).await?;
    let asked = input::command(&body, kind, action)?;
    if let Err(missing) = resources::exists(rest, &resource).await {
        // Whoever may not do this learns that, and not what exists: the submission says so, and counts it.
        if rest.policy().check(&caller, &action.permission(kind)).await? {
            return Err(missing);
        }
    }
    let address = request.address();
    let answer = submit(&rest.gateway, &caller, &resource, &asked, address.as_deref()).await;
    if let CommandAnswer::Refused(refusal) = &answer {
        let request_id = asked.request_id.as_ref().map(|id| id.as_str().to_owned());
        let failure = Failure::new(refusal.code, refusal.message.clone());
        return Err(failure.retry_after(refusal.retry_after).request_id(request_id));
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
            Some(result) => Some(result.to_owned()),
            // It has been accepted: whatever goes wrong with waiting, the ack is the truth to tell.
            None => wait_for(rest, &resource, command, wait).await.unwrap_or(None),
        };
        if let Some(result) = result {
            return Ok(Answer::message(StatusCode::OK, result));
        }
    }
    Ok(Answer::message(StatusCode::ACCEPTED, message).with(LOCATION, &place))
}

const UNKNOWN: &str =
    "There is no such command: this job or campaign was not given it, or its result is not kept any more (a day)";

/// `GET /api/v1/jobs/{job_id}/commands/{command_id}`.
pub(super) async fn result(
    rest: &Rest,
    request: &Request,
    kind: ResourceKind,
    text: &str,
    command: &str,
) -> Result<Answer, Failure> {
    let wait = request.query(&["wait"])?.wait()?;
    let caller = request.reader(rest, kind).await?;
    let resource = Resource { tenant: caller.tenant, kind, id: id(text)? };
    let command: CommandId = command.parse().map_err(|_| Failure::invalid("A command_id is a UUID"))?;
    resources::exists(rest, &resource).await?;
    let found = if rest.broker().is_pending(&resource, command).await? {
        match wait_for(rest, &resource, command, wait.unwrap_or_default()).await? {
            Some(result) => result,
            None => {
                let workers = rest.broker().live_workers(&resource.tenant).await?;
                let pending = Frame::new("pending").resource(&resource).ascii("command_id", &command.to_string());
                pending.json("workers_online", &workers.len()).end()
            }
        }
    } else {
        let result = rest.broker().result_of(&resource, command).await?;
        result.ok_or_else(|| Failure::new(ErrorCode::NotFound, UNKNOWN))?
    };
    Ok(Answer::message(StatusCode::OK, found))
}

/// Looks for a result until it is there, the time is up, or the gateway leaves.
async fn wait_for(
    rest: &Rest,
    resource: &Resource,
    command: CommandId,
    wait: Duration,
) -> Result<Option<String>, Failure> {
    let until = Instant::now() + wait;
    let mut pause = LOOKS.0;
    loop {
        // The record is asked, not the channel: a message that was lost costs nothing here.
        if let Some(result) = rest.broker().result_of(resource, command).await? {
            return Ok(Some(result));
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        tokio::select! {
            () = rest.stopping().cancelled() => return Ok(None),
            () = tokio::time::sleep(pause.min(left)) => {}
        }
        pause = (pause * 2).min(LOOKS.1);
    }
}
