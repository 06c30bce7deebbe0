//! What a kind of job is: a name, and code that runs against a [`JobContext`].

use std::future::Future;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::context::JobContext;
use super::error::JobError;

/// One kind of job. Register it with [`WorkerBuilder::job`](crate::worker::WorkerBuilder::job).
///
/// `run` is called once for each run of a job of this kind, on any worker; many runs may be under way
/// at once. What it returns becomes the job's `result`. Its parts are written so that pausing,
/// resuming, cancelling and moving to another worker need no further thought:
///
/// ```
/// use serde::{Deserialize, Serialize};
/// # mod wheelhouse_worker { pub use wheelhouse::{domain::Progress, worker::*}; }
/// use wheelhouse_worker::{Job, JobContext, JobError, Progress};
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
/// ```
pub trait Job: Send + Sync + 'static {
    /// The name of this kind of job, as `jobs.job_type` has it. Workers take the jobs whose names they know.
    const TYPE: &'static str;

    /// Does the work, from the resume point where there is one.
    fn run(&self, ctx: JobContext) -> impl Future<Output = Result<serde_json::Value, JobError>> + Send;
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
