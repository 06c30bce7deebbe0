//! The scheduler: it hears that a resource has a command, and sees to it that this worker carries the command out where it
//! should. Messages only wake it up. The record in Redis is what counts, so polling finds whatever was missed.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use super::execute::CommandExecutor;
use super::fair_queue::{FairQueue, QueuedResource};
use super::forwarder::Forwarder;
use super::in_flight::InFlight;
use crate::broker::keys::{COMMANDS_WAIT, DISPATCH_CHANNEL, worker_channel};
use crate::broker::scripts::claim::ClaimOutcome;
use crate::broker::scripts::updates::JobWake;
use crate::broker::{BrokerError, Event, Partition};
use crate::domain::{Resource, TenantId};
use crate::protocol::control;
use crate::worker::context::WorkerContext;
use crate::worker::maintenance::leadership::Leadership;
use crate::worker::maintenance::listening::Listening;
use crate::worker::maintenance::live_workers::{Chosen, LiveWorkers};
use crate::worker::notify::job_notifier::JobNotifier;
use crate::worker::run::registry::RunRegistry;

/// Commands carried out at once, beside those for jobs that run here. The others wait in the fair queue.
const MAX_CONCURRENT: usize = 64;
/// Between two polls of a worker that serves named tenants: jitter, so that workers do not poll in step.
const POLL_INTERVAL_MS: std::ops::Range<u64> = 250..1_000;
/// Of all others the leader of a partition polls it, and wakes them where there is more than it can take. What they poll
/// besides is for a leader that does not see what it should.
const SELDOM_POLL_INTERVAL_MS: std::ops::Range<u64> = 20_000..30_000;
/// So many workers do that; of more each polls less often, so that together they poll as often as these, but each at least every so
/// many intervals.
const POLLERS: usize = 15;
const MAX_INTERVALS: u64 = 4;
/// Resources of one tenant asked for in one poll.
const READY_PER_POLL: usize = 128;
/// Resources about which Redis is asked at once whether they are this worker's.
const MAX_ASKING: usize = 64;
/// Tenants of one partition asked about in one poll; other ones each time.
const TENANTS_PER_POLL: usize = 256;

/// What others have found for the scheduler.
pub(crate) struct FoundWork {
    /// Jobs of this worker whose renewal found commands.
    pub(crate) commands: mpsc::Receiver<Resource>,
    /// Tenants of whom something may wait, in partitions that this worker leads.
    pub(crate) tenants: mpsc::Receiver<Vec<TenantId>>,
}

/// What a worker hears of commands, and how it wakes those that do not.
pub(crate) struct CommandHearing {
    pub(crate) listening: Arc<Listening>,
    pub(crate) forwarder: Forwarder,
}

pub(crate) struct Scheduler {
    ctx: Arc<WorkerContext>,
    runs: Arc<RunRegistry>,
    notifier: Arc<JobNotifier>,
    leadership: Arc<Leadership>,
    hearing: CommandHearing,
    executor: CommandExecutor,
    in_flight: InFlight,
    /// What waits for a permit.
    queue: FairQueue,
    permits: Arc<Semaphore>,
    /// Notified when there is room again for what was left in Redis.
    poll_again: Notify,
    live_workers: LiveWorkers,
    /// Questions to Redis whose resource a resource is.
    asking: Arc<Semaphore>,
}

impl Scheduler {
    pub(crate) fn new(
        ctx: Arc<WorkerContext>,
        runs: Arc<RunRegistry>,
        notifier: Arc<JobNotifier>,
        leadership: Arc<Leadership>,
        hearing: CommandHearing,
        executor: CommandExecutor,
    ) -> Arc<Self> {
        Arc::new(Self {
            ctx,
            runs,
            notifier,
            leadership,
            hearing,
            executor,
            in_flight: InFlight::default(),
            queue: FairQueue::default(),
            permits: Arc::new(Semaphore::new(MAX_CONCURRENT)),
            poll_again: Notify::new(),
            live_workers: LiveWorkers::default(),
            asking: Arc::new(Semaphore::new(MAX_ASKING)),
        })
    }

    /// Starts everything that takes up commands.
    pub(crate) fn start(self: &Arc<Self>, events: mpsc::Receiver<Event>, found: FoundWork) {
        let FoundWork { commands, tenants } = found;
        let scheduler = self.clone();
        self.ctx.spawn(async move { scheduler.listen(events).await });
        let scheduler = self.clone();
        self.ctx.spawn(async move { scheduler.enqueue_found(commands).await });
        let scheduler = self.clone();
        self.ctx.spawn(async move { scheduler.poll_found(tenants).await });
        let scheduler = self.clone();
        self.ctx.spawn(async move { scheduler.poll().await });
        let scheduler = self.clone();
        self.ctx.spawn(async move { scheduler.start_queued().await });
    }

    /// Waits until no command is being carried out here, at most so long.
    pub(crate) async fn drained(&self, within: Duration) {
        let idle = async {
            while !self.in_flight.is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(within, idle).await.is_err() {
            tracing::warn!("worker.commands_left_behind"); // Their leases end, and others carry them out.
        }
    }

    /// A resource may have a command for this worker. Returns at once.
    fn enqueue(self: &Arc<Self>, resource: Resource) {
        if self.ctx.stop.is_cancelled() || !self.ctx.serves(&resource.tenant) {
            return;
        }
        let Some(notify) = self.in_flight.begin(&resource) else { return };
        if self.runs.contains(&resource) {
            // Commands for jobs that run here need no permit: there are never more of them than such jobs.
            self.run_resource(QueuedResource { resource, notify }, None);
        } else if let Err(queued) = self.queue.push(QueuedResource { resource, notify }) {
            self.in_flight.give_up(&queued.resource); // It stays ready in Redis.
        }
    }

    fn run_resource(self: &Arc<Self>, queued: QueuedResource, permit: Option<OwnedSemaphorePermit>) {
        let scheduler = self.clone();
        self.ctx.spawn(async move { scheduler.run_commands(queued, permit).await });
    }

    /// Carries out the commands of one resource until none is left for this worker, or others wait for its permit.
    async fn run_commands(&self, queued: QueuedResource, mut permit: Option<OwnedSemaphorePermit>) {
        let QueuedResource { resource, notify } = &queued;
        loop {
            let more = match self.ctx.broker.claim(resource, &self.ctx.id, self.ctx.settings.command.lease).await {
                Ok(ClaimOutcome::Command(claim)) => {
                    self.queue.mark_claimed();
                    self.executor.execute(&claim, notify, &mut permit).await
                }
                Ok(ClaimOutcome::Nothing | ClaimOutcome::Later | ClaimOutcome::Hosted(_)) => false,
                Err(error) => {
                    // The next poll finds it again; with Redis away there is nothing to be done now.
                    match error {
                        // Keys that somebody has changed by hand: nobody but a person can mend them.
                        BrokerError::Refused(_) => tracing::warn!(%resource, %error, "worker.claim_failed"),
                        _ => tracing::debug!(%resource, %error, "worker.claim_failed"),
                    }
                    self.in_flight.give_up(resource);
                    return;
                }
            };
            if self.ctx.stop.is_cancelled() {
                self.in_flight.give_up(resource);
                return;
            }
            if !more && self.in_flight.finish(resource) {
                return;
            }
            if !self.queue.is_empty() && !self.runs.contains(resource) {
                self.queue.push_back(queued);
                return;
            }
        }
    }

    /// Gives permits to what waits in the queue, until told to stop.
    async fn start_queued(self: &Arc<Self>) {
        let starting = async {
            loop {
                let Ok(permit) = self.permits.clone().acquire_owned().await else { return };
                if self.queue.takes_more() {
                    self.poll_again.notify_one();
                }
                let queued = self.queue.next().await;
                self.run_resource(queued, Some(permit));
            }
        };
        self.ctx.stop.run_until_cancelled(starting).await;
        // What waits in the queue still waits in Redis: other workers take it.
        while let Some(queued) = self.queue.take() {
            self.in_flight.give_up(&queued.resource);
        }
    }

    /// Enqueues the jobs of this worker whose renewal found commands, until told to stop.
    async fn enqueue_found(self: &Arc<Self>, mut commands_found: mpsc::Receiver<Resource>) {
        let enqueuing = async {
            while let Some(resource) = commands_found.recv().await {
                self.enqueue(resource);
            }
        };
        self.ctx.stop.run_until_cancelled(enqueuing).await;
    }

    /// Listens for messages until told to stop.
    async fn listen(self: &Arc<Self>, mut events: mpsc::Receiver<Event>) {
        let WorkerContext { id, stop, .. } = &*self.ctx;
        let own_channel = worker_channel(id);
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                event = events.recv() => event,
            };
            match event {
                None => return,
                Some(Event::Message { channel, payload, .. }) if channel == DISPATCH_CHANNEL => {
                    if payload != COMMANDS_WAIT.as_bytes() {
                        self.hear_of_jobs(&JobWake::read(&payload));
                    } else if self.queue.is_empty() {
                        self.poll_again.notify_one();
                    }
                }
                Some(Event::Message { channel, payload, .. }) if channel == own_channel => {
                    let resource = std::str::from_utf8(&payload).ok().and_then(Resource::parse);
                    resource.into_iter().for_each(|resource| self.enqueue(resource));
                }
                Some(Event::Message { channel, payload, .. }) => {
                    let text = std::str::from_utf8(&payload).unwrap_or_default();
                    let Some(resource) = control::resource_of(&channel, text) else { continue };
                    if !self.ctx.serves(&resource.tenant) {
                        continue;
                    }
                    if self.runs.contains(&resource) {
                        self.enqueue(resource);
                        continue;
                    }
                    match self.live_workers.chosen(&resource) {
                        Some(chosen) => self.enqueue_or_forward(resource, chosen),
                        None => self.ask_who_is_chosen(resource),
                    }
                }
                Some(Event::Denied(names)) => self.hearing.listening.note_denied(&names),
                Some(Event::Gap | Event::PartitionGap(_)) => {
                    tracing::info!("worker.subscription_gap");
                    self.leadership.count_again.notify_one();
                    self.poll_again.notify_one();
                    self.notifier.job_available.notify_one();
                }
            }
        }
    }

    /// Somebody has said something about jobs that wait in SQL.
    fn hear_of_jobs(&self, wake: &JobWake) {
        // Without room it need not look, and looks when it has some again.
        let is_full = || self.runs.running(|_| true) >= self.ctx.settings.worker.concurrency;
        if !matches!(wake, JobWake::Jobs { .. }) || !is_full() {
            self.notifier.heard.hear(wake, &self.ctx.id, self.leadership.workers());
        }
    }

    /// Enqueues a resource that is this worker's. Where it is another's, and that one may not have heard of it, it is woken.
    fn enqueue_or_forward(self: &Arc<Self>, resource: Resource, Chosen(worker): Chosen) {
        match worker {
            Some(other) if other != self.ctx.id => {
                if self.hearing.listening.hears_for_others(&resource.tenant) {
                    self.hearing.forwarder.wake(other, resource);
                }
            }
            _ => self.enqueue(resource),
        }
    }

    /// The same, where Redis has to be asked whose it is. Where too many are asked about, the next poll finds it.
    fn ask_who_is_chosen(self: &Arc<Self>, resource: Resource) {
        let Ok(turn) = self.asking.clone().try_acquire_owned() else { return };
        let scheduler = self.clone();
        self.ctx.spawn(async move {
            let chosen = scheduler.live_workers.ask(&scheduler.ctx.broker, &resource).await;
            scheduler.enqueue_or_forward(resource, chosen);
            drop(turn);
        });
    }

    /// Polls tenants of partitions that this worker leads, until told to stop. Where more waits than it can take, the others
    /// are woken.
    async fn poll_found(self: &Arc<Self>, mut found: mpsc::Receiver<Vec<TenantId>>) {
        let polling = async {
            while let Some(tenants) = found.recv().await {
                let left = join_all(tenants.iter().map(|tenant| self.poll_tenant(tenant))).await;
                if left.contains(&true)
                    && let Err(error) = self.ctx.broker.wake_pollers().await
                {
                    tracing::debug!(%error, "worker.pollers_not_woken"); // The next tick does it again.
                }
            }
        };
        self.ctx.stop.run_until_cancelled(polling).await;
    }

    /// Polls until told to stop.
    async fn poll(self: &Arc<Self>) {
        loop {
            self.poll_ready().await;
            tokio::select! {
                () = self.ctx.stop.cancelled() => return,
                () = self.poll_again.notified() => {}
                () = tokio::time::sleep(self.until_poll()) => {}
            }
        }
    }

    fn until_poll(&self) -> Duration {
        if self.ctx.tenants.is_some() {
            return Duration::from_millis(fastrand::u64(POLL_INTERVAL_MS));
        }
        let intervals = (self.leadership.workers() / POLLERS) as u64;
        Duration::from_millis(fastrand::u64(SELDOM_POLL_INTERVAL_MS) * intervals.clamp(1, MAX_INTERVALS))
    }

    /// Enqueues the resources that are ready, those of each tenant as soon as they are known.
    async fn poll_ready(self: &Arc<Self>) {
        let WorkerContext { tenants, broker, .. } = &*self.ctx;
        match tenants {
            Some(tenants) => drop(join_all(tenants.iter().map(|tenant| self.poll_tenant(tenant))).await),
            None => {
                let polled = broker.keys().partitions().map(|partition| self.poll_partition(partition));
                join_all(polled).await;
            }
        }
    }

    async fn poll_partition(self: &Arc<Self>, partition: Partition) {
        let tenants = self.ctx.broker.tenants_with_ready(partition, TENANTS_PER_POLL).await;
        let tenants = log_poll_error(tenants).unwrap_or_default();
        join_all(tenants.iter().map(|tenant| self.poll_tenant(tenant))).await;
    }

    /// Whether more of it is ready than one poll gives.
    async fn poll_tenant(self: &Arc<Self>, tenant: &TenantId) -> bool {
        let ready = self.ctx.broker.ready_resources(tenant, READY_PER_POLL, Duration::ZERO).await;
        let Some(resources) = log_poll_error(ready) else { return false };
        let is_more = resources.len() == READY_PER_POLL;
        if is_more {
            self.queue.mark_more_ready();
        }
        for resource in resources {
            self.enqueue(resource);
        }
        is_more
    }
}

/// The answer, or a line in the log: the next poll comes soon.
fn log_poll_error<T>(answer: Result<T, BrokerError>) -> Option<T> {
    answer.inspect_err(|error| tracing::debug!(%error, "worker.poll_failed")).ok()
}
