//! `lua/fill_permissions.lua`, `invalidate_permissions.lua`, `check_permission.lua`: the versioned cache.

use std::time::Duration;

use crate::broker::{Broker, BrokerError};
use crate::domain::{Permission, TenantId, UserId};

/// What SQL says of a user, at a version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PermissionSet {
    /// Grows with every change of any user's permissions; read in the same snapshot as `held`.
    pub version: i64,
    /// Permissions and patterns.
    pub held: Vec<String>,
}

/// Whether a fill was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filled {
    /// It was.
    Stored,
    /// A newer version is known: read SQL again.
    Stale,
}

impl Broker {
    /// Compare-and-set by version against the cached entry and the floor.
    pub async fn fill_permissions(
        &self,
        _tenant: &TenantId,
        _user: &UserId,
        _set: &PermissionSet,
        _ttl: Duration,
    ) -> Result<Filled, BrokerError> {
        unimplemented!()
    }

    /// In every partition: nothing older than `version` is believed any more; tells every gateway.
    pub async fn invalidate_permissions(&self, _user: &UserId, _version: i64) -> Result<(), BrokerError> {
        unimplemented!()
    }

    /// What the cache says of one permission; `None`: nothing, read SQL and fill.
    pub async fn check_permission(
        &self,
        _tenant: &TenantId,
        _user: &UserId,
        _permission: &Permission,
    ) -> Result<Option<bool>, BrokerError> {
        unimplemented!()
    }
}
