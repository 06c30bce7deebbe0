//! One open socket: one task that reads, writes, waits for its command and keeps the time.
//!
//! A command is submitted one at a time, and nothing is read meanwhile: acks come in the order in which
//! commands were sent, and a client that does not take its answers is not read any further. What others cause
//! (results, updates) goes on all the time, except that results wait while an answer is on its way.
//!
//! What the client says, and what it is answered, is in `messages`; here is the life of the socket around that.
//! What a socket is about is its [`Channel`]: one resource ([`resource`]) or everything of a tenant ([`tenant`]).

mod channel;
mod count;
mod messages;
pub mod output;
pub mod resource;
pub mod tenant;
mod time;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep};
use tokio_tungstenite::tungstenite::{Error as WsError, Message, Utf8Bytes};

pub use self::channel::{Channel, RequestContext, RequestOutcome};
pub use self::messages::Services;

use self::count::OpenSessionGauge;
use self::messages::{Conversation, FinishedRequest, SessionEnd};
use super::access::{Access, AccessGuard, WatchKind};
use super::clock::Clock;
use super::drain::Drain;
use super::limits::ConnectionLeaseGuard;
use super::memory::MemoryShare;
use super::outbox::{Outbox, Push};
use crate::auth::Caller;
use crate::http::close::Close;
use crate::http::liveness::{Look, Pings, Writing};
use crate::http::socket::Socket;
use crate::telemetry::metrics;

/// Sockets that are taken down at the same time.
const LEAVING_AT_ONCE: usize = 32;

/// A client that has passed every check, with everything its socket holds while it is open.
pub struct AdmittedSession<S> {
    /// The user, and what the token says of them.
    pub caller: Arc<Caller>,
    /// What is watched.
    pub channel: S,
    /// Which rights that takes.
    pub watching: WatchKind,
    /// The address of the client.
    pub address: Box<str>,
    /// What is to be sent.
    pub outbox: Arc<Outbox>,
    /// Counts against the limits.
    pub lease: ConnectionLeaseGuard,
    /// The first messages, and the memory that is held until they are on their way.
    pub greeting: (VecDeque<Utf8Bytes>, Option<MemoryShare>),
}

/// Serves open sockets.
pub struct Sessions {
    access: Access,
    drain: Drain,
    services: Services,
    /// Between two WebSocket pings.
    ping: Duration,
    messages_per_second: u32,
    /// Turns of the sockets that end: taking one down costs more than noticing that it is gone.
    leaving: Semaphore,
}

impl Sessions {
    /// `ping`: the time between two WebSocket pings. `messages_per_second`: what one client may send.
    pub fn new(access: Access, drain: Drain, services: Services, ping: Duration, messages_per_second: u32) -> Self {
        let leaving = Semaphore::new(LEAVING_AT_ONCE);
        Self { access, drain, services, ping, messages_per_second, leaving }
    }

    /// Serves a socket until it ends.
    pub async fn run<S: Channel>(&self, mut socket: Socket, admitted: AdmittedSession<S>) {
        let AdmittedSession { caller, channel, watching, address, outbox, lease, greeting } = admitted;
        let place = self.access.register(caller.clone(), watching, outbox.clone());
        // From here on either this or the drain sees the other.
        if self.drain.stopping.is_cancelled() {
            outbox.close(Close::drain());
        }
        let open = OpenSessionGauge::new(channel.label());
        let pings = Pings::new(self.ping);
        let (services, per_second) = (&self.services, self.messages_per_second);
        let mut session = Session {
            conversation: Conversation::new(services, caller, channel, address, greeting, per_second),
            clock: &services.clock,
            jumps: services.clock.jumps(),
            timer: Box::pin(tokio::time::sleep_until(pings.next())),
            pings,
            writing: Writing::new(Instant::now()),
            outbox,
            place,
        };
        let end = tokio::select! {
            biased;
            end = session.serve(&mut socket) => end,
            () = self.drain.killed.cancelled() => SessionEnd::Closed(Close::drain()),
        };
        let about = session.conversation.channel.name();
        // Ten thousand that leave together must not all stand before the others in the runtime's queue.
        let turn = self.leaving.acquire().await;
        // The place is free and nothing more is gathered, before the client has taken note.
        drop(session);
        drop(lease);
        drop(turn);
        let code = match &end {
            SessionEnd::Gone => 1006,
            SessionEnd::Left(code) => *code,
            SessionEnd::Closed(close) => close.code(),
        };
        // A client may leave with any of thousands of codes, and with those that mean something here: they are no
        // labels.
        let own = matches!(end, SessionEnd::Left(3_000..));
        open.closed((!own).then_some(code));
        tracing::debug!(about, code, "websocket.closed");
        let farewell = async {
            match end {
                SessionEnd::Gone => {}
                SessionEnd::Left(_) => socket.answer_close().await,
                SessionEnd::Closed(close) => socket.close(&close).await,
            }
        };
        tokio::select! {
            // First, so that the code is sent even if there is no time to wait for the answer.
            biased;
            () = farewell => {}
            () = self.drain.killed.cancelled() => {}
        }
    }
}

/// What a session waits for.
enum SessionEvent<D> {
    Received(Option<Result<Message, WsError>>),
    FinishedRequest(FinishedRequest<D>),
    /// The channel had something to say.
    Told,
    Close(Close),
    Time,
    /// More frames than allowed.
    Flood,
    Lost,
}

struct Session<'a, S: Channel> {
    conversation: Conversation<'a, S>,
    outbox: Arc<Outbox>,
    place: AccessGuard,
    clock: &'a Clock,
    /// Jumps of the wall clock up to which the token's time has been looked at.
    jumps: u64,
    pings: Pings,
    writing: Writing,
    timer: Pin<Box<Sleep>>,
}

impl<S: Channel> Session<'_, S> {
    async fn serve(&mut self, socket: &mut Socket) -> SessionEnd {
        loop {
            match std::future::poll_fn(|cx| self.poll(socket, cx)).await {
                SessionEvent::Received(Some(Ok(message))) => {
                    // Whatever comes proves that somebody is there.
                    self.pings.somebody_is_there();
                    if let Err(end) = self.conversation.received(message) {
                        return end;
                    }
                }
                SessionEvent::Received(Some(Err(error))) => {
                    return Close::for_error(&error).map_or(SessionEnd::Gone, SessionEnd::Closed);
                }
                SessionEvent::Received(None) | SessionEvent::Lost => return SessionEnd::Gone,
                SessionEvent::FinishedRequest(finished) => {
                    let is_refresh = matches!(finished, FinishedRequest::Refresh(_));
                    if let Some(close) = self.conversation.finished(finished) {
                        return SessionEnd::Closed(close);
                    }
                    if is_refresh {
                        self.place.refreshed(self.conversation.caller());
                    }
                }
                SessionEvent::Told => {}
                SessionEvent::Close(close) => return SessionEnd::Closed(close),
                SessionEvent::Time => {
                    if let Some(close) = self.time(socket) {
                        return SessionEnd::Closed(close);
                    }
                }
                SessionEvent::Flood => return SessionEnd::Closed(Close::flood()),
            }
        }
    }

    fn poll(&mut self, socket: &mut Socket, cx: &mut Context<'_>) -> Poll<SessionEvent<S::Done>> {
        // Before looking: what is added later wakes this task again.
        self.outbox.register(cx.waker());
        let closing = self.outbox.closing();
        let urgent = closing.as_ref().is_some_and(|close| !close.delivers_first());
        if let Some(close) = closing.clone()
            && urgent
        {
            return Poll::Ready(SessionEvent::Close(close));
        }
        if self.jumps != self.clock.jumps() {
            self.jumps = self.clock.jumps();
            return Poll::Ready(SessionEvent::Time);
        }
        let written = socket.poll_write(cx, || self.next_message());
        let now = Instant::now();
        if self.writing.note(written.is_pending(), socket.written(), now) {
            self.pings.somebody_is_there();
        }
        for _ in 0..socket.take_pings_left() {
            self.pings.left(now);
        }
        match written {
            Poll::Ready(Err(_)) => return Poll::Ready(SessionEvent::Lost),
            Poll::Ready(Ok(())) => self.conversation.memory = None,
            Poll::Pending => {}
        }
        if let Some(work) = &mut self.conversation.work {
            if let Poll::Ready(finished) = work.as_mut().poll(cx) {
                self.conversation.work = None;
                return Poll::Ready(SessionEvent::FinishedRequest(finished));
            }
        } else if let Some(close) = closing {
            // Everything that was asked for has its answer; the answers are on their way or stuck for good.
            return Poll::Ready(SessionEvent::Close(close));
        } else if self.conversation.answers.is_empty() {
            if self.conversation.channel.poll(cx, &mut self.conversation.answers).is_ready() {
                return Poll::Ready(SessionEvent::Told);
            }
            let received = socket.poll_read(cx);
            for _ in 0..socket.take_scraps() {
                if !self.conversation.take_budget(now) {
                    return Poll::Ready(SessionEvent::Flood);
                }
            }
            if let Poll::Ready(received) = received {
                return Poll::Ready(SessionEvent::Received(received));
            }
        }
        let deadline = self.deadline();
        if self.timer.deadline() != deadline {
            self.timer.as_mut().reset(deadline);
        }
        self.timer.as_mut().poll(cx).map(|()| SessionEvent::Time)
    }

    /// What is sent next: answers before everything else, results only when no answer is on its way.
    fn next_message(&mut self) -> Option<Message> {
        if self.pings.take_due() {
            return Some(Message::Ping(bytes::Bytes::new()));
        }
        let text = match self.conversation.answers.pop_front() {
            Some(text) => {
                self.conversation.answers.shrink_to(1);
                text
            }
            None => loop {
                match self.outbox.pop(self.conversation.work.is_some())? {
                    Push::Progress { text, .. }
                    | Push::Status { text, .. }
                    | Push::Notice(text)
                    | Push::Workers(text)
                    | Push::Interruption(text) => break text,
                    Push::Missed(text) => {
                        self.conversation.channel.on_gap();
                        break text;
                    }
                    Push::Result { command, succeeded, text } => {
                        if self.conversation.channel.delivers(command, succeeded, &mut self.conversation.answers) {
                            break text;
                        }
                    }
                }
            },
        };
        metrics::message_sent();
        Some(Message::Text(text))
    }

    /// When something has to be looked at even if nothing happens.
    fn deadline(&self) -> Instant {
        let mut next = self.pings.next().min(self.conversation.token_look());
        if self.conversation.work.is_none() && self.conversation.answers.is_empty() {
            next = self.conversation.channel.next_poll().map_or(next, |look| next.min(look));
        }
        self.writing.next_look().map_or(next, |look| next.min(look))
    }

    fn time(&mut self, socket: &mut Socket) -> Option<Close> {
        let now = Instant::now();
        if self.conversation.is_expired(now) {
            return Some(Close::expired());
        }
        self.conversation.warn_of_expiry(now);
        match self.writing.look(now) {
            Look::Fine => {}
            Look::Probe => socket.probe(),
            Look::TooSlow => return Some(Close::too_slow()),
        }
        if self.pings.look(now) { None } else { Some(Close::no_pong()) }
    }
}
