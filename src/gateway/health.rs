//! Whether Redis, SQL and the subscription work, looked at once a second, so that commands and `/readyz`
//! are answered at once instead of after a time-out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, BrokerError, Partition, Subscriber};
use crate::http::Refusal;
use crate::store::Store;

/// Between two looks.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Every so many looks a write is tried: on SQLite it waits for its turn among all who write.
const POLLS_PER_WRITE: u64 = 5;
/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Why what a watcher sees may be old, by the names that `/readyz` has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InterruptionReason {
    /// The server of the tenant's partition does not do what commands need.
    Redis,
    /// What is published is not heard.
    Subscription,
    /// Nothing can be read of what is not in Redis.
    Sql,
}

impl InterruptionReason {
    /// As it travels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Subscription => "subscription",
            Self::Sql => "sql",
        }
    }
}

/// What works just now; cheap to clone.
#[derive(Clone)]
pub struct Health(Arc<HealthShared>);

struct HealthShared {
    broker: Broker,
    store: Store,
    subscriber: Subscriber,
    sql: AtomicBool,
    sql_writes: AtomicBool,
    draining: AtomicBool,
}

impl Health {
    /// SQL is believed to work until seen otherwise: the start has just used it.
    pub fn new(broker: Broker, store: Store, subscriber: Subscriber) -> Self {
        let (sql, sql_writes, draining) = (AtomicBool::new(true), AtomicBool::new(true), AtomicBool::new(false));
        Self(Arc::new(HealthShared { broker, store, subscriber, sql, sql_writes, draining }))
    }

    /// Redis does what commands need, for the tenants of more than half of the partitions at least.
    pub fn redis(&self) -> bool {
        self.0.broker.is_up() && self.0.subscriber.proof().problem().is_none()
    }

    /// The partitions whose tenants are not served, as they stand in the names of keys, and the word by which Redis says why.
    pub fn partitions_not_served(&self) -> Vec<(Partition, &'static str)> {
        let problems = self.0.subscriber.proof().problems();
        problems.into_iter().map(|(partition, problem)| (partition, word(&problem))).collect()
    }

    /// Why no tenant at all is served.
    fn redis_problem(&self) -> Option<BrokerError> {
        let unreachable = || (!self.0.broker.is_up()).then(|| BrokerError::Unavailable("no connection".to_owned()));
        self.0.subscriber.proof().total_problem().or_else(unreachable)
    }

    /// A command was refused: it is looked at once whether others are, too.
    pub fn doubt_redis(&self) {
        self.0.subscriber.proof().doubt();
    }

    /// The word by which Redis names why it does not do what commands need, or why nothing is delivered: `NOPERM`, `OOM`.
    /// `unreachable`: it says nothing. `None`: all is well.
    pub fn redis_reason(&self) -> Option<&'static str> {
        let problem = self.0.subscriber.proof().problems().into_iter().next().map(|(_, problem)| problem);
        let problem = problem.or_else(|| self.redis_problem()).or_else(|| self.0.subscriber.trouble())?;
        Some(word(&problem))
    }

    /// SQL answers a question: what commands need here.
    pub fn sql(&self) -> bool {
        self.0.sql.load(Ordering::Relaxed)
    }

    /// SQL takes what a gateway writes. Commands go on without: they wait in Redis for a worker that can write.
    pub fn sql_writes(&self) -> bool {
        self.0.sql_writes.load(Ordering::Relaxed)
    }

    /// What is published is heard.
    pub fn subscription(&self) -> bool {
        self.0.subscriber.is_delivering()
    }

    /// Why news of tenants may not come to those who watch them, by partition, for those of which that is so.
    pub fn interrupted_partitions(&self) -> BTreeMap<Partition, InterruptionReason> {
        let of_all = |reason| self.0.broker.keys().partitions().map(move |partition| (partition, reason));
        if !self.0.broker.is_up() {
            return of_all(InterruptionReason::Redis).collect();
        }
        let mut interrupted = BTreeMap::new();
        if !self.sql() {
            interrupted.extend(of_all(InterruptionReason::Sql));
        }
        let unheard = self.0.subscriber.unheard_partitions().into_iter();
        interrupted.extend(unheard.map(|partition| (partition, InterruptionReason::Subscription)));
        let not_served = self.0.subscriber.proof().problems().into_iter();
        interrupted.extend(not_served.map(|(partition, _)| (partition, InterruptionReason::Redis)));
        interrupted
    }

    /// The gateway is leaving and takes nothing new.
    pub fn draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }

    /// Everything works that most tenants need: the truth of `/readyz`.
    pub fn ready(&self) -> bool {
        self.redis() && self.sql() && self.sql_writes() && self.subscription() && !self.draining()
    }

    /// From now on not ready, for good.
    pub fn start_draining(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    /// Why a command or a socket cannot be served just now, if so.
    pub fn refusal(&self) -> Option<Refusal> {
        if let Some(problem) = self.redis_problem() {
            return Some(Refusal::of_redis(&problem));
        }
        (!self.sql()).then(Refusal::without_sql)
    }

    /// Looks at SQL until told to stop. The subscriber looks at Redis, beside it: one that hangs hides nothing.
    pub async fn watch(self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(POLL_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for look in 0_u64.. {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let read = self.0.store.ping(TIMEOUT).await;
            let readable = read.is_ok();
            record_finding("sql", &self.0.sql, read.map_err(|e| e.to_string()));
            // Where it cannot even be read, that has been said.
            let due = look.is_multiple_of(POLLS_PER_WRITE) || !self.sql_writes();
            if readable
                && due
                && let Some(written) = self.0.store.prove_inserts(TIMEOUT).await
            {
                record_finding("sql_writes", &self.0.sql_writes, written.map_err(|e| e.to_string()));
            }
        }
    }
}

fn word(problem: &BrokerError) -> &'static str {
    problem.code().unwrap_or("unreachable")
}

/// Remembers what was found, and says it where it is new.
fn record_finding(what: &'static str, flag: &AtomicBool, found: Result<(), String>) {
    let was = flag.swap(found.is_ok(), Ordering::Relaxed);
    match found {
        Ok(()) if !was => tracing::info!(what, "gateway.healthy_again"),
        Err(error) if was => tracing::warn!(what, %error, "gateway.unhealthy"),
        _ => {}
    }
}
