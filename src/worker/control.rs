//! The control loop: hears that a resource has a command, and sees to it that someone here carries it
//! out where this worker should. Messages only wake; the record in Redis is what counts, so whatever
//! is missed here is found by polling.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};

use super::core::Core;
use super::waiting::Turn;
use crate::broker::keys::{DISPATCH_CHANNEL, control_pattern};
use crate::broker::scripts::claim::Claimed;
use crate::broker::{BrokerError, Event, Subscriber};
use crate::domain::{Resource, ResourceKind};
use crate::protocol::control;

/// Between two polls: jitter, so that workers do not poll in step.
const POLL_MS: std::ops::Range<u64> = 250..1_000;
/// Resources of one tenant asked for in one poll.
const DUE: usize = 128;
/// Tenants of one partition asked about in one poll; other ones each time.
const TENANTS: usize = 256;

/// Resources being worked on here, one command at a time each.
#[derive(Default)]
pub(crate) struct Busy {
    slots: Mutex<HashMap<Resource, Slot>>,
}

struct Slot {
    /// Something came in for this resource meanwhile: look again before leaving.
    again: bool,
    /// Tells the command under way to look at what waits behind it.
    poke: Arc<Notify>,
}

impl Busy {
    fn lock(&self) -> MutexGuard<'_, HashMap<Resource, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: it is being worked on, and that work knows now that there is more.
    fn take(&self, resource: &Resource) -> Option<Arc<Notify>> {
        let mut slots = self.lock();
        if let Some(slot) = slots.get_mut(resource) {
            slot.again = true;
            slot.poke.notify_one();
            return None;
        }
        let poke = Arc::new(Notify::new());
        slots.insert(resource.clone(), Slot { again: false, poke: poke.clone() });
        Some(poke)
    }

    /// `false`: something came in meanwhile; the slot is still taken.
    fn leave(&self, resource: &Resource, for_good: bool) -> bool {
        let mut slots = self.lock();
        if let Some(slot) = slots.get_mut(resource)
            && slot.again
            && !for_good
        {
            slot.again = false;
            return false;
        }
        slots.remove(resource);
        true
    }
}

impl Busy {
    fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}

impl Core {
    /// Waits until no command is being carried out here, at most so long.
    pub(crate) async fn commands_done(&self, within: Duration) {
        let idle = async {
            while !self.busy.is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(within, idle).await.is_err() {
            tracing::warn!("worker.commands_left_behind"); // Their leases end, and others carry them out.
        }
    }

    /// A resource may have a command for this worker. Returns at once.
    pub(crate) fn offer(self: &Arc<Self>, resource: Resource) {
        if self.stop.is_cancelled() || !self.serves(&resource.tenant) {
            return;
        }
        let Some(poke) = self.busy.take(&resource) else { return };
        if self.hosts.contains(&resource) {
            // Commands for work hosted here need no room: there are never more of them than jobs.
            self.work(Turn { resource, poke }, None);
        } else if let Err(turn) = self.waiting.push(Turn { resource, poke }) {
            self.busy.leave(&turn.resource, true); // It stays in `ready`.
        }
    }

    fn work(self: &Arc<Self>, turn: Turn, permit: Option<OwnedSemaphorePermit>) {
        let core = self.clone();
        self.spawn(async move { core.work_on(turn, permit).await });
    }

    /// Carries out the commands of one resource until none is left for this worker, or others wait for its room.
    async fn work_on(self: &Arc<Self>, turn: Turn, mut permit: Option<OwnedSemaphorePermit>) {
        let Turn { resource, poke } = &turn;
        loop {
            let more = match self.broker.claim(resource, &self.id, self.settings.command.lease).await {
                Ok(Claimed::Command(claim)) => {
                    self.waiting.claimed_one();
                    self.execute(&claim, poke, &mut permit).await
                }
                Ok(Claimed::Nothing | Claimed::Later | Claimed::Hosted(_)) => false,
                Err(error) => {
                    // The poll comes back to it; with Redis away there is nothing to be done now.
                    match error {
                        // Keys that somebody has changed by hand: nobody but a person can mend them.
                        BrokerError::Refused(_) => tracing::warn!(%resource, %error, "worker.claim_failed"),
                        _ => tracing::debug!(%resource, %error, "worker.claim_failed"),
                    }
                    self.busy.leave(resource, true);
                    return;
                }
            };
            let stopping = self.stop.is_cancelled();
            if (stopping || !more) && self.busy.leave(resource, stopping) {
                return;
            }
            if !self.waiting.is_empty() && !self.hosts.contains(resource) {
                self.waiting.push_back(turn);
                return;
            }
        }
    }
}

/// Gives room to what waits for it, until told to stop.
pub(crate) async fn seat(core: Arc<Core>) {
    let seating = async {
        loop {
            let Ok(permit) = core.room.clone().acquire_owned().await else { return };
            if core.waiting.wants_more() {
                core.look_again.notify_one();
            }
            let turn = core.waiting.next().await;
            core.work(turn, Some(permit));
        }
    };
    core.stop.run_until_cancelled(seating).await;
    // What waits here still waits in Redis: others take it.
    while let Some(turn) = core.waiting.take() {
        core.busy.leave(&turn.resource, true);
    }
}

/// Listens until told to stop.
pub(crate) async fn listen(core: Arc<Core>, mut events: mpsc::Receiver<Event>) {
    loop {
        let event = tokio::select! {
            () = core.stop.cancelled() => return,
            event = events.recv() => event,
        };
        match event {
            None => return,
            Some(Event::Message { channel, .. }) if channel == DISPATCH_CHANNEL => core.dispatch.notify_one(),
            Some(Event::Message { channel, payload, .. }) => {
                let text = std::str::from_utf8(&payload).unwrap_or_default();
                let Some(resource) = control::resource_of(&channel, text) else { continue };
                if !core.serves(&resource.tenant) {
                    continue;
                }
                let mine = core.hosts.contains(&resource);
                if mine || core.live.chosen(&core.broker, &core.id, &resource).await {
                    core.offer(resource);
                }
            }
            Some(Event::Gap) => {
                tracing::info!("worker.subscription_gap");
                sweep(&core).await;
                core.dispatch.notify_one();
            }
        }
    }
}

/// Subscribes to everything a worker listens to; confirmed when it returns.
pub(crate) async fn subscribe(subscriber: &Subscriber) -> Result<(), BrokerError> {
    subscriber.psubscribe(ResourceKind::ALL.map(control_pattern).to_vec()).await?;
    subscriber.subscribe(vec![DISPATCH_CHANNEL.to_owned()]).await
}

/// Polls until told to stop.
pub(crate) async fn poll(core: Arc<Core>) {
    loop {
        sweep(&core).await;
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = core.look_again.notified() => {}
            () = tokio::time::sleep(Duration::from_millis(fastrand::u64(POLL_MS))) => {}
        }
    }
}

/// Offers what is due, of all tenants at once.
async fn sweep(core: &Arc<Core>) {
    let tenants = match &core.tenants {
        Some(tenants) => tenants.clone(),
        None => {
            let partitions = core.broker.keys().partitions();
            let asked = partitions.map(|partition| core.broker.waiting_tenants(partition, TENANTS));
            join_all(asked).await.into_iter().flat_map(found).flatten().collect()
        }
    };
    let due = join_all(tenants.iter().map(|tenant| core.broker.due(tenant, DUE, Duration::ZERO))).await;
    for resources in due.into_iter().flat_map(found) {
        if resources.len() == DUE {
            core.waiting.more_are_due();
        }
        for resource in resources {
            core.offer(resource);
        }
    }
}

/// An answer, or a line in the log: the next poll comes soon.
fn found<T>(answer: Result<T, BrokerError>) -> Option<T> {
    answer.inspect_err(|error| tracing::debug!(%error, "worker.poll_failed")).ok()
}
