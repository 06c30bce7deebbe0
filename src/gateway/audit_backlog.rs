//! Shows in the metrics how many audit entries wait in Redis for a worker to bring them to SQL.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::telemetry::metrics;

/// Between two looks.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// Looks until told to stop. While Redis is away the gauge stays at what was seen last; of a cluster it counts what the
/// servers that are there have.
pub(super) async fn watch(broker: Broker, stop: CancellationToken) {
    let mut tick = tokio::time::interval(POLL_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        match broker.audit_backlog().await {
            Ok(partitions) => metrics::audit_backlog(partitions.into_iter().map(|(_, entries)| entries).sum()),
            Err(error) => tracing::debug!(%error, "gateway.audit_backlog_unknown"),
        }
    }
}
