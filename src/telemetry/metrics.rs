//! Every metric: its name, its description, and the function that counts it. `/metrics` shows them in the
//! format of Prometheus. No label holds an id: tenants, users and jobs come without end, and a metric for
//! each would fill the memory.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::domain::{Action, ResourceKind};
use crate::protocol::ErrorCode;

/// Control commands received, over sockets and HTTP. Labels `resource`, `action`.
pub const COMMANDS: &str = "websocket_control_commands_total";
/// Commands applied. Labels `resource`, `action`.
pub const COMMANDS_SUCCESS: &str = "websocket_control_commands_success_total";
/// Commands that a worker refused, or that expired. Labels `resource`, `action`.
pub const COMMANDS_FAILED: &str = "websocket_control_commands_failed_total";
/// Commands that were not accepted. Labels `resource`, `action`, `error`.
pub const COMMANDS_REFUSED: &str = "websocket_control_commands_refused_total";
/// Seconds from accepted to applied. Labels `resource`, `action`.
pub const LATENCY: &str = "websocket_control_latency_seconds";
/// Accepted commands whose result this gateway could not follow.
pub const COMMANDS_UNFOLLOWED: &str = "websocket_control_commands_unfollowed_total";
/// Commands that this worker has ended. Labels `resource`, `action`, `result`.
pub const WORKER_COMMANDS: &str = "wheelhouse_worker_commands_total";
/// Seconds from accepted to ended, for those. Labels `resource`, `action`.
pub const WORKER_LATENCY: &str = "wheelhouse_worker_command_seconds";
/// Open sockets on this gateway.
pub const CONNECTIONS: &str = "websocket_connections";
/// Sockets opened. Label `resource`.
pub const CONNECTIONS_OPENED: &str = "websocket_connections_opened_total";
/// Sockets closed by the gateway or the client. Label `code`.
pub const CONNECTIONS_CLOSED: &str = "websocket_connections_closed_total";
/// Requests for a socket that were refused. Label `error`.
pub const CONNECTIONS_REFUSED: &str = "websocket_connections_refused_total";
/// Messages received on sockets.
pub const MESSAGES_RECEIVED: &str = "websocket_messages_received_total";
/// Messages sent on sockets.
pub const MESSAGES_SENT: &str = "websocket_messages_sent_total";
/// Progress messages replaced by a newer one before a slow socket took them.
pub const MESSAGES_FOLDED: &str = "websocket_messages_folded_total";
/// Bytes thrown away without a look at them, after a socket was closed for a flood or for what cannot be understood.
pub const BYTES_UNPARSED: &str = "websocket_unparsed_bytes_total";
/// Subscriptions lost and made again.
pub const SUBSCRIPTION_GAPS: &str = "websocket_subscription_gaps_total";
/// HTTP requests. Labels `method`, `route`, `status`.
pub const HTTP_REQUESTS: &str = "http_requests_total";
/// Seconds an HTTP request took. Label `route`.
pub const HTTP_LATENCY: &str = "http_request_duration_seconds";
/// Whether Redis does what commands need: 1 or 0.
pub const REDIS_UP: &str = "wheelhouse_redis_up";
/// Partitions of Redis whose tenants are not served: their server is away, or refuses what commands do.
pub const PARTITIONS_NOT_SERVED: &str = "wheelhouse_redis_partitions_not_served";
/// Whether SQL can be read and written: 1 or 0.
pub const SQL_UP: &str = "wheelhouse_sql_up";
/// Whether the subscription really delivers: 1 or 0.
pub const SUBSCRIPTION_UP: &str = "wheelhouse_subscription_up";
/// Workers alive, whichever tenants they serve; also programs under `wheelhouse run`.
pub const WORKERS_ALIVE: &str = "wheelhouse_workers_alive";
/// Audit entries that are in Redis and not yet in SQL.
pub const AUDIT_BACKLOG: &str = "wheelhouse_audit_backlog";
/// Jobs of job code that this worker holds. Label `state`: `running`, `paused`.
pub const HELD_JOBS: &str = "wheelhouse_worker_held_jobs";
/// As many as it may hold (`worker.max_held_jobs`): then it takes no more.
pub const MAX_HELD_JOBS: &str = "wheelhouse_worker_max_held_jobs";
/// Gauge.
pub const FOREIGN_SOCKETS: &str = "wheelhouse_worker_foreign_sockets";
/// Gauge.
pub const FOREIGN_RUNS: &str = "wheelhouse_worker_foreign_runs";

pub(super) fn describe() {
    describe_counter!(COMMANDS, "Control commands received, over sockets and HTTP");
    describe_counter!(COMMANDS_SUCCESS, "Control commands applied");
    describe_counter!(COMMANDS_FAILED, "Control commands that a worker refused, or that expired");
    describe_counter!(COMMANDS_REFUSED, "Control commands that were not accepted, by error");
    describe_histogram!(LATENCY, "Seconds from a command's acceptance to its result");
    describe_counter!(COMMANDS_UNFOLLOWED, "Accepted commands whose result this gateway could not follow");
    describe_counter!(WORKER_COMMANDS, "Commands that this worker has ended, by result");
    describe_histogram!(WORKER_LATENCY, "Seconds from a command's acceptance to its end, for those");
    describe_gauge!(CONNECTIONS, "Open sockets on this gateway");
    describe_counter!(CONNECTIONS_OPENED, "Sockets opened");
    describe_counter!(CONNECTIONS_CLOSED, "Sockets closed, by close code");
    describe_counter!(CONNECTIONS_REFUSED, "Requests for a socket that were refused, by error");
    describe_counter!(MESSAGES_RECEIVED, "Messages received on sockets");
    describe_counter!(MESSAGES_SENT, "Messages sent on sockets");
    describe_counter!(MESSAGES_FOLDED, "Progress messages replaced by a newer one before a slow socket took them");
    describe_counter!(BYTES_UNPARSED, "Bytes thrown away unread after a socket was closed for a flood or an error");
    describe_counter!(SUBSCRIPTION_GAPS, "Subscriptions to Redis that were lost and made again");
    describe_counter!(HTTP_REQUESTS, "HTTP requests, by method, route and status");
    describe_histogram!(HTTP_LATENCY, "Seconds an HTTP request took, by route");
    describe_gauge!(REDIS_UP, "Whether Redis does what commands need");
    describe_gauge!(PARTITIONS_NOT_SERVED, "Partitions of Redis whose tenants are not served");
    describe_gauge!(SQL_UP, "Whether SQL can be read and written");
    describe_gauge!(WORKERS_ALIVE, "Workers alive, whichever tenants they serve");
    describe_gauge!(AUDIT_BACKLOG, "Audit entries that are in Redis and not yet in SQL");
    describe_gauge!(HELD_JOBS, "Jobs that this worker holds, by state");
    describe_gauge!(MAX_HELD_JOBS, "Jobs that this worker may hold: with as many it takes no more");
    describe_gauge!(FOREIGN_SOCKETS, "Open sockets of foreign workers at this worker");
    describe_gauge!(FOREIGN_RUNS, "Runs in foreign workers that this worker hosts");
    describe_gauge!(SUBSCRIPTION_UP, "Whether the subscription to Redis really delivers");
}

/// What is counted for every command and every message, looked up once: a look-up by name and labels each time takes
/// longer than the counting.
struct Handles {
    commands: PerCommand<Counter>,
    succeeded: PerCommand<Counter>,
    failed: PerCommand<Counter>,
    latency: PerCommand<Histogram>,
    connections: Gauge,
    received: Counter,
    sent: Counter,
    folded: Counter,
}

/// One for each kind of resource and action.
struct PerCommand<T>([[T; 3]; 2]);

impl<T> PerCommand<T> {
    fn new(make: impl Fn(&'static str, &'static str) -> T) -> Self {
        Self(ResourceKind::ALL.map(|kind| Action::ALL.map(|action| make(kind.as_str(), action.as_str()))))
    }

    fn of(&self, kind: ResourceKind, action: Action) -> &T {
        &self.0[kind as usize][action as usize]
    }
}

static HANDLES: OnceLock<Handles> = OnceLock::new();

/// Makes the counters show from the start as 0: a rate of something that never was is no data, and an alarm
/// on it would never ring.
pub(super) fn touch() {
    let counters = |name: &'static str| {
        PerCommand::new(|kind, action| {
            let counter = counter!(name, "resource" => kind, "action" => action);
            counter.increment(0);
            counter
        })
    };
    let made = Handles {
        commands: counters(COMMANDS),
        succeeded: counters(COMMANDS_SUCCESS),
        failed: counters(COMMANDS_FAILED),
        latency: PerCommand::new(|kind, action| histogram!(LATENCY, "resource" => kind, "action" => action)),
        connections: gauge!(CONNECTIONS),
        received: counter!(MESSAGES_RECEIVED),
        sent: counter!(MESSAGES_SENT),
        folded: counter!(MESSAGES_FOLDED),
    };
    for counter in [&made.received, &made.sent, &made.folded] {
        counter.increment(0);
    }
    for name in [COMMANDS_UNFOLLOWED, SUBSCRIPTION_GAPS, BYTES_UNPARSED] {
        counter!(name).increment(0);
    }
    made.connections.increment(0.0);
    let _ = HANDLES.set(made);
}

/// Counts, where [`Metrics::install`] has been called: a gateway does so at its start.
fn count(count: impl FnOnce(&Handles)) {
    if let Some(handles) = HANDLES.get() {
        count(handles);
    }
}

/// A command came in.
pub fn command_received(kind: ResourceKind, action: Action) {
    count(|handles| handles.commands.of(kind, action).increment(1));
}

/// A command was not accepted.
pub fn command_refused(kind: ResourceKind, action: Action, error: ErrorCode) {
    counter!(COMMANDS_REFUSED, "resource" => kind.as_str(), "action" => action.as_str(), "error" => error.as_str())
        .increment(1);
}

/// The result of a command that this gateway accepted is known; it ended this long after it was accepted.
pub fn command_result(kind: ResourceKind, action: Action, succeeded: bool, latency: Duration) {
    count(|handles| {
        let ended = if succeeded { &handles.succeeded } else { &handles.failed };
        ended.of(kind, action).increment(1);
        handles.latency.of(kind, action).record(latency.as_secs_f64());
    });
}

/// What became of a command that this gateway accepted will not be in its metrics.
pub fn command_unfollowed() {
    counter!(COMMANDS_UNFOLLOWED).increment(1);
}

/// This worker has ended a command, this long after it was accepted. Under other names than the gateway's:
/// where both run in one process, one command must not count as two.
pub fn command_ended(kind: ResourceKind, action: Action, succeeded: bool, latency: Duration) {
    let result = if succeeded { "succeeded" } else { "failed" };
    counter!(WORKER_COMMANDS, "resource" => kind.as_str(), "action" => action.as_str(), "result" => result)
        .increment(1);
    histogram!(WORKER_LATENCY, "resource" => kind.as_str(), "action" => action.as_str()).record(latency.as_secs_f64());
}

/// A socket was opened on a `job`, a `campaign` or a `tenant`.
pub fn connection_opened(resource: &'static str) {
    count(|handles| handles.connections.increment(1.0));
    counter!(CONNECTIONS_OPENED, "resource" => resource).increment(1);
}

/// A socket was closed with this code (1005: the client left without one; `None`: with one of its own making).
pub fn connection_closed(code: Option<u16>) {
    count(|handles| handles.connections.decrement(1.0));
    let code = code.map_or_else(|| "other".to_owned(), |code| code.to_string());
    counter!(CONNECTIONS_CLOSED, "code" => code).increment(1);
}

/// A request for a socket was refused.
pub fn connection_refused(error: ErrorCode) {
    counter!(CONNECTIONS_REFUSED, "error" => error.as_str()).increment(1);
}

/// A message came in on a socket.
pub fn message_received() {
    count(|handles| handles.received.increment(1));
}

/// A message went out on a socket.
pub fn message_sent() {
    count(|handles| handles.sent.increment(1));
}

/// So many bytes of a client were thrown away without a look at them.
pub fn bytes_unparsed(bytes: u64) {
    counter!(BYTES_UNPARSED).increment(bytes);
}

/// A progress message was replaced by a newer one.
pub fn message_folded() {
    count(|handles| handles.folded.increment(1));
}

/// A request was answered. `route` is the pattern, never the path: ids come without end.
pub fn http_answered(method: &'static str, route: &'static str, status: u16, took: Duration) {
    counter!(HTTP_REQUESTS, "method" => method, "route" => route, "status" => status.to_string()).increment(1);
    histogram!(HTTP_LATENCY, "route" => route).record(took.as_secs_f64());
}

/// What `/readyz` found.
pub fn readiness(redis: bool, sql: bool, subscription: bool) {
    for (name, up) in [(REDIS_UP, redis), (SQL_UP, sql), (SUBSCRIPTION_UP, subscription)] {
        gauge!(name).set(if up { 1.0 } else { 0.0 });
    }
}

/// The tenants of how many partitions are not served.
pub fn partitions_not_served(partitions: usize) {
    gauge!(PARTITIONS_NOT_SERVED).set(partitions as f64);
}

/// How many jobs of job code a worker holds, how many of them are paused, and how many it may hold.
pub fn held_jobs(held: usize, paused: usize, most: usize) {
    gauge!(HELD_JOBS, "state" => "running").set(held.saturating_sub(paused) as f64);
    gauge!(HELD_JOBS, "state" => "paused").set(paused as f64);
    gauge!(MAX_HELD_JOBS).set(most as f64);
}

/// How many workers are alive.
pub fn workers_alive(alive: usize) {
    gauge!(WORKERS_ALIVE).set(alive as f64);
}

/// How many sockets and runs of foreign workers there are here.
pub fn foreign_workers(sockets: usize, runs: usize) {
    gauge!(FOREIGN_SOCKETS).set(sockets as f64);
    gauge!(FOREIGN_RUNS).set(runs as f64);
}

/// How many audit entries wait for SQL.
pub fn audit_backlog(entries: u64) {
    // Exact up to 2^53 entries.
    gauge!(AUDIT_BACKLOG).set(entries as f64);
}
