//! Whether any worker is alive: in the metrics, and in the log when the last one is gone and when one is back.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::telemetry::metrics;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(2);
/// So many looks in a row find nobody before it is said: a worker that is started again is away for a moment, and a step
/// of Redis's clock makes every worker count as dead until its next heartbeat.
const SAID_AFTER: u32 = 2;

/// Looks until told to stop. While Redis is away the gauge stays at what was seen last.
pub(super) async fn watch(broker: Broker, stop: CancellationToken) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut without = 0_u32;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        match broker.workers_alive().await {
            Ok(0) => {
                metrics::workers_alive(0);
                without = without.saturating_add(1);
                if without == SAID_AFTER {
                    tracing::warn!(
                        "gateway.no_worker: no worker is alive; commands are accepted and wait until one is"
                    );
                }
            }
            Ok(alive) => {
                metrics::workers_alive(alive);
                if without >= SAID_AFTER {
                    tracing::info!(alive, "gateway.workers_back");
                }
                without = 0;
            }
            Err(error) => tracing::debug!(%error, "gateway.workers_unknown"),
        }
    }
}
