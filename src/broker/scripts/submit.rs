//! `lua/submit_command.lua`: the one round trip in which a command is accepted or refused.

use crate::broker::{Broker, BrokerError};
use crate::domain::{Action, CommandId, RequestId, Resource, UserId};

/// A command on its way in.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Made by the caller, so that submitting the same again after a lost answer is safe.
    pub command: CommandId,
    /// What it is about.
    pub resource: Resource,
    /// What to do.
    pub action: Action,
    /// Who asks.
    pub user: UserId,
    /// The client's name for it.
    pub request: Option<RequestId>,
    /// Why.
    pub reason: Option<String>,
    /// From where, for the audit trail.
    pub origin: Origin,
    /// How the permission is known.
    pub grant: Grant,
}

/// From where a command came.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Origin {
    /// The client's address.
    pub address: Option<String>,
    /// The token's `jti`.
    pub token_id: Option<String>,
}

/// How the permission for a command is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// By the cached rows of SQL.
    Database,
    /// By the token: allowed or not.
    Token(bool),
    /// Follows from another command (a cancelled campaign cancels its running jobs): no check, no budget.
    Internal,
}

/// The limits in force.
#[derive(Debug, Clone, Copy)]
pub struct SubmitLimits {
    /// Commands of one user in any 60 s.
    pub commands_per_minute: u32,
    /// Commands without a result, per tenant.
    pub backlog_per_tenant: u32,
}

/// What became of a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submitted {
    /// Recorded, queued, published.
    Accepted {
        /// Workers alive for this tenant just now.
        workers_online: i64,
    },
    /// The same `request_id` (or the same command id) was accepted before; nothing was done now.
    Repeated {
        /// The command of the first time.
        command: CommandId,
        /// Workers alive when it was first accepted.
        workers_online: i64,
        /// Its result message, if it has one, and when (Unix ms by Redis's clock).
        result: Option<(String, i64)>,
    },
    /// The same `request_id` came with another body before; nothing was done.
    Conflict,
    /// Not permitted; also the answer to a repeat of a denied request. Uses budget the first time.
    Denied,
    /// Over the budget; nothing was done.
    RateLimited {
        /// Whole seconds until a command would be accepted, 1 to 60.
        retry_after: i64,
    },
    /// The cache holds nothing for this user: read SQL, fill, submit again.
    PermissionsUnknown,
    /// The tenant has too many commands waiting; nothing was done.
    QueueFull,
    /// It reached Redis after its deadline; nothing was done.
    TooLate,
}

impl Broker {
    /// Submits a command. Reads the clock of Redis; safe to call again with the same submission.
    /// Answers within about 1.8 s: reconnects and asks again where the first answer was lost.
    pub async fn submit(&self, _submission: &Submission, _limits: SubmitLimits) -> Result<Submitted, BrokerError> {
        unimplemented!()
    }
}
