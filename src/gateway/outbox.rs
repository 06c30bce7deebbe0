//! What waits to be sent on one socket.
//!
//! Bounded: progress is folded to the newest; acks, results and changes of state are never dropped, and a
//! socket too slow to take them is closed (4413).

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// Why the gateway closes a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closing {
    /// CONTRACT section 4.
    pub code: u16,
    /// For people; for 1012 it carries the jitter.
    pub reason: String,
}

/// An update of the resource: shared bytes, serialized once for all sockets.
#[derive(Debug, Clone)]
pub struct Update {
    /// Its number; `None` where a foreign publisher gave none.
    pub seq: Option<i64>,
    /// A newer one makes it worthless.
    pub is_progress: bool,
    /// The message.
    pub text: Utf8Bytes,
}

/// What to do next on a socket.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// Send it.
    Send(Utf8Bytes),
    /// Close.
    Close(Closing),
}

/// Filled by the hub and the session, emptied by the session.
pub struct Outbox {
    state: Mutex<State>,
    wake: Notify,
    limit: usize,
}

struct State {
    queue: VecDeque<Item>,
    /// Updates that came before the snapshot was sent; `None` afterwards.
    before_snapshot: Option<Vec<Update>>,
    /// Updates up to this number are in the snapshot.
    seen: i64,
    /// Results that came while a command of this socket had no ack yet; `None` while there is no such command.
    before_ack: Option<Vec<Utf8Bytes>>,
    closing: Option<Closing>,
}

struct Item {
    text: Utf8Bytes,
    is_progress: bool,
}

impl Outbox {
    /// For at most so many messages, progress not counted.
    pub fn new(limit: usize) -> Self {
        let state = State {
            queue: VecDeque::new(),
            before_snapshot: Some(Vec::new()),
            seen: 0,
            before_ack: None,
            closing: None,
        };
        Self { state: Mutex::new(state), wake: Notify::new(), limit }
    }

    /// The snapshot up to `seq` is queued: what came meanwhile and is newer follows it.
    pub fn snapshot(&self, text: Utf8Bytes, seq: i64) {
        let mut state = self.lock();
        state.seen = seq;
        self.push(&mut state, text, false);
        for update in state.before_snapshot.take().unwrap_or_default() {
            self.take(&mut state, update);
        }
    }

    /// An answer to this socket alone.
    pub fn answer(&self, text: Utf8Bytes) {
        self.push(&mut self.lock(), text, false);
    }

    /// An update of the resource.
    pub fn update(&self, update: &Update) {
        let mut state = self.lock();
        match &mut state.before_snapshot {
            // The snapshot is on its way and bounded in time; still, only the newest progress is of use.
            Some(waiting) => {
                if update.is_progress {
                    waiting.retain(|other| !other.is_progress);
                }
                waiting.push(update.clone());
            }
            None => self.take(&mut state, update.clone()),
        }
    }

    /// A result of a command on the resource, whoever asked.
    pub fn result(&self, text: &Utf8Bytes) {
        let mut state = self.lock();
        match &mut state.before_ack {
            Some(waiting) => waiting.push(text.clone()),
            None => self.push(&mut state, text.clone(), false),
        }
    }

    /// A command of this socket is on its way: results wait until its ack is out.
    pub fn command_begins(&self) {
        self.lock().before_ack.get_or_insert_with(Vec::new);
    }

    /// The ack (or the error), and then the results that came meanwhile.
    pub fn command_answered(&self, ack: Utf8Bytes) {
        let mut state = self.lock();
        self.push(&mut state, ack, false);
        for result in state.before_ack.take().unwrap_or_default() {
            self.push(&mut state, result, false);
        }
    }

    /// Close the socket, before anything that still waits.
    pub fn close(&self, code: u16, reason: impl Into<String>) {
        self.lock().closing.get_or_insert_with(|| Closing { code, reason: reason.into() });
        self.wake.notify_one();
    }

    /// Waits for something to do. Safe to drop and call again.
    pub async fn next(&self) -> Next {
        loop {
            let waits = self.wake.notified();
            if let Some(next) = self.try_next() {
                return next;
            }
            waits.await;
        }
    }

    /// What is to do right now, if anything.
    pub fn try_next(&self) -> Option<Next> {
        let mut state = self.lock();
        if let Some(closing) = state.closing.clone() {
            return Some(Next::Close(closing));
        }
        let item = state.queue.pop_front()?;
        if state.queue.is_empty() {
            // An idle socket keeps no memory for its last burst.
            state.queue.shrink_to(4);
        }
        Some(Next::Send(item.text))
    }

    fn take(&self, state: &mut State, update: Update) {
        if update.seq.is_some_and(|seq| seq <= state.seen) {
            return;
        }
        if update.is_progress {
            // At its own place it would come before a change of state with a lower number.
            if let Some(old) = state.queue.iter().position(|item| item.is_progress) {
                state.queue.remove(old);
            }
        }
        self.push(state, update.text, update.is_progress);
    }

    fn push(&self, state: &mut State, text: Utf8Bytes, is_progress: bool) {
        if state.queue.len() > self.limit {
            state.closing.get_or_insert_with(|| Closing { code: 4413, reason: "too slow to read".to_owned() });
        } else {
            state.queue.push_back(Item { text, is_progress });
        }
        self.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(seq: i64, is_progress: bool) -> Update {
        Update { seq: Some(seq), is_progress, text: seq.to_string().into() }
    }

    fn drain(outbox: &Outbox) -> Vec<String> {
        std::iter::from_fn(|| match outbox.try_next() {
            Some(Next::Send(text)) => Some(text.to_string()),
            _ => None,
        })
        .collect()
    }

    #[test]
    fn between_snapshot_and_stream_nothing_is_lost_or_repeated() {
        let outbox = Outbox::new(8);
        for seq in [4, 5, 6] {
            outbox.update(&update(seq, false));
        }
        outbox.snapshot("snapshot".into(), 5);
        outbox.update(&update(7, false));
        outbox.update(&update(5, false));
        assert_eq!(drain(&outbox), ["snapshot", "6", "7"]);
    }

    #[test]
    fn progress_is_folded_to_the_newest_and_keeps_its_place_among_the_numbers() {
        let outbox = Outbox::new(8);
        outbox.snapshot("snapshot".into(), 0);
        outbox.update(&update(1, true));
        outbox.update(&update(2, false));
        outbox.update(&update(3, true));
        outbox.update(&update(4, true));
        assert_eq!(drain(&outbox), ["snapshot", "2", "4"]);
    }

    #[test]
    fn a_result_waits_for_the_ack() {
        let outbox = Outbox::new(8);
        outbox.command_begins();
        outbox.result(&"result".into());
        assert_eq!(drain(&outbox), Vec::<String>::new());
        outbox.command_answered("ack".into());
        outbox.result(&"later".into());
        assert_eq!(drain(&outbox), ["ack", "result", "later"]);
    }

    #[test]
    fn a_socket_too_slow_is_closed_and_nothing_is_dropped_before() {
        let outbox = Outbox::new(3);
        for n in 0..4 {
            outbox.answer(n.to_string().into());
        }
        assert_eq!(outbox.try_next(), Some(Next::Send("0".into())));
        outbox.answer("4".into());
        outbox.answer("5".into());
        assert!(matches!(outbox.try_next(), Some(Next::Close(Closing { code: 4413, .. }))));
    }
}
