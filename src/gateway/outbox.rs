//! What waits for one socket: bounded, with progress folded to the newest.
//!
//! Results and changes of state are never dropped. A socket that leaves more of them waiting than the limit
//! is closed with 4413 instead, and finds the truth in the snapshot when it comes back.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use futures_util::task::AtomicWaker;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::close::Close;
use crate::domain::CommandId;
use crate::telemetry::metrics;

/// One message for everybody on a resource; the text is shared by all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Push {
    /// How far the work is: of several that wait only the newest is of any use.
    Progress {
        /// Its number on the resource's stream, where it has one.
        seq: Option<i64>,
        /// The message.
        text: Utf8Bytes,
    },
    /// A change of state.
    Status {
        /// Its number on the resource's stream, where it has one.
        seq: Option<i64>,
        /// The message.
        text: Utf8Bytes,
    },
    /// A command's result.
    Result {
        /// Which command.
        command: CommandId,
        /// The message.
        text: Utf8Bytes,
    },
}

impl Push {
    fn seq(&self) -> Option<i64> {
        match self {
            Self::Progress { seq, .. } | Self::Status { seq, .. } => *seq,
            Self::Result { .. } => None,
        }
    }
}

/// The queue between the hub, which fills it, and the socket's own task, which empties it.
pub struct Outbox {
    state: Mutex<State>,
    wake: AtomicWaker,
    limit: usize,
}

struct State {
    queue: VecDeque<Push>,
    /// Whether one of the queue is progress; there is never a second.
    progress: bool,
    /// Updates up to this number are in the snapshot already.
    floor: i64,
    close: Option<Close>,
}

impl Outbox {
    /// Empty; `limit` messages may wait, progress not counted.
    pub fn new(limit: usize) -> Self {
        let state = State { queue: VecDeque::new(), progress: false, floor: i64::MIN, close: None };
        Self { state: Mutex::new(state), wake: AtomicWaker::new(), limit: limit.max(1) }
    }

    /// Adds a message. Nothing is added to a socket that is closing.
    pub fn push(&self, push: Push) {
        {
            let mut state = self.lock();
            if state.close.is_some() || push.seq().is_some_and(|seq| seq <= state.floor) {
                return;
            }
            if matches!(push, Push::Progress { .. }) {
                if state.progress {
                    // Taken out and put at the end: it must not overtake a change of state.
                    state.queue.retain(|waiting| !matches!(waiting, Push::Progress { .. }));
                    metrics::message_folded();
                }
                state.progress = true;
            } else if state.queue.len() - usize::from(state.progress) >= self.limit {
                state.close_with(Close::too_slow());
                drop(state);
                self.wake.wake();
                return;
            }
            state.queue.push_back(push);
        }
        self.wake.wake();
    }

    /// The next message. `hold_results`: a command's answer is still to come, and must come before its result.
    pub fn pop(&self, hold_results: bool) -> Option<Push> {
        let mut state = self.lock();
        let index = match hold_results {
            false => 0,
            true => state.queue.iter().position(|waiting| !matches!(waiting, Push::Result { .. }))?,
        };
        let push = state.queue.remove(index)?;
        if matches!(push, Push::Progress { .. }) {
            state.progress = false;
        }
        if state.queue.is_empty() {
            // Most sockets are idle most of the time.
            state.queue.shrink_to(1);
        }
        Some(push)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lock().queue.is_empty()
    }

    /// The snapshot says everything up to this number.
    pub fn set_floor(&self, seq: i64) {
        let mut state = self.lock();
        state.floor = seq;
        state.queue.retain(|waiting| waiting.seq().is_none_or(|n| n > seq));
        state.progress = state.queue.iter().any(|waiting| matches!(waiting, Push::Progress { .. }));
    }

    /// The numbers have begun anew (Redis lost its data): a floor above them would hide everything.
    pub fn lower_floor(&self, seq: i64) {
        let mut state = self.lock();
        if state.floor > seq {
            state.floor = i64::MIN;
        }
    }

    /// Asks the socket's task to close. The first one who asks decides with which code.
    pub fn close(&self, close: Close) {
        self.lock().close_with(close);
        self.wake.wake();
    }

    /// Whether, and how, the socket shall close.
    pub fn closing(&self) -> Option<Close> {
        self.lock().close.clone()
    }

    /// The task to wake when something is added. Register first, then look.
    pub fn register(&self, waker: &Waker) {
        self.wake.register(waker);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn close_with(&mut self, close: Close) {
        if self.close.is_some() {
            return;
        }
        if !close.delivers_first() {
            self.queue = VecDeque::new();
            self.progress = false;
        }
        self.close = Some(close);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(seq: i64) -> Push {
        Push::Progress { seq: Some(seq), text: format!("p{seq}").into() }
    }

    fn status(seq: i64) -> Push {
        Push::Status { seq: Some(seq), text: format!("s{seq}").into() }
    }

    fn result(command: CommandId) -> Push {
        Push::Result { command, text: "r".into() }
    }

    fn all(outbox: &Outbox) -> Vec<Push> {
        std::iter::from_fn(|| outbox.pop(false)).collect()
    }

    #[test]
    fn progress_is_folded_to_the_newest_and_never_overtakes_a_change_of_state() {
        let outbox = Outbox::new(10);
        for push in [progress(1), progress(2), status(3), progress(4), progress(5), status(6)] {
            outbox.push(push);
        }
        assert_eq!(all(&outbox), [status(3), progress(5), status(6)]);
        outbox.push(progress(7));
        assert_eq!(all(&outbox), [progress(7)]);
    }

    #[test]
    fn progress_does_not_count_and_everything_else_does() {
        let outbox = Outbox::new(2);
        for seq in 1..100 {
            outbox.push(progress(seq));
        }
        outbox.push(status(100));
        outbox.push(result(CommandId::generate()));
        outbox.push(progress(101));
        assert_eq!(outbox.closing(), None);
        outbox.push(status(102));
        assert_eq!(outbox.closing(), Some(Close::too_slow()));
        assert!(outbox.is_empty(), "what waited goes with the socket");
        outbox.push(status(103));
        assert!(outbox.is_empty(), "a closing socket takes nothing");
    }

    #[test]
    fn results_wait_while_an_answer_is_on_its_way_and_the_rest_goes_on() {
        let outbox = Outbox::new(10);
        let command = CommandId::generate();
        for push in [result(command), status(1), progress(2)] {
            outbox.push(push);
        }
        assert_eq!(outbox.pop(true), Some(status(1)));
        assert_eq!(outbox.pop(true), Some(progress(2)));
        assert_eq!(outbox.pop(true), None);
        assert_eq!(outbox.pop(false), Some(result(command)));
    }

    #[test]
    fn what_the_snapshot_says_is_not_said_again() {
        let outbox = Outbox::new(10);
        let unnumbered = Push::Status { seq: None, text: "n".into() };
        for push in [status(4), progress(5), unnumbered.clone()] {
            outbox.push(push);
        }
        outbox.set_floor(5);
        outbox.push(status(5));
        outbox.push(status(6));
        assert_eq!(all(&outbox), [unnumbered, status(6)]);
        outbox.push(progress(7));
        assert_eq!(all(&outbox), [progress(7)]);
    }

    #[test]
    fn numbers_that_begin_anew_are_heard() {
        let outbox = Outbox::new(10);
        outbox.set_floor(50);
        outbox.lower_floor(60);
        outbox.push(status(50));
        assert!(outbox.is_empty());
        outbox.lower_floor(2);
        outbox.push(status(2));
        assert_eq!(all(&outbox), [status(2)]);
    }

    #[test]
    fn a_drain_delivers_first_and_a_revocation_does_not() {
        let outbox = Outbox::new(10);
        outbox.push(status(1));
        outbox.close(Close::drain());
        outbox.close(Close::revoked());
        assert_eq!(outbox.closing().map(|c| c.code()), Some(1012));
        assert_eq!(all(&outbox), [status(1)]);
        let outbox = Outbox::new(10);
        outbox.push(status(1));
        outbox.close(Close::revoked());
        assert!(outbox.is_empty());
    }
}
