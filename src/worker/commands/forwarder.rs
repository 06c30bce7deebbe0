//! In a large fleet a few workers hear of every command. Whoever is to act may not be one of them: one of those that hear wakes it by its
//! own channel.
//!
//! All of those that hear know which of them that is, by the same choice. Where it fails (it has just died, or its list is old), the
//! leader of the partition finds the command at its next tick.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::broker::Broker;
use crate::domain::{Resource, TenantId, WorkerId};
use crate::worker::context::WorkerContext;
use crate::worker::maintenance::live_workers::is_picked;

/// Wake-ups that may wait. What is more is found by the leader of its partition.
const CAPACITY: usize = 4_096;
/// Those that travel together.
const BATCH_SIZE: usize = 256;
/// How long a list of those that listen is believed.
const CACHE_TTL: Duration = Duration::from_secs(1);
/// Tenants remembered; beyond it the memory starts anew.
const CACHE_CAPACITY: usize = 1_024;

/// Wakes others; cheap to clone.
#[derive(Clone)]
pub(crate) struct Forwarder(mpsc::Sender<(WorkerId, Resource)>);

impl Forwarder {
    /// Starts the task behind it.
    pub(crate) fn start(ctx: &Arc<WorkerContext>) -> Self {
        let (sender, mut waiting) = mpsc::channel::<(WorkerId, Resource)>(CAPACITY);
        let task_ctx = ctx.clone();
        ctx.spawn(async move {
            let WorkerContext { id, broker, .. } = &*task_ctx;
            let (mut listeners, mut batch) = (Listeners::default(), Vec::new());
            while waiting.recv_many(&mut batch, BATCH_SIZE).await > 0 {
                let mut wakes = Vec::with_capacity(batch.len());
                for (worker, resource) in batch.drain(..) {
                    let hearing = listeners.of(broker, &resource.tenant, task_ctx.tenants.is_some()).await;
                    // Whoever hears by itself needs no other.
                    if is_picked(id, hearing, &resource) && !hearing.contains(&worker) {
                        wakes.push((worker, resource));
                    }
                }
                if !wakes.is_empty()
                    && let Err(error) = broker.wake_workers(&wakes).await
                {
                    tracing::debug!(%error, "worker.others_not_woken");
                }
            }
        });
        Self(sender)
    }

    /// This worker is to act on a resource, which may not have heard of it. Returns at once.
    pub(crate) fn wake(&self, worker: WorkerId, resource: Resource) {
        if self.0.try_send((worker, resource)).is_err() {
            tracing::debug!("worker.too_many_to_wake");
        }
    }
}

/// Those that listen, as last seen: for all tenants under `None`, and for single ones.
#[derive(Default)]
struct Listeners(HashMap<Option<TenantId>, (Instant, BTreeSet<WorkerId>)>);

impl Listeners {
    /// Those that share the wake-ups of a tenant: the listeners for all tenants, or those of the tenant where there are none. Nobody
    /// where it cannot be known: then whoever asks does it.
    async fn of(&mut self, broker: &Broker, tenant: &TenantId, is_of_tenants: bool) -> &BTreeSet<WorkerId> {
        self.refresh(broker, None).await;
        let has_any = self.0.get(&None).is_some_and(|(_, hearing)| !hearing.is_empty());
        let of = (is_of_tenants && !has_any).then(|| tenant.clone());
        if of.is_some() {
            self.refresh(broker, of.clone()).await;
        }
        static NOBODY: BTreeSet<WorkerId> = BTreeSet::new();
        self.0.get(&of).map_or(&NOBODY, |(_, hearing)| hearing)
    }

    async fn refresh(&mut self, broker: &Broker, of: Option<TenantId>) {
        if self.0.get(&of).is_some_and(|(at, _)| at.elapsed() < CACHE_TTL) {
            return;
        }
        let hearing = broker.listeners(of.as_ref()).await.unwrap_or_default();
        if self.0.len() >= CACHE_CAPACITY {
            self.0.clear();
        }
        self.0.insert(of, (Instant::now(), hearing));
    }
}
