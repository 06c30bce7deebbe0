//! Who hears the control channels for many others, and how these are woken. `lua/lib/seats.lua` gives the seats.

use std::collections::BTreeSet;

use futures_util::future::join_all;

use super::heartbeats::those_answered;
use crate::broker::keys::{shard_channel, worker_channel};
use crate::broker::{Broker, BrokerError};
use crate::config::PublishedChannels;
use crate::domain::{Resource, TenantId, WorkerId};

impl Broker {
    /// The workers that hear the control channels of all tenants for the others, as far as servers answer; with a tenant, those that
    /// hear the channels of that one. Nobody where there are few workers, and all of them hear.
    pub async fn listeners(&self, tenant: Option<&TenantId>) -> Result<BTreeSet<WorkerId>, BrokerError> {
        let asked = self.listener_keys(tenant.map(std::slice::from_ref)).into_iter().map(async |key| {
            let mut read = redis::cmd("ZRANGEBYSCORE");
            read.arg(&key).arg(self.client.now_us(&key) / 1_000).arg("+inf");
            self.client.query::<Vec<String>>(&read).await
        });
        let answers = those_answered(join_all(asked).await, "redis.listeners_unknown")?;
        Ok(answers.into_iter().flatten().filter_map(|id| id.parse().ok()).collect())
    }

    /// Tells workers of a resource each that has a command for them, all together.
    pub async fn wake_workers(&self, wakes: &[(WorkerId, Resource)]) -> Result<(), BrokerError> {
        let mut pipeline = redis::pipe();
        for (worker, resource) in wakes {
            let (channel, published) = (worker_channel(worker), self.client.published());
            if published != PublishedChannels::Sharded {
                pipeline.publish(&channel, resource.to_string()).ignore();
            }
            if published != PublishedChannels::Plain {
                let channel = shard_channel(self.keys().partition(&resource.tenant), &channel);
                pipeline.cmd("SPUBLISH").arg(channel).arg(resource.to_string()).ignore();
            }
        }
        self.client.pipeline(&pipeline).await
    }

    /// The sets of those that listen: of the first homes, or of these tenants.
    pub(super) fn listener_keys(&self, tenants: Option<&[TenantId]>) -> Vec<String> {
        let names = self.keys();
        match tenants {
            None => names.first_homes().map(|home| names.listeners(home)).collect(),
            Some(tenants) => tenants.iter().map(|tenant| names.tenant_listeners(tenant)).collect(),
        }
    }
}
