//! `/readyz` and `/metrics`.

use std::collections::BTreeMap;

use hyper::StatusCode;
use serde::Serialize;

use super::answer::Answer;
use crate::gateway::health::Health;
use crate::telemetry::exporter::Metrics;
use crate::telemetry::metrics;

/// A gateway that serves most tenants is ready: taken out of a balancer's list it would serve none, and all others are cut
/// off from the same server (`docs/decisions/0010`).
#[derive(Serialize)]
struct Ready {
    redis: bool,
    sql: bool,
    subscription: bool,
    draining: bool,
    /// Why Redis or the subscription does not serve, by Redis's own word: `OOM`, `NOPERM`; the log has all it said.
    #[serde(skip_serializing_if = "Option::is_none")]
    redis_reason: Option<&'static str>,
    /// On a Redis Cluster: the partitions whose tenants are not served, as they stand in the names of keys, each with the
    /// reason. With less than half of them the gateway is ready all the same.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    partitions_not_served: BTreeMap<String, &'static str>,
    /// `not_writable`: SQL answers, and takes nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    sql_reason: Option<&'static str>,
}

/// Whether this gateway can do its work now, by what its watch saw within the last second: asking Redis and
/// SQL here would let anyone make work for them.
pub(super) fn ready(health: &Health) -> Answer {
    let not_served = health.partitions_not_served();
    metrics::partitions_not_served(not_served.len());
    let ready = Ready {
        redis: health.redis(),
        sql: health.sql() && health.sql_writes(),
        subscription: health.subscription(),
        draining: health.draining(),
        redis_reason: health.redis_reason(),
        partitions_not_served: not_served.into_iter().map(|(partition, why)| (partition.to_string(), why)).collect(),
        sql_reason: (health.sql() && !health.sql_writes()).then_some("not_writable"),
    };
    metrics::readiness(ready.redis, ready.sql, ready.subscription);
    let good = ready.redis && ready.sql && ready.subscription && !ready.draining;
    Answer::json(if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &ready)
}

/// All metrics of this process, readiness as it is now.
pub(super) fn metrics(health: &Health, metrics: &Metrics) -> Answer {
    ready(health);
    Answer::text("text/plain; version=0.0.4; charset=utf-8", metrics.render())
}
