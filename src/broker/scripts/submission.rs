//! A command on its way in: what `submit`, `batch` and `schedules` send to Redis.

use crate::domain::{Action, CommandId, RequestId, Resource, UserId, When};

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
    /// What the user gave as the reason, if anything.
    pub reason: Option<String>,
    /// From where, for the audit trail.
    pub origin: ClientOrigin,
    /// How the permission is known.
    pub grant: Grant,
    /// When it shall run.
    pub when: When,
    /// The batch it is a part of.
    pub batch: Option<CommandId>,
}

/// From where a command came.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ClientOrigin {
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

impl Grant {
    /// As the scripts read it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Token(true) => "allowed",
            Self::Token(false) => "denied",
            Self::Internal => "internal",
        }
    }
}
