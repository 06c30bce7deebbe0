//! What is written down: everything clients sent and saw and every fault, with one monotonic clock, and what
//! Redis, SQL and the audit trail hold at the end.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::Value;

use crate::support::foreign::Deed;

/// One thing that happened, as the test itself saw it.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    /// ms since the start, monotonic.
    pub at: u64,
    #[serde(flatten)]
    pub what: What,
}

#[derive(Debug, Clone, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    /// A socket is open, and its snapshot is there (on the tenant-wide socket, whose resource is `tenant`, its first
    /// message): what happens from now on, it must be told. An HTTP request is a socket that closes after its answer.
    Opened { socket: usize, client: String, user: String, resource: String, gateway: String },
    /// Written to the socket. `try_no` counts the tries of this request, over all sockets.
    Sent { socket: usize, request: String, text: String, try_no: u32 },
    /// Came on the socket; progress is left out.
    Saw { socket: usize, message: Value },
    /// The connection ended, by whoever.
    Closed { socket: usize, how: String },
    /// Something was broken or mended.
    Fault { act: String },
    /// What `/readyz` of a gateway said: whether the tenant of the test is served.
    Ready { gateway: usize, serves: bool },
    /// A user has lost or got back the rights that come and go, in SQL.
    Rights { user: String, held: bool },
}

/// One row of the audit trail; the rows are in the order of the partition's stream.
#[derive(Debug, Clone, Serialize)]
pub struct Audit {
    /// Unix ms by Redis's clock.
    pub at: i64,
    pub event: String,
    pub user: String,
    pub resource: String,
    pub action: String,
    pub command: Option<String>,
    pub request: Option<String>,
    pub outcome: Option<String>,
    /// Of an end: how often the command was claimed.
    pub attempts: Option<i64>,
    /// Of a scheduled command: when it is to run, Unix ms by Redis's clock.
    pub run_at: Option<i64>,
    /// The batch that it is a part of.
    pub batch: Option<String>,
    /// Of refusals that were counted: how many this one row tells of.
    pub refusals: Option<i64>,
    /// Nothing has been changed in this row since it was written.
    pub intact: bool,
}

impl Audit {
    pub fn is_accepted(&self) -> bool {
        self.event == "accepted"
    }

    pub fn is_end(&self) -> bool {
        matches!(self.event.as_str(), "succeeded" | "failed" | "expired")
    }

    /// A scheduled command whose permission was gone when it was to run; what was denied when it was asked for has no
    /// command.
    pub fn is_denied_late(&self) -> bool {
        self.event == "denied" && self.command.is_some()
    }
}

/// One line that a trigger wrote, in the order of SQL's commits.
#[derive(Debug, Clone, Serialize)]
pub struct Effect {
    /// Unix ms by the database's clock.
    pub at: i64,
    #[serde(flatten)]
    pub change: Change,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// The row's status is this now.
    Row { resource: String, status: String },
    /// A command was applied, with this outcome: a status, or `refused`.
    Applied { command: String, outcome: String },
}

/// What kind of life a resource leads beside commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Nature {
    /// A row put there by plain SQL: only commands move it.
    External,
    /// Workers run it, one after the other; it never ends by itself.
    Queued,
    /// A row of another system; foreign processes run it, through workers. It never ends by itself.
    Foreign,
    /// It runs inside `wheelhouse run`, and fails when that dies.
    Attached,
    Campaign,
}

/// Something that the work of a foreign job did, in the order in which it was done.
#[derive(Debug, Clone, Serialize)]
pub struct Work {
    /// ms since the start, monotonic.
    pub at: u64,
    pub resource: String,
    pub attempt: u64,
    #[serde(flatten)]
    pub deed: Deed,
}

/// A job or campaign of the test.
#[derive(Debug, Clone, Serialize)]
pub struct Subject {
    /// `job:j1`, `campaign:c0`.
    pub name: String,
    pub nature: Nature,
    /// `campaign:c0`, where it belongs to one.
    pub campaign: Option<String>,
    /// Its status at first.
    pub status: String,
}

/// What Redis and SQL hold when everything has settled.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Record {
    pub audit: Vec<Audit>,
    pub effects: Vec<Effect>,
    /// Of each resource the commands in its list of finished ones, oldest first, and their messages.
    pub results: BTreeMap<String, Vec<(String, String)>>,
    /// What still waits in Redis, in words; nothing should.
    pub left: Vec<String>,
    /// The status in SQL. A campaign's is `active (false)` where `is_active` does not fit.
    pub rows: BTreeMap<String, String>,
}

impl Record {
    /// Command → the result that is recorded for it.
    pub fn messages(&self) -> HashMap<&str, Value> {
        let results = self.results.values().flatten();
        results
            .map(|(command, message)| (command.as_str(), serde_json::from_str(message).unwrap_or_default()))
            .collect()
    }
}

/// Everything the checks look at.
#[derive(Debug, Clone)]
pub struct History {
    pub events: Vec<Event>,
    pub record: Record,
    pub subjects: Vec<Subject>,
    /// User → permissions.
    pub rights: BTreeMap<String, Vec<String>>,
    /// Unix ms of the monotonic clock's zero.
    pub began: i64,
    /// What foreign processes did.
    pub work: Vec<Work>,
    /// Requests that have no answer yet, in words.
    pub unanswered: Vec<String>,
    /// Commands wait for a disk that is written once a second.
    pub waits_for_disk: bool,
}

/// Where events are written down.
pub struct Log {
    began: Instant,
    began_unix: i64,
    events: Mutex<Vec<Event>>,
}

impl Log {
    pub fn start() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis();
        Self { began: Instant::now(), began_unix: unix as i64, events: Mutex::default() }
    }

    pub fn note(&self, what: What) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock, so that the list is in the order of its times.
        let at = self.began.elapsed().as_millis() as u64;
        events.push(Event { at, what });
    }

    /// The moment so long after the start.
    pub fn moment(&self, after: Duration) -> tokio::time::Instant {
        (self.began + after).into()
    }

    /// ms from the start to this moment.
    pub fn since_start(&self, moment: Instant) -> u64 {
        u64::try_from(moment.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }

    pub fn began_unix(&self) -> i64 {
        self.began_unix
    }

    pub fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
