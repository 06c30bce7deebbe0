//! What a command does to a campaign. A cancel also ends its jobs: those that run nowhere in the same
//! transaction, those inside workers by a cancel of their own, and it is answered when none runs any more.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::bring::Waited;
use super::core::{Core, Desired};
use super::execute::{Room, Verdict};
use super::job_command::interrupted;
use crate::broker::BrokerError;
use crate::broker::scripts::claim::Claim;
use crate::broker::scripts::submit::{Grant, Origin, Submission, SubmitLimits};
use crate::broker::scripts::updates::Update;
use crate::domain::{Action, CampaignStatus, Resource, ResourceKind, When};
use crate::protocol::server;
use crate::store::{About, Announcement, Applied, StoreError};

/// Between two looks at the jobs that are still to end.
const LOOK: Duration = Duration::from_millis(150);
/// Unended jobs of one look.
const PAGE: u32 = 500;

impl Core {
    pub(crate) async fn campaign_command(self: &Arc<Self>, claim: &Claim, poke: &Notify, room: &mut Room) -> Verdict {
        let status = match self.apply(claim, None).await {
            Ok(Applied::Succeeded { status, .. }) => status,
            Ok(Applied::Refused) => return Verdict::refused(ResourceKind::Campaign),
            Ok(Applied::Stale | Applied::Hosted(_)) => return Verdict::Void,
            Err(error) => return self.after_error(claim, &error),
        };
        match claim.action {
            Action::Pause => self.tell_campaign(claim, Desired::Nothing).await,
            Action::Resume => {
                self.tell_campaign(claim, Desired::Nothing).await;
                self.wake_dispatch().await;
                // All its jobs may have ended while it was paused.
                self.news.mark(claim.resource.clone());
            }
            Action::Cancel => {
                self.tell_cancelled(&claim.resource);
                if let Some(verdict) = self.end_jobs(claim, poke, room).await {
                    return verdict;
                }
                self.tell_campaign(claim, Desired::Nothing).await;
                self.news.mark(claim.resource.clone());
            }
        }
        Verdict::succeeded(status, None, None)
    }

    async fn tell_campaign(&self, claim: &Claim, desired: Desired<'_>) {
        let row = match self.store.campaign(&claim.resource).await {
            Ok(Some(row)) => row,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(resource = %claim.resource, %error, "worker.update_not_published");
                return;
            }
        };
        let (shown, kept) = match desired {
            Desired::Nothing => (None, Some(None)),
            Desired::Is(word) => (Some(word), Some(Some(word.to_owned()))),
        };
        let message = server::campaign_status(&row, shown);
        self.publish(&claim.resource, &Update { run: None, message, progress: None, desired: kept }).await;
    }

    /// Waits until no job of a cancelled campaign runs any more. `None`: none does.
    async fn end_jobs(self: &Arc<Self>, claim: &Claim, poke: &Notify, room: &mut Room) -> Option<Verdict> {
        let mut asked = HashSet::new();
        loop {
            let left = match self.jobs_left(&claim.resource).await {
                Ok(left) => left,
                Err(error) => return Some(self.after_error(claim, &error)),
            };
            if left.is_empty() {
                return None;
            }
            if asked.is_empty() {
                // From here on it only waits: others may have its room.
                room.take();
                self.tell_campaign(claim, Desired::Is(CampaignStatus::Cancelled.word())).await;
            }
            for job in left {
                if asked.contains(&job) {
                    continue;
                }
                match self.ask_to_end(claim, &job).await {
                    Ok(()) => {
                        asked.insert(job);
                    }
                    Err(error) => tracing::warn!(%job, %error, "worker.cancel_of_job_delayed"),
                }
            }
            match self.keeping(claim, poke, tokio::time::sleep(LOOK)).await {
                // It goes on elsewhere: what was asked of the jobs stands.
                Waited::Done(()) if self.stop.is_cancelled() => return Some(Verdict::Later(Duration::ZERO)),
                Waited::Done(()) => {}
                other => return Some(interrupted(other)),
            }
        }
    }

    /// Jobs inside workers, and those that fell back into the queue when their worker died or they failed.
    async fn jobs_left(&self, campaign: &Resource) -> Result<Vec<Resource>, StoreError> {
        let mut left = self.store.hosted_jobs(campaign).await?;
        left.extend(self.store.unended_jobs(campaign, PAGE).await?);
        left.sort();
        left.dedup();
        Ok(left)
    }

    async fn ask_to_end(&self, claim: &Claim, job: &Resource) -> Result<(), BrokerError> {
        // The worker that began may have been of a version before.
        let command = match claim.attempt {
            ..=1 => claim.command.derive_for(job),
            _ => self.broker.derived_command(claim.command, job).await?,
        };
        let submission = Submission {
            command,
            resource: job.clone(),
            action: Action::Cancel,
            user: claim.user.clone(),
            request: None,
            reason: claim.reason.clone(),
            origin: Origin::default(),
            grant: Grant::Internal,
            when: When::Now,
            batch: None,
        };
        self.broker.submit(&submission, SubmitLimits::of(&self.settings.limits)).await.map(|_| ())
    }

    /// Tells whoever watches one of the jobs that it is cancelled. SQL has noted that this is owed, so it does not matter
    /// how far this gets; those inside workers are told of when they have stopped.
    fn tell_cancelled(self: &Arc<Self>, campaign: &Resource) {
        let owed = Announcement { resource: campaign.clone(), about: About::Jobs, run: 0 };
        let core = self.clone();
        let telling = self.announcing.track_future(async move { core.announce(&owed).await });
        self.spawn(telling);
    }
}
