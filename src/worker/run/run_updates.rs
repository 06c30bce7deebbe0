//! Tells Redis of the runs of this worker: that they are its own, and how far they are. What is said within a moment about runs of
//! one partition goes in one call; partitions are apart, so that one whose server does not answer holds up no other.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::active_run::ActiveRun;
use super::pause_gate::CONFIRMATION_TTL;
use super::registry::RunRegistry;
use crate::broker::scripts::runs::{ProgressUpdate, RunState, RunUpdate};
use crate::broker::{BrokerError, Partition};
use crate::domain::{Progress, Resource};
use crate::protocol::server;
use crate::worker::batcher::{BatchLimits, Batcher};
use crate::worker::context::WorkerContext;
use crate::worker::notify::updates::publish_contact;

/// Of one partition. In such a call Redis does nothing else for about half a millisecond. The interval is the longest wait of an
/// update that nobody waits for: a progress is told four times a second at most.
const LIMITS: BatchLimits =
    BatchLimits { items: 128, bytes: 256 * 1_024, interval: Duration::from_millis(20), at_once: 4, waiting: 1_024 };
/// Redis keeps what it knows of a job for a week; so often it is told to.
const KEEP_INTERVAL: Duration = Duration::from_secs(3_600);

type Lane = Batcher<Said, Result<RunState, BrokerError>>;

/// What is to be told of a run. It becomes a message only when it is sent: a status that is known by then must not be followed by a
/// progress with the one before.
struct Said {
    run: Arc<ActiveRun>,
    keep: bool,
    progress: Option<Progress>,
}

impl Said {
    /// About how many bytes travel: beside the progress, which stands there twice, keys, a channel and names.
    fn size(&self) -> usize {
        let item = |told: &Progress| told.current_item.as_ref().map_or(0, String::len);
        256 + self.progress.as_ref().map_or(0, |told| 512 + 2 * item(told))
    }

    fn update(&self) -> RunUpdate {
        let (job, status) = (self.run.resource(), *self.run.status.borrow());
        let told = |progress: &Progress| ProgressUpdate {
            message: server::job_progress(job, status, progress),
            progress: progress.clone(),
        };
        let progress = self.progress.as_ref().map(told);
        RunUpdate { job: job.clone(), run: self.run.run().number, keep: self.keep, progress }
    }
}

pub(crate) struct RunUpdates {
    ctx: Arc<WorkerContext>,
    runs: Arc<RunRegistry>,
    /// One for each partition that has had a run here.
    lanes: Mutex<HashMap<Partition, Arc<Lane>>>,
    /// Jobs for which Redis has commands. When the queue is full a job is left out: its next renewal finds them again.
    commands_found: mpsc::Sender<Resource>,
}

impl RunUpdates {
    pub(crate) fn new(
        ctx: Arc<WorkerContext>,
        runs: Arc<RunRegistry>,
        commands_found: mpsc::Sender<Resource>,
    ) -> Arc<Self> {
        Arc::new(Self { ctx, runs, lanes: Mutex::default(), commands_found })
    }

    fn lane(&self, run: &ActiveRun) -> Arc<Lane> {
        let partition = self.ctx.broker.keys().partition(&run.resource().tenant);
        self.lanes.lock().entry(partition).or_insert_with(|| Arc::new(start_lane(&self.ctx))).clone()
    }

    /// The job is still this worker's, if it is. `is_urgent`: somebody waits for that.
    pub(crate) async fn renew(&self, run: &Arc<ActiveRun>, is_urgent: bool) {
        if let Err(error) = self.send(run, None, is_urgent).await {
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
        self.send(run, Some(progress), is_urgent).await
    }

    /// Somebody waits by now for what was last said of this run.
    pub(crate) fn hurry(&self, run: &ActiveRun) {
        self.lane(run).hurry();
    }

    async fn send(&self, run: &Arc<ActiveRun>, progress: Option<Progress>, is_urgent: bool) -> Result<(), BrokerError> {
        let keep = run.kept.lock().is_none_or(|kept| kept.elapsed() >= KEEP_INTERVAL);
        let said = Said { run: run.clone(), keep, progress };
        let ended = || BrokerError::Unavailable("the worker is ending".to_owned());
        let size = said.size();
        match self.lane(run).submit(said, size, is_urgent).await.ok_or_else(ended)?? {
            RunState::Held { waiting } => {
                if keep {
                    *run.kept.lock() = Some(Instant::now());
                }
                self.confirmed(run, waiting);
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

fn start_lane(ctx: &WorkerContext) -> Lane {
    let (broker, id) = (ctx.broker.clone(), ctx.id.clone());
    Batcher::start(LIMITS, &ctx.tracker, &ctx.end, move |said: Vec<Said>| {
        let (broker, id) = (broker.clone(), id.clone());
        async move {
            let updates: Vec<RunUpdate> = said.iter().map(Said::update).collect();
            let answers = broker.update_runs(&id, &updates).await;
            answers.unwrap_or_else(|error| updates.iter().map(|_| Err(error.clone())).collect())
        }
    })
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
