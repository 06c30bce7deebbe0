//! What everything about foreign workers shares.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::outbox::{AskedBytes, MAX_ASKED_BYTES_OF_ALL};
use super::session::{Session, Sessions};
use crate::auth::{Revocations, Verifier};
use crate::broker::{BrokerError, WriteCheck};
use crate::worker::context::WorkerContext;
use crate::worker::parts::WorkerParts;
use crate::worker::run::active_run::ActiveRun;
use crate::worker::run::lifecycle::RunLifecycle;
use crate::worker::run::registry::RunRegistry;

/// Questions to SQL about jobs that are to be attached, at once: other writers have their turn between them.
const MAX_ATTACHING: usize = 16;
/// Until it is looked again whether a client has taken what waits for it.
const BACKLOG_POLL_INTERVAL: Duration = Duration::from_millis(20);

pub(crate) struct Shared {
    pub(crate) ctx: Arc<WorkerContext>,
    pub(crate) runs: Arc<RunRegistry>,
    pub(crate) lifecycle: Arc<RunLifecycle>,
    pub(crate) sessions: Sessions,
    pub(crate) verifier: Verifier,
    pub(crate) revocations: Revocations,
    /// What was found of Redis.
    write_check: Option<WriteCheck>,
    /// Turns of those who ask SQL for a job.
    pub(crate) attaching: Semaphore,
    /// Bytes of messages that wait for those turns.
    pub(crate) asked_bytes: AskedBytes,
    /// Open sockets.
    pub(crate) sockets: AtomicUsize,
}

impl Shared {
    pub(crate) fn new(parts: &WorkerParts, verifier: Verifier, revocations: Revocations) -> Arc<Self> {
        Arc::new(Self {
            ctx: parts.ctx.clone(),
            runs: parts.runs.clone(),
            lifecycle: parts.lifecycle.clone(),
            sessions: Sessions::default(),
            verifier,
            revocations,
            write_check: parts.write_check.get().cloned(),
            attaching: Semaphore::new(MAX_ATTACHING),
            asked_bytes: AskedBytes::default(),
            sockets: AtomicUsize::new(0),
        })
    }

    /// A turn to ask SQL about a job of this session. Those of one session wait for each other first, so that whoever asks
    /// for thousands of jobs stands in nobody's way. `None`: the worker ends.
    pub(crate) async fn turn<'a>(&'a self, session: &'a Session) -> Option<(SemaphorePermit<'a>, SemaphorePermit<'a>)> {
        let own = session.asking.acquire().await.ok()?;
        // Answers may be long. A client that takes none is closed before long, and what it has asked for waits for that.
        while session.link.is_backlogged() {
            tokio::time::sleep(BACKLOG_POLL_INTERVAL).await;
        }
        Some((own, self.attaching.acquire().await.ok()?))
    }

    /// If commands wait for the job, its work does not begin before they have been carried out, and what they may have ended
    /// is not said to have ended by itself. A dead host's claim on one lasts no longer than the lease; nor is Redis waited for
    /// longer, which says whether there are any.
    pub(crate) async fn wait_for_commands(&self, run: &ActiveRun) {
        let longest = self.ctx.settings.command.lease + Duration::from_secs(1);
        let mut renewed = run.last_renewed.subscribe();
        if *renewed.borrow_and_update() == run.started {
            tokio::select! {
                _ = renewed.changed() => {}
                () = run.exited() => {}
                () = tokio::time::sleep(longest) => {}
            }
        }
        let mut commands = run.commands.subscribe();
        if *commands.borrow() == 0 {
            return;
        }
        tokio::select! {
            _ = commands.wait_for(|waiting| *waiting == 0) => {}
            () = run.exited() => {}
            () = tokio::time::sleep(longest) => {}
        }
    }

    /// Whether so many messages wait for SQL that those of clients which have gone must give way.
    pub(crate) fn is_crowded(&self) -> bool {
        self.asked_bytes.load(Ordering::Relaxed) >= MAX_ASKED_BYTES_OF_ALL
    }

    /// Why Redis does not do what commands need, by its own word; `None`: it does, for most tenants at least.
    pub(crate) fn redis_problem(&self) -> Option<&'static str> {
        let problem = self.write_check.as_ref().and_then(WriteCheck::problem);
        let word = problem.map(|problem| problem.code().unwrap_or("unreachable"));
        word.or_else(|| (!self.ctx.broker.is_up()).then_some("unreachable"))
    }

    /// The partitions whose tenants are not served, as they stand in the names of keys, each with the reason.
    pub(crate) fn partitions_not_served(&self) -> BTreeMap<String, &'static str> {
        let problems = self.write_check.as_ref().map(WriteCheck::problems).unwrap_or_default();
        let word = |problem: BrokerError| problem.code().unwrap_or("unreachable");
        problems.into_iter().map(|(partition, problem)| (partition.to_string(), word(problem))).collect()
    }
}
