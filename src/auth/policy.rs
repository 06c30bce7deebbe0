//! Whether a caller holds a permission: by the token's claim, or by SQL through the versioned cache in Redis.

use super::Caller;
use crate::broker::Broker;
use crate::broker::scripts::submit::Grant;
use crate::config::PermissionSource;
use crate::domain::{Permission, TenantId, UserId};
use crate::store::Store;

/// Redis or SQL could not say in time; nothing is granted then.
#[derive(Debug, thiserror::Error)]
#[error("permissions cannot be checked: {0}")]
pub struct PolicyError(pub String);

/// Answers for callers; cheap to clone.
#[derive(Clone)]
pub struct Policy {
    source: PermissionSource,
    broker: Broker,
    store: Store,
}

impl Policy {
    /// By the settings.
    pub fn new(source: PermissionSource, broker: Broker, store: Store) -> Self {
        Self { source, broker, store }
    }

    /// Whether the caller holds the permission.
    pub async fn check(&self, _caller: &Caller, _permission: &Permission) -> Result<bool, PolicyError> {
        let _ = (&self.broker, &self.store);
        unimplemented!()
    }

    /// How a submission says that this caller is permitted.
    pub fn grant(&self, caller: &Caller, permission: &Permission) -> Grant {
        match self.source {
            PermissionSource::Database => Grant::Database,
            PermissionSource::Token => {
                let held = caller.permissions.iter().flatten().map(String::as_str);
                Grant::Token(permission.is_granted(held))
            }
        }
    }

    /// Reads the user's permissions from SQL into the cache (after `PermissionsUnknown`); one read at a
    /// time for each user.
    pub async fn ensure_cached(&self, _tenant: &TenantId, _user: &UserId) -> Result<(), PolicyError> {
        unimplemented!()
    }
}
