//! What every part of one worker shares, and the few things all of them do.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::announce::Announcements;
use super::audit::AuditShares;
use super::control::Busy;
use super::hosts::{Gone, Hosted, Hosts, Phase};
use super::live::LiveWorkers;
use super::news::CampaignNews;
use super::reaper::Deaths;
use super::waiting::Waiting;
use crate::broker::scripts::updates::Update;
use crate::broker::{Broker, BrokerError};
use crate::config::Settings;
use crate::domain::{Job, JobStatus, Resource, TenantId, WorkerId};
use crate::protocol::server;
use crate::store::Store;

/// Commands carried out at once, beside those for jobs hosted here. The others wait, each tenant for its turn.
const COMMANDS_AT_ONCE: usize = 64;

/// One worker, or the host of one attached job.
pub(crate) struct Core {
    pub(crate) id: WorkerId,
    /// `None`: all tenants.
    pub(crate) tenants: Option<Vec<TenantId>>,
    pub(crate) settings: Settings,
    pub(crate) store: Store,
    pub(crate) broker: Broker,
    pub(crate) hosts: Hosts,
    pub(crate) busy: Busy,
    pub(crate) room: Arc<Semaphore>,
    /// What waits for room.
    pub(crate) waiting: Waiting,
    /// There is room again for what was left in Redis.
    pub(crate) look_again: Notify,
    pub(crate) live: LiveWorkers,
    pub(crate) deaths: Deaths,
    pub(crate) news: CampaignNews,
    pub(crate) announcements: Announcements,
    /// Those who publish what is owed: a worker that leaves lets them finish.
    pub(crate) announcing: TaskTracker,
    /// Whose audit entries this worker moves.
    pub(crate) audit_shares: AuditShares,
    /// A job may be waiting in SQL.
    pub(crate) dispatch: Notify,
    pub(crate) tracker: TaskTracker,
    /// Take up nothing new.
    pub(crate) stop: CancellationToken,
    /// Everything ends now.
    pub(crate) end: CancellationToken,
}

impl Core {
    pub(crate) fn new(
        id: WorkerId,
        tenants: Option<Vec<TenantId>>,
        settings: Settings,
        store: Store,
        broker: Broker,
    ) -> Arc<Self> {
        let clock = broker.clone();
        let store = store.by_clock(move || clock.now_ms());
        Arc::new(Self {
            id,
            tenants,
            settings,
            store,
            broker,
            hosts: Hosts::default(),
            busy: Busy::default(),
            room: Arc::new(Semaphore::new(COMMANDS_AT_ONCE)),
            waiting: Waiting::default(),
            look_again: Notify::new(),
            live: LiveWorkers::default(),
            deaths: Deaths::default(),
            news: CampaignNews::default(),
            announcements: Announcements::default(),
            announcing: TaskTracker::new(),
            audit_shares: AuditShares::default(),
            dispatch: Notify::new(),
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
            end: CancellationToken::new(),
        })
    }

    pub(crate) fn serves(&self, tenant: &TenantId) -> bool {
        self.tenants.as_ref().is_none_or(|tenants| tenants.contains(tenant))
    }

    /// Spawns a task that belongs to this worker and ends with it.
    pub(crate) fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let end = self.end.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                () = end.cancelled() => {}
                () = task => {}
            }
        })
    }

    /// Tells everyone who watches a job where it stands; whether that worked. SQL has it already, so a message that
    /// cannot be sent is logged and left: snapshots are right.
    pub(crate) async fn publish_status(&self, job: &Resource, status: JobStatus, desired: Desired<'_>) -> bool {
        let (shown, kept) = match desired {
            Desired::Nothing => (None, Some(None)),
            Desired::Is(word) => (Some(word), Some(Some(word.to_owned()))),
        };
        let message = server::job_status(job, status, shown);
        self.publish(job, &Update { run: None, message, progress: None, desired: kept }).await
    }

    /// Whether it could be published.
    pub(crate) async fn publish(&self, resource: &Resource, update: &Update) -> bool {
        let published = self.broker.publish_update(resource, update).await;
        if let Err(error) = &published {
            tracing::warn!(%resource, %error, "worker.update_not_published");
        }
        published.is_ok()
    }

    /// Tells everyone who watches a job whether its host is heard of.
    pub(crate) async fn publish_contact(&self, job: &Job) {
        let resource = Resource::job(job.tenant_id.clone(), job.id.clone());
        let message = server::job_contact(&resource, job.status, job.contact_lost_at.as_deref());
        self.publish(&resource, &Update { run: None, message, progress: None, desired: None }).await;
    }

    /// A job has left a worker (this one, or a dead one) and its row says where it stands now.
    pub(crate) async fn announce_left(&self, job: &Job, run: i64) {
        let resource = Resource::job(job.tenant_id.clone(), job.id.clone());
        self.announce_end_of_run(&resource, job.status, run).await;
        self.end_run(&resource, run).await;
        self.job_moved(job);
        if job.status == JobStatus::Pending {
            self.wake_dispatch().await;
        }
    }

    /// A campaign counts its jobs that have ended.
    pub(crate) fn job_moved(&self, job: &Job) {
        if let Some(campaign) = &job.campaign_id {
            self.news.mark(Resource::campaign(job.tenant_id.clone(), campaign.clone()));
        }
    }

    pub(crate) async fn end_run(&self, job: &Resource, run: i64) {
        let ended = insist(|| self.broker.end_run(job, run)).await;
        if let Err(error) = ended {
            // The next run has a higher number, and a dead host is passed over: this costs time only.
            tracing::warn!(%job, %error, "worker.end_run_failed");
        }
    }

    pub(crate) async fn wake_dispatch(&self) {
        self.dispatch.notify_one();
        if let Err(error) = self.broker.wake_dispatch().await {
            tracing::debug!(%error, "worker.wake_failed"); // Every worker looks by itself each second.
        }
    }

    /// The job belongs to another run now: stop the work, write nothing.
    pub(crate) fn abandon(self: &Arc<Self>, hosted: &Arc<Hosted>) {
        if hosted.advance(&[Phase::Open, Phase::Cancelling, Phase::EndedPaused], Phase::Closing).is_err() {
            return;
        }
        tracing::warn!(job_id = %hosted.resource().id, tenant_id = %hosted.resource().tenant, run = hosted.run().number, "worker.job_lost");
        self.hosts.close(hosted, Gone::Elsewhere);
        let hosted = hosted.clone();
        self.spawn(async move {
            let reason = super::job::Cancelled::lost();
            // Job code ends also where a program of it cannot be ended: a command would be refused then.
            if let Some(gate) = &hosted.gate {
                gate.want(super::gate::Wanted::Cancel(reason.clone()));
            }
            hosted.work.cancel(&reason.by, reason.reason.as_deref()).await;
        });
    }
}

/// What a status message says about where a command takes the job.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Desired<'a> {
    /// Nothing is under way (any more).
    Nothing,
    /// There.
    Is(&'a str),
}

/// A few tries within about two seconds, for calls to Redis that are safe to repeat.
pub(crate) async fn insist<T, F>(mut call: impl FnMut() -> F) -> Result<T, BrokerError>
where
    F: Future<Output = Result<T, BrokerError>>,
{
    let mut wait = Duration::from_millis(50);
    loop {
        match call().await {
            Err(BrokerError::Unavailable(_) | BrokerError::NotServing(_) | BrokerError::Unknown(_))
                if wait < Duration::from_secs(1) =>
            {
                tokio::time::sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                wait *= 2;
            }
            answer => return answer,
        }
    }
}

/// A wait before the next try: see [`domain::backoff`](crate::domain::backoff).
pub(crate) fn backoff(base: Duration, most: Duration, tries: u32) -> Duration {
    crate::domain::backoff(base, most, tries, fastrand::f64())
}
