//! What a command does to a campaign. A cancel also ends its jobs: those that run nowhere in the same
//! transaction, those inside workers by a cancel of their own, and it is answered when none runs any more.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::held_claim::{HeldClaim, WaitOutcome};
use super::outcome::{CommandOutcome, CommandPermit};
use crate::broker::BrokerError;
use crate::broker::scripts::claim::Claim;
use crate::broker::scripts::submit::{ClientOrigin, Grant, Submission, SubmitLimits};
use crate::broker::scripts::updates::JobWake;
use crate::domain::{Action, CampaignStatus, Resource, When};
use crate::store::{Announcement, AnnouncementKind, ApplyOutcome, StoreError};
use crate::worker::context::WorkerContext;
use crate::worker::notify::announcer::Announcer;
use crate::worker::notify::job_notifier::JobNotifier;
use crate::worker::notify::updates::{Desired, publish_campaign_status};

/// Between two looks at the jobs that are still to end.
const POLL_INTERVAL: Duration = Duration::from_millis(150);
/// Unended jobs of one look.
const PAGE_SIZE: u32 = 500;

pub(crate) struct CampaignCommands {
    ctx: Arc<WorkerContext>,
    notifier: Arc<JobNotifier>,
    announcer: Arc<Announcer>,
}

impl CampaignCommands {
    pub(crate) fn new(ctx: Arc<WorkerContext>, notifier: Arc<JobNotifier>, announcer: Arc<Announcer>) -> Self {
        Self { ctx, notifier, announcer }
    }

    /// Carries out a command on a campaign.
    pub(crate) async fn carry_out(&self, held: &HeldClaim<'_>, permit: &mut CommandPermit) -> CommandOutcome {
        let claim = held.claim;
        let status = match held.apply(None).await {
            Ok(ApplyOutcome::Succeeded { status, .. }) => status,
            Ok(ApplyOutcome::Refused) => return CommandOutcome::already_ended(),
            Ok(ApplyOutcome::Stale | ApplyOutcome::Hosted(_)) => return CommandOutcome::ClaimLost,
            Err(error) => return held.after_error(&error),
        };
        match claim.action {
            Action::Pause => self.publish_campaign(claim, Desired::Nothing).await,
            Action::Resume => {
                self.publish_campaign(claim, Desired::Nothing).await;
                self.notifier.wake_workers(&JobWake::Any).await;
                // All its jobs may have ended while it was paused.
                self.notifier.campaigns.mark_dirty(claim.resource.clone());
            }
            Action::Cancel => {
                self.publish_cancelled(&claim.resource);
                if let Some(outcome) = self.cancel_jobs(held, permit).await {
                    return outcome;
                }
                self.publish_campaign(claim, Desired::Nothing).await;
                self.notifier.campaigns.mark_dirty(claim.resource.clone());
            }
        }
        CommandOutcome::succeeded(status, None, None)
    }

    async fn publish_campaign(&self, claim: &Claim, desired: Desired<'_>) {
        match self.ctx.store.campaign(&claim.resource).await {
            Ok(Some(row)) => {
                publish_campaign_status(&self.ctx.broker, &claim.resource, &row, desired).await;
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(resource = %claim.resource, %error, "worker.update_not_published"),
        }
    }

    /// Waits until no job of a cancelled campaign runs any more. `None`: none does.
    async fn cancel_jobs(&self, held: &HeldClaim<'_>, permit: &mut CommandPermit) -> Option<CommandOutcome> {
        let claim = held.claim;
        let mut asked = HashSet::new();
        loop {
            let left = match self.unfinished_jobs(&claim.resource).await {
                Ok(left) => left,
                Err(error) => return Some(held.after_error(&error)),
            };
            if left.is_empty() {
                return None;
            }
            if asked.is_empty() {
                // From here on it only waits: another command may have its permit.
                permit.take();
                self.publish_campaign(claim, Desired::Is(CampaignStatus::Cancelled.as_str())).await;
            }
            for job in left {
                if asked.contains(&job) {
                    continue;
                }
                match self.request_cancel(claim, &job).await {
                    Ok(()) => {
                        asked.insert(job);
                    }
                    Err(error) => tracing::warn!(%job, %error, "worker.cancel_of_job_delayed"),
                }
            }
            match held.wait(tokio::time::sleep(POLL_INTERVAL)).await {
                // Another worker goes on with it: the cancels of the jobs stay as they are.
                WaitOutcome::Done(()) if self.ctx.stop.is_cancelled() => {
                    return Some(CommandOutcome::Retry(Duration::ZERO));
                }
                WaitOutcome::Done(()) => {}
                other => return Some(other.to_command_outcome()),
            }
        }
    }

    /// Jobs inside workers, and those that fell back into the queue when their worker died or they failed.
    async fn unfinished_jobs(&self, campaign: &Resource) -> Result<Vec<Resource>, StoreError> {
        let mut left = self.ctx.store.hosted_jobs(campaign).await?;
        left.extend(self.ctx.store.unended_jobs(campaign, PAGE_SIZE).await?);
        left.sort();
        left.dedup();
        Ok(left)
    }

    async fn request_cancel(&self, claim: &Claim, job: &Resource) -> Result<(), BrokerError> {
        // The worker that began may have been of a version before.
        let command = match claim.attempt {
            ..=1 => claim.command.derive_for(job),
            _ => self.ctx.broker.derived_command(claim.command, job).await?,
        };
        let submission = Submission {
            command,
            resource: job.clone(),
            action: Action::Cancel,
            user: claim.user.clone(),
            request: None,
            reason: claim.reason.clone(),
            origin: ClientOrigin::default(),
            grant: Grant::Internal,
            when: When::Now,
            batch: None,
        };
        self.ctx.broker.submit(&submission, SubmitLimits::of(&self.ctx.settings.limits)).await.map(|_| ())
    }

    /// Publishes the status of each job that is cancelled now. SQL has noted that this is to be done, so it does not matter
    /// how far it gets here. Of jobs inside workers it is published when they have stopped.
    fn publish_cancelled(&self, campaign: &Resource) {
        self.announcer.publish_in_background(Announcement {
            resource: campaign.clone(),
            about: AnnouncementKind::Jobs,
            run: 0,
        });
    }
}
