//! `lua/lead_partition.lua`: one worker of all does for a partition what one is enough for.

use std::time::Duration;

use super::heartbeats::HEARTBEAT_TTL;
use super::{bytes, lua, texts};
use crate::broker::{Broker, BrokerError, Partition};
use crate::domain::{TenantId, WorkerId};

/// What the leader of a partition has to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaderDuties {
    /// Workers whose home this is and whose heartbeats have ended.
    pub dead: Vec<String>,
    /// Tenants of whom something may wait.
    pub tenants: Vec<TenantId>,
}

impl Broker {
    /// Leads a partition for `lease` more. `None`: another worker does. `mends_ends`: heartbeats that lie too far ahead, because
    /// Redis's clock was set back, are put right; once in a while is enough.
    pub async fn lead_partition(
        &self,
        partition: Partition,
        worker: &WorkerId,
        lease: Duration,
        max_tenants: usize,
        mends_ends: bool,
    ) -> Result<Option<LeaderDuties>, BrokerError> {
        let names = self.keys();
        let keys = [names.leader(partition), names.heartbeats(partition), names.tenants_with_ready(partition)];
        let args = [
            worker.to_string(),
            lease.as_millis().to_string(),
            if mends_ends { HEARTBEAT_TTL.as_millis() } else { 0 }.to_string(),
            max_tenants.to_string(),
        ];
        let (leads, dead, tenants): (String, Vec<String>, Vec<String>) =
            self.client.script(&lua::LEAD_PARTITION, &texts(&keys), &bytes(&args)).await?;
        let tenants = tenants.iter().filter_map(|tenant| tenant.parse().ok()).collect();
        Ok((leads == "1").then_some(LeaderDuties { dead, tenants }))
    }

    /// Gives a partition up, so that another worker may lead it at once. Nothing where another one does.
    pub async fn stop_leading(&self, partition: Partition, worker: &WorkerId) -> Result<(), BrokerError> {
        self.lead_partition(partition, worker, Duration::ZERO, 1, false).await.map(drop)
    }
}
