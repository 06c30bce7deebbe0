//! What one worker is enough for is done by one: each partition has a leader, by a lease in Redis, which polls what waits there
//! and is not claimed, ships its audit entries and takes out dead workers. The others are woken by messages, and poll seldom.
//!
//! The leader of the first partition that is served leads the fleet: it also polls SQL for all.
//!
//! A leader is a convenience and no authority. Where two lead for a moment, or none does, everything is carried out once all
//! the same: claims and SQL see to that. What is missed waits for the next leader, at most [`LEASE`] and one tick later.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::broker::scripts::leaders::{HeartbeatLook, LeaderDuties};
use crate::broker::{Partition, WriteCheck};
use crate::domain::{TenantId, fnv1a};
use crate::worker::context::WorkerContext;

/// Between two ticks: jitter, so that workers do not ask in step.
const TICK_MS: std::ops::Range<u64> = 600..800;
/// How long a leader that has died is waited for: it renews its lease at each tick.
const LEASE: Duration = Duration::from_secs(2);
/// Every so many ticks what a wrong clock has written is put right.
const TICKS_PER_MEND: usize = 10;
/// Every so many ticks heartbeats are looked at in partitions that are homes only of workers of the version before.
const TICKS_PER_SELDOM_LOOK: usize = 3;
/// Every so many ticks a worker asks whether the partitions that it does not lead are led: one command for all of them where they lie on
/// one server. Each worker does, however many there are: of a fleet that has died but for one, nobody knows yet how few are left.
const TICKS_PER_QUESTION: usize = 2;
/// In a cluster that is a command for each partition: each is asked about so often in a second by all workers together, ...
const ASKED_PER_SECOND: f64 = 1.0;
/// ... and at least with this chance by each of them at a tick.
const LEAST_CHANCE: f64 = 0.125;
/// Tenants of one partition polled at one tick; other ones each time.
const TENANTS_PER_TICK: usize = 256;
/// Ticks whose tenants may wait for the scheduler. Of one more they are passed over: the next tick finds them again.
const FOUND_CAPACITY: usize = 64;
/// For so long a worker that could not do a leader's work leaves it to others: they ask within a second.
const STEPPED_DOWN_FOR: Duration = Duration::from_secs(3);
/// So many workers look whether the leader of a partition does its work.
const WATCHERS: u64 = 3;

pub(crate) struct Leadership {
    ctx: Arc<WorkerContext>,
    leads: Mutex<BTreeSet<Partition>>,
    /// About how many workers there are.
    workers: AtomicUsize,
    not_before: Mutex<Option<Instant>>,
    found: mpsc::Sender<Vec<TenantId>>,
    /// Notified when a server may have forgotten this worker.
    pub(crate) count_again: Notify,
    /// Which partitions are not served.
    write_check: Mutex<Option<WriteCheck>>,
}

impl Leadership {
    /// It leads nothing yet. Also gives where the tenants come out of whom something may wait.
    pub(crate) fn new(ctx: Arc<WorkerContext>) -> (Self, mpsc::Receiver<Vec<TenantId>>) {
        let (found, receiver) = mpsc::channel(FOUND_CAPACITY);
        let leadership = Self {
            ctx,
            leads: Mutex::default(),
            workers: AtomicUsize::new(1),
            not_before: Mutex::default(),
            found,
            count_again: Notify::new(),
            write_check: Mutex::default(),
        };
        (leadership, receiver)
    }

    /// By what it knows which partitions are served.
    pub(crate) fn judge_by(&self, write_check: WriteCheck) {
        *self.write_check.lock() = Some(write_check);
    }

    /// About how many workers there are, this one among them.
    pub(crate) fn workers(&self) -> usize {
        self.workers.load(Ordering::Relaxed)
    }

    /// About how many workers there are.
    pub(crate) fn set_workers(&self, workers: usize) {
        self.workers.store(workers.max(1), Ordering::Relaxed);
    }

    /// Whether this worker leads a partition.
    pub(crate) fn leads(&self, partition: Partition) -> bool {
        self.leads.lock().contains(&partition)
    }

    /// Whether this worker leads any partition.
    pub(crate) fn leads_any(&self) -> bool {
        !self.leads.lock().is_empty()
    }

    /// Whether this worker leads the fleet. A worker of named tenants, which leads nothing, has to look by itself.
    pub(crate) fn leads_fleet(&self) -> bool {
        if self.ctx.tenants.is_some() {
            return true;
        }
        let away: BTreeSet<Partition> = match &*self.write_check.lock() {
            Some(check) if self.ctx.broker.is_cluster() => check.problems().into_iter().map(|(away, _)| away).collect(),
            _ => BTreeSet::new(),
        };
        let mut partitions = self.ctx.broker.keys().partitions();
        partitions.find(|partition| !away.contains(partition)).is_some_and(|first| self.leads(first))
    }

    /// Whether this worker is one of the few that look whether the leader of a partition does its work.
    pub(crate) fn watches(&self, partition: Partition) -> bool {
        let workers = self.workers() as u64;
        workers <= WATCHERS || fnv1a(&format!("{partition}{}", self.ctx.id)) % workers < WATCHERS
    }

    /// This worker cannot do a leader's work just now: others shall, if there are any.
    pub(crate) async fn step_down(&self) {
        if self.workers() < 2 {
            return;
        }
        *self.not_before.lock() = Some(Instant::now() + STEPPED_DOWN_FOR);
        self.give_up().await;
    }

    /// Leads what nobody else leads, until told to stop.
    pub(crate) async fn run(&self) {
        if self.ctx.tenants.is_some() {
            return; // It could do nothing for the tenants of others.
        }
        for tick in 0_usize.. {
            if self.not_before.lock().is_none_or(|at| at <= Instant::now()) {
                self.tick(tick).await;
            }
            tokio::select! {
                () = self.ctx.stop.cancelled() => break,
                () = tokio::time::sleep(Duration::from_millis(fastrand::u64(TICK_MS))) => {}
            }
        }
        self.give_up().await;
    }

    /// At the first tick it asks to lead every partition.
    async fn tick(&self, tick: usize) {
        let broker = &self.ctx.broker;
        let keys = broker.keys();
        let (mut asked, others): (Vec<Partition>, Vec<Partition>) =
            keys.partitions().partition(|partition| tick == 0 || self.leads(*partition));
        asked.extend(self.to_be_led(others, tick).await);
        let look = |partition: Partition| {
            // In a cluster a home may be anywhere, as its server may be away.
            let is_home = broker.is_cluster() || keys.first_homes().any(|home| home == partition);
            match is_home || tick.is_multiple_of(TICKS_PER_SELDOM_LOOK) {
                _ if tick.is_multiple_of(TICKS_PER_MEND) => HeartbeatLook::AndMend,
                true => HeartbeatLook::Ended,
                false => HeartbeatLook::None,
            }
        };
        let asked: Vec<(Partition, HeartbeatLook)> =
            asked.into_iter().map(|partition| (partition, look(partition))).collect();
        // In a cluster each may lie on another server.
        let together = if broker.is_cluster() { 1 } else { asked.len().max(1) };
        join_all(asked.chunks(together).map(|some| self.lead(some))).await;
    }

    /// Those of the partitions of others that may have no leader any more, and now and then one that has: a lease that a clock has
    /// lengthened is cut down by whoever asks for it.
    async fn to_be_led(&self, others: Vec<Partition>, tick: usize) -> Vec<Partition> {
        let broker = &self.ctx.broker;
        let tick_seconds = (TICK_MS.start + TICK_MS.end) as f64 / 2_000.0;
        let share = ASKED_PER_SECOND * tick_seconds / self.workers() as f64;
        let is_led = async |some: &[Partition]| matches!(broker.are_led(some).await, Ok(true));
        if !broker.is_cluster() {
            let asks = tick.is_multiple_of(TICKS_PER_QUESTION) && !others.is_empty();
            if asks && !is_led(&others).await {
                return others;
            }
        }
        let mends = tick.is_multiple_of(TICKS_PER_MEND);
        let looked_at = others.into_iter().filter_map(|partition| {
            let drawn = fastrand::f64();
            let is_mended = mends && drawn < share;
            let is_asked = broker.is_cluster() && drawn < share.max(LEAST_CHANCE);
            (is_mended || is_asked).then_some((partition, is_mended))
        });
        let looked_at = join_all(looked_at.map(async |(partition, is_mended)| {
            // Mostly another one leads it, and that is all there is to know.
            (is_mended || !is_led(&[partition]).await).then_some(partition)
        }));
        looked_at.await.into_iter().flatten().collect()
    }

    async fn lead(&self, partitions: &[(Partition, HeartbeatLook)]) {
        let WorkerContext { id, broker, .. } = &*self.ctx;
        let found = match broker.lead_partitions(partitions, id, LEASE, TENANTS_PER_TICK).await {
            Ok(found) => found,
            Err(error) => {
                // They may have been renewed. Whoever leads meanwhile does the same.
                tracing::debug!(partitions = partitions.len(), %error, "worker.lead_failed");
                Vec::new()
            }
        };
        let found = found.into_iter().chain(std::iter::repeat(None));
        join_all(partitions.iter().zip(found).map(|((partition, _), duties)| self.take_up(*partition, duties))).await;
    }

    /// Does what there is to do for the leader of a partition; `None`: this worker does not lead it.
    async fn take_up(&self, partition: Partition, duties: Option<LeaderDuties>) {
        {
            let mut leads = self.leads.lock();
            match duties {
                Some(_) => leads.insert(partition),
                None => leads.remove(&partition),
            };
        }
        let Some(LeaderDuties { dead, tenants }) = duties else { return };
        if !tenants.is_empty() {
            let _ = self.found.try_send(tenants);
        }
        for worker in dead {
            if let Err(error) = self.ctx.broker.remove_dead_worker(partition, &worker).await {
                tracing::debug!(%partition, %error, "worker.dead_worker_not_removed"); // The next tick finds it again.
            }
        }
    }

    async fn give_up(&self) {
        let WorkerContext { id, broker, .. } = &*self.ctx;
        let led = std::mem::take(&mut *self.leads.lock());
        let given_up = led.into_iter().map(|partition| broker.stop_leading(partition, id));
        for error in join_all(given_up).await.into_iter().filter_map(Result::err) {
            tracing::debug!(%error, "worker.leadership_not_given_up"); // It ends by itself.
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_that_has_died_is_replaced_before_its_heartbeat_has_ended() {
        // The question before came just too early.
        let slowest = LEASE + Duration::from_millis(TICK_MS.end) * TICKS_PER_QUESTION as u32;
        assert!(slowest < crate::broker::scripts::heartbeats::HEARTBEAT_TTL);
    }
}
