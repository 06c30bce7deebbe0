//! What any one worker does now and then for all of them: a table in SQL says whose turn it is.

use std::sync::Arc;
use std::time::Duration;

use super::announce;
use super::clocks;
use super::core::Core;
use crate::store::{PrunedJobs, StoreError, Upkeep};

/// Between two looks whether something is due: jitter, so that workers do not look in step.
const LOOK_MS: std::ops::Range<u64> = 3_000..5_000;
/// Between two looks for campaigns whose last job's worker died before it could complete them.
const CAMPAIGNS: Duration = Duration::from_secs(10);
/// Campaigns of one such look.
const CAMPAIGNS_MOST: u32 = 100;
/// Between two rounds of forgetting.
const COMMANDS: Duration = Duration::from_secs(600);
/// How long SQL remembers at least what a command did. A command can come again only while it has no result, and
/// as long as any worker lives that is a lease's length. If none lives for a week, Redis forgets that it was ever
/// taken up (`RESOURCE_SECONDS`), and then it comes as a new one: older than `command.ttl`, it expires. Twice that.
const REMEMBERED: Duration = Duration::from_secs(14 * 24 * 3600);
/// Between two looks for jobs that ended long ago.
const JOBS: Duration = Duration::from_secs(600);
/// Between two batches, so that other writers get their turn.
const BREATH: Duration = Duration::from_millis(50);

/// Looks until told to stop.
pub(crate) async fn run(core: Arc<Core>) {
    let mut owed = announce::LastLook::new();
    loop {
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_millis(fastrand::u64(LOOK_MS))) => {}
        }
        for done in
            [announce::look(&core, &mut owed).await, campaigns(&core).await, commands(&core).await, jobs(&core).await]
        {
            if let Err(error) = done {
                tracing::debug!(%error, "worker.upkeep_delayed");
            }
        }
    }
}

async fn campaigns(core: &Core) -> Result<(), StoreError> {
    if core.store.take_turn(Upkeep::Campaigns, CAMPAIGNS).await? {
        for campaign in core.store.campaigns_to_complete(CAMPAIGNS_MOST).await? {
            core.news.mark(campaign);
        }
    }
    Ok(())
}

async fn commands(core: &Core) -> Result<(), StoreError> {
    if !core.store.take_turn(Upkeep::Commands, COMMANDS).await? {
        return Ok(());
    }
    // A ttl of weeks: a command may be that old at its first try, and be tried again after that.
    let age = REMEMBERED.max(core.settings.command.ttl * 2);
    let mut all = 0;
    while !core.stop.is_cancelled() {
        // Forgotten too early, a command that comes again would be carried out again.
        let now = match clocks::read(core).await {
            Ok(clocks) => clocks.now(),
            Err(doubt) => {
                tracing::warn!(%doubt, "worker.commands_not_forgotten");
                break;
            }
        };
        match core.store.forget_applied(age, now).await? {
            0 => break,
            some => all += some,
        }
        tokio::time::sleep(BREATH).await;
    }
    if all > 0 {
        tracing::info!(commands = all, "worker.commands_forgotten");
    }
    Ok(())
}

/// Deletes jobs that ended longer ago than `jobs.keep_days`, if that is set.
async fn jobs(core: &Core) -> Result<(), StoreError> {
    let Some(keep) = core.settings.jobs.keep else { return Ok(()) };
    if !core.store.take_turn(Upkeep::Jobs, JOBS).await? {
        return Ok(());
    }
    // A clock that runs ahead must not delete what is young.
    let now = match clocks::read(core).await {
        Ok(clocks) => clocks.now(),
        Err(doubt) => {
            tracing::warn!(%doubt, "worker.jobs_not_pruned");
            return Ok(());
        }
    };
    let before = core.store.ended_before(now, keep).await?;
    let pruned = core.store.prune_jobs(before, || core.stop.is_cancelled()).await?;
    if pruned != PrunedJobs::default() {
        tracing::info!(jobs = pruned.jobs, campaigns = pruned.campaigns, "worker.jobs_pruned");
    }
    Ok(())
}
