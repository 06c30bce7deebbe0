//! How a foreign session gets a job.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::link::LinkState;
use super::run::RemoteRun;
use super::session::{Attached, Session};
use super::shared::Shared;
use super::supervise::supervise;
use crate::domain::{JobStatus, JsonText};
use crate::protocol::worker::{FOREIGN_TYPE, FromClient, NamedJob, RefusedWhy, ToClient};
use crate::store::{ClaimedJob, NewJob, RemoteAttach, RemoteWish, StoreError};
use crate::worker::notify::updates::{Desired, publish_status};
use crate::worker::run::active_run::{ActiveRun, ExitReason, Phase};
use crate::worker::run::run_progress::RunProgress;

/// The wait before SQL is asked again.
const RETRY_DELAY: Duration = Duration::from_millis(250);
/// How long a published job is kept whose publisher has gone: nobody else would tell of it.
const EXPECT_FOR: Duration = Duration::from_secs(60);
/// When a client may ask again whose job waits for its campaign.
const CAMPAIGN_RETRY: u64 = 5;

/// A refusal in words.
pub(crate) fn refused(reference: u64, error: RefusedWhy, message: &str, retry_after: Option<u64>) -> String {
    ToClient::Refused { reference, error, status: None, message, retry_after }.text()
}

/// Asks SQL for the job and answers; gives what the client has sent about it meanwhile, if it has it now.
pub(crate) async fn attach(
    shared: &Arc<Shared>,
    session: &Arc<Session>,
    wish: NamedJob,
) -> Option<(Attached, Vec<FromClient>)> {
    let (reference, run, is_move) = (wish.reference, wish.run, wish.run.is_some());
    let job = new_job(wish);
    // At most 2^53: it was checked.
    let number = i64::try_from(reference).unwrap_or(i64::MAX);
    let mut wanted = RemoteWish { session: &session.key, reference: number, run, tried: None };
    let refuse = |text: String| {
        session.refused(reference);
        session.link.send(text);
        None
    };
    let found = loop {
        let turn = shared.turn(session).await?;
        let answer = shared.ctx.store.attach_remote(&job, &shared.ctx.id, &mut wanted).await;
        drop(turn);
        match answer {
            Ok(found) => break found,
            Err(StoreError::Conflict(why)) => return refuse(refused(reference, RefusedWhy::Invalid, &why, None)),
            Err(error) if error.is_transient() => {
                tracing::warn!(job_id = %job.id, tenant_id = %job.tenant, %error, "worker.attach_delayed");
            }
            Err(error) => {
                tracing::error!(job_id = %job.id, tenant_id = %job.tenant, %error, "worker.attach_failed");
                let why = "The job could not be stored. Ask your operator to look at the worker's log";
                return refuse(refused(reference, RefusedWhy::Invalid, why, None));
            }
        }
        // Nobody waits for the answer any more: the client attaches again on its next socket.
        if !matches!(session.link.state(), LinkState::Connected(_)) || shared.ctx.stop.is_cancelled() {
            session.refused(reference);
            return None;
        }
        tokio::time::sleep(RETRY_DELAY).await;
    };
    match found {
        RemoteAttach::Attached(claimed) => start(shared, session, reference, *claimed, is_move).await,
        RemoteAttach::Ended { status, is_own } => {
            if is_own {
                // The client may not have heard that the end of its run is recorded.
                session.ended(reference, status);
                session.link.send(ToClient::refused_ended(reference, status));
                return None;
            }
            refuse(ToClient::refused_ended(reference, status))
        }
        RemoteAttach::Elsewhere => {
            let seconds = shared.ctx.settings.worker.reattach.as_secs().max(1);
            let why = "Another process has this job and lives, or may come back for it";
            refuse(refused(reference, RefusedWhy::Elsewhere, why, Some(seconds)))
        }
        RemoteAttach::CampaignPaused => {
            let why = "The job's campaign is paused: its jobs do not begin until it is resumed";
            refuse(refused(reference, RefusedWhy::Elsewhere, why, Some(CAMPAIGN_RETRY)))
        }
    }
}

/// Hosts a run that SQL has given to this worker, and tells the client that it may begin.
async fn start(
    shared: &Arc<Shared>,
    session: &Arc<Session>,
    reference: u64,
    claimed: ClaimedJob,
    is_move: bool,
) -> Option<(Attached, Vec<FromClient>)> {
    let ctx = &shared.ctx;
    let (resource, number) = (claimed.run.job.clone(), claimed.run.number);
    let (status, figures) = (claimed.job.status, claimed.job.progress.clone());
    tracing::info!(
        job_id = %resource.id, tenant_id = %resource.tenant, job_type = claimed.job.job_type, run = number, session = session.key,
        moved = is_move, worker_id = %ctx.id, "worker.foreign_run_attached"
    );
    let progress = Arc::new(RunProgress::starting_at(figures.clone()));
    let grace = ctx.settings.worker.grace;
    let is_paused = status == JobStatus::Paused;
    let work = RemoteRun::new(reference, number, session.link.clone(), grace, figures, is_move, is_paused);
    let work = Arc::new(work);
    let (run, flush_requests) = ActiveRun::new(claimed, work.clone(), progress, None);
    work.watch_phase(run.phase.subscribe());
    let attached = Attached { run: run.clone(), work: work.clone() };
    shared.lifecycle.start(&run, flush_requests).await;
    if !is_move {
        shared.wait_for_commands(&run).await;
    }
    let point = resume_point(&run);
    let begins = !run.has_exited() && work.attached(&point);
    if !begins {
        // A cancel that was there first: the work never begins.
        run.exited().await;
        session.refused(reference);
        session.link.send(match run.phase() {
            Phase::Exited(ExitReason::Cancelled) => ToClient::refused_ended(reference, JobStatus::Cancelled),
            _ => refused(reference, RefusedWhy::Elsewhere, "Another run has this job", Some(1)),
        });
        return None;
    }
    let early = session.attached(reference, attached.clone());
    ctx.spawn(supervise(shared.clone(), session.clone(), attached.clone()));
    Some((attached, early))
}

/// Where the run goes on: what it has saved here, else what the row says.
pub(crate) fn resume_point(run: &ActiveRun) -> JsonText {
    let saved = run.progress.latest().resume_point;
    saved.or_else(|| JsonText::parse(run.job.resume_point.as_deref()?).ok()).unwrap_or_default()
}

/// Makes the row of a job that was published and has not begun, and answers.
pub(crate) async fn expect(shared: &Arc<Shared>, session: &Arc<Session>, wish: NamedJob) {
    let (reference, run_after) = (wish.reference, wish.run_after.map(jiff::Timestamp::as_millisecond));
    let job = new_job(wish);
    let give_up = Instant::now() + EXPECT_FOR;
    let answer = loop {
        let Some(turn) = shared.turn(session).await else { return };
        let answer = shared.ctx.store.expect_remote(&job, run_after).await;
        drop(turn);
        match answer {
            Ok((row, is_new)) => {
                if is_new {
                    let resource = crate::domain::Resource::job(job.tenant.clone(), job.id.clone());
                    publish_status(&shared.ctx.broker, &resource, row.status, Desired::Nothing).await;
                }
                break ToClient::Expected { reference, status: row.status.as_str() }.text();
            }
            Err(StoreError::Conflict(why)) => break refused(reference, RefusedWhy::Invalid, &why, None),
            Err(error) => tracing::warn!(job_id = %job.id, tenant_id = %job.tenant, %error, "worker.expect_delayed"),
        }
        // A client that comes back says it again. One that has said goodbye does not: a short program that publishes.
        let is_gone = !matches!(session.link.state(), LinkState::Connected(_));
        if shared.ctx.stop.is_cancelled() || (is_gone && (Instant::now() >= give_up || shared.is_crowded())) {
            return;
        }
        tokio::time::sleep(RETRY_DELAY).await;
    };
    session.link.send(answer);
}

fn new_job(wish: NamedJob) -> NewJob {
    NewJob {
        id: wish.job_id,
        tenant: wish.tenant_id,
        campaign: wish.campaign_id,
        job_type: wish.job_type.unwrap_or_else(|| FOREIGN_TYPE.to_owned()),
        title: wish.title,
        parameters: wish.parameters.unwrap_or_default(),
        max_retries: wish.max_retries.unwrap_or(0),
        timeout_seconds: wish.timeout_seconds,
        created_by: wish.created_by,
    }
}
