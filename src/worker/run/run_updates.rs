//! Tells Redis of the runs of this worker: that they are its own, and how far they are. What is said within a moment about runs of
//! one partition goes in one call; partitions are apart, so that one whose server does not answer holds up no other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::active_run::ActiveRun;
use super::pause_gate::CONFIRMATION_TTL;
use super::registry::RunRegistry;
use crate::broker::BrokerError;
use crate::broker::scripts::runs::{RunMessage, RunState, RunUpdate};
use crate::domain::{Progress, Resource};
use crate::protocol::server;
use crate::worker::batcher::BatchLimits;
use crate::worker::context::WorkerContext;
use crate::worker::notify::updates::{publish_contact, publish_row};
use crate::worker::partition_batchers::PartitionBatchers;

/// Of one partition. In such a call Redis does nothing else for about half a millisecond. The interval is the longest wait of an
/// update that nobody waits for: a progress is told four times a second at most.
const LIMITS: BatchLimits =
    BatchLimits { items: 128, bytes: 256 * 1_024, interval: Duration::from_millis(20), at_once: 4, waiting: 1_024 };
/// Redis keeps what it knows of a job for a week; so often it is told to.
const KEEP_INTERVAL: Duration = Duration::from_secs(3_600);

/// What is to be told of a run. It becomes a message only when it is sent: a status that is known by then must not be followed by a
/// progress with the one before.
struct Said {
    run: Arc<ActiveRun>,
    keep: bool,
    what: What,
}

enum What {
    /// That it is this worker's.
    Renewal,
    /// The same, and its status, with which no command is on its way to another.
    Status,
    /// The same, and how far it is.
    Progress(Progress),
}

impl Said {
    /// About how many bytes travel: beside the progress, which stands there twice, keys, a channel and names.
    fn size(&self) -> usize {
        let item = |told: &Progress| told.current_item.as_ref().map_or(0, String::len);
        256 + match &self.what {
            What::Renewal => 0,
            What::Status => 256,
            What::Progress(told) => 512 + 2 * item(told),
        }
    }

    fn update(&self) -> RunUpdate {
        let (job, status) = (self.run.resource(), *self.run.status.borrow());
        let message = match &self.what {
            What::Renewal => None,
            What::Status => {
                let (text, fence) = (server::job_status(job, status, None), Some(self.run.job.job.fence));
                Some(RunMessage { text, progress: None, fence })
            }
            What::Progress(progress) => {
                let text = server::job_progress(job, status, progress);
                Some(RunMessage { text, progress: Some(progress.clone()), fence: None })
            }
        };
        RunUpdate { job: job.clone(), run: self.run.run().number, keep: self.keep, message }
    }
}

pub(crate) struct RunUpdates {
    ctx: Arc<WorkerContext>,
    runs: Arc<RunRegistry>,
    batchers: PartitionBatchers<Said, Result<RunState, BrokerError>>,
    /// Jobs for which Redis has commands. When the queue is full a job is left out: its next renewal finds them again.
    commands_found: mpsc::Sender<Resource>,
}

impl RunUpdates {
    pub(crate) fn new(
        ctx: Arc<WorkerContext>,
        runs: Arc<RunRegistry>,
        commands_found: mpsc::Sender<Resource>,
    ) -> Arc<Self> {
        let (broker, id) = (ctx.broker.clone(), ctx.id.clone());
        let batchers = PartitionBatchers::new(&ctx, LIMITS, move |said: Vec<Said>| {
            let (broker, id) = (broker.clone(), id.clone());
            async move {
                let updates: Vec<RunUpdate> = said.iter().map(Said::update).collect();
                let answers = broker.update_runs(&id, &updates).await;
                answers.unwrap_or_else(|error| updates.iter().map(|_| Err(error.clone())).collect())
            }
        });
        Arc::new(Self { ctx, runs, batchers, commands_found })
    }

    /// The run has begun here: the job is this worker's from now on, and those who watch are told its status.
    pub(crate) async fn begin(&self, run: &Arc<ActiveRun>) {
        if let Err(error) = self.send(run, What::Status, true).await {
            tracing::warn!(job = %run.resource(), %error, "worker.update_not_published");
        }
    }

    /// The job is still this worker's, if it is.
    pub(crate) async fn renew(&self, run: &Arc<ActiveRun>) {
        if let Err(error) = self.send(run, What::Renewal, false).await {
            tracing::debug!(job = %run.resource(), %error, "worker.renewal_delayed");
        }
    }

    /// The same, and how far it is, to those who watch.
    pub(crate) async fn publish(
        &self,
        run: &Arc<ActiveRun>,
        progress: Progress,
        is_urgent: bool,
    ) -> Result<(), BrokerError> {
        self.send(run, What::Progress(progress), is_urgent).await
    }

    /// Somebody waits by now for what was last said of this run.
    pub(crate) fn hurry(&self, run: &ActiveRun) {
        self.batchers.of(&run.resource().tenant).hurry();
    }

    async fn send(&self, run: &Arc<ActiveRun>, what: What, is_urgent: bool) -> Result<(), BrokerError> {
        let keep = run.kept.lock().is_none_or(|kept| kept.elapsed() >= KEEP_INTERVAL);
        let said = Said { run: run.clone(), keep, what };
        let ended = || BrokerError::Unavailable("the worker is ending".to_owned());
        let size = said.size();
        match self.batchers.of(&run.resource().tenant).submit(said, size, is_urgent).await.ok_or_else(ended)?? {
            RunState::Held { waiting } => {
                if keep {
                    *run.kept.lock() = Some(Instant::now());
                }
                self.confirmed(run, waiting);
            }
            RunState::Overtaken => {
                // The command is looked for at once, and the row is told as it stands by then.
                self.confirmed(run, 1);
                let (ctx, job) = (self.ctx.clone(), run.resource().clone());
                self.ctx.spawn(async move {
                    if let Err(error) = publish_row(&ctx.store, &ctx.broker, &job).await {
                        tracing::warn!(%job, %error, "worker.update_not_published");
                    }
                });
            }
            RunState::Lost => self.runs.drop_run(&self.ctx, run),
        }
        Ok(())
    }

    fn confirmed(&self, run: &Arc<ActiveRun>, waiting: i64) {
        let silent_for = run.last_renewed.borrow().elapsed();
        // Before the confirmation, which others wait for to look at them.
        run.commands.send_replace(waiting);
        run.confirm();
        if silent_for > CONFIRMATION_TTL && run.gate.is_none() {
            self.ctx.spawn(regain_contact(self.ctx.clone(), run.clone()));
        }
        if waiting > 0 {
            let _ = self.commands_found.try_send(run.resource().clone());
        }
    }
}

/// Other workers may have written into the row that they have lost contact with this host. They see that it is back, but
/// there may be none of them any more.
async fn regain_contact(ctx: Arc<WorkerContext>, run: Arc<ActiveRun>) {
    match ctx.store.regain_contact(run.run()).await {
        Ok(Some(job)) => publish_contact(&ctx.broker, &job).await,
        Ok(None) => {}
        Err(error) => tracing::debug!(job = %run.resource(), %error, "worker.contact_not_recorded"),
    }
}
