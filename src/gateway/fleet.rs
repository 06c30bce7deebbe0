//! Whether any worker is alive: in the metrics, in the log, and on the open sockets of the tenants that it concerns, when
//! the last one is gone and when one is back.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_util::sync::CancellationToken;

use super::access::Access;
use super::outbox::Outbox;
use crate::broker::Broker;
use crate::domain::TenantId;
use crate::protocol::tenant::workers_online;
use crate::telemetry::metrics;

/// Between two looks.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// So many looks in a row find nobody before it is said: a worker that is started again is away for a moment, and a step
/// of Redis's clock makes every worker count as dead until its next heartbeat.
const POLLS_UNTIL_SAID: u32 = 2;
/// Tenants with open sockets asked about at one look. Where there are more, each look takes others of them by chance.
const TENANTS_PER_POLL: usize = 512;
/// Questions at once.
const MAX_CONCURRENT: usize = 16;
/// Longest time for the tenants of one look: a Redis that answers slowly must not keep the gauge from moving.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Between two looks whether all workers have died.
const SWEEP_INTERVAL: Duration = Duration::from_millis(500);

/// Takes dead workers out of those that are counted, where no worker is left to do it, until told to stop.
pub(super) async fn sweep(broker: Broker, stop: CancellationToken) {
    let sweeping = async {
        loop {
            tokio::time::sleep(SWEEP_INTERVAL).await;
            if let Err(error) = broker.remove_dead_workers_without_leader().await {
                tracing::debug!(%error, "gateway.workers_unknown");
            }
        }
    };
    stop.run_until_cancelled(sweeping).await;
}

/// Looks until told to stop. While Redis is away the gauge stays at what was seen last, and nobody is told anything.
pub(super) async fn watch(broker: Broker, access: Access, stop: CancellationToken) {
    let looking = async {
        let mut tick = tokio::time::interval(POLL_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut without = 0_u32;
        let mut tenants_without = HashMap::new();
        loop {
            tick.tick().await;
            count_all(&broker, &mut without).await;
            // What was not asked in time is asked the next time.
            let _ = tokio::time::timeout(TIMEOUT, notify_tenants(&broker, &access, &mut tenants_without)).await;
        }
    };
    stop.run_until_cancelled(looking).await;
}

/// All workers, for the operator. `without`: how many looks in a row have found nobody.
async fn count_all(broker: &Broker, without: &mut u32) {
    match broker.workers_alive().await {
        Ok(0) => {
            metrics::workers_alive(0);
            *without = without.saturating_add(1);
            if *without == POLLS_UNTIL_SAID {
                tracing::warn!("gateway.no_worker: no worker is alive; commands are accepted and wait until one is");
            }
        }
        Ok(alive) => {
            metrics::workers_alive(alive);
            if *without >= POLLS_UNTIL_SAID {
                tracing::info!(alive, "gateway.workers_back");
            }
            *without = 0;
        }
        Err(error) => tracing::debug!(%error, "gateway.workers_unknown"),
    }
}

/// The workers of each tenant that has sockets open, for whoever watches: a worker may serve named tenants only.
/// `without`: how many looks in a row have found nobody, of tenants without a worker.
async fn notify_tenants(broker: &Broker, access: &Access, without: &mut HashMap<TenantId, u32>) {
    // The sockets first and then the count, so that no socket is told of a count that is older than the one in its
    // first messages.
    let sockets = access.outboxes_by_tenant();
    without.retain(|tenant, _| sockets.contains_key(tenant));
    let mut sockets: Vec<(TenantId, Vec<Arc<Outbox>>)> = sockets.into_iter().collect();
    if sockets.len() > TENANTS_PER_POLL {
        fastrand::shuffle(&mut sockets);
        sockets.truncate(TENANTS_PER_POLL);
    }
    let mut asked = futures_util::stream::iter(sockets)
        .map(|(tenant, outboxes)| async move {
            let alive = broker.live_workers(&tenant).await;
            (tenant, outboxes, alive)
        })
        .buffer_unordered(MAX_CONCURRENT);
    while let Some((tenant, outboxes, alive)) = asked.next().await {
        let alive = match alive {
            Ok(alive) => alive.len(),
            Err(error) => {
                tracing::debug!(%error, tenant_id = %tenant, "gateway.workers_unknown");
                continue;
            }
        };
        if alive == 0 {
            let looks = without.entry(tenant.clone()).or_insert(0);
            *looks = looks.saturating_add(1);
            if *looks < POLLS_UNTIL_SAID {
                continue;
            }
        } else {
            without.remove(&tenant);
        }
        let text: Utf8Bytes = workers_online(&tenant, alive).into();
        for outbox in outboxes {
            outbox.tell_workers(alive, &text);
        }
    }
}
