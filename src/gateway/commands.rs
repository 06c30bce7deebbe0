//! The one way in for a command, whichever way it came: permission, submission, answer, log and metrics.

use crate::auth::Caller;
use crate::broker::BrokerError;
use crate::broker::scripts::submit::{Origin, Submission, SubmitLimits, Submitted};
use crate::domain::{CommandId, Resource, ResourceKind};
use crate::protocol::frame::Frame;
use crate::protocol::{CommandRequest, ErrorCode, server};
use crate::telemetry::metrics;

use super::Gateway;
use super::reply::{Refusal, UNAVAILABLE};

/// Reads of SQL for one command whose cached permissions expire, or are invalidated, as fast as they are read.
const PERMISSION_READS: u32 = 3;

/// What a command is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandAnswer {
    /// Recorded, on its way to a worker.
    Accepted {
        /// Its id.
        command: CommandId,
        /// Workers alive for the tenant.
        workers_online: i64,
    },
    /// The same request was accepted before: answered as it was then.
    Repeated {
        /// The id of the first time.
        command: CommandId,
        /// As it was then.
        workers_online: i64,
        /// Its result message, if it has one already, and when it ended (Unix ms by Redis's clock).
        result: Option<(String, i64)>,
    },
    /// Not accepted. Nothing was done, unless the code is `outcome_unknown`.
    Refused(Refusal),
}

impl CommandAnswer {
    /// The message for a socket.
    pub fn message(&self, resource: &Resource, request: &CommandRequest) -> String {
        let id = request.request_id.as_ref().map(|id| id.as_str());
        match self {
            Self::Accepted { command, workers_online } | Self::Repeated { command, workers_online, .. } => {
                server::requested(request.action, resource, *command, *workers_online, id)
            }
            Self::Refused(refusal) => match refusal.retry_after {
                Some(seconds) => Frame::new("error")
                    .plain("error", refusal.code.word())
                    .text("message", &refusal.message)
                    .number("retry_after", seconds)
                    .request(id)
                    .end(),
                None => server::error(refusal.code, &refusal.message, id),
            },
        }
    }

    fn refused(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::Refused(Refusal::new(code, message))
    }
}

/// Submits a command in a caller's name. `address` is the client's, for the audit trail.
pub async fn submit(
    gateway: &Gateway,
    caller: &Caller,
    resource: &Resource,
    request: &CommandRequest,
    address: Option<&str>,
) -> CommandAnswer {
    let submission = Submission {
        command: CommandId::generate(),
        resource: resource.clone(),
        action: request.action,
        user: caller.user.clone(),
        request: request.request_id.clone(),
        reason: request.reason.clone(),
        origin: Origin { address: address.map(str::to_owned), token_id: caller.token_id.clone() },
        grant: gateway.policy().grant(caller, &request.action.permission(resource.kind)),
    };
    metrics::command_received(resource.kind, request.action);
    let answer = decide(gateway, &submission).await;
    if let CommandAnswer::Refused(refusal) = &answer {
        metrics::command_refused(resource.kind, request.action, refusal.code);
    }
    if let CommandAnswer::Accepted { command, .. } = &answer {
        gateway.results().follow(resource, request.action, *command, gateway.broker().redis_now_ms(&resource.tenant));
    }
    log(caller, &submission, &answer);
    answer
}

async fn decide(gateway: &Gateway, submission: &Submission) -> CommandAnswer {
    let health = gateway.health();
    if !health.redis() || !health.sql() {
        return CommandAnswer::Refused(Refusal::unavailable());
    }
    let limits = SubmitLimits {
        commands_per_minute: gateway.settings().limits.commands_per_minute,
        backlog_per_tenant: gateway.settings().limits.backlog_per_tenant,
    };
    for _ in 0..=PERMISSION_READS {
        let submitted = match gateway.broker().submit(submission, limits).await {
            Ok(submitted) => submitted,
            Err(BrokerError::Unavailable(_)) => return CommandAnswer::Refused(Refusal::unavailable()),
            Err(BrokerError::Unknown(error)) => {
                tracing::warn!(command_id = %submission.command, error, "websocket.command_outcome_unknown");
                return CommandAnswer::refused(ErrorCode::OutcomeUnknown, OUTCOME_UNKNOWN);
            }
            Err(BrokerError::Refused(error)) => {
                tracing::error!(command_id = %submission.command, error, "websocket.command_submit_failed");
                return CommandAnswer::refused(ErrorCode::Internal, INTERNAL);
            }
        };
        let kind = submission.resource.kind;
        return match submitted {
            Submitted::Accepted { workers_online } => {
                CommandAnswer::Accepted { command: submission.command, workers_online }
            }
            // The first answer got lost on the way and the submission was sent again: to the client it is new.
            Submitted::Repeated { command, workers_online, result: None } if command == submission.command => {
                CommandAnswer::Accepted { command, workers_online }
            }
            Submitted::Repeated { command, workers_online, result } => {
                CommandAnswer::Repeated { command, workers_online, result }
            }
            Submitted::Conflict => CommandAnswer::refused(ErrorCode::RequestConflict, CONFLICT),
            Submitted::Denied => {
                CommandAnswer::refused(ErrorCode::PermissionDenied, server::denied_text(submission.action, kind))
            }
            Submitted::RateLimited { retry_after } => CommandAnswer::Refused(Refusal {
                code: ErrorCode::RateLimitExceeded,
                message: server::rate_limited_text(limits.commands_per_minute),
                retry_after: Some(retry_after),
            }),
            Submitted::QueueFull => CommandAnswer::refused(ErrorCode::QueueFull, QUEUE_FULL),
            Submitted::TooLate => CommandAnswer::refused(ErrorCode::Unavailable, UNAVAILABLE),
            Submitted::PermissionsUnknown => {
                let (tenant, user) = (&submission.resource.tenant, &submission.user);
                if let Err(error) = gateway.policy().ensure_cached(tenant, user).await {
                    tracing::warn!(command_id = %submission.command, %error, "websocket.permissions_unknown");
                    return CommandAnswer::Refused(Refusal::unavailable());
                }
                continue;
            }
        };
    }
    CommandAnswer::Refused(Refusal::unavailable())
}

const OUTCOME_UNKNOWN: &str = "Redis did not answer in time: the command may have been accepted or not. Send the same request_id again to find out";
const CONFLICT: &str = "This request_id was used for another command before; nothing was done. Use a new one";
const QUEUE_FULL: &str = "Too many commands of this tenant are waiting for workers; nothing was done. Try again later";
const INTERNAL: &str = "Something is wrong on our side; nothing was done. The operators' log has the details";

/// `websocket.job_cancel_requested` and its like: one line for each command, with the id that the worker's
/// lines carry too.
fn log(caller: &Caller, submission: &Submission, answer: &CommandAnswer) {
    let (kind, action) = (submission.resource.kind, submission.action.word());
    let (outcome, command) = match answer {
        CommandAnswer::Accepted { command, .. } => ("requested", Some(command)),
        CommandAnswer::Repeated { command, .. } => ("repeated", Some(command)),
        CommandAnswer::Refused(refusal) => (refusal.code.word(), None),
    };
    let command = command.map(tracing::field::display);
    let request = submission.request.as_ref().map(tracing::field::display);
    let (tenant_id, user_id, id) = (&caller.tenant, &caller.user, &submission.resource.id);
    match kind {
        ResourceKind::Job => tracing::info!(
            job_id = %id, %tenant_id, %user_id, command_id = command, request_id = request,
            "websocket.job_{action}_{outcome}"
        ),
        ResourceKind::Campaign => tracing::info!(
            campaign_id = %id, %tenant_id, %user_id, command_id = command, request_id = request,
            "websocket.campaign_{action}_{outcome}"
        ),
    }
}
