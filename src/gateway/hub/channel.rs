//! One watched resource: who watches, what was handed out.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::OnceCell;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::update::Update;
use crate::broker::scripts::results::CommandResult;
use crate::domain::{CommandId, Resource};
use crate::gateway::outbox::{Outbox, Push};
use crate::http::close::Close;
use crate::protocol::tenant::feed_resumed;

/// Commands whose results are remembered as handed out; more than are read back after a gap.
const CACHE_CAPACITY: usize = 2 * RECENT;
/// Results read back after a gap, and known as old before a subscription begins.
pub(super) const RECENT: usize = 256;

/// What became of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateOutcome {
    /// Handed out, or known already, or not an update.
    Done,
    /// Its number is lower than one before: an old message again, or the numbers have begun anew.
    Backwards,
}

/// A watched resource and its sockets.
pub struct Channel {
    pub(super) resource: Arc<Resource>,
    /// The subscription stands.
    pub(super) opened: OnceCell<()>,
    state: Mutex<ChannelState>,
}

#[derive(Default)]
struct ChannelState {
    subscribers: Vec<Arc<Outbox>>,
    /// Highest number on the stream so far.
    seq: Option<i64>,
    /// Results handed out, oldest first; they carry numbers from `first` on.
    given: VecDeque<CommandId>,
    first: u64,
    stale: bool,
    /// The feed goes on: those who were told that it is interrupted are told so when this has been read again.
    resuming: bool,
    /// It may not be heard any more: nobody stays on it.
    closed: bool,
}

impl Channel {
    /// Nobody watches yet, and nothing is subscribed.
    pub fn new(resource: Resource) -> Self {
        Self { resource: resource.into(), opened: OnceCell::new(), state: Mutex::default() }
    }

    /// Adds a subscriber; gives the number of the first result it will get.
    pub fn add(&self, outbox: Arc<Outbox>) -> u64 {
        let mut state = self.lock();
        if state.closed {
            outbox.close(Close::drain());
        }
        state.subscribers.push(outbox);
        state.first + state.given.len() as u64
    }

    /// Sends everyone away, now and later: the channel may not be heard any more.
    pub(super) fn close_all(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.subscribers.iter().for_each(|subscriber| subscriber.close(Close::drain()));
    }

    pub(super) fn remove(&self, outbox: &Arc<Outbox>) {
        let mut state = self.lock();
        if let Some(at) = state.subscribers.iter().position(|subscriber| Arc::ptr_eq(subscriber, outbox)) {
            state.subscribers.swap_remove(at);
        }
    }

    /// These ended before anyone listened: nobody here is told.
    pub(super) fn mark_delivered(&self, commands: impl Iterator<Item = CommandId>) {
        let mut state = self.lock();
        for command in commands {
            state.remember(command);
        }
    }

    /// Whether the command's result was handed out, or ended before anyone listened.
    pub(super) fn was_delivered(&self, command: CommandId) -> bool {
        self.lock().given.contains(&command)
    }

    /// Its number among the results.
    pub(super) fn position(&self, command: CommandId) -> Option<u64> {
        let state = self.lock();
        state.given.iter().position(|given| *given == command).map(|at| state.first + at as u64)
    }

    /// Hands a result out, once.
    pub(super) fn deliver(&self, result: CommandResult) {
        let mut state = self.lock();
        if !state.remember(result.command) {
            return;
        }
        let push = Push::result(result);
        for subscriber in &state.subscribers {
            subscriber.push(push.clone());
        }
    }

    /// Hands an update out. Only an object about this very resource, of one of the two types, is one.
    pub fn update(&self, payload: bytes::Bytes) -> UpdateOutcome {
        let Some(update) = Update::read(payload, &self.resource) else { return UpdateOutcome::Done };
        let mut state = self.lock();
        if let (Some(seq), Some(last)) = (update.seq, state.seq)
            && seq <= last
        {
            return if seq < last { UpdateOutcome::Backwards } else { UpdateOutcome::Done };
        }
        state.seq = update.seq.or(state.seq);
        let push = update.push(&self.resource);
        for subscriber in &state.subscribers {
            subscriber.push(push.clone());
        }
        UpdateOutcome::Done
    }

    /// Highest number heard.
    pub(super) fn seq(&self) -> Option<i64> {
        self.lock().seq
    }

    /// Hands out what was read from the record, unless the stream has gone on meanwhile (`false`).
    pub(super) fn deliver_snapshot(&self, before: Option<i64>, seq: i64, pushes: &[Push]) -> bool {
        let mut state = self.lock();
        if state.seq != before {
            return false;
        }
        state.seq = Some(seq);
        for subscriber in &state.subscribers {
            subscriber.lower_min_seq(seq);
            for push in pushes {
                subscriber.push(push.clone());
            }
        }
        true
    }

    /// It has to be read again. `false`: that was known.
    pub(super) fn mark_stale(&self) -> bool {
        !std::mem::replace(&mut self.lock().stale, true)
    }

    /// Somebody is about to read it again.
    pub(super) fn take_stale(&self) {
        self.lock().stale = false;
    }

    /// What is shown of it may be old, which `text` says.
    pub(super) fn interrupt(&self, text: &Utf8Bytes) {
        let mut state = self.lock();
        state.resuming = false;
        state.subscribers.iter().for_each(|subscriber| subscriber.interrupt(text));
    }

    /// The feed goes on. Whether there is somebody who was told that it is interrupted: then it is to be read again.
    pub(super) fn begin_resuming(&self) -> bool {
        let mut state = self.lock();
        state.resuming = state.subscribers.iter().any(|subscriber| subscriber.is_interrupted());
        state.resuming
    }

    /// Whether what is read now is what somebody waits for who was told that the feed is interrupted.
    pub(super) fn is_resuming(&self) -> bool {
        self.lock().resuming
    }

    /// What was missed has been handed out.
    pub(super) fn resume(&self) {
        let mut state = self.lock();
        if std::mem::take(&mut state.resuming) {
            let text: Utf8Bytes = feed_resumed(&self.resource.tenant).into();
            state.subscribers.iter().for_each(|subscriber| subscriber.resume(&text));
        }
    }

    fn lock(&self) -> MutexGuard<'_, ChannelState> {
        self.state.lock()
    }
}

impl ChannelState {
    /// `false`: it is remembered already.
    fn remember(&mut self, command: CommandId) -> bool {
        if self.given.contains(&command) {
            return false;
        }
        if self.given.len() >= CACHE_CAPACITY {
            self.given.pop_front();
            self.first += 1;
        }
        self.given.push_back(command);
        true
    }
}
