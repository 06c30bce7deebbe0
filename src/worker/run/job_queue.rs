//! Takes jobs that wait in SQL, as long as this worker has room for them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;

use super::registry::RunRegistry;
use super::runner::JobRunner;
use crate::broker::scripts::updates::JobWake;
use crate::broker::{Partition, WriteCheck};
use crate::domain::TenantId;
use crate::store::{Company, LeftInQueue, QueueLook, StoreError};
use crate::worker::context::WorkerContext;
use crate::worker::maintenance::leadership::Leadership;
use crate::worker::notify::job_notifier::JobNotifier;
use crate::worker::notify::job_wakes::{kind_of, takes_turns};
use crate::worker::parts::WorkerParts;
use crate::worker::sdk::job::AnyJob;

/// The types of job that a worker knows, and the code of each.
pub(crate) type JobTypes = HashMap<String, Arc<dyn AnyJob>>;

/// Between two polls without being notified: jitter, so that workers do not poll in step.
const POLL_INTERVAL_MS: std::ops::Range<u64> = 700..1_300;
/// A worker that does not lead the fleet polls less and less often while nothing is there: each interval is twice the one
/// before, up to so many times the first. It is notified of new jobs.
const MAX_BACKOFF: u32 = 32;

/// Jobs that are claimed together are this part of the room that a worker has, so that others that look at the same time get
/// theirs, and no more than that many: the last of them waits until those before it have begun.
const SHARE_OF_ROOM: usize = 2;
const MAX_CLAIMS: usize = 32;

pub(crate) struct JobQueue {
    ctx: Arc<WorkerContext>,
    runs: Arc<RunRegistry>,
    notifier: Arc<JobNotifier>,
    leadership: Arc<Leadership>,
    runner: Arc<JobRunner>,
    types: JobTypes,
    type_names: Vec<String>,
    /// Which tenants Redis does not serve just now.
    write_check: Option<WriteCheck>,
    /// What the last look said of whether this worker makes room for a job that must run alone.
    makes_room: AtomicBool,
}

/// Why a worker looks for jobs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Occasion {
    /// It has not looked for a while.
    Poll,
    /// Something has happened.
    Notified,
}

impl JobQueue {
    pub(crate) fn new(parts: &WorkerParts, runner: Arc<JobRunner>, types: JobTypes) -> Self {
        let type_names: Vec<String> = types.keys().cloned().collect();
        let write_check = parts.write_check.get().cloned();
        let (ctx, runs, notifier) = (parts.ctx.clone(), parts.runs.clone(), parts.notifier.clone());
        let leadership = parts.leadership.clone();
        let kind = kind_of(&type_names, ctx.tenants.as_deref());
        notifier.heard.set_kind(kind);
        let makes_room = AtomicBool::new(false);
        Self { ctx, runs, notifier, leadership, runner, types, type_names, write_check, makes_room }
    }

    /// Whether the server of a tenant's partition is there. On a cluster one may be gone while the others work: jobs of its
    /// tenants wait at their checkpoints, since nobody can say that they are still this worker's, and must not take the
    /// places of others'.
    fn is_served(&self, tenant: &str, not_served: &HashSet<Partition>) -> bool {
        let partition = |tenant: TenantId| self.ctx.broker.keys().partition(&tenant);
        not_served.is_empty() || tenant.parse().map(partition).is_ok_and(|of| !not_served.contains(&of))
    }

    fn not_served(&self) -> HashSet<Partition> {
        let found = self.write_check.as_ref().filter(|_| self.ctx.broker.is_cluster()).map(WriteCheck::problems);
        found.unwrap_or_default().into_iter().map(|(partition, _)| partition).collect()
    }

    /// Starts jobs until told to stop.
    pub(crate) async fn run(&self) {
        if self.types.is_empty() {
            return;
        }
        let (mut backoff, mut occasion) = (1, Occasion::Poll);
        loop {
            self.claim_jobs(occasion).await;
            (backoff, occasion) = tokio::select! {
                () = self.ctx.stop.cancelled() => return,
                () = self.notifier.job_available.notified() => (1, Occasion::Notified),
                () = self.wait(backoff) => ((backoff * 2).min(MAX_BACKOFF), Occasion::Poll),
            }
        }
    }

    /// So many intervals; one, where this worker leads the fleet (by now) or runs something: then slots come free, and it may
    /// have to make room for a job that runs alone.
    async fn wait(&self, intervals: u32) {
        for _ in 0..intervals {
            tokio::time::sleep(Duration::from_millis(fastrand::u64(POLL_INTERVAL_MS))).await;
            if self.leadership.leads_fleet() || self.runs.len() > 0 {
                return;
            }
        }
    }

    /// Takes jobs until there is no room, or none waits. Then the others that were told of them need not look, either.
    async fn claim_jobs(&self, occasion: Occasion) {
        let heard = self.notifier.heard.begin();
        // Until it is known that none waits. From the beginning, so that no end of a job falls between a look and this.
        self.notifier.looks_when_free.store(true, Ordering::Relaxed);
        let concurrency = self.ctx.settings.worker.concurrency;
        let crashes = suspected_after(self.ctx.settings.worker.max_worker_crashes);
        let makes_room = concurrency > 1 && self.makes_room_now(crashes, occasion).await;
        let not_served = self.not_served();
        let running = || self.runs.running(|tenant| self.is_served(tenant.as_str(), &not_served));
        while !self.ctx.stop.is_cancelled()
            && running() < concurrency
            && self.runs.held() < self.ctx.settings.worker.max_held_jobs
        {
            let now_running = running();
            let companies: &[Company] = match (now_running, makes_room) {
                _ if self.runs.runs_suspect(crashes) => return,
                (0, true) => &[Company::Awaited(crashes), Company::None],
                (0, false) => &[Company::None],
                (_, true) => return,
                (_, false) => &[Company::Others(crashes)],
            };
            // The first one may have to be alone, which shows only when it is there.
            let limit = match now_running {
                0 => 1,
                running => concurrency
                    .saturating_sub(running)
                    .min(self.ctx.settings.worker.max_held_jobs.saturating_sub(self.runs.held()))
                    .div_ceil(SHARE_OF_ROOM)
                    .min(MAX_CLAIMS),
            };
            match self.claim_beside(companies, &not_served, limit).await {
                Ok(QueueLook { jobs, left }) => {
                    let is_empty = jobs.is_empty();
                    // SQL was asked for known types only; a job of another one is released by the rescuer.
                    let known =
                        jobs.into_iter().filter_map(|job| Some((self.types.get(&job.job.job_type)?.clone(), job)));
                    join_all(known.map(|(code, job)| self.runner.start_job(job, code))).await;
                    match left {
                        // Whoever took them says it when nothing is left. If that one dies, others look a little later.
                        LeftInQueue::MayBeMore if is_empty => return,
                        LeftInQueue::MayBeMore => {}
                        LeftInQueue::NothingFits | LeftInQueue::NothingWaits => {
                            let none_waits = left == LeftInQueue::NothingWaits;
                            return self.tell_that_nothing_is_left(heard, none_waits, &not_served).await;
                        }
                    }
                }
                Err(error) => {
                    self.notifier.claim_failed.store(true, Ordering::Relaxed);
                    tracing::warn!(%error, "worker.dispatch_delayed");
                    return;
                }
            }
        }
    }

    /// Says that no job is left, if that is so, to the workers whose turn to look comes later. `heard`: the last wake-up that was heard
    /// before this worker looked. What came later is another matter.
    async fn tell_that_nothing_is_left(
        &self,
        heard: Option<String>,
        none_waits: bool,
        not_served: &HashSet<Partition>,
    ) {
        let WorkerContext { tenants, store, broker, .. } = &*self.ctx;
        if none_waits {
            self.notifier.looks_when_free.store(false, Ordering::Relaxed);
        }
        let (Some(name), Some(kind)) = (heard, self.notifier.heard.kind()) else { return };
        if !takes_turns(self.leadership.workers()) || !not_served.is_empty() || !self.notifier.heard.is_open(&name) {
            return;
        }
        // This one may have found nothing because of what it runs already.
        let is_waiting = match none_waits {
            true => Ok(false),
            false => store.is_job_waiting(tenants.as_deref(), &self.type_names).await,
        };
        match is_waiting {
            Ok(true) => {}
            Ok(false) => {
                self.notifier.looks_when_free.store(false, Ordering::Relaxed);
                if let Err(error) = broker.wake_dispatch(&JobWake::NothingLeft { name, kind }).await {
                    tracing::debug!(%error, "worker.others_not_told"); // They look.
                }
            }
            Err(error) => tracing::debug!(%error, "worker.waiting_jobs_not_read"),
        }
    }

    async fn claim_beside(
        &self,
        companies: &[Company],
        not_served: &HashSet<Partition>,
        limit: usize,
    ) -> Result<QueueLook, StoreError> {
        let mut last = QueueLook { jobs: Vec::new(), left: LeftInQueue::NothingFits };
        for (at, company) in companies.iter().enumerate() {
            let WorkerContext { id, tenants, store, .. } = &*self.ctx;
            let served = |tenant: &str| self.is_served(tenant, not_served);
            last = store.look_for_jobs(id, tenants.as_deref(), &self.type_names, *company, &served, limit).await?;
            if !last.jobs.is_empty() {
                // For the other kinds of company nobody has looked.
                if at + 1 < companies.len() {
                    last.left = LeftInQueue::MayBeMore;
                }
                break;
            }
        }
        Ok(last)
    }

    /// As [`Self::makes_room`]. A worker that runs nothing, made no room before, and was told of a job takes that one whatever it
    /// is: whether others have to be waited for is for those that run something, and for polls.
    async fn makes_room_now(&self, crashes: i64, occasion: Occasion) -> bool {
        let did = self.makes_room.load(Ordering::Relaxed);
        if occasion == Occasion::Notified && !did && self.runs.len() == 0 {
            return false;
        }
        let does = self.makes_room(crashes).await;
        self.makes_room.store(does, Ordering::Relaxed);
        does
    }

    /// Whether this worker makes room for a job that must run alone: it takes nothing new until it runs nothing, and
    /// then that job. Otherwise such a job would wait for ever where every worker is always busy. One worker makes room
    /// for one such job, and any other that happens to run nothing may be first.
    async fn makes_room(&self, crashes: i64) -> bool {
        let WorkerContext { id, tenants, store, broker, .. } = &*self.ctx;
        let suspects = match store.suspects(tenants.as_deref(), &self.type_names, crashes).await {
            Ok(suspects) => suspects,
            Err(error) => {
                tracing::debug!(%error, "worker.suspects_not_read");
                return false;
            }
        };
        if suspects.iter().any(|(_, by)| by.as_ref() == Some(id)) {
            return true;
        }
        for (job, by) in &suspects {
            let is_taken = match by {
                // A worker that is dead makes room for nobody any more.
                Some(by) => broker.live_workers(&job.tenant).await.is_ok_and(|live| live.contains(by)),
                None => false,
            };
            if !is_taken && matches!(store.make_room(job, id, by.as_ref()).await, Ok(true)) {
                return true;
            }
        }
        false
    }
}

/// A job during which so many workers have crashed runs alone: then it is known which job makes workers crash, and no other
/// job fails with it. One crash proves little (a machine was lost, or another job did it), so the second one counts. Where
/// a job fails after fewer crashes than that, the first one counts, so that the job runs alone at its last try.
fn suspected_after(max_worker_crashes: u32) -> i64 {
    (i64::from(max_worker_crashes) - 1).clamp(1, 2)
}
