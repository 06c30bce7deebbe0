//! Ends commands that no worker took up within `command.ttl`: also when there is no worker at all that could say so.

use std::time::Duration;

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, BrokerError, Partition};
use crate::domain::TenantId;

/// Between two looks: jitter, so that gateways do not look in step.
const POLL_INTERVAL_MS: std::ops::Range<u64> = 700..1_300;
/// Tenants of one partition asked about at one look; other ones each time.
const TENANTS_PER_POLL: usize = 256;
/// Resources of one tenant at one look.
const RESOURCES_PER_POLL: usize = 128;

/// Looks until told to stop. `ttl`: how long a command may wait for a worker.
pub async fn run(broker: Broker, ttl: Duration, stop: CancellationToken) {
    // Each partition by itself: a server of a cluster that is away delays what it has, and nothing else.
    let looking = broker.keys().partitions().map(async |partition| {
        loop {
            tokio::time::sleep(Duration::from_millis(fastrand::u64(POLL_INTERVAL_MS))).await;
            if let Err(error) = poll(&broker, partition, ttl).await {
                tracing::debug!(%error, %partition, "gateway.expiry_delayed");
            }
        }
    });
    stop.run_until_cancelled(join_all(looking)).await;
}

async fn poll(broker: &Broker, partition: Partition, ttl: Duration) -> Result<(), BrokerError> {
    // The clock first: had it just been set forwards, everything would seem to have waited long enough.
    broker.read_clock(partition).await?;
    for tenant in broker.tenants_with_ready(partition, TENANTS_PER_POLL).await? {
        expire_tenant(broker, ttl, &tenant).await?;
    }
    Ok(())
}

async fn expire_tenant(broker: &Broker, ttl: Duration, tenant: &TenantId) -> Result<(), BrokerError> {
    let partition = broker.keys().partition(tenant);
    let ttl = broker.ttl_adjusted_for_clock_steps(partition, ttl);
    for resource in broker.ready_resources(tenant, RESOURCES_PER_POLL, ttl).await? {
        match broker.expire(&resource, ttl).await {
            Ok(ended) => {
                for command_id in ended {
                    tracing::warn!(%command_id, %resource, tenant_id = %tenant, "gateway.command_expired");
                }
            }
            // Keys that somebody has changed by hand: the others must not wait for the person who mends them.
            Err(error @ BrokerError::Refused(_)) => tracing::warn!(%resource, %error, "gateway.expiry_failed"),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
