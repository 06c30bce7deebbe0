//! The promises, as pure functions over a history. Each gives what contradicts it.

pub mod budget;
pub mod ends;
pub mod model;
pub mod order;
pub mod refused;
pub mod seen;
#[cfg(test)]
pub mod story;

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
    let checks = [ends::check, seen::check, order::check, model::check, refused::check, budget::check];
    checks.iter().flat_map(|check| check(history, &index)).collect()
}

/// One request of one client: what was sent under one `request_id`, and what came back.
#[derive(Debug, Default)]
pub struct Request<'a> {
    pub user: &'a str,
    pub resource: &'a str,
    /// Types of the messages sent: `pause_job`. More than one: the test asked for a conflict.
    pub asked: Vec<String>,
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
    /// Socket → its resource.
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
        let trail = history.record.audit.iter().enumerate();
        let accepted = trail
            .filter(|(_, row)| row.is_accepted())
            .filter_map(|(at, row)| Some((row.command.as_deref()?, (at, row))))
            .collect();
        Self { requests, accepted, sockets }
    }
}

/// An ack, or an error: what a request is answered with.
pub fn is_answer(message: &Value) -> bool {
    is_ack(message) || message["type"] == "error"
}

pub fn is_ack(message: &Value) -> bool {
    message["type"].as_str().is_some_and(|kind| kind.ends_with("_requested"))
}

/// The command, if the message is its result.
pub fn result_of(message: &Value) -> Option<&str> {
    let kind = message["type"].as_str()?;
    let is_result = kind.ends_with("_succeeded") || kind.ends_with("_failed");
    message["command_id"].as_str().filter(|_| is_result)
}
