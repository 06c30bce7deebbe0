//! What a command does to a job: through its work where that runs in this worker, in SQL alone where it runs nowhere.

use std::sync::Arc;
use std::time::Duration;

use super::held_claim::{HeldClaim, WaitOutcome};
use super::outcome::{CommandOutcome, CommandPermit};
use crate::broker::scripts::claim::Claim;
use crate::broker::scripts::updates::JobWake;
use crate::domain::{Action, Control, JobStatus};
use crate::protocol::CommandError;
use crate::store::{ApplyOutcome, Run, StoreError};
use crate::worker::context::WorkerContext;
use crate::worker::maintenance::rescuer::Rescuer;
use crate::worker::notify::job_notifier::JobNotifier;
use crate::worker::notify::updates::{Desired, publish_status};
use crate::worker::run::active_run::{ActiveRun, Phase};
use crate::worker::run::control::ControlOutcome;
use crate::worker::run::lifecycle::RunLifecycle;
use crate::worker::run::registry::RunRegistry;

/// Until the job's own host, which is alive, takes its command.
const HOST_RETRY_DELAY: Duration = Duration::from_millis(250);
/// Between two looks at a host that seems dead.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// The rows are read at each of so many looks, too.
const POLLS_PER_ROW_READ: u32 = 3;
/// How long a host is looked at; after that the command goes back to the queue.
const MAX_HOST_WAIT: Duration = Duration::from_secs(15);

pub(crate) struct JobCommands {
    ctx: Arc<WorkerContext>,
    runs: Arc<RunRegistry>,
    lifecycle: Arc<RunLifecycle>,
    rescuer: Arc<Rescuer>,
    notifier: Arc<JobNotifier>,
}

impl JobCommands {
    pub(crate) fn new(
        ctx: Arc<WorkerContext>,
        runs: Arc<RunRegistry>,
        lifecycle: Arc<RunLifecycle>,
        rescuer: Arc<Rescuer>,
        notifier: Arc<JobNotifier>,
    ) -> Self {
        Self { ctx, runs, lifecycle, rescuer, notifier }
    }

    /// Carries out a command on a job.
    pub(crate) async fn carry_out(&self, held: &HeldClaim<'_>, permit: &mut CommandPermit) -> CommandOutcome {
        let claim = held.claim;
        // Each round but the last waits for an end that is being recorded; there are never many.
        loop {
            let Some(run) = self.runs.get(&claim.resource) else {
                return self.not_running_here(held, permit).await;
            };
            // A command on a job that runs here waits for the work; it must not keep other commands from being carried out.
            permit.take();
            if run.phase() == Phase::Closing {
                match held.wait_until_recorded(&run).await {
                    WaitOutcome::Done(()) => continue,
                    other => return other.to_command_outcome(),
                }
            }
            // A cancelled job has no work, so that a repeated cancel finds none.
            if claim.action != Action::Cancel && held.is_repeated_request().await {
                return self.answer_repeat(held, &run).await;
            }
            let outcome = match claim.action {
                Action::Pause => self.pause(held, &run).await,
                Action::Resume => self.resume(held, &run).await,
                Action::Cancel => self.cancel(held, &run).await,
            };
            if let Some(outcome) = outcome {
                return outcome;
            }
        }
    }

    /// The work stays as it is: it was asked for before, and what was asked for since then counts.
    async fn answer_repeat(&self, held: &HeldClaim<'_>, run: &Arc<ActiveRun>) -> CommandOutcome {
        match held.apply(Some(run.run())).await {
            Ok(ApplyOutcome::Succeeded { status, control, .. }) => CommandOutcome::succeeded(status, None, control),
            Ok(other) => self.on_lost_run(run, other),
            Err(error) => held.after_error(&error),
        }
    }

    /// `None`: the work ended meanwhile; the command is tried again on what is there now.
    async fn pause(&self, held: &HeldClaim<'_>, run: &Arc<ActiveRun>) -> Option<CommandOutcome> {
        let was_paused = is_paused(run);
        let waited = held
            .drive_to_state(run, "paused", run.work.pause_by(held.claim.user.as_str(), held.claim.reason.as_deref()))
            .await;
        match waited {
            WaitOutcome::Done(ControlOutcome::Done) => {}
            // A program may die while it is stopped; the job is paused all the same.
            WaitOutcome::Done(ControlOutcome::EndedItself) if was_paused && !run.has_exited() => {}
            WaitOutcome::Done(ControlOutcome::EndedItself) => return Self::on_work_ended(held, run).await,
            WaitOutcome::Done(ControlOutcome::Refused(reason)) => {
                self.undo_pause(run).await;
                return Some(CommandOutcome::Failed(CommandError::ControlFailed { reason }));
            }
            WaitOutcome::ShuttingDown => return Some(CommandOutcome::Retry(Duration::ZERO)),
            WaitOutcome::CancelPending => {
                self.undo_pause(run).await;
                return Some(CommandOutcome::Superseded);
            }
            WaitOutcome::ClaimLost => {
                self.undo_pause(run).await;
                return Some(CommandOutcome::ClaimLost);
            }
            WaitOutcome::TimedOut => {
                self.undo_pause(run).await;
                return Some(CommandOutcome::Failed(CommandError::NotPausable));
            }
        }
        run.flush().await;
        match held.apply(Some(run.run())).await {
            Ok(ApplyOutcome::Succeeded { status, control, .. }) => {
                run.status.send_replace(JobStatus::Paused);
                self.notifier.slot_freed();
                Some(CommandOutcome::succeeded(status, Some(JobStatus::Paused), control))
            }
            Err(error) => {
                let outcome = held.after_error(&error);
                if matches!(outcome, CommandOutcome::Failed(_)) {
                    self.undo_pause(run).await;
                }
                Some(outcome)
            }
            Ok(other) => Some(self.on_lost_run(run, other)),
        }
    }

    /// Lets the work go on, unless the row says that it is paused.
    pub(crate) async fn undo_pause(&self, run: &ActiveRun) {
        let status = *run.status.borrow();
        if status != JobStatus::Paused {
            run.work.resume().await;
        }
        publish_status(&self.ctx.broker, run.resource(), status, Desired::Nothing).await;
    }

    async fn resume(&self, held: &HeldClaim<'_>, run: &Arc<ActiveRun>) -> Option<CommandOutcome> {
        // SQL first: only what SQL calls running may complete.
        match held.apply(Some(run.run())).await {
            Ok(ApplyOutcome::Succeeded { status, control, .. }) => {
                run.status.send_replace(JobStatus::Running);
                run.work.resume_by(held.claim.user.as_str(), held.claim.reason.as_deref()).await;
                Some(CommandOutcome::succeeded(status, Some(JobStatus::Running), control))
            }
            Err(error) => Some(held.after_error(&error)),
            Ok(other) => Some(self.on_lost_run(run, other)),
        }
    }

    async fn cancel(&self, held: &HeldClaim<'_>, run: &Arc<ActiveRun>) -> Option<CommandOutcome> {
        let claim = held.claim;
        let was_paused = is_paused(run);
        match run.advance(&[Phase::Open, Phase::EndedPaused, Phase::Cancelling], Phase::Cancelling) {
            Ok(()) => {
                let cancelling = run.work.cancel(claim.user.as_str(), claim.reason.as_deref());
                let waited = held.drive_to_state(run, "cancelled", cancelling).await;
                match waited {
                    WaitOutcome::Done(ControlOutcome::EndedItself) if !was_paused || run.has_exited() => {
                        let _ = run.advance(&[Phase::Cancelling], Phase::Open);
                        return Self::on_work_ended(held, run).await;
                    }
                    WaitOutcome::Done(ControlOutcome::Refused(reason)) => {
                        let _ = run.advance(&[Phase::Cancelling], Phase::Open);
                        let status = *run.status.borrow();
                        publish_status(&self.ctx.broker, run.resource(), status, Desired::Nothing).await;
                        return Some(CommandOutcome::Failed(CommandError::ControlFailed { reason }));
                    }
                    WaitOutcome::Done(ControlOutcome::Done | ControlOutcome::EndedItself) => {
                        let _ = run.advance(&[Phase::Cancelling], Phase::Cancelled);
                    }
                    other => return Some(other.to_command_outcome()),
                }
            }
            // An earlier try ended the work and could not record it.
            Err(Phase::Cancelled) => {}
            Err(_) => return None,
        }
        let applied = if run.flush().await {
            held.apply(Some(run.run())).await
        } else {
            Err(StoreError::Unavailable("what the work said last could not be written".to_owned()))
        };
        match applied {
            Ok(ApplyOutcome::Succeeded { status, control, .. }) => {
                run.status.send_replace(JobStatus::Cancelled);
                let (shown, ended) = (Some(JobStatus::Cancelled), Some(run.clone()));
                Some(CommandOutcome::Succeeded { status, shown, ended, control })
            }
            Err(error) => {
                let outcome = held.after_error(&error);
                if matches!(outcome, CommandOutcome::Failed(_)) {
                    // The work has ended and the command has failed: the job goes on from its resume point.
                    let (lifecycle, run) = (self.lifecycle.clone(), run.clone());
                    self.ctx.spawn(async move { lifecycle.release_run(&run).await });
                }
                Some(outcome)
            }
            Ok(other) => Some(self.on_lost_run(run, other)),
        }
    }

    /// The work was over before the command reached it: waits until its end is in SQL.
    async fn on_work_ended(held: &HeldClaim<'_>, run: &ActiveRun) -> Option<CommandOutcome> {
        let mut phase = run.phase.subscribe();
        let recorded = async {
            let _ = phase.wait_for(|phase| matches!(phase, Phase::Exited(_) | Phase::EndedPaused)).await;
        };
        match held.wait(recorded).await {
            WaitOutcome::Done(()) => None,
            other => Some(other.to_command_outcome()),
        }
    }

    /// SQL says that the job does not belong to this run any more.
    fn on_lost_run(&self, run: &Arc<ActiveRun>, applied: ApplyOutcome) -> CommandOutcome {
        match applied {
            ApplyOutcome::Hosted(_) => {
                self.runs.drop_run(&self.ctx, run);
                CommandOutcome::Retry(HOST_RETRY_DELAY)
            }
            ApplyOutcome::Refused => {
                // Another system ended the job by plain SQL: its work must end, too.
                let _ = run.advance(&[Phase::Cancelling, Phase::Cancelled], Phase::Open);
                self.runs.drop_run(&self.ctx, run);
                CommandOutcome::already_ended()
            }
            ApplyOutcome::Stale | ApplyOutcome::Succeeded { .. } => CommandOutcome::ClaimLost,
        }
    }

    /// A job that runs in no worker, or in another one.
    async fn not_running_here(&self, held: &HeldClaim<'_>, permit: &mut CommandPermit) -> CommandOutcome {
        loop {
            match held.apply(None).await {
                Ok(ApplyOutcome::Succeeded { status, changed, control }) => {
                    return self.applied_in_sql(held.claim, status, changed, control).await;
                }
                Ok(ApplyOutcome::Refused) => return CommandOutcome::already_ended(),
                Ok(ApplyOutcome::Stale) => return CommandOutcome::ClaimLost,
                Ok(ApplyOutcome::Hosted(run)) => match Box::pin(self.on_other_host(held, permit, &run)).await {
                    Ok(()) => {}
                    Err(outcome) => return outcome,
                },
                Err(error) => return held.after_error(&error),
            }
        }
    }

    async fn applied_in_sql(
        &self,
        claim: &Claim,
        status: String,
        changed: bool,
        control: Option<Control>,
    ) -> CommandOutcome {
        // At a second try the first may have broken off between the row and the message.
        let shown = JobStatus::parse(&status).filter(|_| changed || claim.attempt > 1);
        if shown == Some(JobStatus::Pending) && claim.action == Action::Resume {
            self.notifier.wake_workers(&JobWake::jobs(1)).await;
        }
        if shown == Some(JobStatus::Cancelled)
            && let Ok(Some(job)) = self.ctx.store.job_without_contents(&claim.resource).await
        {
            self.notifier.campaigns.mark_campaign_of(&job);
        }
        CommandOutcome::succeeded(status, shown, control)
    }

    /// The row says that a worker runs the job. `Ok`: it does not any more.
    async fn on_other_host(
        &self,
        held: &HeldClaim<'_>,
        permit: &mut CommandPermit,
        run: &Run,
    ) -> Result<(), CommandOutcome> {
        if run.host == self.ctx.id {
            // It is just being registered or removed here. If it stays like this, the rescuer releases it.
            return Err(CommandOutcome::Retry(HOST_RETRY_DELAY));
        }
        permit.take();
        match held.wait(self.probe_host(held.claim, run)).await {
            WaitOutcome::Done(true) => {}
            WaitOutcome::Done(false) => return Err(CommandOutcome::Retry(HOST_RETRY_DELAY)),
            other => return Err(other.to_command_outcome()),
        }
        match self.rescuer.release(run).await {
            Ok(()) => Ok(()),
            Err(error) => Err(held.after_error(&error)),
        }
    }

    /// Whether a run is over or its host dead. This takes its time, for a host may only be cut off for a moment.
    async fn probe_host(&self, claim: &Claim, run: &Run) -> bool {
        let begun = tokio::time::Instant::now();
        for poll in 1_u32.. {
            if self.rescuer.may_release(run).await {
                return true;
            }
            // Another worker may have released the job, or even started it again: then nobody counts this host as
            // dead any more.
            if poll.is_multiple_of(POLLS_PER_ROW_READ)
                && let Ok(runs) = self.ctx.store.hosted_runs().await
                && !runs.contains(run)
            {
                return true;
            }
            match self.ctx.broker.live_workers(&claim.resource.tenant).await {
                Ok(live) if live.contains(&run.host) => return false,
                // A worker that leaves puts the command back, for others to claim at once: while it waits here, it would
                // hold up the leaving, and then the command until its lease has ended.
                _ if begun.elapsed() > MAX_HOST_WAIT || self.ctx.stop.is_cancelled() => return false,
                _ => tokio::time::sleep(POLL_INTERVAL).await,
            }
        }
        false
    }
}

/// Whether the row says that the job is paused: then work that is found to have ended has not completed.
fn is_paused(run: &ActiveRun) -> bool {
    *run.status.borrow() == JobStatus::Paused || run.phase() == Phase::EndedPaused
}
