//! The way to a foreign session: its socket while it has one, and how long it has had none.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::outbox::Outbox;
use crate::http::close::Close;

/// Whether a session can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkState {
    /// It has a socket, the n-th.
    Connected(u64),
    /// Its n-th socket is gone, and its runs wait for another one.
    Lost {
        /// Which socket it was.
        socket: u64,
        /// The client has closed it, or the connection broke off; this worker did not close it.
        by_client: bool,
    },
    /// It has not come back in time, or has said goodbye.
    Over {
        /// Its last socket.
        socket: u64,
        /// As in `Lost`.
        by_client: bool,
    },
}

/// The way to a session.
pub(crate) struct Link {
    outbox: Mutex<Option<Arc<Outbox>>>,
    state: watch::Sender<LinkState>,
}

impl Link {
    pub(crate) fn new() -> Self {
        Self { outbox: Mutex::default(), state: watch::Sender::new(LinkState::Lost { socket: 0, by_client: false }) }
    }

    /// The session has a new socket; an older one is closed. Gives its number; `None`: the session is over.
    pub(crate) fn connect(&self, outbox: Arc<Outbox>) -> Option<u64> {
        let mut number = None;
        let mut current = self.outbox.lock();
        self.state.send_if_modified(|state| {
            let last = match state {
                LinkState::Connected(socket) | LinkState::Lost { socket, .. } => *socket,
                LinkState::Over { .. } => return false,
            };
            number = Some(last + 1);
            *state = LinkState::Connected(last + 1);
            true
        });
        if number.is_some()
            && let Some(older) = current.replace(outbox)
        {
            older.close(Close::replaced());
        }
        number
    }

    /// A socket is gone. `true`: it was the newest, and the session has none now.
    pub(crate) fn disconnect(&self, socket: u64, by_client: bool) -> bool {
        let mut current = self.outbox.lock();
        let is_newest = self.state.send_if_modified(|state| {
            let is_newest = *state == LinkState::Connected(socket);
            if is_newest {
                *state = LinkState::Lost { socket, by_client };
            }
            is_newest
        });
        if is_newest {
            *current = None;
        }
        is_newest
    }

    /// The session has not come back since this socket, or has said goodbye on it. `false`: it has come back.
    pub(crate) fn give_up(&self, after: u64) -> bool {
        self.state.send_if_modified(|state| match *state {
            LinkState::Lost { socket, by_client } if socket == after => {
                *state = LinkState::Over { socket, by_client };
                true
            }
            _ => false,
        })
    }

    pub(crate) fn state(&self) -> LinkState {
        *self.state.borrow()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    /// Sends a message, if there is a socket. Gives the socket's number.
    pub(crate) fn send(&self, text: String) -> Option<u64> {
        let current = self.outbox.lock();
        let LinkState::Connected(socket) = *self.state.borrow() else { return None };
        current.as_ref()?.push(text);
        Some(socket)
    }

    /// Whether so much waits on the socket that no more answers are to be made for it.
    pub(crate) fn is_backlogged(&self) -> bool {
        self.outbox.lock().as_ref().is_some_and(|outbox| outbox.is_full())
    }

    /// Closes the socket, if there is one.
    pub(crate) fn close(&self, close: Close) {
        if let Some(outbox) = &*self.outbox.lock() {
            outbox.close(close);
        }
    }
}
