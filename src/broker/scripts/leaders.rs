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

/// What a leader looks at beside tenants of whom something waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeartbeatLook {
    /// Nothing.
    None,
    /// Heartbeats that have ended.
    Ended,
    /// These, and what lies too far ahead because Redis's clock was set back, which is put right; once in a while is enough.
    AndMend,
}

impl Broker {
    /// Leads partitions of one server for `lease` more. `None`: another worker does.
    pub async fn lead_partitions(
        &self,
        partitions: &[(Partition, HeartbeatLook)],
        worker: &WorkerId,
        lease: Duration,
        max_tenants: usize,
    ) -> Result<Vec<Option<LeaderDuties>>, BrokerError> {
        let names = self.keys();
        let keys = partitions.iter().flat_map(|(partition, _)| {
            [names.leader(*partition), names.heartbeats(*partition), names.tenants_with_ready(*partition)]
        });
        let keys: Vec<String> = keys.collect();
        let mends = partitions.iter().any(|(_, look)| *look == HeartbeatLook::AndMend);
        let mut args = vec![
            worker.to_string(),
            lease.as_millis().to_string(),
            if mends { HEARTBEAT_TTL.as_millis() } else { 0 }.to_string(),
            max_tenants.to_string(),
        ];
        args.extend(partitions.iter().map(|(_, look)| if *look == HeartbeatLook::None { "0" } else { "1" }.to_owned()));
        let duties: Vec<(String, Vec<String>, Vec<String>)> =
            self.client.script(&lua::LEAD_PARTITION, &texts(&keys), &bytes(&args)).await?;
        let read = |(leads, dead, tenants): (String, Vec<String>, Vec<String>)| {
            let tenants = tenants.iter().filter_map(|tenant| tenant.parse().ok()).collect();
            (leads == "1").then_some(LeaderDuties { dead, tenants })
        };
        Ok(duties.into_iter().map(read).collect())
    }

    /// As [`Self::lead_partitions`], one.
    pub async fn lead_partition(
        &self,
        partition: Partition,
        worker: &WorkerId,
        lease: Duration,
        max_tenants: usize,
        look: HeartbeatLook,
    ) -> Result<Option<LeaderDuties>, BrokerError> {
        Ok(self.lead_partitions(&[(partition, look)], worker, lease, max_tenants).await?.pop().flatten())
    }

    /// Whether each of these partitions, all of one server, is led by somebody just now.
    pub async fn are_led(&self, partitions: &[Partition]) -> Result<bool, BrokerError> {
        let leaders: Vec<String> = partitions.iter().map(|partition| self.keys().leader(*partition)).collect();
        let led: usize = self.client.query(redis::cmd("EXISTS").arg(leaders)).await?;
        Ok(led == partitions.len())
    }

    /// Gives a partition up, so that another worker may lead it at once. Nothing where another one does.
    pub async fn stop_leading(&self, partition: Partition, worker: &WorkerId) -> Result<(), BrokerError> {
        self.lead_partition(partition, worker, Duration::ZERO, 1, HeartbeatLook::None).await.map(drop)
    }
}
