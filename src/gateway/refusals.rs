//! Has the audit entries written that tell of many refusals of one user (`lua/lib/refusals.lua` counts them).

use std::time::Duration;

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;

/// Between two looks: jitter, so that gateways do not look in step.
const POLL_INTERVAL_MS: std::ops::Range<u64> = 2_000..4_000;

/// Looks until told to stop. Where no gateway is left, the next one that comes writes them.
pub(super) async fn run(broker: Broker, stop: CancellationToken) {
    let looking = async {
        loop {
            tokio::time::sleep(Duration::from_millis(fastrand::u64(POLL_INTERVAL_MS))).await;
            let writing = broker.keys().partitions().map(|partition| broker.write_refusals(partition));
            for written in join_all(writing).await {
                // One server of a cluster that is away delays what it has, and nothing else.
                if let Err(error) = written {
                    tracing::debug!(%error, "gateway.refusals_delayed");
                }
            }
        }
    };
    stop.run_until_cancelled(looking).await;
}
