//! `/readyz` and `/metrics`.

use hyper::StatusCode;
use serde::Serialize;

use super::answer::Answer;
use crate::gateway::health::Health;
use crate::telemetry::exporter::Metrics;
use crate::telemetry::metrics;

#[derive(Serialize)]
struct Ready {
    redis: bool,
    sql: bool,
    subscription: bool,
    draining: bool,
    /// Why Redis or the subscription does not serve, by Redis's own word: `OOM`, `NOPERM`; the log has all it said.
    #[serde(skip_serializing_if = "Option::is_none")]
    redis_reason: Option<&'static str>,
    /// `not_writable`: SQL answers, and takes nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    sql_reason: Option<&'static str>,
}

/// Whether this gateway can do its work now, by what its watch saw within the last second: asking Redis and
/// SQL here would let anyone make work for them.
pub(super) fn ready(health: &Health) -> Answer {
    let ready = Ready {
        redis: health.redis(),
        sql: health.sql() && health.sql_writes(),
        subscription: health.subscription(),
        draining: health.draining(),
        redis_reason: health.redis_reason(),
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
