//! The test kit of job code: runs a job in the test's own process, without Redis and without SQL.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::domain::{self, FailedItem, Progress, Resource, ResourceKind};
use crate::store::{ClaimedJob, Run};
use crate::worker::run::child::ChildPrograms;
use crate::worker::run::control::{ControlOutcome, Controlled};
use crate::worker::run::pause_gate::{Directive, PauseGate, WorkEnd};
use crate::worker::run::run_progress::RunProgress;
use crate::worker::run::runner::{CodeRun, grace_period_over, panic_message};
use crate::worker::sdk::context::JobContext;
use crate::worker::sdk::error::{Cancelled, JobError};
use crate::worker::sdk::files::JobFiles;
use crate::worker::sdk::job::Job;
use crate::worker::sdk::recorder::{Record, Recorder, blank_job, known};

/// How often a run is told that it still has its job, as a worker's renewals do.
const CONFIRM_INTERVAL: Duration = Duration::from_secs(1);

/// One job, and everything that it has said over all its runs: a worker, Redis and SQL in a few structs.
///
/// [`start`](Self::start) begins a run, from the last [saved](JobContext::save) point of the runs before it.
/// The [`JobRun`] is then paused, resumed, cancelled, killed and handed on as operators and accidents do it, by the same
/// code as in a worker: a pause counts as done only when the job's code stands still.
///
/// ```
/// use serde_json::json;
/// # mod wheelhouse_worker { pub use wheelhouse::{domain::Progress, worker::*}; }
/// use wheelhouse_worker::{Job, JobContext, JobEnd, JobError, JobHarness, Progress};
///
/// struct Count;
///
/// impl Job for Count {
///     const TYPE: &'static str = "count";
///
///     async fn run(&self, ctx: JobContext) -> Result<serde_json::Value, JobError> {
///         let to: i64 = ctx.parameters_as()?;
///         let mut counted: i64 = ctx.resume_point()?.unwrap_or(0);
///         while counted < to {
///             ctx.checkpoint().await?;
///             counted += 1;
///             ctx.save(&counted)?;
///             ctx.progress(Progress { items_processed: counted, ..Progress::default() });
///             tokio::time::sleep(std::time::Duration::from_millis(1)).await;
///         }
///         Ok(json!(counted))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let harness = JobHarness::new(Count).parameters(json!(50));
///
/// // Paused, nothing of it runs on.
/// let run = harness.start();
/// run.until(|progress| progress.items_processed >= 3).await;
/// run.pause().await;
/// let stands_at = harness.progress().items_processed;
/// run.resume().await;
///
/// // Killed, and run again: it goes on from where it was.
/// run.until(|progress| progress.items_processed > stands_at).await;
/// run.kill().await;
/// let run = harness.start();
/// assert!(matches!(run.end().await, JobEnd::Completed(result) if result == json!(50)));
/// assert_eq!(harness.saved_points().len(), 50);
/// # }
/// ```
pub struct JobHarness<J> {
    code: Arc<J>,
    job: domain::Job,
    files_root: Option<PathBuf>,
    grace: Duration,
    patience: Duration,
    record: Arc<Record>,
}

impl<J: Job> JobHarness<J> {
    /// A job of this kind, with the parameters `null`.
    pub fn new(code: J) -> Self {
        Self {
            code: Arc::new(code),
            job: blank_job(J::TYPE),
            files_root: None,
            grace: Duration::from_secs(1),
            patience: Duration::from_secs(10),
            record: Arc::default(),
        }
    }

    /// What the job is given.
    ///
    /// # Panics
    /// When no job could be submitted with it: more than 127 arrays and objects inside one another.
    pub fn parameters(mut self, parameters: serde_json::Value) -> Self {
        let text = domain::JsonText::of(&parameters);
        self.job.parameters = text.unwrap_or_else(|error| panic!("the value of the parameters {error}"));
        self
    }

    /// The folder beneath which the job may read files, as the setting `worker.files_root`. Without it, none.
    pub fn files_root(mut self, folder: impl Into<PathBuf>) -> Self {
        self.files_root = Some(folder.into());
        self
    }

    /// How long code that is cancelled, handed on or out of time may take to reach a checkpoint before it is dropped, as
    /// the setting `worker.grace_seconds`. One second.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// How long the functions of a run wait for the code before the test fails. Ten seconds.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Begins a run: from the last saved point, if there is one. Call it inside a Tokio runtime.
    ///
    /// # Panics
    /// When the run before it has not ended: a job never runs twice at the same time.
    pub fn start(&self) -> JobRun {
        let number = {
            let mut state = self.record.lock();
            assert!(!state.is_running, "the run before has not ended: await its end(), or kill() it");
            state.is_running = true;
            state.runs += 1;
            state.runs
        };
        let resource =
            Resource { tenant: self.job.tenant_id.clone(), kind: ResourceKind::Job, id: self.job.id.clone() };
        let hosted = ClaimedJob {
            job: domain::Job { progress: self.progress(), ..self.job.clone() },
            run: Run { job: resource, host: known("harness"), number },
            resume_point: self.resume_point().map(|point| point.to_string()),
            deaths: 0,
            timeout_used_ms: 0,
        };
        let gate = Arc::new(PauseGate::new());
        let report = Arc::new(RunProgress::starting_at(self.progress()));
        let children = Arc::new(ChildPrograms::default());
        let recorder = Arc::new(Recorder::new(self.record.clone()));
        let files = JobFiles::new(self.files_root.clone());
        let ctx = JobContext::new(hosted, gate.clone(), report, children.clone(), files, TaskTracker::new())
            .recorded_by(recorder.clone());
        let code = self.code.clone();
        let (driver, grace) = (gate.clone(), self.grace);
        let code = tokio::spawn(async move { driver.drive(async move { code.run(ctx).await }).await });
        let abort = code.abort_handle();
        let (over, is_over) = watch::channel(false);
        let supervisor = tokio::spawn(supervise(code, gate.clone(), children.clone(), recorder.clone(), grace, over));
        JobRun {
            work: CodeRun::new(gate.clone(), children),
            gate,
            recorder,
            abort,
            is_over,
            supervisor,
            patience: self.patience,
        }
    }

    /// How far the job has said that it is.
    pub fn progress(&self) -> Progress {
        self.record.progress.borrow().clone()
    }

    /// The items that it has said could not be done, in the order of their first failure; each once, with its newest error.
    pub fn failed_items(&self) -> Vec<FailedItem> {
        self.record.lock().failed.clone()
    }

    /// Every point that it has saved, over all its runs.
    pub fn saved_points(&self) -> Vec<serde_json::Value> {
        self.record.lock().saved.clone()
    }

    /// Where the next run begins.
    pub fn resume_point(&self) -> Option<serde_json::Value> {
        self.record.lock().resume_point.clone()
    }

    /// Has the next run begin somewhere else. A worker that is killed may lose what was saved in its last second, so try
    /// one of the earlier [`saved_points`](Self::saved_points): doing that work again must do no harm.
    ///
    /// # Panics
    /// When the point cannot be written as JSON.
    pub fn resume_from(&self, point: impl Serialize) {
        let point = serde_json::to_value(point).expect("a resume point is written as JSON");
        self.record.lock().resume_point = Some(point);
    }
}

/// One run of a job in a [`JobHarness`]. Dropped, the code is dropped where it awaits.
///
/// # Panics
/// Every function that waits panics when the code does not get there within [`JobHarness::patience`]: it reached no
/// checkpoint.
pub struct JobRun {
    work: CodeRun,
    gate: Arc<PauseGate>,
    recorder: Arc<Recorder>,
    abort: tokio::task::AbortHandle,
    is_over: watch::Receiver<bool>,
    supervisor: tokio::task::JoinHandle<JobEnd>,
    patience: Duration,
}

impl JobRun {
    /// Pauses the job, and returns when its code stands still, or has ended instead.
    pub async fn pause(&self) -> ControlOutcome {
        self.within("the pause", self.work.pause()).await
    }

    /// Lets a paused job go on.
    pub async fn resume(&self) {
        self.within("the resume", self.work.resume()).await;
    }

    /// Cancels the job as the user `operator`, and returns when it is over.
    pub async fn cancel(&self) -> ControlOutcome {
        self.within("the cancel", self.work.cancel("operator", None)).await
    }

    /// The job has used up its `timeout_seconds`. Its code is told as of a cancel; see [`end`](Self::end).
    pub fn time_out(&self) {
        self.gate.set_directive(Directive::TimedOut(Cancelled::timed_out("timed out".to_owned())));
    }

    /// Its worker leaves, as at a deployment: the code is dropped at its next checkpoint, and the next
    /// [`start`](JobHarness::start) goes on from the last saved point.
    pub fn hand_on(&self) {
        self.gate.set_directive(Directive::Leave);
    }

    /// Its worker dies. The code is dropped at once where it awaits, also in a critical section; what it says later, on a
    /// thread that is still running, counts for nothing. Returns when that thread has come to a checkpoint or its end.
    pub async fn kill(self) {
        self.recorder.close();
        self.abort.abort();
        self.gate.set_directive(Directive::Leave);
        self.within("the end of its threads", self.over()).await;
    }

    /// Returns when the job's progress is as asked for.
    ///
    /// # Panics
    /// When the run ends before.
    pub async fn until(&self, mut is_reached: impl FnMut(&Progress) -> bool) {
        let mut progress = self.recorder.record.progress.subscribe();
        let reached = async {
            tokio::select! {
                biased;
                _ = progress.wait_for(|progress| is_reached(progress)) => true,
                () = self.over() => false,
            }
        };
        let reached = self.within("the progress", reached).await;
        assert!(
            reached || is_reached(&self.recorder.record.progress.borrow()),
            "the run has ended before its progress was as the test asks for"
        );
    }

    /// Waits for the end of the run, and says how it ended.
    pub async fn end(mut self) -> JobEnd {
        self.within("the end of the run", self.over()).await;
        // Nothing aborts the supervisor but the end of the runtime.
        (&mut self.supervisor).await.unwrap_or(JobEnd::Killed)
    }

    async fn over(&self) {
        let _ = self.is_over.clone().wait_for(|is_over| *is_over).await;
    }

    async fn within<T>(&self, what: &str, future: impl Future<Output = T>) -> T {
        match tokio::time::timeout(self.patience, future).await {
            Ok(output) => output,
            Err(_) => panic!("the test waited {:?} for {what}: does the job's code reach a checkpoint?", self.patience),
        }
    }
}

impl Drop for JobRun {
    fn drop(&mut self) {
        self.recorder.close();
        self.abort.abort();
        self.gate.set_directive(Directive::Leave);
    }
}

/// How a run in a [`JobHarness`] ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum JobEnd {
    /// With this result.
    Completed(serde_json::Value),
    /// Its code returned an error, or panicked. A [`JobError::Failed`] would be tried again while retries are left.
    Failed(JobError),
    /// It was cancelled.
    Cancelled,
    /// It has used up its time: a failure that may pass.
    TimedOut,
    /// It was dropped at a checkpoint, to go on in another worker.
    HandedOn,
    /// Its worker died.
    Killed,
}

type Driven = Result<Option<Result<serde_json::Value, JobError>>, tokio::task::JoinError>;

async fn supervise(
    mut code: tokio::task::JoinHandle<Option<Result<serde_json::Value, JobError>>>,
    gate: Arc<PauseGate>,
    children: Arc<ChildPrograms>,
    recorder: Arc<Recorder>,
    grace: Duration,
    over: watch::Sender<bool>,
) -> JobEnd {
    let confirming = gate.clone();
    let confirm = async move {
        loop {
            confirming.confirm();
            tokio::time::sleep(CONFIRM_INTERVAL).await;
        }
    };
    let driven = async {
        let in_time = tokio::select! {
            driven = &mut code => Some(driven),
            () = grace_period_over(&gate, grace) => None,
        };
        let driven = match in_time {
            Some(driven) => driven,
            None => {
                gate.overdue();
                code.await
            }
        };
        let _ = children.end().await;
        gate.wait_for_threads().await;
        driven
    };
    let driven = tokio::select! {
        driven = driven => driven,
        () = confirm => return JobEnd::Killed,
    };
    let how = how_it_ended(&gate.directive(), driven);
    gate.ended(match how {
        JobEnd::Cancelled => WorkEnd::Cancelled,
        JobEnd::HandedOn | JobEnd::Killed => WorkEnd::Left,
        _ => WorkEnd::Itself,
    });
    recorder.close();
    recorder.record.lock().is_running = false;
    over.send_replace(true);
    how
}

/// The same rules as in a worker.
fn how_it_ended(directive: &Directive, driven: Driven) -> JobEnd {
    let outcome = match driven {
        Ok(outcome) => outcome,
        Err(error) if error.is_panic() => {
            let message = format!("The job's code panicked: {}", panic_message(&*error.into_panic()));
            Some(Err(JobError::failed(message)))
        }
        Err(_) => return JobEnd::Killed,
    };
    match (directive, outcome) {
        (_, Some(Ok(result))) => JobEnd::Completed(result),
        (Directive::Cancel(_), _) => JobEnd::Cancelled,
        (Directive::TimedOut(_), _) => JobEnd::TimedOut,
        (Directive::Leave, None | Some(Err(JobError::Cancelled(_)))) => JobEnd::HandedOn,
        (_, Some(Err(JobError::Cancelled(_)))) => {
            JobEnd::Failed(JobError::failed("The job's code said it was cancelled, but nobody cancelled it"))
        }
        (_, Some(Err(error))) => JobEnd::Failed(error),
        (_, None) => JobEnd::Failed(JobError::failed("The job's code was dropped")),
    }
}
