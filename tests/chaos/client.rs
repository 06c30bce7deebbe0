//! A client: one socket on one resource, opened again whenever it is lost. It writes down what it sends and sees,
//! and after an unknown outcome asks again with the same `request_id` until it is answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use crate::check::is_answer;
use crate::history::{Log, What};
use crate::plan::{self, Operation, Step};
use crate::support::socket::Socket;

/// Without an answer for so long the client gives the socket up and asks on another.
const ANSWER: Duration = Duration::from_secs(5);
/// Before it asks again where the answer says so, or connects again.
const AGAIN: Duration = Duration::from_millis(300);

/// What all clients share.
pub struct Shared {
    pub log: Log,
    /// Everything has settled: leave.
    pub over: CancellationToken,
    /// Number of the next socket.
    pub sockets: AtomicUsize,
    /// Requests on their way, in words, by client.
    pub unanswered: std::sync::Mutex<std::collections::BTreeMap<String, String>>,
    /// Clients with steps left.
    pub busy: AtomicUsize,
}

pub struct Client {
    plan: plan::Client,
    url: String,
    shared: Arc<Shared>,
    steps: std::collections::VecDeque<Step>,
    pending: Option<Pending>,
    last: Option<Pending>,
    requests: usize,
}

/// A request without an answer.
#[derive(Clone)]
struct Pending {
    request: String,
    /// The message's `type`.
    kind: String,
    insist: bool,
    tries: u32,
    /// Whether it was sent on this socket and is waited for, until then; or is to be sent, then.
    sent: bool,
    until: Instant,
}

/// How a connection's life ended.
enum End {
    Over,
    Lost,
}

impl Client {
    pub fn new(plan: plan::Client, url: String, shared: Arc<Shared>) -> Self {
        let steps = plan.steps.clone().into();
        if !plan.steps.is_empty() {
            shared.busy.fetch_add(1, Ordering::SeqCst);
        }
        Self { plan, url, shared, steps, pending: None, last: None, requests: 0 }
    }

    pub async fn run(mut self) {
        loop {
            let connecting = async {
                loop {
                    match self.connect().await {
                        Some(connected) => return connected,
                        None => tokio::time::sleep(AGAIN).await,
                    }
                }
            };
            let over = self.shared.over.clone();
            let Some((socket, number)) = over.run_until_cancelled(connecting).await else { return };
            if let Some(pending) = &mut self.pending {
                // Asked on a socket that is gone: ask again at once.
                (pending.sent, pending.until, pending.insist) = (false, Instant::now(), true);
            }
            match self.serve(socket, number).await {
                End::Over => return,
                End::Lost => tokio::time::sleep(AGAIN / 3).await,
            }
        }
    }

    /// A socket with its snapshot read.
    async fn connect(&self) -> Option<(Socket, usize)> {
        let mut socket = Socket::connect(&self.url).await.ok()?;
        let snapshot = async {
            loop {
                let text = socket.receive().await.ok()?;
                let message: Value = serde_json::from_str(&text).ok()?;
                if message["type"].as_str().is_some_and(|kind| kind.ends_with("_snapshot")) {
                    return Some(());
                }
            }
        };
        tokio::time::timeout(ANSWER, snapshot).await.ok()??;
        let number = self.shared.sockets.fetch_add(1, Ordering::SeqCst);
        let plan = &self.plan;
        self.shared.log.note(What::Opened {
            socket: number,
            client: plan.name.clone(),
            user: plan.user.clone(),
            resource: plan.resource.clone(),
            gateway: format!("gateway-{}{}", plan.gateway, if plan.through_proxy { " through the proxy" } else { "" }),
        });
        Some((socket, number))
    }

    async fn serve(&mut self, mut socket: Socket, number: usize) -> End {
        loop {
            let wake = self.wake();
            tokio::select! {
                () = self.shared.over.cancelled() => return End::Over,
                received = socket.receive() => match received {
                    Ok(text) => self.saw(number, &text),
                    Err(how) => return self.lost(number, how),
                },
                () = tokio::time::sleep_until(wake) => match self.act(&mut socket, number).await {
                    Ok(()) => {}
                    Err(how) => return self.lost(number, how),
                },
            }
        }
    }

    fn lost(&self, socket: usize, how: String) -> End {
        self.shared.log.note(What::Closed { socket, how });
        End::Lost
    }

    /// When there is something to do.
    fn wake(&self) -> Instant {
        match (&self.pending, self.steps.front()) {
            (Some(pending), _) => pending.until,
            (None, Some(step)) => self.shared.log.moment(step.at),
            (None, None) => Instant::now() + Duration::from_secs(3_600),
        }
    }

    async fn act(&mut self, socket: &mut Socket, number: usize) -> Result<(), String> {
        let mut pending = match self.pending.take() {
            Some(pending) if pending.sent => {
                self.pending = Some(pending);
                return Err("no answer in time".to_owned());
            }
            Some(pending) => pending,
            None => match self.steps.pop_front().and_then(|step| self.begin(step.operation)) {
                Some(pending) => pending,
                None => {
                    self.rest();
                    return Ok(());
                }
            },
        };
        pending.tries += 1;
        (pending.sent, pending.until) = (true, Instant::now() + ANSWER);
        let text = json!({"type": pending.kind, "request_id": pending.request}).to_string();
        let waits = format!("{} of {} on {}", pending.request, self.plan.name, self.plan.resource);
        self.shared.unanswered.lock().expect("requests").insert(self.plan.name.clone(), waits);
        self.shared.log.note(What::Sent {
            socket: number,
            request: pending.request.clone(),
            text: text.clone(),
            try_no: pending.tries,
        });
        self.pending = Some(pending);
        let sending = socket.try_send(Message::text(text));
        let sent = tokio::time::timeout(ANSWER, sending).await.map_err(|_| "could not send in time".to_owned())?;
        sent.map_err(|error| error.to_string())
    }

    /// What an operation sends. `None`: nothing (there is no request to repeat yet).
    fn begin(&mut self, operation: Operation) -> Option<Pending> {
        let area = self.plan.resource.split(':').next().unwrap_or_default();
        let mut request = |kind: String, insist| {
            self.requests += 1;
            let request = format!("{}-{}", self.plan.name, self.requests);
            Pending { request, kind, insist, tries: 0, sent: false, until: Instant::now() }
        };
        let pending = match operation {
            Operation::Command { action, insist } => request(format!("{}_{area}", action.word()), insist),
            Operation::Nonsense => request(format!("explode_{area}"), false),
            Operation::Repeat => self.last.clone()?,
            Operation::Conflict => {
                let last = self.last.clone()?;
                let other = if last.kind.starts_with("pause") { "resume" } else { "pause" };
                Pending { kind: format!("{other}_{area}"), insist: false, ..last }
            }
        };
        if matches!(operation, Operation::Command { .. }) {
            self.last = Some(pending.clone());
        }
        Some(pending)
    }

    fn saw(&mut self, socket: usize, text: &str) {
        let message: Value = serde_json::from_str(text).unwrap_or_else(|_| json!({"unreadable": text}));
        if message["type"].as_str().is_some_and(|kind| kind.ends_with("_progress")) {
            return;
        }
        if is_answer(&message)
            && let Some(pending) = &mut self.pending
            && message["request_id"] == pending.request.as_str()
        {
            let again = match message["error"].as_str() {
                Some("outcome_unknown") => true,
                Some("unavailable") => pending.insist,
                _ => false,
            };
            if again {
                // Once the outcome is unknown, nothing but an answer ends the asking.
                (pending.sent, pending.until, pending.insist) = (false, Instant::now() + AGAIN, true);
            } else {
                if let Some(last) = &mut self.last
                    && last.request == pending.request
                {
                    last.tries = pending.tries;
                }
                self.pending = None;
                self.shared.unanswered.lock().expect("requests").remove(&self.plan.name);
                self.rest();
            }
        }
        self.shared.log.note(What::Saw { socket, message });
    }

    /// After the last step there is nothing to do but to watch.
    fn rest(&mut self) {
        if self.steps.is_empty() && self.pending.is_none() && !self.plan.steps.is_empty() {
            self.plan.steps.clear();
            self.shared.busy.fetch_sub(1, Ordering::SeqCst);
        }
    }
}
