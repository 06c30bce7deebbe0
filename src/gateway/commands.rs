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
use crate::protocol::{BatchRequest, CommandRequest, ErrorCode, server};
use crate::store::Store;
use crate::telemetry::metrics;

use super::health::Health;
use super::results::follower::ResultFollower;
use super::unknown_outcomes::{STILL_UNKNOWN, UnknownOutcomes};
use crate::http::Refusal;

/// Reads of SQL for one command whose cached permissions expire, or are invalidated, as fast as they are read.
pub(super) const PERMISSION_READS: u32 = 3;
/// Longest wait for SQL to say whether a resource is there.
const EXISTS_TIMEOUT: Duration = Duration::from_secs(2);
/// So late a `run_at` may be, in ms: a clock that runs behind, a request that took its time.
const MAX_PAST_MS: i64 = 60_000;

/// A command that was accepted, now or before by the same request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedCommand {
    /// Its id, which is that of the first time.
    pub command: CommandId,
    /// Its result, if it has one already.
    pub result: Option<CommandResult>,
    ack: Ack,
    is_repeat: bool,
}

/// What the client is told, as it was when the command was first accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ack {
    /// It is on its way to a worker.
    Requested { workers_online: i64, control: Option<Control> },
    /// It is kept for later.
    Scheduled { run_at: i64 },
}

impl AcceptedCommand {
    /// The ack, as sockets and the HTTP API give it.
    pub fn message(&self, resource: &Resource, request: &CommandRequest) -> String {
        let id = request.request_id.as_ref().map(|id| id.as_str());
        match self.ack {
            Ack::Requested { workers_online, control } => {
                server::requested(request.action, resource, self.command, workers_online, control, id)
            }
            Ack::Scheduled { run_at } => server::scheduled(request.action, resource, self.command, run_at, id),
        }
    }

    /// Whether its result is so far away, perhaps days, that nobody waits for it.
    pub fn is_for_later(&self) -> bool {
        matches!(self.ack, Ack::Scheduled { .. }) && self.result.is_none()
    }
}

/// Submits commands: checks what can be checked here, asks Redis, and tells the log and the metrics what became of each.
pub struct CommandSubmitter {
    broker: Broker,
    store: Store,
    policy: Policy,
    health: Health,
    results: ResultFollower,
    limits: Limits,
    unknown: UnknownOutcomes,
}

impl CommandSubmitter {
    /// With the parts of a gateway that commands need.
    pub fn new(
        broker: Broker,
        store: Store,
        policy: Policy,
        health: Health,
        results: ResultFollower,
        limits: Limits,
    ) -> Self {
        Self { broker, store, policy, health, results, limits, unknown: UnknownOutcomes::default() }
    }

    /// Submits a command in a caller's name. `address` is the client's, for the audit trail.
    pub async fn submit(
        &self,
        caller: &Caller,
        resource: &Resource,
        request: &CommandRequest,
        address: Option<&str>,
    ) -> Result<AcceptedCommand, Refusal> {
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
    ) -> Result<AcceptedCommand, Refusal> {
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
        let mut outcome = self.accept(&submission).await;
        if matches!(&outcome, Err(refusal) if refusal.code == ErrorCode::Unavailable) {
            outcome = Box::pin(self.unless_carried_out(&submission, outcome)).await;
        }
        let outcome = self.revise(caller, resource, request, outcome);
        let outcome = outcome.map_err(|refusal| refusal.with_request_id(request.request_id.as_ref()));
        match &outcome {
            Ok(AcceptedCommand { command, ack: Ack::Requested { .. }, is_repeat: false, .. }) => {
                self.follow(resource, request.action, *command);
            }
            Ok(_) => {}
            Err(refusal) => metrics::command_refused(resource.kind, request.action, refusal.code),
        }
        log(caller, &submission, &outcome);
        outcome
    }

    /// Redis cannot be asked. The request may have been sent through another gateway, and carried out: SQL knows.
    async fn unless_carried_out(
        &self,
        submission: &Submission,
        refused: Result<AcceptedCommand, Refusal>,
    ) -> Result<AcceptedCommand, Refusal> {
        let Some(request) = &submission.request else { return refused };
        let asked =
            self.store.is_request_applied(&submission.resource, &submission.user, request.as_str(), submission.action);
        match tokio::time::timeout(EXISTS_TIMEOUT, asked).await {
            Ok(Ok(true)) => Err(Refusal::new(ErrorCode::OutcomeUnknown, STILL_UNKNOWN)),
            _ => refused,
        }
    }

    /// Whether a command cannot be submitted because its resource is not there. Whoever may not command it learns that,
    /// and not what exists: the submission says so, and counts it.
    pub async fn missing(&self, caller: &Caller, resource: &Resource, request: &CommandRequest) -> Option<Refusal> {
        let ids = [resource.id.clone()];
        let read = self.store.existing(&resource.tenant, resource.kind, &ids);
        let Ok(Ok(found)) = tokio::time::timeout(EXISTS_TIMEOUT, read).await else {
            return self.revise(caller, resource, request, Err::<(), _>(Refusal::unavailable())).err();
        };
        if !found.is_empty() {
            return None;
        }
        match self.policy.check(caller, &request.action.permission(resource.kind)).await {
            Ok(true) => Some(Refusal::new(ErrorCode::NotFound, resource_not_found(resource))),
            Ok(false) => None,
            Err(error) => Some(error.into()),
        }
    }

    async fn accept(&self, submission: &Submission) -> Result<AcceptedCommand, Refusal> {
        self.check_time(&submission.resource.tenant, submission.when)?;
        let (command, ack, result) = match self.deliver(submission).await? {
            SubmitOutcome::Accepted { workers_online, control } => {
                (submission.command, Ack::Requested { workers_online, control }, None)
            }
            SubmitOutcome::Repeated { command, workers_online, control, result } => {
                (command, Ack::Requested { workers_online, control }, result)
            }
            SubmitOutcome::Scheduled { command, run_at, result } => (command, Ack::Scheduled { run_at }, result),
            SubmitOutcome::Withdrawn { command } => {
                let message = format!(
                    "The command that was scheduled by this request_id ({command}) has been withdrawn and never runs; nothing was done now. Use \
                     another request_id to schedule one anew"
                );
                return Err(Refusal::new(ErrorCode::Conflict, message));
            }
            SubmitOutcome::Conflict => return Err(Refusal::new(ErrorCode::RequestConflict, CONFLICT)),
            SubmitOutcome::Denied => return Err(permission_denied(submission.action, submission.resource.kind)),
            SubmitOutcome::RateLimited { retry_after } => return Err(self.rate_limited(retry_after)),
            SubmitOutcome::QueueFull => {
                let message = if submission.when == When::Now { QUEUE_FULL } else { SCHEDULES_FULL };
                return Err(Refusal::new(ErrorCode::QueueFull, message));
            }
            SubmitOutcome::TooLate | SubmitOutcome::PermissionsUnknown | SubmitOutcome::Gone => {
                return Err(Refusal::unavailable());
            }
        };
        // A command of this very id and without a result: the first answer got lost on the way and the submission was
        // sent again. To the client it is new.
        let is_repeat = command != submission.command || result.is_some();
        Ok(AcceptedCommand { command, result, ack, is_repeat })
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
        if ahead < -MAX_PAST_MS {
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
            let submitted = submitted.map_err(|error| {
                self.health.doubt_redis();
                refusal_of(submission.command, error)
            });
            match submitted? {
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

    /// The answer to a command, as it may be given.
    pub(super) fn revise<T>(
        &self,
        caller: &Caller,
        resource: &Resource,
        request: &CommandRequest,
        answer: Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let key = || Some(format!("{resource}|{}|{}", caller.user, request.request_id.as_ref()?));
        self.unknown.revise(key, answer)
    }

    /// The answer to a request about many resources, as it may be given.
    pub(super) fn revise_batch<T>(
        &self,
        caller: &Caller,
        request: &BatchRequest,
        answer: Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let key = || Some(format!("{}|{}|{}", caller.tenant, caller.user, request.request_id.as_ref()?));
        self.unknown.revise(key, answer)
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
fn log(caller: &Caller, submission: &Submission, outcome: &Result<AcceptedCommand, Refusal>) {
    let (kind, action) = (submission.resource.kind, submission.action.as_str());
    let (word, command) = match outcome {
        Ok(AcceptedCommand { command, ack: Ack::Scheduled { .. }, .. }) => ("scheduled", Some(command)),
        Ok(AcceptedCommand { command, is_repeat: true, .. }) => ("repeated", Some(command)),
        Ok(AcceptedCommand { command, .. }) => ("requested", Some(command)),
        Err(refusal) => (refusal.code.as_str(), None),
    };
    let command = command.map(tracing::field::display);
    let request = submission.request.as_ref().map(tracing::field::display);
    let (tenant_id, user_id, id) = (&caller.tenant, &caller.user, &submission.resource.id);
    match kind {
        ResourceKind::Job => tracing::info!(
            job_id = %id, %tenant_id, %user_id, command_id = command, request_id = request,
            "websocket.job_{action}_{word}"
        ),
        ResourceKind::Campaign => tracing::info!(
            campaign_id = %id, %tenant_id, %user_id, command_id = command, request_id = request,
            "websocket.campaign_{action}_{word}"
        ),
    }
}
