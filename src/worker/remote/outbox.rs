//! What is to be sent on one socket of a foreign worker.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;

use parking_lot::{Mutex, MutexGuard};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::http::close::Close;

/// While so many bytes wait, nothing more is read of the client: what it asks for would only add to them.
const MAX_BYTES: usize = 1024 * 1024;
/// While so many messages wait, the same.
const MAX_BACKLOG: usize = 512;
/// While so many of a client's messages, or so many bytes of them, wait for SQL, the same: more than one that waits for its
/// answers sends.
const MAX_ASKED: usize = 2_048;
const MAX_ASKED_BYTES: usize = 8 * 1024 * 1024;
/// While so many bytes of all clients' messages wait for SQL, a client with a message among them is not read on: many
/// that flood take no more memory than a few.
pub(crate) const MAX_ASKED_BYTES_OF_ALL: usize = 64 * 1024 * 1024;

/// How many bytes of messages wait for SQL, of all sockets of a worker.
pub(crate) type AskedBytes = Arc<AtomicUsize>;

/// Messages that wait to be sent. What a client asks for is bounded because nothing is read while much waits; what it is
/// told unasked (orders, ends) because it is about the jobs that it may have. One that waits beyond that closes the socket.
pub(crate) struct Outbox {
    inner: Mutex<OutboxInner>,
    max_messages: usize,
    asked_of_all: AskedBytes,
}

#[derive(Default)]
struct OutboxInner {
    messages: VecDeque<Utf8Bytes>,
    bytes: usize,
    close: Option<Close>,
    waker: Option<Waker>,
    asked: usize,
    asked_bytes: usize,
}

/// A message of the client that waits for SQL; it counts until this is dropped.
pub(crate) struct Asked {
    outbox: Arc<Outbox>,
    bytes: usize,
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut inner = self.outbox.lock();
        inner.asked -= 1;
        inner.asked_bytes -= self.bytes;
        self.outbox.asked_of_all.fetch_sub(self.bytes, Ordering::Relaxed);
        wake(inner);
    }
}

impl Outbox {
    pub(crate) fn new(max_messages: usize, asked_of_all: AskedBytes) -> Self {
        Self { inner: Mutex::default(), max_messages, asked_of_all }
    }

    fn lock(&self) -> MutexGuard<'_, OutboxInner> {
        self.inner.lock()
    }

    /// A message of so many bytes waits for SQL.
    pub(crate) fn asked(self: &Arc<Self>, bytes: usize) -> Asked {
        let mut inner = self.lock();
        inner.asked += 1;
        inner.asked_bytes += bytes;
        self.asked_of_all.fetch_add(bytes, Ordering::Relaxed);
        Asked { outbox: self.clone(), bytes }
    }

    /// Adds a message. Nothing is added to a socket that closes.
    pub(crate) fn push(&self, text: String) {
        let mut inner = self.lock();
        if inner.close.is_some() {
            return;
        }
        if inner.messages.len() >= self.max_messages {
            inner.close = Some(Close::too_slow());
        } else {
            inner.bytes += text.len();
            inner.messages.push_back(text.into());
        }
        wake(inner);
    }

    /// Closes the socket. The first close counts.
    pub(crate) fn close(&self, close: Close) {
        let mut inner = self.lock();
        inner.close.get_or_insert(close);
        wake(inner);
    }

    pub(crate) fn closing(&self) -> Option<Close> {
        self.lock().close.clone()
    }

    pub(crate) fn pop(&self) -> Option<Utf8Bytes> {
        let mut inner = self.lock();
        let text = inner.messages.pop_front()?;
        inner.bytes = inner.bytes.saturating_sub(text.len());
        Some(text)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().messages.is_empty()
    }

    /// Whether so much waits to be sent.
    pub(crate) fn is_full(&self) -> bool {
        let inner = self.lock();
        inner.bytes >= MAX_BYTES || inner.messages.len() >= MAX_BACKLOG
    }

    /// Whether so much waits that nothing more is to be read.
    pub(crate) fn is_backlogged(&self) -> bool {
        let inner = self.lock();
        inner.bytes >= MAX_BYTES
            || inner.messages.len() >= MAX_BACKLOG
            || inner.asked >= MAX_ASKED
            || inner.asked_bytes >= MAX_ASKED_BYTES
            // Only with a message of its own: the end of that one wakes it.
            || (inner.asked > 0 && self.asked_of_all.load(Ordering::Relaxed) >= MAX_ASKED_BYTES_OF_ALL)
    }

    /// Whoever is to hear of what is added.
    pub(crate) fn register(&self, waker: &Waker) {
        let mut inner = self.lock();
        if inner.waker.as_ref().is_none_or(|known| !known.will_wake(waker)) {
            inner.waker = Some(waker.clone());
        }
    }
}

fn wake(inner: MutexGuard<'_, OutboxInner>) {
    let waker = inner.waker.clone();
    drop(inner);
    if let Some(waker) = waker {
        waker.wake();
    }
}
