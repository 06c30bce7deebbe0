//! `lua/fill_permissions.lua`, `invalidate_permissions.lua`, `check_permission.lua`: the versioned cache.

use std::time::Duration;

use super::{bytes, lua, texts};
use crate::broker::keys::PERMISSIONS_CHANNEL;
use crate::broker::{Broker, BrokerError};
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

    /// In every partition: nothing older than `version` is believed any more; tells every gateway.
    pub async fn invalidate_permissions(&self, user: &UserId, version: i64) -> Result<(), BrokerError> {
        let version = version.to_string();
        let names = self.keys();
        let of = |p| {
            std::iter::once(names.min_permission_version(p, user)).chain(names.former_min_permission_version(p, user))
        };
        let keys: Vec<String> = names.partitions().flat_map(of).collect();
        let raised = keys.iter().map(|key| {
            let version = version.as_bytes();
            async move { self.client.script::<String>(&lua::INVALIDATE_PERMISSIONS, &[key], &[version]).await.map(drop) }
        });
        // All of them, even where one fails.
        futures_util::future::join_all(raised).await.into_iter().collect::<Result<(), _>>()?;
        self.client.query(redis::cmd("PUBLISH").arg(PERMISSIONS_CHANNEL).arg(user.as_str())).await
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
