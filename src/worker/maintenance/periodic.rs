//! What one worker does now and then for all of them: the leader of the fleet looks whether something is due, and a lease in
//! SQL says that nobody else does it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::leadership::Leadership;
use super::{audit_recovery, clocks};
use crate::store::{MaintenanceTask, PrunedJobs, StoreError};
use crate::worker::context::WorkerContext;
use crate::worker::notify::announcer::{Announcer, LastPoll};
use crate::worker::notify::campaign_progress::CampaignProgress;
use crate::worker::parts::WorkerParts;

/// Between two polls: jitter, so that workers do not poll in step.
const POLL_INTERVAL_MS: std::ops::Range<u64> = 3_000..5_000;
/// Between two looks for campaigns whose last job's worker died before it could complete them.
const CAMPAIGNS_INTERVAL: Duration = Duration::from_secs(10);
/// Between two times that changes of the counts of jobs are added up.
const COUNTS_INTERVAL: Duration = Duration::from_secs(2);
/// Campaigns of one such look.
const MAX_CAMPAIGNS: u32 = 100;
/// Between two looks for applied commands that may be deleted.
const COMMANDS_INTERVAL: Duration = Duration::from_secs(600);
/// How long SQL keeps at least what a command did. A command can come again only while it has no result, and
/// as long as any worker lives that is a lease's length. If none lives for a week, Redis forgets that it was ever
/// taken up (`RESOURCE_SECONDS`), and then it comes as a new one: older than `command.ttl`, it expires. Twice that.
const APPLIED_COMMANDS_TTL: Duration = Duration::from_secs(14 * 24 * 3600);
/// How long the lease of a worker is kept that does not renew it: far longer than anybody waits for it.
const WORKER_LEASES_TTL: Duration = Duration::from_secs(24 * 3600);
/// Between two looks for jobs that ended long ago.
const JOBS_INTERVAL: Duration = Duration::from_secs(600);
/// Between two batches, so that other writers get their turn.
const BATCH_PAUSE: Duration = Duration::from_millis(50);

/// Between two polls of a worker that does not lead the fleet: for a leader that cannot reach the database.
const SELDOM_INTERVAL_MS: std::ops::Range<u64> = 60_000..120_000;

pub(crate) struct PeriodicTasks {
    ctx: Arc<WorkerContext>,
    leadership: Arc<Leadership>,
    announcer: Arc<Announcer>,
    campaigns: Arc<CampaignProgress>,
}

impl PeriodicTasks {
    pub(crate) fn new(parts: &WorkerParts) -> Self {
        let (ctx, leadership) = (parts.ctx.clone(), parts.leadership.clone());
        Self { ctx, leadership, announcer: parts.announcer.clone(), campaigns: parts.campaigns.clone() }
    }

    /// Polls until told to stop.
    pub(crate) async fn run(&self) {
        let mut last = LastPoll::new();
        let mut seldom = Instant::now() + Duration::from_millis(fastrand::u64(SELDOM_INTERVAL_MS));
        loop {
            tokio::select! {
                () = self.ctx.stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_millis(fastrand::u64(POLL_INTERVAL_MS))) => {}
            }
            if !self.leadership.leads_fleet() && Instant::now() < seldom {
                continue;
            }
            seldom = Instant::now() + Duration::from_millis(fastrand::u64(SELDOM_INTERVAL_MS));
            for done in [
                self.announcer.poll(&mut last).await,
                self.complete_campaigns().await,
                self.prune_applied_commands().await,
                self.prune_jobs().await,
                self.add_up_job_counts().await,
                audit_recovery::recover(&self.ctx).await,
            ] {
                if let Err(error) = done {
                    tracing::debug!(%error, "worker.upkeep_delayed");
                }
            }
        }
    }

    async fn complete_campaigns(&self) -> Result<(), StoreError> {
        if self.ctx.store.try_acquire_lease(MaintenanceTask::Campaigns, CAMPAIGNS_INTERVAL).await? {
            for campaign in self.ctx.store.campaigns_to_complete(MAX_CAMPAIGNS).await? {
                self.campaigns.mark_dirty(campaign);
            }
        }
        Ok(())
    }

    async fn add_up_job_counts(&self) -> Result<(), StoreError> {
        if self.ctx.store.try_acquire_lease(MaintenanceTask::Counts, COUNTS_INTERVAL).await? {
            self.ctx.store.add_up_job_counts(false).await?;
        }
        Ok(())
    }

    async fn prune_applied_commands(&self) -> Result<(), StoreError> {
        let WorkerContext { settings, store, stop, .. } = &*self.ctx;
        if !store.try_acquire_lease(MaintenanceTask::Commands, COMMANDS_INTERVAL).await? {
            return Ok(());
        }
        // A ttl of weeks: a command may be that old at its first try, and be tried again after that.
        let age = APPLIED_COMMANDS_TTL.max(settings.command.ttl * 2);
        let mut all = 0;
        while !stop.is_cancelled() {
            // If it were deleted too early, a command that comes again would be carried out again.
            let now = match clocks::read_agreed(&self.ctx).await {
                Ok(clocks) => clocks.now(),
                Err(disagreement) => {
                    tracing::warn!(doubt = %disagreement, "worker.commands_not_forgotten");
                    break;
                }
            };
            store.prune_worker_leases(WORKER_LEASES_TTL, now).await?;
            match store.prune_applied_commands(age, now).await? {
                0 => break,
                some => all += some,
            }
            tokio::time::sleep(BATCH_PAUSE).await;
        }
        if all > 0 {
            tracing::info!(commands = all, "worker.commands_forgotten");
        }
        Ok(())
    }

    /// Deletes jobs that ended longer ago than `jobs.keep_days`, if that is set.
    async fn prune_jobs(&self) -> Result<(), StoreError> {
        let WorkerContext { settings, store, stop, .. } = &*self.ctx;
        let Some(keep) = settings.jobs.keep else { return Ok(()) };
        if !store.try_acquire_lease(MaintenanceTask::Jobs, JOBS_INTERVAL).await? {
            return Ok(());
        }
        // A clock that runs ahead must not delete what is young.
        let now = match clocks::read_agreed(&self.ctx).await {
            Ok(clocks) => clocks.now(),
            Err(disagreement) => {
                tracing::warn!(doubt = %disagreement, "worker.jobs_not_pruned");
                return Ok(());
            }
        };
        let before = store.ended_before(now, keep).await?;
        let pruned = store.prune_jobs(before, || stop.is_cancelled()).await?;
        if pruned != PrunedJobs::default() {
            store.add_up_job_counts(pruned.campaigns > 0).await?;
            tracing::info!(jobs = pruned.jobs, campaigns = pruned.campaigns, "worker.jobs_pruned");
        }
        Ok(())
    }
}
