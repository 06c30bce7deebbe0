//! A client: one socket on one resource or the whole tenant, opened again whenever it is lost, and now and then a
//! request over HTTP, which is written down as a socket that closes after its answer. It writes down what it sends and sees,
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
use crate::http;
use crate::plan::{self, Operation, Step, WHOLE, Way};
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
    /// What it has scheduled last, until it takes it back.
    schedule: Option<String>,
    requests: usize,
}

/// A request without an answer.
#[derive(Clone)]
struct Pending {
    request: String,
    /// The message, but for the `request_id`.
    body: Value,
    way: Way,
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
        Self { plan, url, shared, steps, pending: None, last: None, schedule: None, requests: 0 }
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
                let first = if self.plan.resource == WHOLE { "subscribed" } else { "_snapshot" };
                if message["type"].as_str().is_some_and(|kind| kind.ends_with(first)) {
                    return Some(());
                }
            }
        };
        tokio::time::timeout(ANSWER, snapshot).await.ok()??;
        Some((socket, self.opened("")))
    }

    /// The number of a new connection, which is written down.
    fn opened(&self, how: &str) -> usize {
        let number = self.shared.sockets.fetch_add(1, Ordering::SeqCst);
        let plan = &self.plan;
        let proxy = if plan.through_proxy { " through the proxy" } else { "" };
        self.shared.log.note(What::Opened {
            socket: number,
            client: plan.name.clone(),
            user: plan.user.clone(),
            resource: plan.resource.clone(),
            gateway: format!("gateway-{}{proxy}{how}", plan.gateway),
        });
        number
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
        let mut message = pending.body.clone();
        message["request_id"] = pending.request.as_str().into();
        let text = message.to_string();
        let way = pending.way;
        let number = if way == Way::Socket { number } else { self.opened(" over HTTP") };
        let waits = format!("{} of {} on {}", pending.request, self.plan.name, self.plan.resource);
        self.shared.unanswered.lock().expect("requests").insert(self.plan.name.clone(), waits);
        self.shared.log.note(What::Sent {
            socket: number,
            request: pending.request.clone(),
            text: text.clone(),
            try_no: pending.tries,
        });
        self.pending = Some(pending);
        if way != Way::Socket {
            self.over_http(number, way, &message).await;
            return Ok(());
        }
        let sending = socket.try_send(Message::text(text));
        let sent = tokio::time::timeout(ANSWER, sending).await.map_err(|_| "could not send in time".to_owned())?;
        sent.map_err(|error| error.to_string())
    }

    /// Asks over HTTP. Without an answer it asks again, as after a lost socket.
    async fn over_http(&mut self, number: usize, way: Way, message: &Value) {
        let path = http::path_of(&self.plan.resource, message, way == Way::Waiting);
        let asking = http::post(&self.url, &path, message);
        let answer = match tokio::time::timeout(ANSWER, asking).await {
            Ok(answer) => answer,
            Err(_) => Err("no answer in time".to_owned()),
        };
        let how = match answer {
            Ok(answer) => {
                self.saw(number, &http::as_on_a_socket(&answer, message).to_string());
                "answered".to_owned()
            }
            Err(how) => {
                if let Some(pending) = &mut self.pending {
                    (pending.sent, pending.until, pending.insist) = (false, Instant::now() + AGAIN, true);
                }
                how
            }
        };
        self.shared.log.note(What::Closed { socket: number, how });
    }

    /// What an operation sends. `None`: nothing (there is no request to repeat yet).
    fn begin(&mut self, operation: Operation) -> Option<Pending> {
        let area = self.plan.resource.split(':').next().unwrap_or_default();
        let mut request = |body: Value, insist, way| {
            self.requests += 1;
            let request = format!("{}-{}", self.plan.name, self.requests);
            Pending { request, body, way, insist, tries: 0, sent: false, until: Instant::now() }
        };
        let pending = match operation {
            Operation::Command { action, insist, way } => {
                request(json!({"type": format!("{}_{area}", action.as_str())}), insist, way)
            }
            Operation::Later { action, seconds, insist } => {
                let kind = format!("{}_{area}", action.as_str());
                request(json!({"type": kind, "delay_seconds": seconds}), insist, Way::Socket)
            }
            Operation::Withdraw { insist } => {
                let body = json!({"type": "cancel_scheduled", "schedule_id": self.schedule.take()?});
                return Some(request(body, insist, Way::Socket));
            }
            Operation::Batch { action, jobs, insist, way } => {
                let all = self.plan.jobs.iter().enumerate();
                let ids: Vec<&str> = all.filter(|(n, _)| jobs >> n & 1 == 1).map(|(_, id)| id.as_str()).collect();
                request(json!({"type": format!("{}_jobs", action.as_str()), "job_ids": ids}), insist, way)
            }
            Operation::Nonsense => {
                return Some(request(json!({"type": format!("explode_{area}")}), false, Way::Socket));
            }
            Operation::Repeat => return self.last.clone(),
            Operation::Conflict => {
                let mut last = self.last.clone()?;
                let (action, rest) = last.body["type"].as_str()?.split_once('_')?;
                let other = if action == "pause" { "resume" } else { "pause" };
                last.body["type"] = format!("{other}_{rest}").into();
                return Some(Pending { insist: false, ..last });
            }
        };
        self.last = Some(pending.clone());
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
            if message["type"].as_str().is_some_and(|kind| kind.ends_with("_scheduled")) {
                self.schedule = message["schedule_id"].as_str().map(str::to_owned);
            }
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
