//! One socket of a foreign worker: one task that reads, writes and keeps the time.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use super::messages::{Conversation, OpenSocket};
use super::outbox::Outbox;
use super::shared::Shared;
use crate::auth::WorkerCaller;
use crate::domain::text::{MAX_SHORT_TEXT, excerpt};
use crate::domain::{TenantId, printable};
use crate::http::close::Close;
use crate::http::flood::Budget;
use crate::http::liveness::{Look, Pings, Writing};
use crate::http::socket::Socket;
use crate::protocol::worker::{self, FromClient, Hello, MAX_WORKER_FRAME, ToClient, Unusable, VERSION};
use crate::store::WorkerInfo;
use crate::worker::run::pause_gate::CONFIRMATION_TTL;

/// Between two pings.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// How long a client may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is looked whether the token still holds, and whether the runs of the session are confirmed.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Messages that may be sent unasked about one job, at a time: an order, its kill, a saved point, an end.
const MESSAGES_PER_JOB: usize = 4;
/// Beside those.
const MORE_MESSAGES: usize = 1_024;

/// How a socket ends.
enum End {
    /// The connection broke off.
    Gone,
    /// The client closed it, with this code.
    Left(u16),
    /// This worker closes it.
    CloseOutcome(Close),
}

enum Event {
    Received(Option<Result<Message, WsError>>),
    Close(Close),
    Time,
    Flood,
    Lost,
}

/// Serves a socket until it ends, and then lets the runs of its session wait for another one.
pub(crate) async fn serve(shared: Arc<Shared>, mut socket: Socket, caller: WorkerCaller, _open: OpenSocket) {
    let worker = &shared.ctx.settings.worker;
    let max_messages = worker.max_jobs_per_connection * MESSAGES_PER_JOB + MORE_MESSAGES;
    let outbox = Arc::new(Outbox::new(max_messages, shared.asked_bytes.clone()));
    let now = Instant::now();
    let pings = Pings::new(PING_INTERVAL);
    let mut line = Line {
        budget: Budget::over_seconds(worker.messages_per_second, 10.0),
        next_look: now + CHECK_INTERVAL,
        hello_by: Some(now + HELLO_TIMEOUT),
        timer: Box::pin(tokio::time::sleep_until(pings.next())),
        writing: Writing::new(now),
        pings,
        shared: &shared,
        caller,
        outbox,
        conversation: None,
    };
    let end = line.serve(&mut socket).await;
    let by_client = matches!(end, End::Gone | End::Left(_));
    let said_goodbye = matches!(end, End::Left(1000));
    if let Some((conversation, number)) = line.conversation.take() {
        leave(&shared, conversation, number, by_client, said_goodbye);
    }
    let code = match &end {
        End::Gone => 1006,
        End::Left(code) => *code,
        End::CloseOutcome(close) => close.code(),
    };
    tracing::debug!(token = %line.caller.worker, code, "worker.foreign_socket_closed");
    match end {
        End::Gone => {}
        End::Left(_) => socket.answer_close().await,
        End::CloseOutcome(close) => socket.close(&close).await,
    }
}

/// The session has lost a socket. Its runs wait for another one, or are handed back at once where it said goodbye.
fn leave(shared: &Arc<Shared>, conversation: Conversation, number: u64, by_client: bool, said_goodbye: bool) {
    let session = conversation.session;
    if !session.link.disconnect(number, by_client) {
        return; // A newer socket is there.
    }
    let shared = shared.clone();
    let wait = if said_goodbye { Duration::ZERO } else { shared.ctx.settings.worker.reattach };
    let ctx = shared.ctx.clone();
    ctx.spawn(async move {
        tokio::time::sleep(wait).await;
        if session.link.give_up(number) {
            shared.sessions.forget(&session);
            tracing::info!(session = session.key, worker = session.name, "worker.foreign_session_over");
        }
    });
}

struct Line<'a> {
    shared: &'a Arc<Shared>,
    caller: WorkerCaller,
    outbox: Arc<Outbox>,
    /// Once the client has said hello: the session, and which of its sockets this is.
    conversation: Option<(Conversation, u64)>,
    budget: Budget,
    pings: Pings,
    writing: Writing,
    next_look: Instant,
    hello_by: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

impl Line<'_> {
    async fn serve(&mut self, socket: &mut Socket) -> End {
        loop {
            match std::future::poll_fn(|cx| self.poll(socket, cx)).await {
                Event::Received(Some(Ok(message))) => {
                    if let Err(end) = self.received(message) {
                        return end;
                    }
                }
                Event::Received(Some(Err(error))) => {
                    return Close::for_error(&error).map_or(End::Gone, End::CloseOutcome);
                }
                Event::Received(None) | Event::Lost => return End::Gone,
                Event::Close(close) => return End::CloseOutcome(close),
                Event::Flood => return End::CloseOutcome(Close::flood()),
                Event::Time => {
                    if let Some(close) = self.time(socket) {
                        return End::CloseOutcome(close);
                    }
                }
            }
        }
    }

    fn poll(&mut self, socket: &mut Socket, cx: &mut Context<'_>) -> Poll<Event> {
        // Before looking: what is added later wakes this task again.
        self.outbox.register(cx.waker());
        let (outbox, pings) = (&self.outbox, &mut self.pings);
        let written = socket.poll_write(cx, || {
            if pings.take_due() {
                return Some(Message::Ping(bytes::Bytes::new()));
            }
            outbox.pop().map(Message::Text)
        });
        let now = Instant::now();
        if self.writing.note(written.is_pending(), socket.written(), now) {
            self.pings.somebody_is_there();
        }
        for _ in 0..socket.take_pings_left() {
            self.pings.left(now);
        }
        if let Poll::Ready(Err(_)) = written {
            return Poll::Ready(Event::Lost);
        }
        if let Some(close) = self.outbox.closing()
            && (!close.delivers_first() || self.outbox.is_empty() || written.is_pending())
        {
            return Poll::Ready(Event::Close(close));
        }
        // What the client asks for would only add to what it does not take.
        if !self.outbox.is_backlogged() {
            let received = socket.poll_read(cx);
            for _ in 0..socket.take_scraps() {
                if !self.budget.take(now) {
                    return Poll::Ready(Event::Flood);
                }
            }
            if let Poll::Ready(received) = received {
                return Poll::Ready(Event::Received(received));
            }
        }
        let mut deadline = self.pings.next().min(self.next_look);
        deadline = self.writing.next_look().map_or(deadline, |look| deadline.min(look));
        if self.timer.deadline() != deadline {
            self.timer.as_mut().reset(deadline);
        }
        self.timer.as_mut().poll(cx).map(|()| Event::Time)
    }

    fn received(&mut self, message: Message) -> Result<(), End> {
        // Whatever comes proves that somebody is there.
        self.pings.somebody_is_there();
        let text = match message {
            Message::Close(frame) => return Err(End::Left(frame.map_or(1005, |frame| frame.code.into()))),
            Message::Binary(_) => return Err(End::CloseOutcome(Close::binary())),
            Message::Text(text) => Some(text),
            // Pings are answered by the library.
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => None,
        };
        if !self.budget.take(Instant::now()) {
            return Err(End::CloseOutcome(Close::flood()));
        }
        let Some(text) = text else { return Ok(()) };
        let unknown = |reason: &str| Err(End::CloseOutcome(Close::unknown_message(reason)));
        match (&self.conversation, worker::read(&text)) {
            (_, Err(Unusable::Unknown(reason))) => unknown(&reason),
            (None, Ok(FromClient::Hello(hello))) => self.hello(&hello),
            (None, Ok(_)) => unknown("the first message must be hello"),
            (None, Err(Unusable::Invalid { message, .. })) => unknown(&message),
            (Some((conversation, _)), Ok(message)) => {
                conversation.take(message, text.len());
                Ok(())
            }
            (Some((conversation, _)), Err(Unusable::Invalid { reference, is_attach, message })) => {
                conversation.invalid(reference, is_attach, &message);
                Ok(())
            }
        }
    }

    fn hello(&mut self, hello: &Hello) -> Result<(), End> {
        if hello.v != VERSION {
            let reason = format!("this worker speaks version {VERSION} of the protocol");
            return Err(End::CloseOutcome(Close::unknown_message(&reason)));
        }
        // The token's name is part of it: nobody else's session can be taken over by its id.
        let key = format!("{}/{}", self.caller.worker, hello.session);
        // Queued before the session can send anything on this socket: the client hears it first.
        let text = ToClient::Welcome {
            v: VERSION,
            session: hello.session.as_str(),
            reattach_seconds: self.shared.ctx.settings.worker.reattach.as_secs_f64(),
            max_frame: MAX_WORKER_FRAME,
        }
        .text();
        self.outbox.push(text);
        let (session, number) = self.shared.sessions.connect(&key, &hello.worker, &self.outbox);
        tracing::info!(
            session = key,
            worker = hello.worker,
            software = hello.software,
            pid = hello.pid,
            "worker.foreign_session"
        );
        self.note(&key, hello);
        let (shared, tenants) = (self.shared.clone(), self.caller.tenants.clone());
        let conversation = Conversation { shared, session, tenants, outbox: self.outbox.clone() };
        self.conversation = Some((conversation, number));
        self.hello_by = None;
        Ok(())
    }

    /// Notes who the session is, for people who look at its jobs; the socket does not wait for it.
    fn note(&self, key: &str, hello: &Hello) {
        let shown = |text: &str| excerpt(&printable(text), MAX_SHORT_TEXT).into_owned();
        let info = WorkerInfo {
            id: key.to_owned(),
            name: shown(&hello.worker),
            machine: hello.host.as_deref().map(shown).unwrap_or_default(),
            pid: hello.pid.and_then(|pid| i64::try_from(pid).ok()).unwrap_or(0),
            version: String::new(),
            slots: 0,
            client: Some(hello.software.as_deref().map(shown).unwrap_or_default()),
            started_at: None,
        };
        let shared = self.shared.clone();
        self.shared.ctx.spawn(async move {
            let Ok(_turn) = shared.attaching.acquire().await else { return };
            if let Err(error) = shared.ctx.store.register_worker(&info).await {
                tracing::debug!(%error, "worker.foreign_session_not_noted");
            }
        });
    }

    fn time(&mut self, socket: &mut Socket) -> Option<Close> {
        let now = Instant::now();
        if now >= self.next_look {
            self.next_look = now + CHECK_INTERVAL;
            if let Some(close) = self.look(now) {
                return Some(close);
            }
        }
        match self.writing.look(now) {
            Look::Fine => {}
            Look::Probe => socket.probe(),
            Look::TooSlow => return Some(Close::too_slow()),
        }
        if self.pings.look(now) { None } else { Some(Close::no_pong()) }
    }

    fn look(&self, now: Instant) -> Option<Close> {
        if self.shared.revocations.is_revoked(&self.caller.token_facts()) {
            return Some(Close::token_revoked());
        }
        if jiff::Timestamp::now().as_millisecond() >= self.caller.expires_at_ms() {
            return Some(Close::expired());
        }
        if self.hello_by.is_some_and(|by| now >= by) {
            return Some(Close::unknown_message("no hello within 10 s"));
        }
        let (conversation, _) = self.conversation.as_ref()?;
        // Cut off from Redis, this worker counts as dead before long, and its runs are handed back. The client looks for
        // another worker, and holds its work if it finds none.
        // One run that is renewed late says nothing (there may be thousands): all of a tenant, on one server of Redis, do.
        let mut confirmed: HashMap<TenantId, bool> = HashMap::new();
        for attached in conversation.session.runs() {
            let run = attached.run;
            let is_confirmed = run.has_exited() || run.last_renewed.borrow().elapsed() <= CONFIRMATION_TTL;
            *confirmed.entry(run.resource().tenant.clone()).or_default() |= is_confirmed;
        }
        confirmed.into_values().any(|is_confirmed| !is_confirmed).then(Close::unconfirmed)
    }
}
