//! `lua/fill_permissions.lua`, `invalidate_permissions.lua`, `check_permission.lua`: the versioned cache.

use std::time::Duration;

use super::heartbeats::those_answered;
use super::{bytes, lua, texts};
use crate::broker::keys::PERMISSIONS_CHANNEL;
use crate::broker::{Broker, BrokerError, Partition};
pub use crate::domain::PermissionSet;
use crate::domain::{Permission, TenantId, UserId};

/// Whether a fill was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FillOutcome {
    /// It was.
    Stored,
    /// A newer version is known: read SQL again.
    Stale,
}

impl Broker {
    /// Compare-and-set by version against the cached entry and the minimum version.
    pub async fn fill_permissions(
        &self,
        tenant: &TenantId,
        user: &UserId,
        set: &PermissionSet,
        ttl: Duration,
    ) -> Result<FillOutcome, BrokerError> {
        let mut args = vec![set.version.to_string(), ttl.as_millis().to_string()];
        args.extend(set.held.iter().cloned());
        let keys = self.cache_keys(tenant, user);
        let stored: bool = self.client.script(&lua::FILL_PERMISSIONS, &texts(&keys), &bytes(&args)).await?;
        Ok(if stored { FillOutcome::Stored } else { FillOutcome::Stale })
    }

    /// In every partition: nothing older than `version` is believed any more; tells every gateway. Gives the partitions that
    /// could not be told, because their server is away: what is cached there is believed until it expires. An error where
    /// none could be told.
    pub async fn invalidate_permissions(&self, user: &UserId, version: i64) -> Result<Vec<Partition>, BrokerError> {
        let version = version.to_string();
        let names = self.keys();
        let raised = names.partitions().map(async |partition| {
            let keys = std::iter::once(names.min_permission_version(partition, user));
            for key in keys.chain(names.former_min_permission_version(partition, user)) {
                let version = version.as_bytes();
                self.client.script::<String>(&lua::INVALIDATE_PERMISSIONS, &[&key], &[version]).await?;
            }
            Ok(partition)
        });
        // All of them, even where one fails.
        let told = those_answered(futures_util::future::join_all(raised).await, "redis.permissions_not_invalidated")?;
        let _: i64 = self.client.query(redis::cmd("PUBLISH").arg(PERMISSIONS_CHANNEL).arg(user.as_str())).await?;
        Ok(names.partitions().filter(|partition| !told.contains(partition)).collect())
    }

    /// What the cache says of one permission; `None`: nothing, read SQL and fill.
    pub async fn check_permission(
        &self,
        tenant: &TenantId,
        user: &UserId,
        permission: &Permission,
    ) -> Result<Option<bool>, BrokerError> {
        let keys = self.cache_keys(tenant, user);
        let answer: i64 =
            self.client.script(&lua::CHECK_PERMISSION, &texts(&keys), &bytes(&permission.granted_by())).await?;
        Ok(match answer {
            1 => Some(true),
            0 => Some(false),
            _ => None,
        })
    }

    fn cache_keys(&self, tenant: &TenantId, user: &UserId) -> [String; 2] {
        let names = self.keys();
        [names.permissions(tenant, user), names.min_permission_version(names.partition(tenant), user)]
    }
}
