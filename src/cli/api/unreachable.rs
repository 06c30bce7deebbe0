//! The error of a command that found no gateway which can answer now.

use std::time::Duration;

/// No gateway answers, or one that cannot do anything now: worth trying again.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(in crate::cli) struct Unreachable(String);

impl Unreachable {
    /// With this message.
    pub(super) fn error(message: impl Into<String>) -> anyhow::Error {
        Self(message.into()).into()
    }

    /// A socket that was closed.
    pub(in crate::cli) fn closed() -> anyhow::Error {
        Self::error("the gateway closed the connection")
    }

    /// Connected, and nothing came. What was asked may be done all the same.
    pub(super) fn silent(base: &str, patience: Duration) -> anyhow::Error {
        Self::error(format!(
            "what listens at {base} did not answer within {} s: is it a gateway, and does it reach its Redis and \
             database? What was asked of it may have been done",
            patience.as_secs()
        ))
    }
}
