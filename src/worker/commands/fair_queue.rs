//! Resources that wait for a permit in this worker. The queue takes one of each tenant in turn, however many resources
//! another tenant has in it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::domain::{Resource, TenantId};

/// Resources of one tenant that may wait here. More of them stay in Redis, where the next poll finds them.
const MAX_PER_TENANT: usize = 512;
/// Resources that may wait here in all.
const MAX_QUEUED: usize = 8_192;

/// A resource with a command. Whoever carries the command out is notified when another one may wait behind it.
pub(crate) struct QueuedResource {
    pub(crate) resource: Resource,
    pub(crate) notify: Arc<Notify>,
}

/// Whoever puts a resource in has entered it into `InFlight` before, so none is here twice.
#[derive(Default)]
pub(crate) struct FairQueue {
    state: Mutex<FairQueueState>,
    filled: Notify,
    /// More resources are ready in Redis than have found room here.
    more: AtomicBool,
    /// A command was claimed since those were last looked for.
    claimed: AtomicBool,
}

#[derive(Default)]
struct FairQueueState {
    /// Tenants with something in the queue, in the order of their turns.
    turns: VecDeque<TenantId>,
    of: HashMap<TenantId, VecDeque<QueuedResource>>,
    len: usize,
}

impl FairQueue {
    /// Puts one at the end of its tenant's queue. Gives it back where there is no room.
    pub(crate) fn push(&self, queued: QueuedResource) -> Result<(), QueuedResource> {
        let mut state = self.lock();
        let tenant = queued.resource.tenant.clone();
        if state.len >= MAX_QUEUED || state.of.get(&tenant).is_some_and(|queue| queue.len() >= MAX_PER_TENANT) {
            self.mark_more_ready();
            return Err(queued);
        }
        state.put(tenant, queued);
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// Puts one back that had its turn and has more to do: it always finds room.
    pub(crate) fn push_back(&self, queued: QueuedResource) {
        let tenant = queued.resource.tenant.clone();
        self.lock().put(tenant, queued);
        self.filled.notify_one();
    }

    /// The next one: waits for one where none is here. For a single caller.
    pub(crate) async fn next(&self) -> QueuedResource {
        loop {
            if let Some(queued) = self.take() {
                return queued;
            }
            self.filled.notified().await;
        }
    }

    /// The next one, if there is one.
    pub(crate) fn take(&self) -> Option<QueuedResource> {
        let mut state = self.lock();
        let tenant = state.turns.pop_front()?;
        let queue = state.of.get_mut(&tenant)?;
        let queued = queue.pop_front();
        if queue.is_empty() {
            state.of.remove(&tenant);
        } else {
            state.turns.push_back(tenant);
        }
        state.len -= usize::from(queued.is_some());
        queued
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().len == 0
    }

    /// Some had to be left in Redis.
    pub(crate) fn mark_more_ready(&self) {
        self.more.store(true, Ordering::Relaxed);
    }

    /// A command was claimed: the next poll will not find the same resources again.
    pub(crate) fn mark_claimed(&self) {
        self.claimed.store(true, Ordering::Relaxed);
    }

    /// Whether it is time to look for those that were left: none waits here any more. Says so once, and not at all
    /// where no command could be taken up: looking would find the same ones, over and over (the next poll is soon
    /// enough).
    pub(crate) fn takes_more(&self) -> bool {
        self.more.load(Ordering::Relaxed)
            && self.is_empty()
            && self.claimed.swap(false, Ordering::Relaxed)
            && self.more.swap(false, Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, FairQueueState> {
        self.state.lock()
    }
}

impl FairQueueState {
    fn put(&mut self, tenant: TenantId, queued: QueuedResource) {
        let queue = self.of.entry(tenant.clone()).or_default();
        if queue.is_empty() {
            self.turns.push_back(tenant);
        }
        queue.push_back(queued);
        self.len += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queued(name: &str) -> QueuedResource {
        QueuedResource { resource: Resource::parse(name).expect("resource"), notify: Arc::default() }
    }

    #[test]
    fn each_tenant_has_its_turn_and_its_own_order() {
        let queue = FairQueue::default();
        for name in ["a:job:1", "a:job:2", "a:job:3", "b:job:1", "c:job:1", "b:job:2"] {
            assert!(queue.push(queued(name)).is_ok());
        }
        let order: Vec<String> =
            std::iter::from_fn(|| queue.take()).map(|queued| queued.resource.to_string()).collect();
        assert_eq!(order, ["a:job:1", "b:job:1", "c:job:1", "a:job:2", "b:job:2", "a:job:3"]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_tenant_that_fills_its_queue_leaves_room_for_others() {
        let queue = FairQueue::default();
        let taken = (0..2 * MAX_PER_TENANT).filter(|n| queue.push(queued(&format!("a:job:{n}"))).is_ok()).count();
        assert_eq!(taken, MAX_PER_TENANT);
        queue.mark_claimed();
        assert!(!queue.takes_more(), "not while some wait here");
        assert!(queue.push(queued("b:job:1")).is_ok());
        queue.push_back(queued("a:job:again"));
        let second = std::iter::from_fn(|| queue.take()).nth(1).expect("a second");
        assert_eq!(second.resource.to_string(), "b:job:1");
        while queue.take().is_some() {}
        assert!(queue.takes_more(), "those turned away are looked for");
        assert!(!queue.takes_more(), "once");
    }

    #[test]
    fn where_none_could_be_taken_up_no_more_are_looked_for_at_once() {
        let queue = FairQueue::default();
        queue.mark_claimed();
        assert!(!queue.takes_more(), "none were left");
        queue.mark_more_ready();
        assert!(queue.takes_more());
        queue.mark_more_ready();
        assert!(!queue.takes_more());
        queue.mark_claimed();
        assert!(queue.takes_more());
    }
}
