//! Puts the parts of a worker together, each with what it uses.

use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc;

use super::commands::campaign_command::CampaignCommands;
use super::commands::execute::CommandExecutor;
use super::commands::forwarder::Forwarder;
use super::commands::job_command::JobCommands;
use super::commands::scheduler::{CommandHearing, FoundWork, Scheduler};
use super::context::WorkerContext;
use super::error::WorkerError;
use super::identity;
use super::maintenance::heartbeat::Heartbeat;
use super::maintenance::job_types;
use super::maintenance::leadership::Leadership;
use super::maintenance::listening::Listening;
use super::maintenance::rescuer::Rescuer;
use super::maintenance::sql_lease;
use super::notify::announcements::Announcements;
use super::notify::announcer::Announcer;
use super::notify::campaign_progress::CampaignProgress;
use super::notify::job_notifier::JobNotifier;
use super::run::lifecycle::RunLifecycle;
use super::run::registry::RunRegistry;
use crate::broker::{Event, Subscriber, WriteCheck};

/// Jobs whose renewal has found commands that the scheduler has not seen yet: about as many as one worker holds.
const COMMANDS_FOUND_CAPACITY: usize = 1_024;

/// The parts that a worker and the host of an attached job have in common.
pub(crate) struct WorkerParts {
    pub(crate) ctx: Arc<WorkerContext>,
    pub(crate) runs: Arc<RunRegistry>,
    pub(crate) lifecycle: Arc<RunLifecycle>,
    pub(crate) rescuer: Arc<Rescuer>,
    pub(crate) scheduler: Arc<Scheduler>,
    pub(crate) notifier: Arc<JobNotifier>,
    pub(crate) campaigns: Arc<CampaignProgress>,
    pub(crate) announcer: Arc<Announcer>,
    pub(crate) leadership: Arc<Leadership>,
    listening: Arc<Listening>,
    /// What was found of Redis, from when this worker is registered.
    pub(crate) write_check: OnceLock<WriteCheck>,
    announcements: Arc<Announcements>,
}

impl WorkerParts {
    /// The parts, and what the scheduler is told of by others.
    pub(crate) fn new(ctx: Arc<WorkerContext>) -> (Self, FoundWork) {
        let runs = Arc::new(RunRegistry::default());
        let announcements = Arc::new(Announcements::default());
        let campaigns = Arc::new(CampaignProgress::new(ctx.clone(), announcements.clone()));
        let announcer = Arc::new(Announcer::new(ctx.clone(), announcements.clone(), campaigns.clone()));
        let notifier = Arc::new(JobNotifier::new(ctx.clone(), announcements.clone(), campaigns.clone()));
        let (commands_found, commands) = mpsc::channel(COMMANDS_FOUND_CAPACITY);
        let (leadership, tenants) = Leadership::new(ctx.clone());
        let leadership = Arc::new(leadership);
        let lifecycle = Arc::new(RunLifecycle::new(ctx.clone(), runs.clone(), notifier.clone(), commands_found));
        let rescuer = Arc::new(Rescuer::new(ctx.clone(), runs.clone(), notifier.clone(), leadership.clone()));
        let job_commands =
            JobCommands::new(ctx.clone(), runs.clone(), lifecycle.clone(), rescuer.clone(), notifier.clone());
        let campaign_commands = CampaignCommands::new(ctx.clone(), notifier.clone(), announcer.clone());
        let executor =
            CommandExecutor::new(ctx.clone(), runs.clone(), notifier.clone(), job_commands, campaign_commands);
        let listening = Arc::new(Listening::new(ctx.clone()));
        let hearing = CommandHearing { listening: listening.clone(), forwarder: Forwarder::start(&ctx) };
        let scheduler =
            Scheduler::new(ctx.clone(), runs.clone(), notifier.clone(), leadership.clone(), hearing, executor);
        let parts = Self {
            ctx,
            runs,
            lifecycle,
            rescuer,
            scheduler,
            notifier,
            campaigns,
            announcer,
            leadership,
            listening,
            write_check: OnceLock::new(),
            announcements,
        };
        (parts, FoundWork { commands, tenants })
    }

    /// Makes this worker known to others, with the types of job that it takes, and starts to receive messages.
    /// `slots`: how many jobs it runs at once; none, if it takes none from the queue.
    pub(crate) async fn register(
        &self,
        types: Vec<String>,
        slots: usize,
    ) -> Result<mpsc::Receiver<Event>, WorkerError> {
        let ctx = &self.ctx;
        ctx.spawn(identity::run(ctx.clone(), slots));
        // Before it counts as alive: a live worker that has not said what it knows might know anything.
        job_types::announce(ctx, &types, true).await;
        let heartbeat = Arc::new(Heartbeat::new(ctx.clone(), self.leadership.clone(), self.listening.clone()));
        heartbeat.send().await?;
        ctx.spawn(job_types::run(ctx.clone(), self.runs.clone(), types));
        let (subscriber, events) = Subscriber::start(&ctx.broker, &ctx.tracker, ctx.end.clone()).await?;
        self.listening.begin(&subscriber).await?;
        self.write_check.get_or_init(|| subscriber.proof().clone());
        heartbeat.write_check.get_or_init(|| subscriber.proof().clone());
        self.leadership.judge_by(subscriber.proof().clone());
        ctx.spawn(async move { heartbeat.run().await });
        let leadership = self.leadership.clone();
        ctx.spawn(async move { leadership.run().await });
        let listening = self.listening.clone();
        ctx.spawn(async move { listening.run().await });
        ctx.spawn(sql_lease::run(ctx.clone(), self.runs.clone()));
        Ok(events)
    }

    /// Starts what publishes the progress of campaigns, and what deletes announcements that have been published.
    pub(crate) fn start_notifying(&self) {
        let campaigns = self.campaigns.clone();
        self.ctx.spawn(async move { campaigns.run().await });
        let (announcements, store) = (self.announcements.clone(), self.ctx.store.clone());
        self.ctx.spawn(async move { announcements.run(&store).await });
    }
}
