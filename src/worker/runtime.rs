//! Runs job code: drives its future through the gate, takes its result or its panic, and has its end recorded.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};

use super::child::Children;
use super::context::JobContext;
use super::core::{Core, Desired};
use super::files::Files;
use super::gate::{Ended, Gate, Standing, Wanted};
use super::hosted::{Controlled, Reached};
use super::hosts::Hosted;
use super::job::{AnyJob, Cancelled, JobError};
use super::report::Report;
use super::timeout;
use crate::store::{HostedJob, RunEnd};

/// Job code as commands see it.
struct CodeWork {
    gate: Arc<Gate>,
    children: Arc<Children>,
}

impl Controlled for CodeWork {
    fn pause(&self) -> BoxFuture<'_, Reached> {
        Box::pin(async {
            self.gate.want(Wanted::Pause);
            if !stopped(&self.gate).await {
                return Reached::EndedItself;
            }
            // The code stands still, so none is added meanwhile.
            match self.children.pause().await {
                Ok(()) => Reached::Yes,
                Err(why) => {
                    self.resume().await;
                    Reached::Refused(why)
                }
            }
        })
    }

    fn resume(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.children.resume().await;
            self.gate.want(Wanted::Go);
        })
    }

    fn cancel<'a>(&'a self, by: &'a str, reason: Option<&'a str>) -> BoxFuture<'a, Reached> {
        Box::pin(async move {
            // Asked first: once the code has been told, there is no way back.
            if let Err(why) = self.children.can_end().await {
                return Reached::Refused(why);
            }
            self.gate.want(Wanted::Cancel(Cancelled { by: by.to_owned(), reason: reason.map(str::to_owned) }));
            // What could not be ended after all, the end of the run tells.
            let _ = self.children.end().await;
            match ended(&self.gate).await {
                Ended::Cancelled => Reached::Yes,
                Ended::Itself | Ended::Left => Reached::EndedItself,
            }
        })
    }
}

/// Waits until it stands still (`true`) or is gone.
async fn stopped(gate: &Gate) -> bool {
    let mut standing = gate.watch_standing();
    let reached = standing.wait_for(|standing| *standing != Standing::Going).await;
    reached.is_ok_and(|standing| *standing == Standing::Still)
}

async fn ended(gate: &Gate) -> Ended {
    let mut standing = gate.watch_standing();
    let reached = standing.wait_for(|standing| matches!(standing, Standing::Ended(_))).await;
    match reached.as_deref() {
        Ok(Standing::Ended(how)) => *how,
        _ => Ended::Itself,
    }
}

impl Core {
    /// Starts the code of a job that SQL has given to this worker.
    pub(crate) async fn start_job(self: &Arc<Self>, job: HostedJob, code: Arc<dyn AnyJob>) {
        let gate = Arc::new(Gate::new());
        let report = Arc::new(Report::starting_at(job.job.progress.clone()));
        let children = Arc::new(Children::default());
        let work = Arc::new(CodeWork { gate: gate.clone(), children: children.clone() });
        let files = Files::new(self.settings.worker.files_root.clone());
        let ctx =
            JobContext::new(job.clone(), gate.clone(), report.clone(), children.clone(), files, self.tracker.clone());
        tracing::info!(
            job_id = %job.run.job.id, tenant_id = %job.run.job.tenant, job_type = job.job.job_type, run = job.run.number,
            resumed = job.resume_point.is_some(), worker_id = %self.id, "worker.job_started"
        );
        let (status, resource) = (job.job.status, job.run.job.clone());
        let (hosted, hear_flush) = Hosted::new(job, work, report, Some(gate.clone()));
        self.host(&hosted, hear_flush).await;
        self.publish_status(&resource, status, Desired::Nothing).await;
        self.spawn(supervise(self.clone(), hosted, gate, children, code.run_boxed(ctx)));
    }

    /// Asks everything that runs here to stop and be handed back, and waits until it is, at most so long.
    pub(crate) async fn leave_jobs(self: &Arc<Self>, within: Duration) {
        let all = self.hosts.all();
        for hosted in &all {
            if let Some(gate) = &hosted.gate {
                gate.want(Wanted::Leave);
            }
        }
        let left = join_all(all.iter().map(|hosted| hosted.gone()));
        if tokio::time::timeout(within, left).await.is_err() {
            let still: Vec<String> = self.hosts.all().iter().map(|hosted| hosted.resource().to_string()).collect();
            tracing::warn!(jobs = ?still, "worker.jobs_left_behind"); // The reaper of another worker takes them.
        }
    }
}

type Outcome = Result<serde_json::Value, JobError>;

async fn supervise(
    core: Arc<Core>,
    hosted: Arc<Hosted>,
    gate: Arc<Gate>,
    children: Arc<Children>,
    code: BoxFuture<'static, Outcome>,
) {
    let driver = gate.clone();
    // A dead host's claim on a command lasts no longer than the lease.
    let (commands, most) = (hosted.commands.subscribe(), core.settings.command.lease + Duration::from_secs(1));
    let begin = async move {
        driver.before_begin(commands, most).await.map_err(JobError::Cancelled)?;
        code.await
    };
    // A task of its own: a panic in it is caught, and nothing it does holds up renewals.
    let driver = gate.clone();
    let mut running = core.tracker.spawn(async move { driver.drive(begin).await });
    let abort = AbortOnDrop(running.abort_handle());
    let in_time = tokio::select! {
        outcome = &mut running => Some(outcome),
        () = overdue(&gate, core.settings.worker.grace) => None,
        () = end_in_time(&hosted, &gate, &children) => None,
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
            let words = format!("The job's code panicked: {}", panic_words(&*error.into_panic()));
            tracing::error!(job_id = %hosted.resource().id, tenant_id = %hosted.resource().tenant, error = words, "worker.job_panicked");
            Some(Err(JobError::failed(words)))
        }
        Err(_) => return, // The runtime itself is ending.
    };
    // None of its programs outlives it.
    let left_running = children.end().await.err();
    gate.threads_gone().await;
    let (how, end) = judge(&gate.wanted(), outcome);
    let (how, end) = match left_running {
        None => (how, end),
        Some(words) => with_what_runs_on(end, &words),
    };
    gate.ended(how);
    match (how, end) {
        (Ended::Itself, Some(end)) => {
            let (gone, row) = core.settle(&hosted, end).await;
            let status = row.map(|row| row.status.word());
            tracing::info!(job_id = %hosted.resource().id, tenant_id = %hosted.resource().tenant, status, ?gone, "worker.job_ended");
        }
        (Ended::Left, _) => core.hand_back(&hosted).await,
        // The command that ended it writes that down.
        (Ended::Cancelled | Ended::Itself, _) => {}
    }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Asks a run that has used up its time to end, as a cancel does. Does not return.
async fn end_in_time(hosted: &Hosted, gate: &Gate, children: &Children) {
    let limit = timeout::used_up(hosted.status.subscribe(), timeout::limit(&hosted.job.job)).await;
    let why = Cancelled::timed_out(timeout::words(limit));
    tracing::warn!(job_id = %hosted.resource().id, tenant_id = %hosted.resource().tenant, run = hosted.run().number, limit_s = limit.as_secs(), "worker.job_timed_out");
    gate.want(Wanted::TimedOut(why));
    let _ = children.end().await; // What could not be ended, the end of the run tells.
    std::future::pending::<()>().await;
}

/// Returns when the end has been wanted for the whole grace.
async fn overdue(gate: &Gate, grace: Duration) {
    let mut wanted = gate.watch_wanted();
    let ends = |wanted: &Wanted| matches!(wanted, Wanted::Cancel(_) | Wanted::TimedOut(_) | Wanted::Leave);
    let _ = wanted.wait_for(ends).await;
    tokio::time::sleep(grace).await;
}

/// What an outcome means, given what was wanted when it came.
fn judge(wanted: &Wanted, outcome: Option<Outcome>) -> (Ended, Option<RunEnd>) {
    let failed = |error: String, permanent| (Ended::Itself, Some(RunEnd::Failed { error, permanent }));
    match (wanted, outcome) {
        // Whatever was wanted: the work is done.
        (_, Some(Ok(result))) => (Ended::Itself, Some(RunEnd::Completed(result))),
        (Wanted::Cancel(_), _) => (Ended::Cancelled, None),
        (Wanted::TimedOut(why), _) => failed(why.reason.clone().unwrap_or_default(), false),
        (Wanted::Leave, None | Some(Err(JobError::Cancelled(_)))) => (Ended::Left, None),
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
fn with_what_runs_on(end: Option<RunEnd>, words: &str) -> (Ended, Option<RunEnd>) {
    let error = match end {
        Some(RunEnd::Failed { error, .. }) => format!("{error}; a program of the job {words}"),
        Some(RunEnd::Completed(_)) | None => format!("A program of the job {words}"),
    };
    (Ended::Itself, Some(RunEnd::Failed { error, permanent: true }))
}

fn panic_words(payload: &(dyn std::any::Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no words")
}
