//! `lua/heartbeat.lua`: which workers are alive.

use std::time::Duration;

use crate::broker::{Broker, BrokerError};
use crate::domain::{TenantId, WorkerId};

impl Broker {
    /// This worker counts as alive for `ttl` more, in every partition (or for those tenants).
    pub async fn heartbeat(
        &self,
        _worker: &WorkerId,
        _tenants: Option<&[TenantId]>,
        _ttl: Duration,
    ) -> Result<(), BrokerError> {
        unimplemented!()
    }

    /// This worker is gone, at once.
    pub async fn leave(&self, _worker: &WorkerId, _tenants: Option<&[TenantId]>) -> Result<(), BrokerError> {
        unimplemented!()
    }

    /// The workers alive for a tenant, sorted.
    pub async fn live_workers(&self, _tenant: &TenantId) -> Result<Vec<WorkerId>, BrokerError> {
        unimplemented!()
    }

    /// Every live worker, sorted, each once (for `inspect workers`; asks every partition).
    pub async fn all_live_workers(&self) -> Result<Vec<WorkerId>, BrokerError> {
        unimplemented!()
    }
}
