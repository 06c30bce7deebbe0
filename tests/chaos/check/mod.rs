//! The promises, as pure functions over a history. Each gives what contradicts it.

pub mod batches;
pub mod budget;
pub mod ends;
pub mod foreign;
pub mod model;
pub mod observations;
pub mod order;
pub mod readiness;
pub mod refused;
#[cfg(test)]
pub mod sample_history;
pub mod scheduled;

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use serde_json::Value;

use crate::history::{Audit, History, What};

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Which promise, in one word or two.
    pub rule: &'static str,
    /// The resource it is about, where it is about one.
    pub resource: Option<String>,
    /// What contradicts it.
    pub what: String,
}

impl Violation {
    pub fn new(rule: &'static str, resource: &str, what: impl Into<String>) -> Self {
        Self { rule, resource: Some(resource.to_owned()), what: what.into() }
    }

    pub fn general(rule: &'static str, what: impl Into<String>) -> Self {
        Self { rule, resource: None, what: what.into() }
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.resource {
            Some(resource) => write!(f, "{} on {resource}: {}", self.rule, self.what),
            None => write!(f, "{}: {}", self.rule, self.what),
        }
    }
}

/// Every check.
pub fn all(history: &History) -> Vec<Violation> {
    let index = Index::of(history);
    let checks = [
        ends::check,
        observations::check,
        order::check,
        model::check,
        refused::check,
        budget::check,
        scheduled::check,
        batches::check,
        foreign::check,
        readiness::check,
    ];
    checks.iter().flat_map(|check| check(history, &index)).collect()
}

/// One request of one client: what was sent under one `request_id`, and what came back.
#[derive(Debug, Default)]
pub struct Request<'a> {
    pub user: &'a str,
    pub resource: &'a str,
    /// Types of the messages sent: `pause_job`. More than one: the test asked for a conflict.
    pub asked: Vec<String>,
    /// What the first of them is about: the socket's resource, or the jobs of a batch.
    pub targets: Vec<String>,
    /// When it was first sent.
    pub first: u64,
    /// How often it was sent.
    pub tries: u32,
    /// Acks and errors, each with its socket.
    pub answers: Vec<(usize, &'a Value)>,
}

/// What several checks look up.
pub struct Index<'a> {
    /// By `request_id`; the clients of the test never use one twice.
    pub requests: BTreeMap<String, Request<'a>>,
    /// Acceptances by command, with their place in the trail.
    pub accepted: HashMap<&'a str, (usize, &'a Audit)>,
    /// What was kept for later, by command.
    pub scheduled: HashMap<&'a str, &'a Audit>,
    /// Scheduled commands whose permission was gone when their time had come.
    pub denied_late: HashMap<&'a str, &'a Audit>,
    /// Socket → its resource, or `tenant`.
    pub sockets: HashMap<usize, &'a str>,
}

impl<'a> Index<'a> {
    pub fn of(history: &'a History) -> Self {
        let (mut requests, mut sockets) = (BTreeMap::<String, Request<'a>>::new(), HashMap::new());
        let mut users = HashMap::new();
        for event in &history.events {
            match &event.what {
                What::Opened { socket, user, resource, .. } => {
                    sockets.insert(*socket, resource.as_str());
                    users.insert(*socket, user.as_str());
                }
                What::Sent { socket, request, text, .. } => {
                    let entry = requests.entry(request.clone()).or_insert_with(|| Request {
                        user: users.get(socket).copied().unwrap_or_default(),
                        resource: sockets.get(socket).copied().unwrap_or_default(),
                        first: event.at,
                        ..Request::default()
                    });
                    entry.tries += 1;
                    let sent: Value = serde_json::from_str(text).unwrap_or_default();
                    if entry.targets.is_empty() {
                        let job = |id: &Value| format!("job:{}", id.as_str().unwrap_or_default());
                        entry.targets = match sent["job_ids"].as_array() {
                            Some(ids) => ids.iter().map(job).collect(),
                            None => vec![entry.resource.to_owned()],
                        };
                    }
                    let kind = sent["type"].as_str().unwrap_or_default().to_owned();
                    if !entry.asked.contains(&kind) {
                        entry.asked.push(kind);
                    }
                }
                What::Saw { socket, message } if is_answer(message) => {
                    if let Some(entry) = message["request_id"].as_str().and_then(|id| requests.get_mut(id)) {
                        entry.answers.push((*socket, message));
                    }
                }
                _ => {}
            }
        }
        let (mut accepted, mut scheduled, mut denied_late) = (HashMap::new(), HashMap::new(), HashMap::new());
        for (at, row) in history.record.audit.iter().enumerate() {
            let Some(command) = row.command.as_deref() else { continue };
            match row.event.as_str() {
                "accepted" => drop(accepted.insert(command, (at, row))),
                "scheduled" => drop(scheduled.insert(command, row)),
                "denied" => drop(denied_late.insert(command, row)),
                _ => {}
            }
        }
        Self { requests, accepted, scheduled, denied_late, sockets }
    }

    /// Every command that has a result, and its row: of its acceptance, or of its denial when it was to run.
    pub fn with_result(&self) -> impl Iterator<Item = (&'a str, &'a Audit)> + '_ {
        let accepted = self.accepted.iter().map(|(command, (_, row))| (*command, *row));
        accepted.chain(self.denied_late.iter().map(|(command, row)| (*command, *row)))
    }

    pub fn has_result(&self, command: &str) -> bool {
        self.accepted.contains_key(command) || self.denied_late.contains_key(command)
    }
}

/// An ack, or an error: what a request is answered with.
pub fn is_answer(message: &Value) -> bool {
    is_ack(message) || message["type"] == "error" || message["type"] == "schedule_withdrawn"
}

/// What says that something was accepted or scheduled. Over HTTP that is also the summary of a batch that was waited
/// for, which names its commands; on a socket it does not.
pub fn is_ack(message: &Value) -> bool {
    let kind = message["type"].as_str().unwrap_or_default();
    kind.ends_with("_requested") || kind.ends_with("_scheduled") || (is_summary(message) && message["items"].is_array())
}

/// The summary of a batch.
pub fn is_summary(message: &Value) -> bool {
    message["type"] == "batch_completed"
}

/// The commands that an ack is about, each with its resource where the ack says it: those of a batch.
pub fn commands_of(ack: &Value) -> Vec<(Option<String>, &str)> {
    let Some(items) = ack["items"].as_array() else {
        return ack["command_id"].as_str().map(|command| (None, command)).into_iter().collect();
    };
    let item = |item: &'_ Value| item["job_id"].as_str().map(|id| format!("job:{id}"));
    items.iter().filter_map(|one| Some((item(one), one["command_id"].as_str()?))).collect()
}

/// The command, if the message is its result.
pub fn result_of(message: &Value) -> Option<&str> {
    let kind = message["type"].as_str()?;
    let is_result = kind.ends_with("_succeeded") || kind.ends_with("_failed");
    message["command_id"].as_str().filter(|_| is_result)
}
