//! Releases the runs of dead workers, so that other workers can take the jobs.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::failure_detector::{FailureDetector, SUSPECT_AFTER, Suspect};
use super::leadership::Leadership;
use crate::broker::BrokerError;
use crate::domain::{JobStatus, Resource};
use crate::store::{Hosting, ReleasedRun, Run, StoreError};
use crate::worker::context::WorkerContext;
use crate::worker::notify::job_notifier::JobNotifier;
use crate::worker::notify::updates::{Desired, publish_contact, publish_status};
use crate::worker::run::active_run::{ActiveRun, Phase};
use crate::worker::run::registry::RunRegistry;

/// Between two polls: jitter, so that workers do not poll in step.
const POLL_INTERVAL_MS: std::ops::Range<u64> = 400..600;

/// Between two polls of a worker that does not lead the fleet, runs nothing and has no reason to look.
const SELDOM_POLL_INTERVAL_MS: std::ops::Range<u64> = 20_000..40_000;
/// For so long a worker looks at all hosts that was asked about one that is missing.
const ASKED_FOR: Duration = Duration::from_secs(15);

/// Why a job was released.
const HOST_DIED: &str = "The worker that ran this job is gone";

pub(crate) struct Rescuer {
    ctx: Arc<WorkerContext>,
    runs: Arc<RunRegistry>,
    notifier: Arc<JobNotifier>,
    leadership: Arc<Leadership>,
    detector: FailureDetector,
    /// Until when it looks at all hosts though it does not lead the fleet.
    asked: Mutex<Option<Instant>>,
    is_asked: Notify,
}

impl Rescuer {
    pub(crate) fn new(
        ctx: Arc<WorkerContext>,
        runs: Arc<RunRegistry>,
        notifier: Arc<JobNotifier>,
        leadership: Arc<Leadership>,
    ) -> Self {
        let (detector, asked, is_asked) = (FailureDetector::default(), Mutex::default(), Notify::new());
        Self { ctx, runs, notifier, leadership, detector, asked, is_asked }
    }

    /// Releases the runs of dead hosts until told to stop: the leader of the fleet looks at all hosts. Others look at their
    /// own runs, and at all hosts while a command waits for one that is missing.
    pub(crate) async fn run(&self) {
        let mut seldom = Instant::now();
        loop {
            tokio::select! {
                () = self.ctx.stop.cancelled() => return,
                () = self.is_asked.notified() => {}
                () = tokio::time::sleep(Duration::from_millis(fastrand::u64(POLL_INTERVAL_MS))) => {}
            }
            let mine = self.runs.all();
            let looks_at_all = self.leadership.leads_fleet() || self.asked.lock().is_some_and(|at| at > Instant::now());
            // What SQL has given to this worker in an answer that was lost is in no registry.
            let is_due = Instant::now() >= seldom || self.notifier.claim_failed.swap(false, Ordering::Relaxed);
            if !looks_at_all && mine.is_empty() && !is_due {
                continue;
            }
            let WorkerContext { id, store, .. } = &*self.ctx;
            let read = if looks_at_all { store.hostings().await } else { store.hostings_of(id).await };
            let hostings = match read {
                Ok(hostings) => hostings,
                Err(error) => {
                    tracing::debug!(%error, "worker.reaper_delayed");
                    continue;
                }
            };
            // Rows that name this worker are looked at until they are gone.
            let has_own = hostings.iter().any(|hosting| hosting.run.host == self.ctx.id);
            let wait = if has_own { 0 } else { fastrand::u64(SELDOM_POLL_INTERVAL_MS) };
            seldom = Instant::now() + Duration::from_millis(wait);
            self.drop_ended(&mine, &hostings);
            match self.find_missing(&hostings).await {
                Ok(missing) => self.detector.observe(&missing, Instant::now()),
                Err(error) => {
                    tracing::debug!(%error, "worker.reaper_delayed");
                    self.detector.reset();
                    continue;
                }
            }
            for hosting in &hostings {
                if !self.runs.contains_run(&hosting.run)
                    && let Err(error) = self.rescue(hosting).await
                {
                    tracing::warn!(job = %hosting.run.job, %error, "worker.release_delayed");
                }
            }
        }
    }

    /// Ends the work of runs that were here before the rows were read and that no row names any more: another system has
    /// ended the job, or deleted its row. What a command or the work's own end has just written is not meant: its run is
    /// not open.
    fn drop_ended(&self, mine: &[Arc<ActiveRun>], hostings: &[Hosting]) {
        let hosted: HashSet<(&Resource, i64)> =
            hostings.iter().map(|hosting| (&hosting.run.job, hosting.run.number)).collect();
        for run in mine {
            if run.phase() == Phase::Open && !hosted.contains(&(run.resource(), run.run().number)) {
                self.runs.drop_run(&self.ctx, run);
            }
        }
    }

    /// Does what is due for a run whose host is missing, or is back.
    async fn rescue(&self, hosting: &Hosting) -> Result<(), StoreError> {
        let WorkerContext { id, store, broker, .. } = &*self.ctx;
        let run = &hosting.run;
        if run.host == *id {
            let missing_for = self.detector.suspected_for(&Suspect::orphan(run)).unwrap_or_default();
            let is_due = missing_for >= self.released_after(false, hosting.is_remote);
            return if is_due { self.release(run).await } else { Ok(()) };
        }
        let suspected_for = self.detector.suspected_for(&Suspect::Host(run.host.clone()));
        let changed = match suspected_for {
            Some(total) if total >= self.released_after(hosting.is_attached, hosting.is_remote) => {
                return self.release(run).await;
            }
            Some(total) if hosting.is_attached && total >= SUSPECT_AFTER => store.lose_contact(run).await?,
            None if hosting.is_contact_lost => store.regain_contact(run).await?,
            _ => None,
        };
        if let Some(job) = changed {
            let event = if job.contact_lost_at.is_some() { "worker.contact_lost" } else { "worker.contact_regained" };
            tracing::warn!(job_id = %job.id, tenant_id = %job.tenant_id, host = %run.host, "{event}");
            publish_contact(broker, &job).await;
        }
        Ok(())
    }

    /// How long a host must have been missing before a run of it is released. Another worker can go on with a job of
    /// the queue, so that is soon. With an attached one nobody else can: its program probably runs on, and all that
    /// releasing it early would do is to end work that is well as soon as its host is back.
    /// The session of a foreign run takes it to another worker, so it has the time that it would have in a live one.
    fn released_after(&self, is_attached: bool, is_remote: bool) -> Duration {
        let worker = &self.ctx.settings.worker;
        match (is_attached, is_remote) {
            (true, _) => worker.attached_lost.max(SUSPECT_AFTER),
            (_, true) => worker.reattach.max(SUSPECT_AFTER),
            _ => SUSPECT_AFTER,
        }
    }

    /// Whether a run's host has been missing for long enough to release the run. A worker that is asked looks for itself from
    /// then on.
    pub(crate) async fn may_release(&self, run: &Run) -> bool {
        if self.asked.lock().replace(Instant::now() + ASKED_FOR).is_none_or(|before| before <= Instant::now()) {
            self.is_asked.notify_one();
        }
        if !self.detector.is_dead(&run.host) {
            return false;
        }
        // Asked only about hosts that are missing; where SQL does not tell, nothing is released.
        let Ok(is_attached) = self.ctx.store.is_attached(run).await else { return false };
        let Ok(is_remote) = self.ctx.store.is_remote(run).await else { return false };
        let suspected_for = self.detector.suspected_for(&Suspect::Host(run.host.clone()));
        suspected_for.is_some_and(|total| total >= self.released_after(is_attached, is_remote))
    }

    /// Takes a job from a host that is dead.
    pub(crate) async fn release(&self, run: &Run) -> Result<(), StoreError> {
        let WorkerContext { settings, store, broker, .. } = &*self.ctx;
        if let Some(ReleasedRun { job, resumed }) =
            store.release_dead_run(run, HOST_DIED, settings.worker.max_worker_crashes).await?
        {
            if resumed {
                publish_status(broker, &run.job, JobStatus::Running, Desired::Nothing).await;
            }
            tracing::warn!(job_id = %run.job.id, tenant_id = %run.job.tenant, host = %run.host, run = run.number, status = job.status.as_str(), "worker.job_released");
            self.notifier.run_left(&job, run.number).await;
        }
        Ok(())
    }

    /// Which hosts of these runs are missing, and which runs of this worker are orphans. Where the server of a job's tenant is
    /// away, nothing is known of the host, and others are looked at all the same.
    async fn find_missing(&self, hostings: &[Hosting]) -> Result<Vec<Suspect>, BrokerError> {
        if hostings.is_empty() {
            return Ok(Vec::new());
        }
        let broker = &self.ctx.broker;
        let mut live = broker.live_workers_anywhere().await?;
        // Not by this Redis alone: after a failover, or cut off from the others, it may know nothing of hosts that are well.
        let leases = hostings.iter().filter_map(|hosting| Some((hosting.run.host.clone(), hosting.renewals?)));
        live.extend(self.detector.observe_leases(&leases.collect(), Instant::now()));
        let (mut missing, mut silent) = (Vec::new(), HashSet::new());
        for run in hostings.iter().map(|hosting| &hosting.run) {
            if run.host == self.ctx.id {
                if !self.runs.contains_run(run) {
                    missing.push(Suspect::orphan(run));
                }
                continue;
            }
            let host = Suspect::Host(run.host.clone());
            let partition = broker.keys().partition(&run.job.tenant);
            if live.contains(&run.host) || missing.contains(&host) || silent.contains(&partition) {
                continue;
            }
            match broker.live_workers(&run.job.tenant).await {
                Ok(live) if live.contains(&run.host) => {}
                Ok(_) => missing.push(host),
                Err(error) => {
                    tracing::debug!(%partition, %error, "worker.reaper_delayed");
                    silent.insert(partition);
                }
            }
        }
        Ok(missing)
    }
}
