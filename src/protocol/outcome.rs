//! How a command ends, and the sentences that say why one has failed. Each of these sentences stands here alone: scripts
//! get theirs from here, too.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::domain::{Action, ResourceKind};

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was applied, and the resource has this status.
    Succeeded(String),
    /// It was not applied.
    Failed(CommandError),
}

/// Why a command failed: a code with its parameters, as Redis keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum CommandError {
    /// There is no such resource, or it has ended already.
    AlreadyEnded,
    /// A cancel outranks it.
    Superseded,
    /// No worker took it in time.
    Expired,
    /// The user was not permitted any more when its time came.
    PermissionDenied,
    /// The work did not stop, go on or end in time.
    NoAnswer,
    /// The work never came to a point where it can be paused.
    NotPausable,
    /// SQL refused the change.
    NotStored,
    /// SQL did not answer at any try.
    DatabaseUnavailable,
    /// The work, or the system beneath it, refused.
    ControlFailed {
        /// In words.
        reason: String,
    },
    /// Of a result that has no code: version 0.1 stored the sentence alone.
    Uncoded {
        /// The sentence.
        message: String,
    },
}

impl CommandError {
    /// The sentence for whoever sent the command.
    pub fn message(&self, action: Action, kind: ResourceKind) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::AlreadyEnded => match kind {
                ResourceKind::Job => "Job not found or already completed",
                ResourceKind::Campaign => "Campaign not found or already completed",
            },
            Self::Superseded => "Superseded by cancel",
            Self::Expired => "Command expired before a worker could run it",
            Self::PermissionDenied => return permission_denied_message(action, kind).into(),
            Self::NoAnswer => "The job did not answer in time",
            Self::NotPausable => "The job did not come to a point where it can be paused",
            Self::NotStored => {
                "The change could not be stored; nothing was changed. Ask your operator to look at the worker's log"
            }
            Self::DatabaseUnavailable => {
                "The database did not answer for too long. Look at the status, and send the command again"
            }
            Self::ControlFailed { reason: text } | Self::Uncoded { message: text } => return text.clone().into(),
        })
    }
}

/// The user may not do this.
pub fn permission_denied_message(action: Action, kind: ResourceKind) -> String {
    format!("Insufficient permissions to {} {}", action.as_str(), kind.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_stored_as_its_code_with_its_parameters_and_read_again() {
        for (error, stored) in [
            (CommandError::AlreadyEnded, r#"{"code":"already_ended"}"#),
            (CommandError::PermissionDenied, r#"{"code":"permission_denied"}"#),
            (
                CommandError::ControlFailed { reason: "\"tar\" | refuses\n".to_owned() },
                r#"{"code":"control_failed","reason":"\"tar\" | refuses\n"}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&error).expect("JSON"), stored);
            assert_eq!(serde_json::from_str::<CommandError>(stored).expect("an error"), error);
        }
    }
}
