//! Sees a foreign run to its end: its time limit, the loss of its session, its own end and a command's.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::link::LinkState;
use super::run::WHEELHOUSE;
use super::session::{Attached, Session};
use super::shared::Shared;
use crate::domain::JobStatus;
use crate::protocol::worker::{End, EndedHow, OrderKind, ToClient};
use crate::store::{HandBack, RunEnd};
use crate::worker::run::active_run::{ActiveRun, ExitReason, Phase};
use crate::worker::run::timeout;

/// Between two tries to hand a run back that a command is just ending.
const RELEASE_RETRY_DELAY: Duration = Duration::from_millis(50);
const LOST: &str = "Another run has the job, or another system has ended it: end the work";

/// What the client is told last.
enum LastWord {
    /// How the row stands.
    Ended(JobStatus),
    /// That the run is not its own any more.
    Lost,
}

/// Looks after a run until it has exited, and tells the client how.
pub(crate) async fn supervise(shared: Arc<Shared>, session: Arc<Session>, attached: Attached) {
    let last = until_exited(&shared, &session, &attached).await;
    let Attached { run, work } = &attached;
    let reference = work.reference();
    match last {
        LastWord::Ended(status) => {
            session.left(reference, run, Some(status));
            work.say(ToClient::Ended { reference, status: status.as_str() }.text());
        }
        LastWord::Lost => {
            session.left(reference, run, None);
            work.say(ToClient::Lost { reference, message: LOST }.text());
        }
    }
    work.silence();
    tracing::info!(job_id = %run.resource().id, tenant_id = %run.resource().tenant, run = run.run().number, gone = ?run.phase(), "worker.foreign_run_left");
}

async fn until_exited(shared: &Arc<Shared>, session: &Session, attached: &Attached) -> LastWord {
    let Attached { run, work } = attached;
    let (mut changes, mut link) = (work.changes(), work.link().watch());
    let mut expired = pin!(timeout::expired(run.status.subscribe(), run.time_limit.clone()));
    let mut late: Option<String> = None;
    let mut unclaimed: Option<(u64, Instant)> = None;
    loop {
        changes.mark_unchanged();
        link.mark_unchanged();
        if let Some(end) = work.ended() {
            return Box::pin(record(shared, session, attached, end, late)).await;
        }
        if let Some(words) = &late {
            match work.has_timed_out() {
                Some(Ok(())) => {
                    let end = RunEnd::Failed { error: words.clone(), permanent: false };
                    return recorded(shared.lifecycle.record_end(run, end).await);
                }
                Some(Err(why)) => {
                    run.progress.control_problem(0, Some(format!("{words}, and cannot be ended: {why}")));
                }
                None => {}
            }
        }
        // A client that is back and does not ask for the run never heard of it, or has forgotten it.
        unclaimed = work.socket_without_it().map(|socket| match unclaimed {
            Some((same, until)) if same == socket => (socket, until),
            _ => (socket, Instant::now() + shared.ctx.settings.worker.reattach),
        });
        let is_unclaimed = unclaimed.is_some_and(|(_, until)| Instant::now() >= until);
        if is_unclaimed || matches!(*link.borrow(), LinkState::Over { .. }) {
            release(shared, run, HandBack::default()).await;
            return exit(run);
        }
        let kill_at = late.as_ref().and_then(|_| work.kill_at());
        let kill = async {
            match kill_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let unclaimed = async {
            match unclaimed {
                Some((_, until)) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = run.exited() => return exit(run),
            _ = changes.changed() => {}
            _ = link.changed() => {}
            () = unclaimed => {}
            limit = &mut expired, if late.is_none() => {
                let words = timeout::message(limit);
                tracing::warn!(job_id = %run.resource().id, tenant_id = %run.resource().tenant, run = run.run().number, limit_s = limit.as_secs(), "worker.job_timed_out");
                work.order(OrderKind::TimeOut, WHEELHOUSE, Some(&words));
                late = Some(words);
            }
            () = kill => work.kill_if_due(),
        }
    }
}

/// What the exit of a run means that nothing here has caused.
fn exit(run: &ActiveRun) -> LastWord {
    match run.phase() {
        Phase::Exited(ExitReason::Cancelled) => LastWord::Ended(JobStatus::Cancelled),
        _ => LastWord::Lost,
    }
}

fn recorded((reason, row): (ExitReason, Option<Box<crate::domain::Job>>)) -> LastWord {
    match (reason, row) {
        (ExitReason::Recorded, Some(row)) => LastWord::Ended(row.status),
        (ExitReason::Cancelled, _) => LastWord::Ended(JobStatus::Cancelled),
        (ExitReason::Recorded | ExitReason::Elsewhere, _) => LastWord::Lost,
    }
}

/// Records how the work has ended by itself.
async fn record(
    shared: &Arc<Shared>,
    session: &Session,
    attached: &Attached,
    end: End,
    late: Option<String>,
) -> LastWord {
    let Attached { run, work } = attached;
    run.progress.control_problem(0, None);
    let end = match end.how {
        EndedHow::Completed => {
            if run.progress.latest().progress.progress_percent == 0 {
                run.progress.progress(work.completed_figures());
            }
            RunEnd::Completed(end.result.unwrap_or_default())
        }
        EndedHow::Failed => {
            let error = end.error.filter(|error| !error.trim().is_empty());
            let error = match (late, error) {
                (Some(words), _) => words,
                (None, Some(error)) => error,
                (None, None) => "The work failed and did not say why".to_owned(),
            };
            RunEnd::Failed { error, permanent: end.permanent.unwrap_or(false) }
        }
        EndedHow::Cancelled => {
            // The worker that ordered a cancel may have died when the client had obeyed. The command then comes to this one,
            // and finds its work ended: it has succeeded, and the row says who wanted it.
            shared.wait_for_commands(run).await;
            RunEnd::Cancelled { by: session.name.clone() }
        }
        EndedHow::HandedBack => {
            let run_after = end.run_after.map(jiff::Timestamp::as_millisecond);
            release(shared, run, HandBack { run_after, failed_with: end.error, by_the_work: true }).await;
            if run.phase() != Phase::Exited(ExitReason::Elsewhere) {
                return exit(run);
            }
            return match shared.ctx.store.job_without_contents(run.resource()).await {
                Ok(Some(job)) => LastWord::Ended(job.status),
                _ => LastWord::Ended(JobStatus::Pending),
            };
        }
    };
    recorded(shared.lifecycle.record_end(run, end).await)
}

/// Hands a run back; waits for a command that is just ending it.
async fn release(shared: &Arc<Shared>, run: &Arc<ActiveRun>, how: HandBack) {
    while !run.has_exited() {
        shared.lifecycle.hand_back(run, how.clone()).await;
        if !run.has_exited() {
            tokio::time::sleep(RELEASE_RETRY_DELAY).await;
        }
    }
}
