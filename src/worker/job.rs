//! What a kind of job is: a name, and code that runs against a [`JobContext`].

use std::future::Future;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::context::JobContext;

/// One kind of job. Register it with [`WorkerBuilder::job`](super::WorkerBuilder::job).
///
/// `run` is called once for each run of a job of this kind, on any worker; many runs may be under way
/// at once. What it returns becomes the job's `result`. Its parts are written so that pausing,
/// resuming, cancelling and moving to another worker need no further thought:
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use wheelhouse::domain::Progress;
/// use wheelhouse::worker::{Job, JobContext, JobError};
///
/// /// Sends one letter after the other.
/// struct Letters;
///
/// #[derive(Deserialize)]
/// struct Parameters {
///     recipients: Vec<String>,
/// }
///
/// /// How far it is: saved, so that another worker can go on from here.
/// #[derive(Default, Serialize, Deserialize)]
/// struct Cursor {
///     sent: usize,
///     failed: usize,
/// }
///
/// impl Job for Letters {
///     const TYPE: &'static str = "letters";
///
///     async fn run(&self, ctx: JobContext) -> Result<serde_json::Value, JobError> {
///         // A wrong parameter stays wrong however often it is tried.
///         let parameters: Parameters = ctx.parameters_as()?;
///         let total = parameters.recipients.len();
///         let mut cursor: Cursor = ctx.resume_point()?.unwrap_or_default();
///
///         for recipient in &parameters.recipients[cursor.sent..] {
///             // Waits here while paused; leaves with `Cancelled` when cancelled.
///             ctx.checkpoint().await?;
///             // May be held for hours or dropped at any await: only for what can bear that.
///             let text = ctx.guard(write_letter(recipient)).await?;
///             // Neither pause nor cancel comes between sending and remembering that it was sent.
///             ctx.critical(async {
///                 if !send(recipient, &text).await {
///                     cursor.failed += 1;
///                 }
///                 cursor.sent += 1;
///                 ctx.save(&cursor)
///             })
///             .await?;
///             ctx.progress(Progress {
///                 progress_percent: u8::try_from(cursor.sent * 100 / total).unwrap_or(100),
///                 items_total: Some(total as i64),
///                 items_processed: cursor.sent as i64,
///                 items_succeeded: (cursor.sent - cursor.failed) as i64,
///                 items_failed: cursor.failed as i64,
///                 current_item: Some(recipient.clone()),
///             });
///         }
///         Ok(serde_json::json!({ "sent": cursor.sent - cursor.failed, "failed": cursor.failed }))
///     }
/// }
///
/// async fn write_letter(recipient: &str) -> String {
///     format!("Dear {recipient}, …")
/// }
///
/// async fn send(_recipient: &str, _text: &str) -> bool {
///     true
/// }
///
/// // A worker that knows this kind of job; `worker.run().await` serves until SIGTERM or Ctrl-C.
/// fn worker(settings: wheelhouse::config::Settings) -> wheelhouse::worker::Worker {
///     wheelhouse::worker::WorkerBuilder::new(settings).job(Letters).build()
/// }
/// ```
pub trait Job: Send + Sync + 'static {
    /// The name of this kind of job, as `jobs.job_type` has it. Workers take the jobs whose names they know.
    const TYPE: &'static str;

    /// Does the work, from the resume point where there is one.
    fn run(&self, ctx: JobContext) -> impl Future<Output = Result<serde_json::Value, JobError>> + Send;
}

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
    pub(crate) fn timed_out(words: String) -> Self {
        Self { by: "the worker".to_owned(), reason: Some(words) }
    }

    /// The job is no longer this worker's.
    pub(crate) fn lost() -> Self {
        Self { by: "the worker".to_owned(), reason: Some("another worker has the job now".to_owned()) }
    }
}

/// A [`Job`] whose type is forgotten, so that many kinds fit one table.
pub(crate) trait AnyJob: Send + Sync + 'static {
    fn run_boxed(self: Arc<Self>, ctx: JobContext) -> BoxFuture<'static, Result<serde_json::Value, JobError>>;
}

impl<J: Job> AnyJob for J {
    fn run_boxed(self: Arc<Self>, ctx: JobContext) -> BoxFuture<'static, Result<serde_json::Value, JobError>> {
        Box::pin(async move { self.run(ctx).await })
    }
}
