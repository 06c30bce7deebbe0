//! `lua/open_connection.lua`: limits on open sockets, as leases that heal after a crash.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt;

use super::{bytes, lua, texts};
use crate::broker::{Broker, BrokerError};
use crate::domain::{TenantId, UserId};

/// Calls that are on their way together.
const MAX_CONCURRENT: usize = 64;

/// One open socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ConnectionLease {
    /// The tenant of the user who connects.
    pub tenant: TenantId,
    /// The user who connects: places are counted for each.
    pub user: UserId,
    /// Unique: gateway id and a number.
    pub id: String,
}

/// Whether a socket may open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenOutcome {
    /// It may; the lease is taken.
    Open,
    /// The tenant has as many as it may.
    TenantFull,
    /// The user has.
    UserFull,
}

impl Broker {
    /// Takes a lease, if both limits allow.
    pub async fn open_connection(
        &self,
        lease: &ConnectionLease,
        per_tenant: u32,
        per_user: u32,
        ttl: Duration,
    ) -> Result<OpenOutcome, BrokerError> {
        let keys = self.lease_keys(lease);
        let args = [lease.id.clone(), per_tenant.to_string(), per_user.to_string(), ttl.as_millis().to_string()];
        let answer: String = self.client.script(&lua::OPEN_CONNECTION, &texts(&keys), &bytes(&args)).await?;
        match answer.as_str() {
            "open" => Ok(OpenOutcome::Open),
            "tenant" => Ok(OpenOutcome::TenantFull),
            "user" => Ok(OpenOutcome::UserFull),
            _ => Err(BrokerError::Refused(format!("open_connection answered {answer:?}"))),
        }
    }

    /// Makes leases last another `ttl`; takes again those that Redis no longer has. All of them, even where one fails: the
    /// first error.
    pub async fn renew_connections(&self, leases: &[ConnectionLease], ttl: Duration) -> Result<(), BrokerError> {
        let mut calls = Vec::new();
        for (key, ids) in self.by_key(leases) {
            for some in ids.chunks(500) {
                let mut args = vec![ttl.as_millis().to_string()];
                args.extend(some.iter().map(|id| (*id).to_owned()));
                calls.push((key.clone(), args));
            }
        }
        let mut renewed = Ok(());
        let mut renewing =
            futures_util::stream::iter(calls).map(|call| self.renew_set(call)).buffer_unordered(MAX_CONCURRENT);
        while let Some(one) = renewing.next().await {
            renewed = renewed.and(one);
        }
        renewed
    }

    async fn renew_set(&self, (key, args): (String, Vec<String>)) -> Result<(), BrokerError> {
        self.client.script::<i64>(&lua::RENEW_CONNECTIONS, &[&key], &bytes(&args)).await.map(drop)
    }

    /// Gives leases back, in one go.
    pub async fn close_connections(&self, leases: &[ConnectionLease]) -> Result<(), BrokerError> {
        let mut pipeline = redis::pipe();
        for (key, ids) in self.by_key(leases) {
            pipeline.zrem(key, ids).ignore();
        }
        self.client.pipeline(&pipeline).await
    }

    fn lease_keys(&self, lease: &ConnectionLease) -> [String; 2] {
        let names = self.keys();
        [names.connections(&lease.tenant), names.user_connections(&lease.tenant, &lease.user)]
    }

    fn by_key<'a>(&self, leases: &'a [ConnectionLease]) -> HashMap<String, Vec<&'a str>> {
        let mut sets: HashMap<String, Vec<&str>> = HashMap::new();
        for lease in leases {
            for key in self.lease_keys(lease) {
                sets.entry(key).or_default().push(&lease.id);
            }
        }
        sets
    }
}
