//! Tells watchers when what they see may be old, because news do not come, and when everything comes again: a socket stays open while
//! Redis is away, and nothing else says so. docs/decisions/0025 has the reasons.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_util::sync::CancellationToken;

use super::clock::Clock;
use super::health::{Health, InterruptionReason};
use super::hub::Hub;
use crate::broker::{Keys, Partition};
use crate::domain::TenantId;
use crate::protocol::tenant::feed_interrupted;

/// Between two looks.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// So long it has to be so before it is said: a connection that is back at once is mended by reading again.
const HOLD: Duration = Duration::from_millis(500);
/// Longest time for which something that keeps news away may go unnoticed, in ms.
const UNNOTICED_MS: i64 = 3_000;

/// A partition of whose tenants news may not come.
struct Interruption {
    reason: InterruptionReason,
    /// When it was seen first.
    seen: Instant,
    /// From when on something may have been missed, Unix ms.
    since: i64,
}

impl Interruption {
    fn is_told(&self) -> bool {
        self.seen.elapsed() >= HOLD
    }
}

/// Looks until told to stop.
pub(super) async fn watch(health: Health, hub: Hub, keys: Keys, clock: Arc<Clock>, stop: CancellationToken) {
    let looking = async {
        let mut tick = tokio::time::interval(POLL_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut interrupted = BTreeMap::new();
        // Whether somebody may have been told and not yet that it is over.
        let mut is_anybody_told = false;
        loop {
            tick.tick().await;
            observe(&mut interrupted, health.interrupted_partitions(), clock.now_ms());
            if interrupted.values().any(Interruption::is_told) {
                // Again with each look, for those who have come since.
                hub.interrupt(|tenant| message(&interrupted, keys, tenant));
                is_anybody_told = true;
            }
            if is_anybody_told {
                is_anybody_told =
                    hub.resume(|partition| !interrupted.contains_key(&partition)) || !interrupted.is_empty();
            }
        }
    };
    stop.run_until_cancelled(looking).await;
}

/// Remembers what was found, and says in the log what is new.
fn observe(
    interrupted: &mut BTreeMap<Partition, Interruption>,
    found: BTreeMap<Partition, InterruptionReason>,
    now_ms: i64,
) {
    let before = interrupted.len();
    interrupted.retain(|partition, _| found.contains_key(partition));
    for (partition, reason) in found {
        let is_new = || Interruption { reason, seen: Instant::now(), since: now_ms - UNNOTICED_MS };
        interrupted.entry(partition).or_insert_with(is_new).reason = reason;
    }
    match interrupted.values().next() {
        _ if before == interrupted.len() => {}
        Some(one) => {
            let (partitions, reason) = (interrupted.len(), one.reason.as_str());
            tracing::info!(partitions, reason, "gateway.feeds_interrupted");
        }
        None => tracing::info!("gateway.feeds_resumed"),
    }
}

/// What the watchers of a tenant are told, if its feed is interrupted.
fn message(interrupted: &BTreeMap<Partition, Interruption>, keys: Keys, tenant: &TenantId) -> Option<Utf8Bytes> {
    let interruption = interrupted.get(&keys.partition(tenant)).filter(|interruption| interruption.is_told())?;
    Some(feed_interrupted(tenant, interruption.reason.as_str(), interruption.since).into())
}
