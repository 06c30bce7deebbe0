//! Resources that wait for room in this worker, tenant by tenant: each tenant has its turn, however many others wait.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::domain::{Resource, TenantId};

/// Resources of one tenant that may wait here. More of them stay in Redis, where the next poll finds them.
const OF_ONE_TENANT: usize = 512;
/// Resources that may wait here in all.
const MOST: usize = 8_192;

/// A resource with a command, and what tells the one who carries it out to look at what waits behind it.
pub(crate) struct Turn {
    pub(crate) resource: Resource,
    pub(crate) poke: Arc<Notify>,
}

/// The queue. Whoever puts a resource in has taken it in `Busy` before, so none is here twice.
#[derive(Default)]
pub(crate) struct Waiting {
    state: Mutex<State>,
    filled: Notify,
    /// More are due in Redis than have found room here.
    more: AtomicBool,
    /// Some command was taken up since those were last looked for.
    claimed: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Tenants with something waiting, in the order of their turns.
    turns: VecDeque<TenantId>,
    of: HashMap<TenantId, VecDeque<Turn>>,
    len: usize,
}

impl Waiting {
    /// Puts one at the end of its tenant's queue. Gives it back where there is no room.
    pub(crate) fn push(&self, turn: Turn) -> Result<(), Turn> {
        let mut state = self.lock();
        let tenant = turn.resource.tenant.clone();
        if state.len >= MOST || state.of.get(&tenant).is_some_and(|queue| queue.len() >= OF_ONE_TENANT) {
            self.more_are_due();
            return Err(turn);
        }
        state.put(tenant, turn);
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// Puts one back that had its turn and has more to do: it always finds room.
    pub(crate) fn push_back(&self, turn: Turn) {
        let tenant = turn.resource.tenant.clone();
        self.lock().put(tenant, turn);
        self.filled.notify_one();
    }

    /// The next one: waits for one where none is here. For a single caller.
    pub(crate) async fn next(&self) -> Turn {
        loop {
            if let Some(turn) = self.take() {
                return turn;
            }
            self.filled.notified().await;
        }
    }

    /// The next one, if there is one.
    pub(crate) fn take(&self) -> Option<Turn> {
        let mut state = self.lock();
        let tenant = state.turns.pop_front()?;
        let queue = state.of.get_mut(&tenant)?;
        let turn = queue.pop_front();
        if queue.is_empty() {
            state.of.remove(&tenant);
        } else {
            state.turns.push_back(tenant);
        }
        state.len -= usize::from(turn.is_some());
        turn
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().len == 0
    }

    /// Some had to be left in Redis.
    pub(crate) fn more_are_due(&self) {
        self.more.store(true, Ordering::Relaxed);
    }

    /// A command was taken up: the next look will not find the same ones again.
    pub(crate) fn claimed_one(&self) {
        self.claimed.store(true, Ordering::Relaxed);
    }

    /// Whether it is time to look for those that were left: none waits here any more. Says so once, and not at all
    /// where no command could be taken up: looking would find the same ones, over and over (the next poll is soon
    /// enough).
    pub(crate) fn wants_more(&self) -> bool {
        self.more.load(Ordering::Relaxed)
            && self.is_empty()
            && self.claimed.swap(false, Ordering::Relaxed)
            && self.more.swap(false, Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn put(&mut self, tenant: TenantId, turn: Turn) {
        let queue = self.of.entry(tenant.clone()).or_default();
        if queue.is_empty() {
            self.turns.push_back(tenant);
        }
        queue.push_back(turn);
        self.len += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(name: &str) -> Turn {
        Turn { resource: Resource::parse(name).expect("resource"), poke: Arc::default() }
    }

    #[test]
    fn each_tenant_has_its_turn_and_its_own_order() {
        let waiting = Waiting::default();
        for name in ["a:job:1", "a:job:2", "a:job:3", "b:job:1", "c:job:1", "b:job:2"] {
            assert!(waiting.push(turn(name)).is_ok());
        }
        let order: Vec<String> = std::iter::from_fn(|| waiting.take()).map(|turn| turn.resource.to_string()).collect();
        assert_eq!(order, ["a:job:1", "b:job:1", "c:job:1", "a:job:2", "b:job:2", "a:job:3"]);
        assert!(waiting.is_empty());
    }

    #[test]
    fn a_tenant_that_fills_its_queue_leaves_room_for_others() {
        let waiting = Waiting::default();
        let taken = (0..2 * OF_ONE_TENANT).filter(|n| waiting.push(turn(&format!("a:job:{n}"))).is_ok()).count();
        assert_eq!(taken, OF_ONE_TENANT);
        waiting.claimed_one();
        assert!(!waiting.wants_more(), "not while some wait here");
        assert!(waiting.push(turn("b:job:1")).is_ok());
        waiting.push_back(turn("a:job:again"));
        let second = std::iter::from_fn(|| waiting.take()).nth(1).expect("a second");
        assert_eq!(second.resource.to_string(), "b:job:1");
        while waiting.take().is_some() {}
        assert!(waiting.wants_more(), "those turned away are looked for");
        assert!(!waiting.wants_more(), "once");
    }

    #[test]
    fn where_none_could_be_taken_up_no_more_are_looked_for_at_once() {
        let waiting = Waiting::default();
        waiting.claimed_one();
        assert!(!waiting.wants_more(), "none were left");
        waiting.more_are_due();
        assert!(waiting.wants_more());
        waiting.more_are_due();
        assert!(!waiting.wants_more());
        waiting.claimed_one();
        assert!(waiting.wants_more());
    }
}
