//! Workers: they carry out commands, and run jobs.
//!
//! A worker is a handful of loops around one `core`:
//!
//! | file | what it does |
//! |---|---|
//! | `control`, `waiting` | hears that a resource has a command; polls, in case it did not; claims, each tenant in its turn |
//! | `execute`, `job_command`, `campaign_command`, `bring` | one claimed command, up to its one result |
//! | `dispatch`, `runtime` | takes jobs that wait in SQL, and runs their code |
//! | `gate`, `context`, `job`, `child`, `files` | what job code is written against |
//! | `job_types` | says which types of job this worker knows |
//! | `hosts`, `tend`, `report`, `timeout` | the runs hosted here: renewals, progress, their recorded end |
//! | `reaper` | heartbeats, and the jobs of workers that have none any more |
//! | `news`, `announce`, `audit`, `upkeep` | campaign progress; status messages that are owed; audit entries on their way to SQL; what one worker does for all |
//! | `attached` | all of that for the one job of `wheelhouse run` |
//! | `process` | programs as work: stopped, continued and ended with all that belongs to them |
//! | `signals` | what asks the program to leave |
//!
//! Start with [`Job`] to write a kind of job of your own.

mod announce;
mod attached;
mod audit;
mod bring;
mod campaign_command;
mod child;
pub(crate) mod clocks;
mod context;
mod control;
mod core;
mod dispatch;
mod execute;
mod files;
mod gate;
mod hosted;
mod hosts;
mod job;
mod job_command;
mod job_types;
mod live;
mod news;
pub mod process;
mod reaper;
mod report;
mod runtime;
pub mod signals;
mod tend;
mod timeout;
mod upkeep;
mod waiting;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub use attached::{AttachedHost, Settled};
pub use child::ChildProgram;
pub use context::JobContext;
pub use hosted::{Controlled, Reached};
pub use job::{BoxError, Cancelled, Job, JobError};

use self::core::Core;
use self::files::Files;
use crate::broker::{Broker, BrokerError, Subscriber};
use crate::config::Settings;
use crate::domain::WorkerId;
use crate::store::{Store, StoreError};

/// What a worker that leaves gives its jobs at least: writing down where they are takes a moment.
const LEAST_GRACE: Duration = Duration::from_secs(1);
/// Longest wait, at the start, for the answer whether SQL can be written.
const WRITABLE_WITHIN: Duration = Duration::from_secs(2);
/// Until it is tried again to write down that a worker leaves.
const LEAVING_AGAIN: Duration = Duration::from_millis(200);
/// Longest wait for tasks that were told to end.
const LAST_TASKS: Duration = Duration::from_secs(2);

/// Why a worker could not start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// Redis.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// SQL.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system lets it hear no signals.
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
    /// The tables are missing or old.
    #[error("the database is not up to date: run `wheelhouse migrate` first")]
    NotMigrated,
    /// The folder of the setting `worker.files_root` cannot be opened.
    #[error("setting worker.files_root: cannot open the folder {}: {}", .0.display(), .1)]
    FilesRoot(PathBuf, std::io::Error),
}

/// Puts a worker together.
pub struct WorkerBuilder {
    settings: Settings,
    id: Option<WorkerId>,
    kinds: dispatch::Kinds,
}

impl WorkerBuilder {
    /// A worker that carries out commands and knows no kind of job yet.
    pub fn new(settings: Settings) -> Self {
        Self { settings, id: None, kinds: dispatch::Kinds::default() }
    }

    /// Its name; without it one is made up. No two workers may have the same at the same time.
    pub fn id(mut self, id: WorkerId) -> Self {
        self.id = Some(id);
        self
    }

    /// Teaches it a kind of job. Of two with the same [`Job::TYPE`] the later one counts.
    pub fn job<J: Job>(mut self, code: J) -> Self {
        self.kinds.insert(J::TYPE.to_owned(), Arc::new(code));
        self
    }

    /// The worker.
    pub fn build(self) -> Worker {
        let id = self.id.unwrap_or_else(made_up_id);
        Worker { settings: self.settings, id, kinds: self.kinds }
    }
}

/// Unlikely to be anyone else's: the process and 64 random bits.
fn made_up_id() -> WorkerId {
    let id = format!("worker-{}-{:016x}", std::process::id(), fastrand::u64(..));
    // Letters, digits and dashes, far below the longest: it is an id.
    id.parse().unwrap_or_else(|_| unreachable!("{id} is an id"))
}

/// One worker, ready to run.
pub struct Worker {
    settings: Settings,
    id: WorkerId,
    kinds: dispatch::Kinds,
}

impl Worker {
    /// Its name.
    pub fn id(&self) -> &WorkerId {
        &self.id
    }

    /// Works until this program is asked to leave: by SIGTERM (a deployment), SIGINT (Ctrl-C) or SIGHUP (its terminal
    /// has gone). Then it takes up nothing new, hands its jobs back at their next checkpoint (within
    /// `worker.grace_seconds`), finishes the commands under way, and returns. None of that counts as a death in its
    /// jobs, whatever happens before it is done. A second SIGTERM or SIGINT ends the process at once. Signals that were
    /// ignored when the program started stay ignored.
    pub async fn run(self) -> Result<(), WorkerError> {
        let stop = signals::stop_signals().map_err(WorkerError::Signals)?;
        // Boxed, so that the program that awaits this need not compile its whole depth.
        Box::pin(self.run_until(stop)).await
    }

    /// As [`Self::run`], for a program that has other work beside and decides by itself when the worker leaves: when
    /// `stop` is cancelled. Signals are then its own business, and [`signals::stop_signals`] gives a fitting token.
    pub async fn run_until(self, stop: CancellationToken) -> Result<(), WorkerError> {
        if let Some(root) = &self.settings.worker.files_root {
            let files = Files::new(Some(root.clone()));
            files.check().map_err(|error| WorkerError::FilesRoot(root.clone(), error))?;
        }
        let store = Store::open(&self.settings.database).await?;
        if !store.is_migrated().await? {
            return Err(WorkerError::NotMigrated);
        }
        match store.prove_updates(WRITABLE_WITHIN).await {
            // A standby that is about to be the master, a full disk: it may pass, and each command is tried again.
            Some(Err(error)) if error.is_transient() => tracing::warn!(%error, "worker.sql_not_writable"),
            Some(Err(error)) => return Err(error.into()),
            Some(Ok(())) | None => {}
        }
        let broker = Broker::connect(&self.settings.redis).await?;
        broker.warn_of_loss();
        let grace = self.settings.worker.grace.max(LEAST_GRACE);
        let core = Core::new(self.id, self.settings.worker.tenants.clone(), self.settings, store, broker);
        // Whatever way this ends, also by being dropped, no task of it goes on.
        let _end = core.end.clone().drop_guard();

        let mut types: Vec<String> = self.kinds.keys().cloned().collect();
        types.sort();
        // Before it counts as alive: a live worker that has not said what it knows might know anything.
        job_types::announce(&core, &types).await;
        reaper::beat(&core).await?;
        core.spawn(job_types::run(core.clone(), types));
        let (subscriber, events) =
            Subscriber::start(&core.settings.redis, &core.broker, &core.tracker, core.end.clone()).await?;
        control::subscribe(&subscriber).await?;
        core.spawn(reaper::heartbeat(core.clone()));
        core.spawn(control::listen(core.clone(), events));
        core.spawn(control::poll(core.clone()));
        core.spawn(control::seat(core.clone()));
        let dispatching = core.spawn(dispatch::run(core.clone(), self.kinds));
        core.spawn(reaper::run(core.clone()));
        core.spawn(audit::run(core.clone()));
        core.spawn(audit::prune(core.clone()));
        core.spawn(news::run(core.clone()));
        core.spawn(announce::run(core.clone()));
        core.spawn(upkeep::run(core.clone()));
        tracing::info!(worker_id = %core.id, concurrency = core.settings.worker.concurrency, "worker.started");

        stop.cancelled().await;
        tracing::info!(worker_id = %core.id, jobs = core.hosts.len(), "worker.draining");
        core.stop.cancel();
        core.spawn(leaving(core.clone()));
        // A job that SQL is just giving to this worker must be in the table before that is emptied.
        let _ = tokio::time::timeout(grace, dispatching).await;
        core.spawn(leaving(core.clone())); // Once more, for that job.
        // Two graces: the first may be used up by job code, the second by SQL.
        core.leave_jobs(grace * 2).await;
        core.commands_done(grace).await;
        news::tell(&core).await;
        core.announced(grace).await;
        if let Err(error) = core.broker.leave(&core.id, core.tenants.as_deref()).await {
            tracing::debug!(%error, "worker.leave_failed"); // It counts as alive for a few seconds more.
        }
        core.close().await;
        tracing::info!(worker_id = %core.id, "worker.stopped");
        Ok(())
    }
}

/// Writes down that this worker leaves its runs on purpose, before anything else: its process manager may not give it
/// the time to hand all of them back.
async fn leaving(core: Arc<Core>) {
    while let Err(error) = core.store.leave_runs(&core.id).await {
        tracing::debug!(%error, "worker.leaving_not_recorded");
        tokio::time::sleep(LEAVING_AGAIN).await;
    }
}

impl Core {
    /// Lets those finish who are telling of cancelled jobs, and crosses off what has been said. What is left others find.
    pub(crate) async fn announced(&self, within: Duration) {
        self.announcing.close();
        let _ = tokio::time::timeout(within, self.announcing.wait()).await;
        announce::cross_off(self).await;
    }

    /// Ends every task and waits for them a moment.
    pub(crate) async fn close(&self) {
        self.end.cancel();
        self.tracker.close();
        if tokio::time::timeout(LAST_TASKS, self.tracker.wait()).await.is_err() {
            tracing::warn!(worker_id = %self.id, "worker.tasks_left_behind");
        }
    }
}
