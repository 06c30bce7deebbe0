//! One open socket: one task that reads, writes, waits for its command and keeps the time.
//!
//! A command is submitted one at a time, and nothing is read meanwhile: acks come in the order in which
//! commands were sent, and a client that does not take its answers is not read any further. What others cause
//! (results, updates) goes on all the time, except that results wait while an answer is on its way.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::{Instant, Sleep};
use tokio_tungstenite::tungstenite::{Error as WsError, Message, Utf8Bytes};

use super::Gateway;
use super::access::Place;
use super::close::Close;
use super::commands::{self, CommandAnswer};
use super::flood::Budget;
use super::hub::Seat;
use super::limits::Lease;
use super::outbox::{Outbox, Push};
use super::schedules;
use super::socket::Socket;
use crate::auth::{AuthError, Caller};
use crate::domain::{CommandId, Permission, RequestId, Resource};
use crate::protocol::client::Rejection;
use crate::protocol::{ClientMessage, CommandRequest, ErrorCode, parse, server};
use crate::telemetry::metrics;

/// Pings without a pong after which the socket is given up.
const MISSED: u8 = 2;
/// A connection that takes not one byte for so long, while something waits, has a client too slow to read.
const STUCK: Duration = Duration::from_secs(10);
/// Furthest that a timer is set; a token may live for years.
const FAR: Duration = Duration::from_secs(86_400);
/// Results given after an ack before the channel told of them, to be told once.
const GIVEN: usize = 32;

/// A client that has passed every check, with everything its socket holds while it is open.
pub struct Admitted {
    /// Who.
    pub caller: Arc<Caller>,
    /// What is watched.
    pub resource: Resource,
    /// From where.
    pub address: Box<str>,
    /// What is to be sent.
    pub outbox: Arc<Outbox>,
    /// The place in the fan-out.
    pub seat: Seat,
    /// Counts against the limits.
    pub lease: Lease,
    /// The second message.
    pub snapshot: String,
}

/// Serves the socket until it ends.
pub async fn run(gateway: Gateway, mut socket: Socket, admitted: Admitted) {
    let Admitted { caller, resource, address, outbox, seat, lease, snapshot } = admitted;
    let place = gateway.access().enter(caller.clone(), resource.kind, outbox.clone());
    // From here on either this or the drain sees the other.
    if gateway.stopping().is_cancelled() {
        outbox.close(Close::drain());
    }
    let open = Open::new(&resource);
    let ping = gateway.tuning().ping;
    let mut session = Session {
        answers: VecDeque::from([server::subscribed(&resource).into(), snapshot.into()]),
        work: None,
        given: Vec::new(),
        budget: Budget::new(gateway.settings().limits.messages_per_second),
        expires: deadline(caller.expires_at),
        // Spread over the interval, so that sockets that came together are not pinged together.
        next_ping: Instant::now() + ping.mul_f64(0.5 + fastrand::f64() / 2.0),
        unanswered: 0,
        ping_due: false,
        stuck: None,
        timer: Box::pin(tokio::time::sleep(ping)),
        gateway: &gateway,
        caller,
        resource,
        address,
        outbox,
        seat,
        _place: place,
    };
    let end = tokio::select! {
        biased;
        end = session.serve(&mut socket) => end,
        () = gateway.killed().cancelled() => End::Closed(Close::drain()),
    };
    // Ten thousand that leave together must not all stand before the others in the runtime's queue.
    let turn = gateway.leaving().acquire().await;
    let resource = session.resource.clone();
    // The place is free and nothing more is gathered, before the client has taken note.
    drop(session);
    drop(lease);
    drop(turn);
    let code = match &end {
        End::Gone => 1006,
        End::Left(code) => *code,
        End::Closed(close) => close.code(),
    };
    open.closed(code);
    tracing::debug!(%resource, code, "websocket.closed");
    let farewell = async {
        match end {
            End::Gone => {}
            End::Left(_) => socket.answer_close().await,
            End::Closed(close) => socket.close(&close).await,
        }
    };
    tokio::select! {
        // First, so that the code is sent even if there is no time to wait for the answer.
        biased;
        () = farewell => {}
        () = gateway.killed().cancelled() => {}
    }
}

/// How a session ends.
enum End {
    /// The connection is lost.
    Gone,
    /// The client closed it, with this code.
    Left(u16),
    /// The gateway closes it.
    Closed(Close),
}

/// What a session waits for.
enum Event {
    Received(Option<Result<Message, WsError>>),
    Finished(Finished),
    Close(Close),
    Time,
    Lost,
}

/// What was worked on for this socket.
enum Finished {
    Command(CommandRequest, CommandAnswer),
    /// The answer to a schedule that was to be taken back.
    Withdrawal(String),
    Refresh(Result<Caller, AuthError>),
}

struct Session<'a> {
    gateway: &'a Gateway,
    caller: Arc<Caller>,
    resource: Resource,
    address: Box<str>,
    outbox: Arc<Outbox>,
    seat: Seat,
    _place: Place,
    /// Answers to this client alone, sent before anything of the outbox. Nothing is read while one waits, so
    /// there are two or three at most.
    answers: VecDeque<Utf8Bytes>,
    /// The command or the token that is being dealt with.
    work: Option<BoxFuture<'static, Finished>>,
    given: Vec<CommandId>,
    budget: Budget,
    expires: Instant,
    next_ping: Instant,
    unanswered: u8,
    ping_due: bool,
    /// Since when, and at how many bytes, writing has been stuck.
    stuck: Option<(Instant, u64)>,
    timer: Pin<Box<Sleep>>,
}

impl Session<'_> {
    async fn serve(&mut self, socket: &mut Socket) -> End {
        loop {
            match std::future::poll_fn(|cx| self.poll(socket, cx)).await {
                Event::Received(Some(Ok(message))) => match self.received(message) {
                    Ok(()) => {}
                    Err(end) => return end,
                },
                Event::Received(Some(Err(error))) => return Close::for_error(&error).map_or(End::Gone, End::Closed),
                Event::Received(None) | Event::Lost => return End::Gone,
                Event::Finished(finished) => {
                    if let Some(close) = self.finished(finished) {
                        return End::Closed(close);
                    }
                }
                Event::Close(close) => return End::Closed(close),
                Event::Time => {
                    if let Some(close) = self.time(socket.written()) {
                        return End::Closed(close);
                    }
                }
            }
        }
    }

    fn poll(&mut self, socket: &mut Socket, cx: &mut Context<'_>) -> Poll<Event> {
        // Before looking: what is added later wakes this task again.
        self.outbox.register(cx.waker());
        let closing = self.outbox.closing();
        let urgent = closing.as_ref().is_some_and(|close| !close.delivers_first());
        if let Some(close) = closing.clone()
            && urgent
        {
            return Poll::Ready(Event::Close(close));
        }
        let written = socket.poll_write(cx, || self.next_message());
        match written {
            Poll::Ready(Err(_)) => return Poll::Ready(Event::Lost),
            Poll::Ready(Ok(())) => self.stuck = None,
            Poll::Pending => {
                let bytes = socket.written();
                if self.stuck.is_none_or(|(_, before)| before != bytes) {
                    self.stuck = Some((Instant::now(), bytes));
                }
            }
        }
        if let Some(work) = &mut self.work {
            if let Poll::Ready(finished) = work.as_mut().poll(cx) {
                self.work = None;
                return Poll::Ready(Event::Finished(finished));
            }
        } else if let Some(close) = closing {
            // Everything that was asked for has its answer; the answers are on their way or stuck for good.
            return Poll::Ready(Event::Close(close));
        } else if self.answers.is_empty()
            && let Poll::Ready(received) = socket.poll_read(cx)
        {
            return Poll::Ready(Event::Received(received));
        }
        let deadline = self.deadline();
        if self.timer.deadline() != deadline {
            self.timer.as_mut().reset(deadline);
        }
        self.timer.as_mut().poll(cx).map(|()| Event::Time)
    }

    /// What is sent next: answers before everything else, results only when no answer is on its way.
    fn next_message(&mut self) -> Option<Message> {
        if std::mem::take(&mut self.ping_due) {
            return Some(Message::Ping(bytes::Bytes::new()));
        }
        let text = match self.answers.pop_front() {
            Some(text) => {
                self.answers.shrink_to(1);
                text
            }
            None => loop {
                match self.outbox.pop(self.work.is_some())? {
                    Push::Progress { text, .. } | Push::Status { text, .. } => break text,
                    Push::Result { command, .. } if self.given.contains(&command) => {}
                    Push::Result { text, .. } => break text,
                }
            },
        };
        metrics::message_sent();
        Some(Message::Text(text))
    }

    fn received(&mut self, message: Message) -> Result<(), End> {
        // Whatever comes proves that somebody is there.
        self.unanswered = 0;
        let text = match message {
            Message::Close(frame) => return Err(End::Left(frame.map_or(1005, |frame| frame.code.into()))),
            Message::Binary(_) => return Err(End::Closed(Close::binary())),
            Message::Text(text) => Some(text),
            // Pings are answered by the library.
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => None,
        };
        if !self.budget.take(Instant::now()) {
            return Err(End::Closed(Close::flood()));
        }
        let Some(text) = text else { return Ok(()) };
        metrics::message_received();
        match parse(&text, self.resource.kind) {
            Ok(ClientMessage::Command(request)) => self.work = Some(self.submit(request)),
            Ok(ClientMessage::CancelScheduled { schedule, request_id }) => {
                self.work = Some(self.withdraw(schedule, request_id));
            }
            Ok(ClientMessage::Ping) => self.answers.push_back(Utf8Bytes::from_static(server::PONG)),
            Ok(ClientMessage::RefreshToken(token)) => {
                let verifier = self.gateway.verifier().clone();
                self.work = Some(Box::pin(async move { Finished::Refresh(verifier.verify(&token).await) }));
            }
            Err(Rejection { code, message, request_id }) => {
                let request_id = request_id.as_ref().map(|id| id.as_str());
                self.answers.push_back(server::error(code, &message, request_id).into());
            }
        }
        Ok(())
    }

    fn submit(&self, request: CommandRequest) -> BoxFuture<'static, Finished> {
        let (gateway, caller) = (self.gateway.clone(), self.caller.clone());
        let (resource, address) = (self.resource.clone(), self.address.clone());
        Box::pin(async move {
            let answer = commands::submit(&gateway, &caller, &resource, &request, Some(&address)).await;
            Finished::Command(request, answer)
        })
    }

    fn withdraw(&self, schedule: CommandId, request_id: Option<RequestId>) -> BoxFuture<'static, Finished> {
        let (gateway, caller) = (self.gateway.clone(), self.caller.clone());
        let (resource, address) = (self.resource.clone(), self.address.clone());
        Box::pin(async move {
            let taken = schedules::withdraw(&gateway, &caller, schedule, Some(&resource), Some(&address)).await;
            let request_id = request_id.as_ref().map(RequestId::as_str);
            Finished::Withdrawal(match taken {
                Ok(taken) => server::withdrawn(taken.action, &resource, schedule, request_id),
                Err(refusal) => server::error(refusal.code, &refusal.message, request_id),
            })
        })
    }

    fn finished(&mut self, finished: Finished) -> Option<Close> {
        match finished {
            Finished::Command(request, answer) => {
                self.answers.push_back(answer.message(&self.resource, &request).into());
                if let Some((command, Some(message))) = answer.known()
                    && !self.seat.was_given(command)
                    && !self.given.contains(&command)
                {
                    // It ended before this socket was there to hear of it, or the news is still on its way.
                    self.answers.push_back(message.into());
                    if self.given.len() >= GIVEN {
                        self.given.remove(0);
                    }
                    self.given.push(command);
                }
                None
            }
            Finished::Withdrawal(message) => {
                self.answers.push_back(message.into());
                None
            }
            Finished::Refresh(Ok(new)) if (&new.user, &new.tenant) == (&self.caller.user, &self.caller.tenant) => {
                self.expires = deadline(new.expires_at);
                self.answers.push_back(server::token_refreshed(new.expires_at).into());
                self.caller = Arc::new(new);
                let read = Permission::read(self.resource.kind);
                let grant = self.gateway.policy().grant(&self.caller, &read);
                (grant == crate::broker::scripts::submit::Grant::Token(false)).then(Close::revoked)
            }
            Finished::Refresh(Ok(_)) => {
                let message = "The token is another user's or tenant's: this socket keeps the one it has";
                self.answers.push_back(server::error(ErrorCode::InvalidMessage, message, None).into());
                None
            }
            Finished::Refresh(Err(error)) => {
                let code = match error {
                    AuthError::Unavailable => ErrorCode::Unavailable,
                    _ => ErrorCode::InvalidMessage,
                };
                self.answers.push_back(server::error(code, &error.to_string(), None).into());
                None
            }
        }
    }

    /// When something has to be looked at even if nothing happens.
    fn deadline(&self) -> Instant {
        let next = self.next_ping.min(self.expires);
        self.stuck.map_or(next, |(since, _)| next.min(since + STUCK))
    }

    fn time(&mut self, written: u64) -> Option<Close> {
        let now = Instant::now();
        if now >= self.expires {
            // The clock of this machine may have been set, and a far end is come upon in steps.
            if is_over(self.caller.expires_at) {
                return Some(Close::expired());
            }
            self.expires = deadline(self.caller.expires_at);
        }
        if let Some((since, before)) = self.stuck {
            if before != written {
                self.stuck = Some((now, written));
            } else if now >= since + STUCK {
                if !self.answers.is_empty() || !self.outbox.is_empty() {
                    return Some(Close::too_slow());
                }
                self.stuck = Some((now, written));
            }
        }
        if now >= self.next_ping {
            if self.unanswered >= MISSED {
                return Some(Close::no_pong());
            }
            self.unanswered += 1;
            self.ping_due = true;
            self.next_ping = now + self.gateway.tuning().ping;
        }
        None
    }
}

/// Unix seconds as a moment of this process, at most [`FAR`] ahead.
fn deadline(expires_at: i64) -> Instant {
    let left = expires_at.saturating_mul(1_000).saturating_sub(jiff::Timestamp::now().as_millisecond());
    // A millisecond more than nothing: a clock that runs slow must not make this spin.
    let left = Duration::from_millis(u64::try_from(left).unwrap_or(0).max(1));
    Instant::now() + left.min(FAR)
}

/// Whether these Unix seconds have passed.
fn is_over(expires_at: i64) -> bool {
    jiff::Timestamp::now().as_millisecond() >= expires_at.saturating_mul(1_000)
}

/// Counts an open socket, also when its task panics.
struct Open {
    code: u16,
}

impl Open {
    fn new(resource: &Resource) -> Self {
        metrics::connection_opened(resource.kind);
        Self { code: 1011 }
    }

    fn closed(mut self, code: u16) {
        self.code = code;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::connection_closed(self.code);
    }
}
