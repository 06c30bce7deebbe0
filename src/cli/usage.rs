//! The error of a command line that cannot be carried out as it is.

/// Ends the program with one line on standard error and exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct UsageError(String);

/// A [`UsageError`] with this text.
pub(super) fn usage(text: impl Into<String>) -> anyhow::Error {
    UsageError(text.into()).into()
}
