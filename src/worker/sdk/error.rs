//! How job code ends without a result.

/// Any error that can be sent between threads.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why job code ended without a result.
///
/// The error's text becomes the job's `error`, which everybody who may read the job reads. The error itself is kept as
/// the [source](std::error::Error::source), so that code which calls yours, and its tests, can ask what it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// It did not work; trying again may help (up to the job's `max_retries`).
    #[error("{0}")]
    Failed(#[source] BoxError),
    /// It did not work, and never will.
    #[error("{0}")]
    Permanent(#[source] BoxError),
    /// An operator cancelled it, or it has run for longer than its `timeout_seconds` (that counts as a failure
    /// that may pass): what `?` after a checkpoint makes of it.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl JobError {
    /// A failure that may pass, from any error or text.
    pub fn failed(error: impl Into<BoxError>) -> Self {
        Self::Failed(error.into())
    }

    /// A failure that will not pass, from any error or text.
    pub fn permanent(error: impl Into<BoxError>) -> Self {
        Self::Permanent(error.into())
    }
}

/// The job is to end now: tidy up and return this.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cancelled by {by}")]
pub struct Cancelled {
    /// The user who asked; "the worker" where the time is used up or the job is no longer this worker's.
    pub by: String,
    /// Why, in the user's words.
    pub reason: Option<String>,
}

impl Cancelled {
    /// For tests of code that is given one. Job code passes on those that its checkpoints return.
    pub fn new(by: impl Into<String>, reason: Option<String>) -> Self {
        Self { by: by.into(), reason }
    }

    /// What a blocking thread hears when its worker leaves: the job goes on elsewhere from its resume point.
    pub(crate) fn leaving() -> Self {
        Self { by: "the worker".to_owned(), reason: Some("the worker is leaving".to_owned()) }
    }

    /// The run has used up its time.
    pub(crate) fn timed_out(message: String) -> Self {
        Self { by: "the worker".to_owned(), reason: Some(message) }
    }

    /// The job is no longer this worker's.
    pub(crate) fn lost() -> Self {
        Self { by: "the worker".to_owned(), reason: Some("another worker has the job now".to_owned()) }
    }
}
