//! Ends commands that no worker took up within `command.ttl`: also when there is no worker at all that could say so.

use std::time::Duration;

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::Gateway;
use crate::broker::BrokerError;

/// Between two looks: jitter, so that gateways do not look in step.
const LOOK_MS: std::ops::Range<u64> = 700..1_300;
/// Tenants of one partition asked about at one look; other ones each time.
const TENANTS: usize = 256;
/// Resources of one tenant at one look.
const RESOURCES: usize = 128;

/// Looks until told to stop.
pub async fn run(gateway: Gateway, stop: CancellationToken) {
    let looking = async {
        loop {
            tokio::time::sleep(Duration::from_millis(fastrand::u64(LOOK_MS))).await;
            if let Err(error) = look(&gateway).await {
                tracing::debug!(%error, "gateway.expiry_delayed");
            }
        }
    };
    stop.run_until_cancelled(looking).await;
}

async fn look(gateway: &Gateway) -> Result<(), BrokerError> {
    let (broker, ttl) = (gateway.broker(), gateway.settings().command.ttl);
    let partitions = broker.keys().partitions();
    for tenants in join_all(partitions.map(|partition| broker.waiting_tenants(partition, TENANTS))).await {
        for tenant in tenants? {
            for resource in broker.due(&tenant, RESOURCES, ttl).await? {
                for command_id in broker.expire(&resource, ttl).await? {
                    tracing::warn!(%command_id, %resource, tenant_id = %tenant, "gateway.command_expired");
                }
            }
        }
    }
    Ok(())
}
