//! What a command does to a job: through its work where that runs here, in SQL alone where it runs nowhere.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::bring::Waited;
use super::core::{Core, Desired};
use super::execute::{Room, Verdict};
use super::hosted::Reached;
use super::hosts::{Hosted, Phase};
use crate::broker::scripts::claim::Claim;
use crate::domain::{Action, Control, JobStatus, ResourceKind};
use crate::store::{Applied, Released, Run, StoreError};

/// Until the job's own host, which is alive, takes its command.
const HOST_SOON: Duration = Duration::from_millis(250);
/// Between two looks at a host that seems dead.
const LOOK: Duration = Duration::from_millis(200);
/// At every how-manieth look the rows are read, too.
const ROW_LOOK: u32 = 3;
/// The longest such look; after it the command goes back to the queue.
const LOOK_MOST: Duration = Duration::from_secs(15);

/// Why a job was released.
pub(crate) const HOST_DIED: &str = "The worker that ran this job is gone";

impl Core {
    pub(crate) async fn job_command(self: &Arc<Self>, claim: &Claim, poke: &Notify, room: &mut Room) -> Verdict {
        // Each turn but the last waits for an end that is being recorded; there are never many.
        loop {
            let Some(hosted) = self.hosts.get(&claim.resource) else {
                return self.unhosted(claim, poke, room).await;
            };
            // What is hosted here waits for its work; it must not keep others from being carried out.
            room.take();
            if hosted.phase() == Phase::Closing {
                match self.until_settled(claim, poke, &hosted).await {
                    Waited::Done(()) => continue,
                    other => return interrupted(other),
                }
            }
            let verdict = match claim.action {
                Action::Pause => self.pause(claim, poke, &hosted).await,
                Action::Resume => self.resume(claim, &hosted).await,
                Action::Cancel => self.cancel(claim, poke, &hosted).await,
            };
            if let Some(verdict) = verdict {
                return verdict;
            }
        }
    }

    /// `None`: the work ended meanwhile; look again.
    async fn pause(self: &Arc<Self>, claim: &Claim, poke: &Notify, hosted: &Arc<Hosted>) -> Option<Verdict> {
        let stood = stands(hosted);
        let waited = self.bring(claim, poke, hosted, "paused", hosted.work.pause()).await;
        match waited {
            Waited::Done(Reached::Yes) => {}
            // A program may die while it is stopped; the job is paused all the same.
            Waited::Done(Reached::EndedItself) if stood && !hosted.is_gone() => {}
            Waited::Done(Reached::EndedItself) => return self.ended_itself(claim, poke, hosted).await,
            Waited::Done(Reached::Refused(why)) => {
                self.undo_pause(hosted).await;
                return Some(Verdict::Failed(why));
            }
            Waited::Stopping => return Some(Verdict::Later(Duration::ZERO)),
            Waited::CancelWaits => {
                self.undo_pause(hosted).await;
                return Some(Verdict::GivesWay);
            }
            Waited::ClaimLost => {
                self.undo_pause(hosted).await;
                return Some(Verdict::Void);
            }
            Waited::TooLong => {
                self.undo_pause(hosted).await;
                return Some(Verdict::Failed("The job did not come to a point where it can be paused".to_owned()));
            }
        }
        hosted.flush().await;
        match self.apply(claim, Some(hosted.run())).await {
            Ok(Applied::Succeeded { status, control, .. }) => {
                hosted.status.send_replace(JobStatus::Paused);
                self.dispatch.notify_one(); // Its slot is free.
                Some(Verdict::succeeded(status, Some(JobStatus::Paused), control))
            }
            Err(error) => {
                let verdict = self.after_error(claim, &error);
                if matches!(verdict, Verdict::Failed(_)) {
                    self.undo_pause(hosted).await;
                }
                Some(verdict)
            }
            Ok(other) => Some(self.not_ours(hosted, other)),
        }
    }

    /// Lets the work go on, unless the row says that it is paused.
    pub(crate) async fn undo_pause(&self, hosted: &Hosted) {
        let status = *hosted.status.borrow();
        if status != JobStatus::Paused {
            hosted.work.resume().await;
        }
        self.publish_status(hosted.resource(), status, Desired::Nothing).await;
    }

    async fn resume(self: &Arc<Self>, claim: &Claim, hosted: &Arc<Hosted>) -> Option<Verdict> {
        // SQL first: only what SQL calls running may complete.
        match self.apply(claim, Some(hosted.run())).await {
            Ok(Applied::Succeeded { status, control, .. }) => {
                hosted.status.send_replace(JobStatus::Running);
                hosted.work.resume().await;
                Some(Verdict::succeeded(status, Some(JobStatus::Running), control))
            }
            Err(error) => Some(self.after_error(claim, &error)),
            Ok(other) => Some(self.not_ours(hosted, other)),
        }
    }

    async fn cancel(self: &Arc<Self>, claim: &Claim, poke: &Notify, hosted: &Arc<Hosted>) -> Option<Verdict> {
        let stood = stands(hosted);
        match hosted.advance(&[Phase::Open, Phase::EndedPaused, Phase::Cancelling], Phase::Cancelling) {
            Ok(()) => {
                let cancelling = hosted.work.cancel(claim.user.as_str(), claim.reason.as_deref());
                let waited = self.bring(claim, poke, hosted, "cancelled", cancelling).await;
                match waited {
                    Waited::Done(Reached::EndedItself) if !stood || hosted.is_gone() => {
                        let _ = hosted.advance(&[Phase::Cancelling], Phase::Open);
                        return self.ended_itself(claim, poke, hosted).await;
                    }
                    Waited::Done(Reached::Refused(why)) => {
                        let _ = hosted.advance(&[Phase::Cancelling], Phase::Open);
                        let status = *hosted.status.borrow();
                        self.publish_status(hosted.resource(), status, Desired::Nothing).await;
                        return Some(Verdict::Failed(why));
                    }
                    Waited::Done(Reached::Yes | Reached::EndedItself) => {
                        let _ = hosted.advance(&[Phase::Cancelling], Phase::Cancelled);
                    }
                    other => return Some(interrupted(other)),
                }
            }
            // An earlier try ended the work and could not write it down.
            Err(Phase::Cancelled) => {}
            Err(_) => return None,
        }
        let applied = if hosted.flush().await {
            self.apply(claim, Some(hosted.run())).await
        } else {
            Err(StoreError::Unavailable("what the work said last could not be written".to_owned()))
        };
        match applied {
            Ok(Applied::Succeeded { status, control, .. }) => {
                hosted.status.send_replace(JobStatus::Cancelled);
                let (shown, ended) = (Some(JobStatus::Cancelled), Some(hosted.clone()));
                Some(Verdict::Succeeded { status, shown, ended, control })
            }
            Err(error) => {
                let verdict = self.after_error(claim, &error);
                if matches!(verdict, Verdict::Failed(_)) {
                    // The work is gone, the command has failed: the job goes on from its resume point.
                    let (core, hosted) = (self.clone(), hosted.clone());
                    self.spawn(async move { core.hand_back(&hosted).await });
                }
                Some(verdict)
            }
            Ok(other) => Some(self.not_ours(hosted, other)),
        }
    }

    /// The work was over before the command reached it: wait until its end is in SQL, and look again.
    async fn ended_itself(&self, claim: &Claim, poke: &Notify, hosted: &Hosted) -> Option<Verdict> {
        let mut phase = hosted.phase.subscribe();
        let settled = async {
            let _ = phase.wait_for(|phase| matches!(phase, Phase::Gone(_) | Phase::EndedPaused)).await;
        };
        match self.keeping(claim, poke, settled).await {
            Waited::Done(()) => None,
            other => Some(interrupted(other)),
        }
    }

    /// SQL says that the job is not this run's any more.
    fn not_ours(self: &Arc<Self>, hosted: &Arc<Hosted>, applied: Applied) -> Verdict {
        match applied {
            Applied::Hosted(_) => {
                self.abandon(hosted);
                Verdict::Later(HOST_SOON)
            }
            Applied::Refused => {
                // Another system ended the row by plain SQL: its work must end, too.
                let _ = hosted.advance(&[Phase::Cancelling, Phase::Cancelled], Phase::Open);
                self.abandon(hosted);
                Verdict::refused(ResourceKind::Job)
            }
            Applied::Stale | Applied::Succeeded { .. } => Verdict::Void,
        }
    }

    /// A job that runs in no worker, or in another one.
    async fn unhosted(self: &Arc<Self>, claim: &Claim, poke: &Notify, room: &mut Room) -> Verdict {
        loop {
            match self.apply(claim, None).await {
                Ok(Applied::Succeeded { status, changed, control }) => {
                    return self.applied_unhosted(claim, status, changed, control).await;
                }
                Ok(Applied::Refused) => return Verdict::refused(ResourceKind::Job),
                Ok(Applied::Stale) => return Verdict::Void,
                Ok(Applied::Hosted(run)) => match Box::pin(self.another_host(claim, poke, room, &run)).await {
                    Ok(()) => {}
                    Err(verdict) => return verdict,
                },
                Err(error) => return self.after_error(claim, &error),
            }
        }
    }

    async fn applied_unhosted(
        &self,
        claim: &Claim,
        status: String,
        changed: bool,
        control: Option<Control>,
    ) -> Verdict {
        // At a second try the first may have broken off between the row and the message.
        let shown = JobStatus::from_word(&status).filter(|_| changed || claim.attempt > 1);
        if shown == Some(JobStatus::Pending) && claim.action == Action::Resume {
            self.wake_dispatch().await;
        }
        if shown == Some(JobStatus::Cancelled)
            && let Ok(Some(job)) = self.store.job_without_contents(&claim.resource).await
        {
            self.job_moved(&job);
        }
        Verdict::succeeded(status, shown, control)
    }

    /// The row says that a worker runs the job. `Ok`: it does not any more.
    async fn another_host(
        self: &Arc<Self>,
        claim: &Claim,
        poke: &Notify,
        room: &mut Room,
        run: &Run,
    ) -> Result<(), Verdict> {
        if run.host == self.id {
            // On its way into or out of the table; what stays like this the reaper releases.
            return Err(Verdict::Later(HOST_SOON));
        }
        room.take();
        match self.keeping(claim, poke, self.find_out(claim, run)).await {
            Waited::Done(true) => {}
            Waited::Done(false) => return Err(Verdict::Later(HOST_SOON)),
            other => return Err(interrupted(other)),
        }
        match self.release(run).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.after_error(claim, &error)),
        }
    }

    /// Whether a run is over or its host dead; takes its time, for a host may only be cut off for a moment.
    async fn find_out(&self, claim: &Claim, run: &Run) -> bool {
        let begun = tokio::time::Instant::now();
        for look in 1_u32.. {
            if self.is_given_up(run).await {
                return true;
            }
            // Another worker may have released the job, or even started it again: then nobody counts this host as
            // dead any more.
            if look.is_multiple_of(ROW_LOOK)
                && let Ok(runs) = self.store.hosted_runs().await
                && !runs.contains(run)
            {
                return true;
            }
            match self.broker.live_workers(&claim.resource.tenant).await {
                Ok(live) if live.contains(&run.host) => return false,
                _ if begun.elapsed() > LOOK_MOST => return false,
                _ => tokio::time::sleep(LOOK).await,
            }
        }
        false
    }

    /// Takes a job from a host that is dead.
    pub(crate) async fn release(self: &Arc<Self>, run: &Run) -> Result<(), StoreError> {
        if let Some(Released { job, resumed }) =
            self.store.release_dead(run, HOST_DIED, self.settings.worker.max_worker_crashes).await?
        {
            if resumed {
                self.publish_status(&run.job, JobStatus::Running, Desired::Nothing).await;
            }
            tracing::warn!(job_id = %run.job.id, tenant_id = %run.job.tenant, host = %run.host, run = run.number, status = job.status.word(), "worker.job_released");
            self.announce_left(&job, run.number).await;
        }
        Ok(())
    }
}

/// Whether the row says paused: then work that is found ended has not completed.
fn stands(hosted: &Hosted) -> bool {
    *hosted.status.borrow() == JobStatus::Paused || hosted.phase() == Phase::EndedPaused
}

/// What an interrupted wait means for the command.
pub(crate) fn interrupted<T>(waited: Waited<T>) -> Verdict {
    match waited {
        Waited::CancelWaits => Verdict::GivesWay,
        Waited::TooLong => Verdict::Failed("The job did not answer in time".to_owned()),
        Waited::Stopping => Verdict::Later(Duration::ZERO),
        Waited::ClaimLost | Waited::Done(_) => Verdict::Void,
    }
}
