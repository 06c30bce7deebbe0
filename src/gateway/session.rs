//! One socket, from the upgrade to the close: one task that reads, writes, and keeps the time.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, SinkExt, StreamExt, future::BoxFuture};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error as SocketError};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::commands::{self, CommandAnswer};
use super::hub::Membership;
use super::limits::Lease;
use super::outbox::{Closing, Next, Outbox};
use super::{Gateway, snapshot};
use crate::auth::Caller;
use crate::domain::Resource;
use crate::protocol::client::Rejection;
use crate::protocol::{ClientMessage, CommandRequest, ErrorCode, parse, server};
use crate::telemetry::metrics;

/// Between two pings.
const PING: Duration = Duration::from_secs(30);
/// Pings without a pong after which the socket is given up.
const MISSED: u32 = 2;
/// Longest time for a client to take one message.
const WRITE: Duration = Duration::from_secs(10);
/// Longest wait for the client's side of the closing handshake.
const FAREWELL: Duration = Duration::from_secs(2);

type Stream = WebSocketStream<TokioIo<Upgraded>>;

/// A client that has passed every check.
pub struct Admitted {
    /// What is to be sent.
    pub outbox: Arc<Outbox>,
    /// Who.
    pub caller: Arc<Caller>,
    /// What is watched.
    pub resource: Resource,
    /// From where.
    pub address: String,
    /// Held while the socket is open.
    pub lease: Lease,
}

/// Serves the socket until it ends.
pub async fn run(gateway: Gateway, mut stream: Stream, admitted: Admitted) {
    let Admitted { outbox, caller, resource, address, lease } = admitted;
    metrics::connection_opened(resource.kind);
    let _place = gateway.access().enter(caller.clone(), resource.kind, outbox.clone());
    let closing = match begin(&gateway, &resource, &outbox).await {
        Ok(member) => {
            let now = Instant::now();
            // Spread over the interval, so that sockets that came together are not pinged together.
            let first_ping = now + PING.mul_f64(0.5 + fastrand::f64() / 2.0);
            let session = Session {
                budget: Budget::new(gateway.settings().limits.messages_per_second),
                expires: deadline(caller.expires_at),
                next_ping: first_ping,
                unanswered: 0,
                member,
                gateway: &gateway,
                outbox: outbox.clone(),
                caller,
                resource: resource.clone(),
                address,
            };
            // Boxed: what a session needs while it works is not kept by an idle one's task.
            Box::pin(session.serve(&mut stream)).await
        }
        Err(closing) => closing,
    };
    drop(lease);
    let code = closing.as_ref().map_or(1005, |c| c.code);
    metrics::connection_closed(code);
    tracing::debug!(%resource, code, "websocket.closed");
    if let Some(closing) = closing {
        farewell(&mut stream, closing).await;
    }
}

/// `subscribed` and the snapshot, in this order, with nothing lost in between.
async fn begin(gateway: &Gateway, resource: &Resource, outbox: &Arc<Outbox>) -> Result<Membership, Option<Closing>> {
    let away = || Some(Closing { code: 1011, reason: "Redis or the database cannot be reached: reconnect".to_owned() });
    let member = gateway.hub().join(resource, outbox.clone()).await.map_err(|_| away())?;
    outbox.answer(server::subscribed(resource).into());
    let now = snapshot::read(gateway.broker(), gateway.store(), resource).await.map_err(|_| away())?;
    let Some(now) = now else {
        return Err(Some(Closing { code: 1011, reason: format!("the {} is gone", resource.kind.word()) }));
    };
    outbox.snapshot(now.message().into(), now.seq);
    Ok(member)
}

/// A command under way, and what was asked.
type UnderWay<'a> = BoxFuture<'a, (CommandRequest, CommandAnswer)>;

struct Session<'a> {
    gateway: &'a Gateway,
    outbox: Arc<Outbox>,
    caller: Arc<Caller>,
    resource: Resource,
    address: String,
    member: Membership,
    budget: Budget,
    expires: Instant,
    next_ping: Instant,
    unanswered: u32,
}

impl Session<'_> {
    /// Until the socket ends; how it is to be closed, unless the client is gone.
    async fn serve(mut self, stream: &mut Stream) -> Option<Closing> {
        let mut command: Option<UnderWay<'_>> = None;
        let gateway = self.gateway;
        let mut timer = std::pin::pin!(tokio::time::sleep_until(self.next_ping.min(self.expires)));
        loop {
            let draining = gateway.stopping().is_cancelled();
            if draining && command.is_none() {
                // What is under way has been answered; the rest is for the next gateway.
                self.flush(stream).await;
                return Some(drain_notice());
            }
            tokio::select! {
                () = gateway.killed().cancelled() => return Some(drain_notice()),
                () = gateway.stopping().cancelled(), if !draining => {
                    // In batches: not every socket of this gateway comes back at the same moment.
                    let spread = gateway.settings().server.drain / 2;
                    tokio::time::sleep(spread.mul_f64(fastrand::f64())).await;
                }
                answered = async { command.as_mut().map_or_else(|| std::future::pending().boxed(), |c| c.boxed()).await }, if command.is_some() => {
                    command = None;
                    let (request, answer) = answered;
                    self.answered(&request, &answer);
                }
                next = self.outbox.next() => match next {
                    Next::Close(closing) => return Some(closing),
                    Next::Send(text) => if let Err(closing) = write(stream, Message::Text(text)).await {
                        return closing;
                    },
                },
                // One command at a time: acks come in the order in which commands were sent.
                frame = stream.next(), if command.is_none() => match frame {
                    Some(Ok(message)) => match self.read(message).await {
                        Ok(None) => {}
                        Ok(Some(request)) => {
                            self.outbox.command_begins();
                            command = Some(self.submit(request));
                        }
                        Err(closing) => return closing,
                    },
                    Some(Err(error)) => return broken(&error),
                    None => return None,
                },
                () = timer.as_mut() => {
                    if Instant::now() >= self.expires {
                        return Some(Closing { code: 4401, reason: "token expired".to_owned() });
                    }
                    if self.unanswered >= MISSED {
                        return Some(Closing { code: 4408, reason: "no pong".to_owned() });
                    }
                    self.unanswered += 1;
                    self.next_ping = Instant::now() + PING;
                    if let Err(closing) = write(stream, Message::Ping(bytes::Bytes::new())).await {
                        return closing;
                    }
                }
            }
            timer.as_mut().reset(self.next_ping.min(self.expires));
        }
    }

    fn submit<'b>(&self, request: CommandRequest) -> UnderWay<'b>
    where
        Self: 'b,
    {
        let (gateway, caller) = (self.gateway.clone(), self.caller.clone());
        let (resource, address) = (self.resource.clone(), self.address.clone());
        async move {
            let answer = commands::submit(&gateway, &caller, &resource, &request, Some(&address)).await;
            (request, answer)
        }
        .boxed()
    }

    fn answered(&self, request: &CommandRequest, answer: &CommandAnswer) {
        self.outbox.command_answered(answer.message(&self.resource, request).into());
        if let CommandAnswer::Repeated { result: Some((message, ended_at)), .. } = answer
            && *ended_at < self.member.since
        {
            // It ended before this socket was there to hear it.
            self.outbox.answer(message.clone().into());
        }
    }

    /// A frame: a command to submit, or nothing more to do, or the end.
    async fn read(&mut self, message: Message) -> Result<Option<CommandRequest>, Option<Closing>> {
        let close = |code, reason: &str| Err(Some(Closing { code, reason: reason.to_owned() }));
        let text = match message {
            Message::Text(text) => text,
            Message::Pong(_) => {
                self.unanswered = 0;
                return Ok(None);
            }
            // Answered by the library with the next write.
            Message::Ping(_) | Message::Frame(_) => {
                return if self.budget.take() { Ok(None) } else { close(4429, "message flood") };
            }
            Message::Binary(_) => return close(1003, "send text frames"),
            Message::Close(_) => return Err(None),
        };
        metrics::message_received();
        if !self.budget.take() {
            return close(4429, "message flood");
        }
        match parse(&text, self.resource.kind) {
            Ok(ClientMessage::Command(request)) => return Ok(Some(request)),
            Ok(ClientMessage::Ping) => self.outbox.answer(Utf8Bytes::from_static(server::PONG)),
            Ok(ClientMessage::RefreshToken(token)) => self.refresh(&token).await,
            Err(Rejection { code, message, request_id }) => {
                let request_id = request_id.as_ref().map(|id| id.as_str());
                self.outbox.answer(server::error(code, &message, request_id).into());
            }
        }
        Ok(None)
    }

    async fn refresh(&mut self, token: &str) {
        let refused = match self.gateway.verifier().verify(token).await {
            Ok(new) if new.user == self.caller.user && new.tenant == self.caller.tenant => {
                self.expires = deadline(new.expires_at);
                self.outbox.answer(server::token_refreshed(new.expires_at).into());
                self.caller = Arc::new(new);
                return;
            }
            Ok(_) => "The token is of another user or tenant; this socket keeps the one it has".to_owned(),
            Err(error) => error.to_string(),
        };
        self.outbox.answer(server::error(ErrorCode::InvalidMessage, &refused, None).into());
    }

    /// Sends what waits already.
    async fn flush(&self, stream: &mut Stream) {
        while let Some(Next::Send(text)) = self.outbox.try_next() {
            if write(stream, Message::Text(text)).await.is_err() {
                return;
            }
        }
    }
}

/// Unix seconds as a moment of this process; far ahead is cut to what a timer takes.
fn deadline(expires_at: i64) -> Instant {
    let left = expires_at.saturating_sub(jiff::Timestamp::now().as_second()).clamp(0, 30 * 86_400);
    Instant::now() + Duration::from_secs(u64::try_from(left).unwrap_or(0))
}

async fn write(stream: &mut Stream, message: Message) -> Result<(), Option<Closing>> {
    let is_text = message.is_text();
    match tokio::time::timeout(WRITE, stream.send(message)).await {
        Ok(Ok(())) => {
            if is_text {
                metrics::message_sent();
            }
            Ok(())
        }
        Ok(Err(_)) => Err(None),
        Err(_) => Err(Some(Closing { code: 4413, reason: "too slow to read".to_owned() })),
    }
}

fn drain_notice() -> Closing {
    Closing { code: 1012, reason: format!("reconnect in {} ms", fastrand::u32(0..2_000)) }
}

/// What the client did wrong, as a close code; `None` if it is gone.
fn broken(error: &SocketError) -> Option<Closing> {
    let (code, reason) = match error {
        SocketError::Capacity(CapacityError::MessageTooLong { .. }) => (1009, "a message may have 16 KiB at most"),
        SocketError::Utf8(_) => (1007, "text frames must be UTF-8"),
        SocketError::Protocol(_) => (1002, "not the WebSocket protocol"),
        _ => return None,
    };
    Some(Closing { code, reason: reason.to_owned() })
}

/// Our side of the closing handshake, and a little time for the client's: a connection that is cut with
/// unread bytes would take our last words with it.
async fn farewell(stream: &mut Stream, closing: Closing) {
    let frame = CloseFrame { code: closing.code.into(), reason: closing.reason.into() };
    let goodbye = async {
        if stream.send(Message::Close(Some(frame))).await.is_err() {
            return;
        }
        while let Some(Ok(_)) = stream.next().await {}
    };
    let _ = tokio::time::timeout(FAREWELL, goodbye).await;
}

/// Messages a socket may send: so many a second, and a burst of twice that.
struct Budget {
    per_second: f64,
    left: f64,
    at: Instant,
}

impl Budget {
    fn new(per_second: u32) -> Self {
        let per_second = f64::from(per_second);
        Self { per_second, left: per_second * 2.0, at: Instant::now() }
    }

    fn take(&mut self) -> bool {
        let now = Instant::now();
        self.left = (self.left + (now - self.at).as_secs_f64() * self.per_second).min(self.per_second * 2.0);
        self.at = now;
        if self.left < 1.0 {
            return false;
        }
        self.left -= 1.0;
        true
    }
}
