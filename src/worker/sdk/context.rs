//! What job code has in its hands while it runs.

use std::fs::File;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::task::TaskTracker;

use super::error::{Cancelled, JobError};
use super::files::JobFiles;
use super::recorder::Recorder;
use crate::domain::{Job, JsonText, OutputStream, Progress, Resource};
use crate::store::ClaimedJob;
use crate::worker::process::Program;
use crate::worker::run::child::{ChildProgram, ChildPrograms};
use crate::worker::run::control_problem::report_control_problems;
use crate::worker::run::pause_gate::PauseGate;
use crate::worker::run::run_progress::RunProgress;

/// One run of one job, as its code sees it. Cheap to clone; clones are about the same run.
///
/// **Where it stops.** Only at [`checkpoint`](Self::checkpoint), inside [`guard`](Self::guard), and at
/// [`checkpoint_blocking`](Self::checkpoint_blocking). As soon as one of them waits (and no
/// [`critical`](Self::critical) section is open, and every thread of [`blocking`](Self::blocking)
/// waits too), nothing of the job's future is polled until it is resumed. `pause_succeeded` goes out
/// then, and not before: put checkpoints as close together as you want pauses to be quick.
///
/// **When it is cancelled,** these return [`Cancelled`]: pass it on with `?`. Code that does not come
/// to one of them within `worker.grace_seconds` is dropped where it awaits. The same happens when it has
/// run for longer than its `timeout_seconds` (the time it stood paused does not count); that is a failure,
/// tried again while retries are left.
///
/// **When its worker leaves,** the future is dropped at a checkpoint, and another worker calls
/// [`Job::run`](super::Job::run) again, with what was [saved](Self::save).
#[derive(Clone)]
pub struct JobContext {
    inner: Arc<JobContextInner>,
}

struct JobContextInner {
    hosted: ClaimedJob,
    gate: Arc<PauseGate>,
    progress: Arc<RunProgress>,
    children: Arc<ChildPrograms>,
    files: JobFiles,
    tracker: TaskTracker,
    /// Takes down what the job says, in a test.
    recorder: Option<Arc<Recorder>>,
}

impl JobContext {
    pub(crate) fn new(
        hosted: ClaimedJob,
        gate: Arc<PauseGate>,
        progress: Arc<RunProgress>,
        children: Arc<ChildPrograms>,
        files: JobFiles,
        tracker: TaskTracker,
    ) -> Self {
        Self { inner: Arc::new(JobContextInner { hosted, gate, progress, children, files, tracker, recorder: None }) }
    }

    /// For the first and only holder of the context.
    pub(crate) fn recorded_by(mut self, recorder: Arc<Recorder>) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.recorder = Some(recorder);
        }
        self
    }

    /// The job's row as it was when this run began.
    pub fn job(&self) -> &Job {
        &self.inner.hosted.job
    }

    /// Which job this is.
    pub fn resource(&self) -> &Resource {
        &self.inner.hosted.run.job
    }

    /// What the job was given, digit for digit as it was written.
    pub fn parameters(&self) -> &JsonText {
        &self.inner.hosted.job.parameters
    }

    /// The parameters in a type of your own. Wrong ones fail the job for good, in words; so does a number that the type
    /// cannot hold. (A `serde_json::Value` holds whole numbers of 64 bits, and of others the nearest float.)
    pub fn parameters_as<T: DeserializeOwned>(&self) -> Result<T, JobError> {
        self.parameters().read().map_err(|e| JobError::permanent(format!("The parameters are wrong: {e}")))
    }

    /// Waits here while the job is paused. `Err`: it is cancelled, return now. Costs next to nothing
    /// when neither is the case, and lets other tasks have their turn.
    pub async fn checkpoint(&self) -> Result<(), Cancelled> {
        tokio::task::coop::consume_budget().await;
        self.inner.gate.checkpoint().await
    }

    /// Runs a future that may be held at any of its awaits for as long as a pause lasts, and is dropped
    /// at once when the job is cancelled. Not for one that holds a connection or a lock: the other side
    /// would wait too, and may give up.
    pub async fn guard<F: Future>(&self, future: F) -> Result<F::Output, Cancelled> {
        self.inner.gate.guard(future).await
    }

    /// Runs a future to its end, whatever is wanted meanwhile: neither pause nor cancel counts as done
    /// before. Checkpoints inside it do not stop. Keep it short.
    pub async fn critical<F: Future>(&self, future: F) -> F::Output {
        self.inner.gate.critical(future).await
    }

    /// Says how far the job is, for everyone who watches. Call it as often as you like: at most four a
    /// second are sent, and always the last one.
    pub fn progress(&self, progress: Progress) {
        self.inner.progress.progress(progress);
        if let Some(recorder) = &self.inner.recorder {
            recorder.progress(self.inner.progress.latest().progress);
        }
    }

    /// Keeps one item that could not be done, and why, for whoever looks at the job: its name within the job (a row
    /// number, an address), and words. The first 10,000 of a job are kept; count all of them in
    /// [`Progress::items_failed`]. An item that fails again, in this run or a later one, stays one row with its
    /// newest error. Written together with the resume point: say it before you [`save`](Self::save) a point
    /// that lies behind the item, and no kill can lose it.
    pub fn failed_item(&self, item: impl AsRef<str>, error: impl std::fmt::Display) {
        let (item, error) = (item.as_ref(), error.to_string());
        self.inner.progress.failed_item(item, &error);
        if let Some(recorder) = &self.inner.recorder {
            recorder.failed_item(item, &error);
        }
    }

    /// Adds lines to the job's output, beside what its programs print: whoever looks at the job sees them within a second.
    /// The newest 1,000 lines of a job are kept. Call it as often as you like: it never waits, and what comes too fast is
    /// left out and counted.
    pub fn log(&self, text: impl AsRef<str>) {
        self.inner.progress.output.said(OutputStream::Log, text.as_ref());
    }

    /// Remembers where the job could go on. Written to SQL within a second, and whenever the job pauses,
    /// ends, or moves to another worker. A worker that is killed loses the last second: doing that
    /// second's work again must do no harm.
    ///
    /// What the next run could not read is refused here, where the earlier point is still kept: NaN and infinities,
    /// which JSON does not have, whole numbers beyond 64 bits, and more than 127 arrays and objects inside one another.
    pub fn save<T: Serialize>(&self, cursor: &T) -> Result<(), JobError> {
        let point = JsonText::of(cursor).map_err(|e| JobError::permanent(format!("The resume point {e}")))?;
        if let Some(recorder) = &self.inner.recorder {
            recorder.save(&point);
        }
        self.inner.progress.save(point);
        Ok(())
    }

    /// What an earlier run of this job saved; `None` at the first.
    pub fn resume_point<T: DeserializeOwned>(&self) -> Result<Option<T>, JobError> {
        self.inner
            .hosted
            .resume_point
            .as_ref()
            .map(|point| serde_json::from_str(point))
            .transpose()
            .map_err(|error| {
                // The error quotes values, and whoever may read the job reads its error: only the log gets it.
                tracing::error!(job_id = %self.resource().id, tenant_id = %self.resource().tenant, %error, "worker.resume_point_unreadable");
                JobError::permanent(
                    "The resume point that an earlier run saved is not of the form that this code reads (the worker's log has the details)",
                )
            })
    }

    /// A job's result from a type of your own, for the end of [`Job::run`](super::Job::run): NaN and infinities, which
    /// `serde_json::json!` would write as null, are refused in words.
    pub fn result<T: Serialize>(&self, result: &T) -> Result<serde_json::Value, JobError> {
        let refused = |error: &dyn std::fmt::Display| JobError::permanent(format!("The job's result {error}"));
        let text = JsonText::of(result).map_err(|error| refused(&error))?;
        text.read().map_err(|error| refused(&error))
    }

    /// As [`checkpoint`](Self::checkpoint), for code on a thread of [`blocking`](Self::blocking). It also
    /// ends with `Err` when the worker leaves (a thread cannot be dropped): return, as for a cancel.
    pub fn checkpoint_blocking(&self) -> Result<(), Cancelled> {
        self.inner.gate.checkpoint_blocking()
    }

    /// Runs code that blocks on a thread of its own. The job counts as paused, cancelled or ended only
    /// when this thread waits at [`checkpoint_blocking`](Self::checkpoint_blocking) or is done.
    pub async fn blocking<T, F>(&self, code: F) -> Result<T, JobError>
    where
        T: Send + 'static,
        F: FnOnce(&Self) -> Result<T, JobError> + Send + 'static,
    {
        let thread = self.inner.gate.open_thread();
        let ctx = self.clone();
        let running = self.inner.tracker.spawn_blocking(move || {
            let _thread = thread;
            code(&ctx)
        });
        match running.await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(error) => Err(JobError::failed(error)),
        }
    }

    /// Opens a regular file whose path comes from the job's parameters, beneath the folder that the worker's setting
    /// `worker.files_root` names. Whoever may create jobs chooses that path, so nothing leads out of the folder: no
    /// absolute path, no `..`, no link; pipes and devices are refused, and so is every file where the setting names no
    /// folder. Blocks: call it inside [`blocking`](Self::blocking).
    ///
    /// Errors are shown to everybody who may read the job: say in them where a file is wrong, and not what it contains.
    pub fn open_file(&self, path: impl AsRef<Path>) -> Result<File, JobError> {
        self.inner.files.open(path.as_ref())
    }

    /// The regular files in a folder beneath `worker.files_root`, sorted, each as [`open_file`](Self::open_file) takes
    /// it; `.` is that folder itself. Links and folders in it are left out. Blocks, as `open_file` does.
    pub fn list_files(&self, folder: impl AsRef<Path>) -> Result<Vec<PathBuf>, JobError> {
        self.inner.files.list(folder.as_ref())
    }

    /// Starts a program that belongs to the job: it stands still while the job is paused, and is gone
    /// when the job is. A cancel asks it to end at once, also while a [`critical`](Self::critical) section
    /// waits for it. [`Program::new`] says what to start, and what `main` must do for it.
    pub async fn child(&self, program: Program) -> Result<ChildProgram, JobError> {
        // A start that is broken off half-way would leave a program that nobody knows.
        let mut child = self.critical(self.inner.children.start(program)).await?;
        child.keep_output(&self.inner.progress.output, &self.inner.tracker).map_err(JobError::failed)?;
        let (problems, progress) = (child.control_problems(), self.inner.progress.clone());
        self.inner.tracker.spawn(report_control_problems(problems, child.pid(), progress, self.resource().clone()));
        Ok(child)
    }
}
