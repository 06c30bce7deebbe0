//! Whether Redis, SQL and the subscription work, looked at once a second, so that commands and `/readyz`
//! are answered at once instead of after a time-out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, Subscriber};
use crate::store::Store;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// Longest wait for an answer.
const WITHIN: Duration = Duration::from_secs(1);

/// What works just now; cheap to clone.
#[derive(Clone)]
pub struct Health(Arc<Inner>);

struct Inner {
    broker: Broker,
    store: Store,
    subscriber: Subscriber,
    redis: AtomicBool,
    sql: AtomicBool,
    draining: AtomicBool,
}

impl Health {
    /// Both are believed to work until seen otherwise: the start has just used them.
    pub fn new(broker: Broker, store: Store, subscriber: Subscriber) -> Self {
        let (redis, sql, draining) = (AtomicBool::new(true), AtomicBool::new(true), AtomicBool::new(false));
        Self(Arc::new(Inner { broker, store, subscriber, redis, sql, draining }))
    }

    /// Redis answers.
    pub fn redis(&self) -> bool {
        self.0.broker.is_up() && self.0.redis.load(Ordering::Relaxed)
    }

    /// SQL answers.
    pub fn sql(&self) -> bool {
        self.0.sql.load(Ordering::Relaxed)
    }

    /// What is published is heard.
    pub fn subscription(&self) -> bool {
        self.0.subscriber.delivers()
    }

    /// The gateway is leaving and takes nothing new.
    pub fn draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }

    /// Everything works: the truth of `/readyz`.
    pub fn ready(&self) -> bool {
        self.redis() && self.sql() && self.subscription() && !self.draining()
    }

    /// From now on not ready, for good.
    pub fn start_draining(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    /// Looks until told to stop. Redis and SQL are looked at beside each other: one that hangs hides nothing.
    pub async fn watch(self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let (redis, sql) = tokio::join!(self.0.broker.ping(WITHIN), self.0.store.ping(WITHIN));
            note("redis", &self.0.redis, redis.map_err(|e| e.to_string()));
            note("sql", &self.0.sql, sql.map_err(|e| e.to_string()));
        }
    }
}

/// Remembers what was found, and says it where it is new.
fn note(what: &'static str, flag: &AtomicBool, found: Result<(), String>) {
    let was = flag.swap(found.is_ok(), Ordering::Relaxed);
    match found {
        Ok(()) if !was => tracing::info!(what, "gateway.healthy_again"),
        Err(error) if was => tracing::warn!(what, %error, "gateway.unhealthy"),
        _ => {}
    }
}
