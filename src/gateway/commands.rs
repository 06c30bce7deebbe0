//! The one way in for a command, whichever way it came: permission, submission, answer, log and metrics.

use std::time::Duration;

use crate::auth::{Caller, Policy};
use crate::broker::scripts::results::CommandResult;
use crate::broker::scripts::submit::{ClientOrigin, Submission, SubmitLimits, SubmitOutcome};
use crate::broker::{Broker, BrokerError};
use crate::config::Limits;
use crate::domain::{Action, CommandId, Control, Resource, ResourceKind, TenantId, UserId, When};
use crate::protocol::client::{MAX_DELAY, TOO_FAR_AHEAD_MESSAGE};
use crate::protocol::tenant::resource_not_found;
use crate::protocol::{CommandRequest, ErrorCode, server};
use crate::store::Store;
use crate::telemetry::metrics;

use super::health::Health;
use super::results::Results;
use crate::http::Refusal;

/// Reads of SQL for one command whose cached permissions expire, or are invalidated, as fast as they are read.
pub(super) const PERMISSION_READS: u32 = 3;
/// Longest wait for SQL to say whether a resource is there.
const EXISTS: Duration = Duration::from_secs(2);
/// So late a `run_at` may be, in ms: a clock that runs behind, a request that took its time.
const PAST_MS: i64 = 60_000;

/// What a command is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandAnswer {
    /// Recorded, on its way to a worker.
    Accepted {
        /// Its id.
        command: CommandId,
        /// Workers alive for the tenant.
        workers_online: i64,
        /// Of a job: what the command reaches.
        control: Option<Control>,
    },
    /// The same request was accepted before: answered as it was then.
    Repeated {
        /// The id of the first time.
        command: CommandId,
        /// As it was then.
        workers_online: i64,
        /// As it was then, where that is known.
        control: Option<Control>,
        /// Its result, if it has one already.
        result: Option<CommandResult>,
    },
    /// Kept for later, or was before by the same request.
    Scheduled {
        /// Its id.
        command: CommandId,
        /// When it will be submitted, Unix ms.
        run_at: i64,
        /// Its result, if it has run and has one.
        result: Option<CommandResult>,
    },
    /// Not accepted. Nothing was done, unless the code is `outcome_unknown`.
    Refused(Refusal),
}

impl CommandAnswer {
    /// The message for a socket.
    pub fn message(&self, resource: &Resource, request: &CommandRequest) -> String {
        let id = request.request_id.as_ref().map(|id| id.as_str());
        match self {
            Self::Accepted { command, workers_online, control }
            | Self::Repeated { command, workers_online, control, .. } => {
                server::requested(request.action, resource, *command, *workers_online, *control, id)
            }
            Self::Scheduled { command, run_at, .. } => {
                server::scheduled(request.action, resource, *command, *run_at, id)
            }
            Self::Refused(refusal) => refusal.to_message(),
        }
    }

    /// The command's id, and its result where it is known already.
    pub fn known(&self) -> Option<(CommandId, Option<&CommandResult>)> {
        match self {
            Self::Accepted { command, .. } => Some((*command, None)),
            Self::Repeated { command, result, .. } | Self::Scheduled { command, result, .. } => {
                Some((*command, result.as_ref()))
            }
            Self::Refused(_) => None,
        }
    }
}

/// Submits commands: checks what can be checked here, asks Redis, and tells the log and the metrics what became of each.
pub struct CommandSubmitter {
    broker: Broker,
    store: Store,
    policy: Policy,
    health: Health,
    results: Results,
    limits: Limits,
}

impl CommandSubmitter {
    /// With the parts of a gateway that commands need.
    pub fn new(broker: Broker, store: Store, policy: Policy, health: Health, results: Results, limits: Limits) -> Self {
        Self { broker, store, policy, health, results, limits }
    }

    /// Submits a command in a caller's name. `address` is the client's, for the audit trail.
    pub async fn submit(
        &self,
        caller: &Caller,
        resource: &Resource,
        request: &CommandRequest,
        address: Option<&str>,
    ) -> CommandAnswer {
        self.submit_as(CommandId::generate(), caller, resource, request, address).await
    }

    /// As [`Self::submit`], under an id that the caller has made: the same again does nothing twice.
    pub async fn submit_as(
        &self,
        command: CommandId,
        caller: &Caller,
        resource: &Resource,
        request: &CommandRequest,
        address: Option<&str>,
    ) -> CommandAnswer {
        let submission = Submission {
            command,
            resource: resource.clone(),
            action: request.action,
            user: caller.user.clone(),
            request: request.request_id.clone(),
            reason: request.reason.clone(),
            origin: ClientOrigin { address: address.map(str::to_owned), token_id: caller.token_id.clone() },
            grant: self.policy.grant(caller, &request.action.permission(resource.kind)),
            when: request.when,
            batch: None,
        };
        metrics::command_received(resource.kind, request.action);
        let mut answer = self.decide(&submission).await;
        if let CommandAnswer::Refused(refusal) = &mut answer {
            refusal.request_id = request.request_id.as_ref().map(ToString::to_string);
            metrics::command_refused(resource.kind, request.action, refusal.code);
        }
        if let CommandAnswer::Accepted { command, .. } = &answer {
            self.follow(resource, request.action, *command);
        }
        log(caller, &submission, &answer);
        answer
    }

    /// Whether a command cannot be submitted because its resource is not there. Whoever may not command it learns that,
    /// and not what exists: the submission says so, and counts it.
    pub async fn missing(&self, caller: &Caller, resource: &Resource, request: &CommandRequest) -> Option<Refusal> {
        let ids = [resource.id.clone()];
        let read = self.store.existing(&resource.tenant, resource.kind, &ids);
        let Ok(Ok(found)) = tokio::time::timeout(EXISTS, read).await else { return Some(Refusal::unavailable()) };
        if !found.is_empty() {
            return None;
        }
        match self.policy.check(caller, &request.action.permission(resource.kind)).await {
            Ok(true) => Some(Refusal::new(ErrorCode::NotFound, resource_not_found(resource))),
            Ok(false) => None,
            Err(error) => Some(error.into()),
        }
    }

    async fn decide(&self, submission: &Submission) -> CommandAnswer {
        if let Err(refusal) = self.check_time(&submission.resource.tenant, submission.when) {
            return CommandAnswer::Refused(refusal);
        }
        let refused = |code, message: &str| CommandAnswer::Refused(Refusal::new(code, message));
        let kind = submission.resource.kind;
        match self.deliver(submission).await {
            Err(refusal) => CommandAnswer::Refused(refusal),
            Ok(SubmitOutcome::Accepted { workers_online, control }) => {
                CommandAnswer::Accepted { command: submission.command, workers_online, control }
            }
            // The first answer got lost on the way and the submission was sent again: to the client it is new.
            Ok(SubmitOutcome::Repeated { command, workers_online, control, result: None })
                if command == submission.command =>
            {
                CommandAnswer::Accepted { command, workers_online, control }
            }
            Ok(SubmitOutcome::Repeated { command, workers_online, control, result }) => {
                CommandAnswer::Repeated { command, workers_online, control, result }
            }
            Ok(SubmitOutcome::Scheduled { command, run_at, result }) => {
                CommandAnswer::Scheduled { command, run_at, result }
            }
            Ok(SubmitOutcome::Conflict) => refused(ErrorCode::RequestConflict, CONFLICT),
            Ok(SubmitOutcome::Denied) => CommandAnswer::Refused(permission_denied(submission.action, kind)),
            Ok(SubmitOutcome::RateLimited { retry_after }) => CommandAnswer::Refused(self.rate_limited(retry_after)),
            Ok(SubmitOutcome::QueueFull) if submission.when != When::Now => {
                refused(ErrorCode::QueueFull, SCHEDULES_FULL)
            }
            Ok(SubmitOutcome::QueueFull) => refused(ErrorCode::QueueFull, QUEUE_FULL),
            Ok(SubmitOutcome::TooLate | SubmitOutcome::PermissionsUnknown | SubmitOutcome::Gone) => {
                CommandAnswer::Refused(Refusal::unavailable())
            }
        }
    }

    /// Over the budget.
    pub(super) fn rate_limited(&self, retry_after: i64) -> Refusal {
        let message = server::rate_limited_message(self.limits.commands_per_minute);
        Refusal::new(ErrorCode::RateLimitExceeded, message).with_retry_after(retry_after)
    }

    /// A time that passed long ago, or lies further ahead than anybody plans, is a mistake.
    fn check_time(&self, tenant: &TenantId, when: When) -> Result<(), Refusal> {
        let When::At(at) = when else { return Ok(()) };
        let ahead = at - self.broker.tenant_now_ms(tenant);
        if ahead < -PAST_MS {
            let message = "run_at has passed; nothing was done. Leave it out to run the command at once";
            return Err(Refusal::new(ErrorCode::InvalidMessage, message));
        }
        if ahead > i64::from(MAX_DELAY) * 1_000 {
            return Err(Refusal::new(ErrorCode::InvalidMessage, TOO_FAR_AHEAD_MESSAGE));
        }
        Ok(())
    }

    /// Submits, reading the user's permissions from SQL where the cache does not know them. An error says what a client
    /// may be told.
    pub(super) async fn deliver(&self, submission: &Submission) -> Result<SubmitOutcome, Refusal> {
        let (tenant, user) = (&submission.resource.tenant, &submission.user);
        let limits = SubmitLimits::of(&self.limits);
        self.check_health()?;
        for _ in 0..=PERMISSION_READS {
            let submitted = self.broker.submit(submission, limits).await;
            match submitted.map_err(|error| refusal_of(submission.command, error))? {
                // Boxed: the room for it would be taken for each command, and hardly any needs it.
                SubmitOutcome::PermissionsUnknown => {
                    Box::pin(self.learn_permissions(tenant, user, submission.command)).await?;
                }
                submitted => return Ok(submitted),
            }
        }
        Err(Refusal::unavailable())
    }

    /// Commands need both Redis and SQL.
    pub(super) fn check_health(&self) -> Result<(), Refusal> {
        self.health.refusal().map_or(Ok(()), Err)
    }

    /// Reads a user's permissions into the cache.
    pub(super) async fn learn_permissions(
        &self,
        tenant: &TenantId,
        user: &UserId,
        command_id: CommandId,
    ) -> Result<(), Refusal> {
        self.policy.ensure_cached(tenant, user).await.map_err(|error| {
            tracing::warn!(%command_id, %error, "websocket.permissions_unknown");
            Refusal::unavailable()
        })
    }

    /// Follows an accepted command to its result, for the metrics.
    pub(super) fn follow(&self, resource: &Resource, action: Action, command: CommandId) {
        self.results.follow(resource, action, command, self.broker.tenant_now_ms(&resource.tenant));
    }
}

/// The caller may not do this.
pub(super) fn permission_denied(action: Action, kind: ResourceKind) -> Refusal {
    Refusal::new(ErrorCode::PermissionDenied, server::permission_denied_message(action, kind))
}

/// What a client may be told of an error of Redis.
pub(super) fn refusal_of(command_id: CommandId, error: BrokerError) -> Refusal {
    match error {
        BrokerError::Unavailable(_) | BrokerError::NotServing(_) => {
            tracing::warn!(%command_id, %error, "websocket.command_not_taken");
            Refusal::of_redis(&error)
        }
        BrokerError::Unknown(error) => {
            tracing::warn!(%command_id, error, "websocket.command_outcome_unknown");
            Refusal::new(ErrorCode::OutcomeUnknown, OUTCOME_UNKNOWN)
        }
        BrokerError::Refused(_) | BrokerError::Setting(_) => {
            tracing::error!(%command_id, %error, "websocket.command_submit_failed");
            Refusal::new(ErrorCode::Internal, INTERNAL)
        }
    }
}

const OUTCOME_UNKNOWN: &str = "Redis did not answer in time: the command may have been accepted or not. Send the same request_id again to find out";
pub(super) const CONFLICT: &str =
    "This request_id was used for another command before; nothing was done. Use a new one";
pub(super) const QUEUE_FULL: &str =
    "Too many commands of this tenant are waiting for workers; nothing was done. Try again later";
const SCHEDULES_FULL: &str = "Too many commands of this tenant are scheduled already; nothing was done. Withdraw some, or raise limits.schedules_per_tenant";
const INTERNAL: &str = "Something is wrong on our side; nothing was done. The operators' log has the details";

/// `websocket.job_cancel_requested` and its like: one line for each command, with the id that the worker's
/// lines carry too.
fn log(caller: &Caller, submission: &Submission, answer: &CommandAnswer) {
    let (kind, action) = (submission.resource.kind, submission.action.as_str());
    let (outcome, command) = match answer {
        CommandAnswer::Accepted { command, .. } => ("requested", Some(command)),
        CommandAnswer::Repeated { command, .. } => ("repeated", Some(command)),
        CommandAnswer::Scheduled { command, .. } => ("scheduled", Some(command)),
        CommandAnswer::Refused(refusal) => (refusal.code.as_str(), None),
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
