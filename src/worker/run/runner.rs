//! Runs job code: drives its future through the pause gate, takes its result or its panic, and has its end recorded.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};

use super::active_run::ActiveRun;
use super::child::ChildPrograms;
use super::control::{ControlOutcome, Controlled};
use super::lifecycle::RunLifecycle;
use super::pause_gate::{Directive, ExecutionState, PauseGate, WorkEnd};
use super::registry::RunRegistry;
use super::run_progress::RunProgress;
use super::timeout;
use crate::domain::JsonText;
use crate::store::{ClaimedJob, RunEnd};
use crate::worker::context::WorkerContext;
use crate::worker::sdk::context::JobContext;
use crate::worker::sdk::error::{Cancelled, JobError};
use crate::worker::sdk::files::JobFiles;
use crate::worker::sdk::job::AnyJob;

/// Job code as commands see it.
pub(crate) struct CodeRun {
    gate: Arc<PauseGate>,
    children: Arc<ChildPrograms>,
}

impl CodeRun {
    pub(crate) fn new(gate: Arc<PauseGate>, children: Arc<ChildPrograms>) -> Self {
        Self { gate, children }
    }
}

impl Controlled for CodeRun {
    fn can_move(&self) -> bool {
        self.children.is_empty()
    }

    fn pause(&self) -> BoxFuture<'_, ControlOutcome> {
        Box::pin(async {
            self.gate.set_directive(Directive::Pause);
            if !wait_until_paused(&self.gate).await {
                return ControlOutcome::EndedItself;
            }
            // The code is paused, so no program is added meanwhile.
            match self.children.pause().await {
                Ok(()) => ControlOutcome::Done,
                Err(why) => {
                    self.resume().await;
                    ControlOutcome::Refused(why)
                }
            }
        })
    }

    fn resume(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.children.resume().await;
            self.gate.set_directive(Directive::Run);
        })
    }

    fn cancel<'a>(&'a self, by: &'a str, reason: Option<&'a str>) -> BoxFuture<'a, ControlOutcome> {
        Box::pin(async move {
            // This is asked first: once the code has been told, there is no way back.
            if let Err(why) = self.children.check_can_end().await {
                return ControlOutcome::Refused(why);
            }
            self.gate
                .set_directive(Directive::Cancel(Cancelled { by: by.to_owned(), reason: reason.map(str::to_owned) }));
            // If a program could not be ended after all, the recorded end of the run says so.
            let _ = self.children.end().await;
            match ended(&self.gate).await {
                WorkEnd::Cancelled => ControlOutcome::Done,
                WorkEnd::Itself | WorkEnd::Left => ControlOutcome::EndedItself,
            }
        })
    }
}

/// Waits until the code is paused (`true`) or has ended.
async fn wait_until_paused(gate: &PauseGate) -> bool {
    let mut state = gate.watch_state();
    let reached = state.wait_for(|state| *state != ExecutionState::Running).await;
    reached.is_ok_and(|state| *state == ExecutionState::Paused)
}

async fn ended(gate: &PauseGate) -> WorkEnd {
    let mut state = gate.watch_state();
    let reached = state.wait_for(|state| matches!(state, ExecutionState::Ended(_))).await;
    match reached.as_deref() {
        Ok(ExecutionState::Ended(how)) => *how,
        _ => WorkEnd::Itself,
    }
}

/// Starts job code, and sees each run of it to its end.
pub(crate) struct JobRunner {
    ctx: Arc<WorkerContext>,
    runs: Arc<RunRegistry>,
    lifecycle: Arc<RunLifecycle>,
}

impl JobRunner {
    pub(crate) fn new(ctx: Arc<WorkerContext>, runs: Arc<RunRegistry>, lifecycle: Arc<RunLifecycle>) -> Self {
        Self { ctx, runs, lifecycle }
    }

    /// Starts the code of a job that SQL has given to this worker.
    pub(crate) async fn start_job(&self, job: ClaimedJob, code: Arc<dyn AnyJob>) {
        let gate = Arc::new(PauseGate::new());
        let progress = Arc::new(RunProgress::starting_at(job.job.progress.clone()));
        let children = Arc::new(ChildPrograms::default());
        let work = Arc::new(CodeRun::new(gate.clone(), children.clone()));
        let files = JobFiles::new(self.ctx.settings.worker.files_root.clone());
        let tracker = self.ctx.tracker.clone();
        let job_context =
            JobContext::new(job.clone(), gate.clone(), progress.clone(), children.clone(), files, tracker);
        tracing::info!(
            job_id = %job.run.job.id, tenant_id = %job.run.job.tenant, job_type = job.job.job_type, run = job.run.number,
            resumed = job.resume_point.is_some(), worker_id = %self.ctx.id, "worker.job_started"
        );
        let (run, flush_requests) = ActiveRun::new(job, work, progress, Some(gate.clone()));
        self.lifecycle.start(&run, flush_requests).await;
        let code = code.run_boxed(job_context);
        self.ctx.spawn(supervise(self.ctx.clone(), self.lifecycle.clone(), run, gate, children, code));
    }

    /// Asks every job that runs here to stop and to be released, and waits for that, at most so long.
    pub(crate) async fn release_jobs(&self, within: Duration) {
        // A foreign run is not released: its session takes it along to another worker.
        let all: Vec<_> = self.runs.all().into_iter().filter(|run| run.gate.is_some()).collect();
        for run in &all {
            if let Some(gate) = &run.gate {
                gate.set_directive(Directive::Leave);
            }
        }
        let released = join_all(all.iter().map(|run| run.exited()));
        if tokio::time::timeout(within, released).await.is_err() {
            let left: Vec<String> =
                all.iter().filter(|run| !run.has_exited()).map(|run| run.resource().to_string()).collect();
            tracing::warn!(jobs = ?left, "worker.jobs_left_behind"); // The rescuer of another worker releases them.
        }
    }
}

type Outcome = Result<JsonText, JobError>;

async fn supervise(
    ctx: Arc<WorkerContext>,
    lifecycle: Arc<RunLifecycle>,
    run: Arc<ActiveRun>,
    gate: Arc<PauseGate>,
    children: Arc<ChildPrograms>,
    code: BoxFuture<'static, Result<serde_json::Value, JobError>>,
) {
    let driver = gate.clone();
    // A dead host's claim on a command lasts no longer than the lease.
    let (commands, longest) = (run.commands.subscribe(), ctx.settings.command.lease + Duration::from_secs(1));
    let begin = async move {
        driver.wait_before_start(commands, longest).await.map_err(JobError::Cancelled)?;
        let result = code.await?;
        JsonText::of(&result).map_err(|error| JobError::permanent(format!("The job's result {error}")))
    };
    // A task of its own: a panic in it is caught, and nothing it does holds up renewals.
    let driver = gate.clone();
    let mut running = ctx.tracker.spawn(async move { driver.drive(begin).await });
    let abort = AbortOnDrop(running.abort_handle());
    let in_time = tokio::select! {
        outcome = &mut running => Some(outcome),
        () = grace_period_over(&gate, ctx.settings.worker.grace) => None,
        () = end_after_time_limit(&run, &gate, &children) => None,
    };
    let outcome = match in_time {
        Some(outcome) => outcome,
        None => {
            gate.overdue();
            running.await
        }
    };
    drop(abort);
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) if error.is_panic() => {
            let message = format!("The job's code panicked: {}", panic_message(&*error.into_panic()));
            tracing::error!(job_id = %run.resource().id, tenant_id = %run.resource().tenant, error = message, "worker.job_panicked");
            Some(Err(JobError::failed(message)))
        }
        Err(_) => return, // The runtime itself is ending.
    };
    // None of its programs outlives it.
    let left_running = children.end().await.err();
    gate.wait_for_threads().await;
    let (how, end) = to_run_end(&gate.directive(), outcome);
    let (how, end) = match left_running {
        None => (how, end),
        Some(message) => with_leftover_processes(end, &message),
    };
    gate.ended(how);
    match (how, end) {
        (WorkEnd::Itself, Some(end)) => {
            let (reason, row) = lifecycle.record_end(&run, end).await;
            let status = row.map(|row| row.status.as_str());
            tracing::info!(job_id = %run.resource().id, tenant_id = %run.resource().tenant, status, gone = ?reason, "worker.job_ended");
        }
        (WorkEnd::Left, _) => lifecycle.release_run(&run).await,
        // The command that ended it writes that down.
        (WorkEnd::Cancelled | WorkEnd::Itself, _) => {}
    }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Asks a run whose time is over to end, as a cancel does. Does not return.
async fn end_after_time_limit(run: &ActiveRun, gate: &PauseGate, children: &ChildPrograms) {
    let limit = timeout::expired(run.status.subscribe(), run.time_limit.clone()).await;
    let why = Cancelled::timed_out(timeout::message(limit));
    tracing::warn!(job_id = %run.resource().id, tenant_id = %run.resource().tenant, run = run.run().number, limit_s = limit.as_secs(), "worker.job_timed_out");
    gate.set_directive(Directive::TimedOut(why));
    let _ = children.end().await; // If a program could not be ended, the recorded end of the run says so.
    std::future::pending::<()>().await;
}

/// Returns when the code was to end for the whole grace period.
pub(crate) async fn grace_period_over(gate: &PauseGate, grace: Duration) {
    let mut directive = gate.watch_directive();
    let ends =
        |directive: &Directive| matches!(directive, Directive::Cancel(_) | Directive::TimedOut(_) | Directive::Leave);
    let _ = directive.wait_for(ends).await;
    tokio::time::sleep(grace).await;
}

/// How a run ends, given the outcome of its code and the directive that held when the outcome came.
fn to_run_end(directive: &Directive, outcome: Option<Outcome>) -> (WorkEnd, Option<RunEnd>) {
    let failed = |error: String, permanent| (WorkEnd::Itself, Some(RunEnd::Failed { error, permanent }));
    match (directive, outcome) {
        // Whatever the directive was: the work is done.
        (_, Some(Ok(result))) => (WorkEnd::Itself, Some(RunEnd::Completed(result))),
        (Directive::Cancel(_), _) => (WorkEnd::Cancelled, None),
        (Directive::TimedOut(why), _) => failed(why.reason.clone().unwrap_or_default(), false),
        (Directive::Leave, None | Some(Err(JobError::Cancelled(_)))) => (WorkEnd::Left, None),
        (_, Some(Err(JobError::Failed(error)))) => failed(error.to_string(), false),
        (_, Some(Err(JobError::Permanent(error)))) => failed(error.to_string(), true),
        (_, Some(Err(JobError::Cancelled(_)))) => {
            failed("The job's code said it was cancelled, but nobody cancelled it".to_owned(), false)
        }
        (_, None) => failed("The job's code was dropped".to_owned(), false),
    }
}

/// A program of the job cannot be ended. So the job is neither cancelled nor completed nor handed to another worker,
/// where a second program like it would run beside the first: it has failed, and says what runs on.
fn with_leftover_processes(end: Option<RunEnd>, message: &str) -> (WorkEnd, Option<RunEnd>) {
    let error = match end {
        Some(RunEnd::Failed { error, .. }) => format!("{error}; a program of the job {message}"),
        Some(RunEnd::Completed(_) | RunEnd::Cancelled { .. }) | None => format!("A program of the job {message}"),
    };
    (WorkEnd::Itself, Some(RunEnd::Failed { error, permanent: true }))
}

pub(crate) fn panic_message(payload: &(dyn std::any::Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::run::{output_writer, progress_writer};

    /// The room that a task takes.
    fn size<A, B, C, D, E, F>(_: impl FnOnce(A, B, C, D, E) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_run_among_ten_thousand_takes_no_room_for_what_is_rare() {
        let progress = size(progress_writer::run);
        let output = size(|ctx, run, turns, (), ()| output_writer::run(ctx, run, turns));
        let supervised =
            size(|(ctx, lifecycle), run, gate, children, code| supervise(ctx, lifecycle, run, gate, children, code));
        assert!(progress + output + supervised < 8 * 1_024, "{progress} + {output} + {supervised} bytes");
    }
}
