//! Limits on open sockets: leases in Redis, renewed while a socket is open, given back when it ends, and
//! ending by themselves when a gateway crashes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::auth::Caller;
use crate::broker::scripts::connections::{ConnectionLease, OpenOutcome};
use crate::broker::{Broker, BrokerError};
use crate::config::Limits;

/// How long a lease lasts without renewal: after a crash the limit heals within this time.
const LEASE_TTL: Duration = Duration::from_secs(60);
/// Between two renewals.
const RENEW_INTERVAL: Duration = Duration::from_secs(20);
/// Leases are given back together, this long after the first.
const RELEASE_DELAY: Duration = Duration::from_millis(20);

/// The leases of one gateway; cheap to clone.
#[derive(Clone)]
pub struct ConnectionLeases(Arc<LeasesShared>);

struct LeasesShared {
    broker: Broker,
    gateway: String,
    state: Mutex<LeaseState>,
    released: Notify,
}

#[derive(Default)]
struct LeaseState {
    next: u64,
    open: HashMap<u64, ConnectionLease>,
    /// As many as sockets have ended since the last hand-back: bounded by the sockets there were.
    released_leases: Vec<ConnectionLease>,
}

/// One socket's lease; given back when dropped, also by a panic.
pub struct ConnectionLeaseGuard {
    leases: ConnectionLeases,
    number: u64,
}

impl ConnectionLeases {
    /// For a gateway with this id.
    pub fn new(broker: Broker, gateway: String) -> Self {
        Self(Arc::new(LeasesShared { broker, gateway, state: Mutex::default(), released: Notify::new() }))
    }

    /// Takes a lease for a caller, or says which limit is full.
    pub async fn open(
        &self,
        caller: &Caller,
        limits: &Limits,
    ) -> Result<Result<ConnectionLeaseGuard, OpenOutcome>, BrokerError> {
        let (lease, guard) = {
            let mut state = self.lock();
            state.next += 1;
            let id = format!("{}:{}", self.0.gateway, state.next);
            let lease = ConnectionLease { tenant: caller.tenant.clone(), user: caller.user.clone(), id };
            let number = state.next;
            // Before Redis is asked: whatever becomes of the answer, the guard gives it back.
            state.open.insert(number, lease.clone());
            (lease, ConnectionLeaseGuard { leases: self.clone(), number })
        };
        let (tenant, user) = (limits.connections_per_tenant, limits.connections_per_user);
        Ok(match self.0.broker.open_connection(&lease, tenant, user, LEASE_TTL).await? {
            OpenOutcome::Open => Ok(guard),
            full => Err(full),
        })
    }

    /// Renews and gives back until told to stop; then gives back what is left.
    pub async fn run(self, stop: CancellationToken) {
        let mut renew = tokio::time::interval(RENEW_INTERVAL);
        renew.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = renew.tick() => {
                    let open: Vec<ConnectionLease> = self.lock().open.values().cloned().collect();
                    if let Err(error) = self.0.broker.renew_connections(&open, LEASE_TTL).await {
                        tracing::debug!(%error, "gateway.leases_not_renewed");
                    }
                }
                () = self.0.released.notified() => {
                    tokio::time::sleep(RELEASE_DELAY).await;
                    self.release_pending().await;
                }
            }
        }
        self.release_pending().await;
    }

    async fn release_pending(&self) {
        let gone = std::mem::take(&mut self.lock().released_leases);
        if gone.is_empty() {
            return;
        }
        if let Err(error) = self.0.broker.close_connections(&gone).await {
            // They end by themselves.
            tracing::debug!(%error, "gateway.leases_not_given_back");
        }
    }

    fn lock(&self) -> MutexGuard<'_, LeaseState> {
        self.0.state.lock()
    }
}

impl Drop for ConnectionLeaseGuard {
    fn drop(&mut self) {
        let mut state = self.leases.lock();
        if let Some(lease) = state.open.remove(&self.number) {
            state.released_leases.push(lease);
        }
        drop(state);
        self.leases.0.released.notify_one();
    }
}
