//! Tells everyone concerned what has become of a job: those who watch it, its campaign, and the workers that look for jobs.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::announcements::Announcements;
use super::campaign_progress::CampaignProgress;
use super::job_wakes::JobWakes;
use crate::broker::BrokerError;
use crate::broker::scripts::runs::EndedRun;
use crate::broker::scripts::updates::JobWake;
use crate::domain::{Job, JobStatus, Resource};
use crate::protocol::server;
use crate::store::{Announcement, AnnouncementKind};
use crate::worker::batcher::BatchLimits;
use crate::worker::context::{WorkerContext, retry_idempotent};
use crate::worker::partition_batchers::PartitionBatchers;

/// Between two tries to tell Redis of runs that are over.
const END_RUN_INTERVAL: Duration = Duration::from_secs(1);
/// Runs of which Redis is told at once.
const ENDED_AT_ONCE: usize = 64;

/// Ends of one partition in one call. While more come, each waits no longer than the interval.
const ENDS: BatchLimits =
    BatchLimits { items: 64, bytes: 256 * 1_024, interval: Duration::from_millis(5), at_once: 4, waiting: 1_024 };
/// About so many bytes an end takes beside its message: keys and names.
const ENDED_SIZE: usize = 384;

/// Jobs that are due later than this were written by a clock that was wrong: the longest wait between two tries is a minute.
const MAX_WAKE_AHEAD_MS: u64 = 62_000;

pub(crate) struct JobNotifier {
    ctx: Arc<WorkerContext>,
    announcements: Arc<Announcements>,
    /// Runs that are over: those that end within a moment are told of together.
    ends: PartitionBatchers<EndedRun, Result<bool, BrokerError>>,
    pub(crate) campaigns: Arc<CampaignProgress>,
    /// Notified when this worker may find a job in SQL that it can run.
    pub(crate) job_available: Notify,
    /// What others have said of jobs that wait there.
    pub(crate) heard: JobWakes,
    /// The last look for jobs ended because this worker could take no more, or without an answer: as soon as a job has left it, it is
    /// to look again. Where the last one found nothing more, that is so until somebody says that jobs have come.
    pub(crate) looks_when_free: AtomicBool,
    /// SQL did not answer when this worker asked for a job, and may have given it one.
    pub(crate) claim_failed: AtomicBool,
    /// The seconds at whose beginning workers are told of jobs that are due: no more than [`MAX_WAKE_AHEAD_MS`] has.
    wakes: Arc<Mutex<HashSet<i64>>>,
    /// Runs that are over and of which Redis does not know that, with their numbers. No more than jobs that ran here when their
    /// server was lost: none begins without it.
    not_ended: Mutex<HashMap<Resource, i64>>,
    has_not_ended: Notify,
}

impl JobNotifier {
    pub(crate) fn new(
        ctx: Arc<WorkerContext>,
        announcements: Arc<Announcements>,
        campaigns: Arc<CampaignProgress>,
    ) -> Self {
        let broker = ctx.broker.clone();
        let ends = PartitionBatchers::new(&ctx, ENDS, move |ended: Vec<EndedRun>| {
            let broker = broker.clone();
            async move {
                let answers = broker.end_runs(&ended).await;
                answers.unwrap_or_else(|error| ended.iter().map(|_| Err(error.clone())).collect())
            }
        });
        Self {
            ctx,
            announcements,
            ends,
            campaigns,
            job_available: Notify::new(),
            heard: JobWakes::default(),
            looks_when_free: AtomicBool::new(true),
            claim_failed: AtomicBool::new(false),
            wakes: Arc::default(),
            not_ended: Mutex::default(),
            has_not_ended: Notify::new(),
        }
    }

    /// A run of a job is over, in this worker or in a dead one, and the job's row has its status now.
    pub(crate) async fn run_left(&self, job: &Job, run: i64) {
        let resource = Resource::job(job.tenant_id.clone(), job.id.clone());
        let fence = (!job.status.is_final()).then_some(job.fence);
        if self.tell_end(&resource, run, Some((job.status, fence))).await {
            self.announcements.mark_published(Announcement { resource, about: AnnouncementKind::Status, run });
        }
        self.campaigns.mark_campaign_of(job);
        if job.status == JobStatus::Pending {
            self.wake_workers(&JobWake::jobs(1)).await;
            self.wake_when_due(job);
        }
    }

    /// A job that waits to be tried again can be taken later: then the workers are told once more. Those that are due within
    /// the same second are told of together. A leader of the fleet finds them as well, where it knows their types.
    fn wake_when_due(&self, job: &Job) {
        let due = job.run_after.as_deref().and_then(|at| at.parse::<jiff::Timestamp>().ok());
        let Some(due) = due.map(|due| due.as_millisecond()) else { return };
        let now = self.ctx.broker.now_ms();
        let second = due.div_euclid(1_000) + 1;
        let wait = u64::try_from(second * 1_000 - now).unwrap_or_default();
        if due <= now || wait > MAX_WAKE_AHEAD_MS || !self.wakes.lock().insert(second) {
            return;
        }
        let (broker, wakes) = (self.ctx.broker.clone(), self.wakes.clone());
        self.ctx.spawn(async move {
            tokio::time::sleep(Duration::from_millis(wait)).await;
            wakes.lock().remove(&second);
            if let Err(error) = broker.wake_dispatch(&JobWake::Any).await {
                tracing::debug!(%error, "worker.wake_failed");
            }
        });
    }

    /// Tells Redis that a run is over, so that commands for the job are no longer kept for its host. Where that fails, it is
    /// told later ([`Self::end_left_runs`]): while this worker lives, nobody else takes commands that are kept for it.
    pub(crate) async fn end_run(&self, job: &Resource, run: i64) {
        self.tell_end(job, run, None).await;
    }

    /// The same, with the status that the job has now, for those who watch; whether they were told of it. A status that is not the
    /// last comes with the fence of the row that has it, and is told at the first try alone: later the job may have gone on. It is not told
    /// either where a command has been claimed since. Then whoever reads the row tells it ([`super::announcer`]).
    async fn tell_end(&self, job: &Resource, run: i64, status: Option<(JobStatus, Option<i64>)>) -> bool {
        let batcher = self.ends.of(&job.tenant);
        let mut to_tell = status;
        let mut is_told = false;
        let told = retry_idempotent(|| {
            let message = to_tell.map(|(status, _)| server::job_status(job, status, None));
            let fence = to_tell.and_then(|(_, fence)| fence);
            is_told = message.is_some();
            to_tell = to_tell.filter(|(status, _)| status.is_final());
            let size = ENDED_SIZE + message.as_ref().map_or(0, String::len);
            let ended = EndedRun { job: job.clone(), run, message, fence };
            let batcher = batcher.clone();
            async move {
                let ending = || BrokerError::Unavailable("the worker is ending".to_owned());
                batcher.submit(ended, size, false).await.ok_or_else(ending)?
            }
        })
        .await;
        if let Err(error) = &told {
            tracing::warn!(%job, %error, "worker.end_run_failed");
            let mut not_ended = self.not_ended.lock();
            let newest = not_ended.entry(job.clone()).or_insert(run);
            *newest = run.max(*newest);
            self.has_not_ended.notify_one();
        }
        told.unwrap_or(false) && is_told
    }

    /// Tells Redis of the runs that are over and of which it could not be told, until told to stop. A host that stops is
    /// missed, and then its runs are anybody's.
    pub(crate) async fn end_left_runs(&self) {
        let ending = async {
            loop {
                self.has_not_ended.notified().await;
                while !self.not_ended.lock().is_empty() {
                    tokio::time::sleep(END_RUN_INTERVAL).await;
                    // Others each time, so that those of a server that is back do not wait for those of one that is not.
                    let mut left: Vec<(Resource, i64)> =
                        self.not_ended.lock().iter().map(|(job, run)| (job.clone(), *run)).collect();
                    fastrand::shuffle(&mut left);
                    join_all(left.iter().take(ENDED_AT_ONCE).map(|(job, run)| self.end_left_run(job, *run))).await;
                }
            }
        };
        self.ctx.stop.run_until_cancelled(ending).await;
    }

    async fn end_left_run(&self, job: &Resource, run: i64) {
        match self.ctx.broker.end_run(job, run).await {
            Ok(()) => {
                let mut not_ended = self.not_ended.lock();
                // A newer one may have ended meanwhile.
                if not_ended.get(job) == Some(&run) {
                    not_ended.remove(job);
                }
            }
            Err(error) => tracing::debug!(%job, %error, "worker.end_run_delayed"),
        }
    }

    /// A job has left this worker, or stands paused in it: another one may have its place.
    pub(crate) fn slot_freed(&self) {
        if self.looks_when_free.load(Ordering::Relaxed) {
            self.job_available.notify_one();
        }
    }

    /// Notifies [`Self::job_available`] when it is this worker's turn to look for jobs that others have said are there, until it ends.
    pub(crate) async fn take_turns(&self) {
        self.heard.run(&self.job_available).await;
    }

    /// Tells this worker and all others that jobs wait in SQL.
    pub(crate) async fn wake_workers(&self, wake: &JobWake) {
        self.job_available.notify_one();
        if let Err(error) = self.ctx.broker.wake_dispatch(wake).await {
            tracing::debug!(%error, "worker.wake_failed"); // The leader of the fleet looks each second, the others now and then.
        }
    }
}
