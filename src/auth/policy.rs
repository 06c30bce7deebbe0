//! Whether a caller holds a permission: by the token's claim, or by SQL through the versioned cache in
//! Redis, which all gateways share.
//!
//! The cache alone decides, also right after it was filled: it knows the floor below which no version may be
//! believed any more, and a read that was under way during a revocation does not.

use std::sync::Arc;
use std::time::Duration;

use super::Caller;
use super::flight::Flights;
use crate::broker::scripts::permissions::Filled;
use crate::broker::scripts::submit::Grant;
use crate::broker::{Broker, BrokerError};
use crate::config::PermissionSource;
use crate::domain::{Permission, TenantId, UserId};
use crate::store::Store;

/// How long a cached answer is believed without a look at SQL: what plain SQL changes takes effect after it.
const CACHE_TTL: Duration = Duration::from_secs(3);
/// Longest wait for SQL.
const SQL_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a fill is tried that comes too late, because permissions were changed meanwhile.
const FILL_ATTEMPTS: u32 = 5;
/// How often the cache is asked again that was just filled and holds nothing (it expired, or was invalidated).
const CHECK_ATTEMPTS: u32 = 3;

/// Redis or SQL could not say in time; nothing is granted then.
#[derive(Debug, Clone, thiserror::Error)]
#[error("permissions cannot be checked: {0}")]
pub struct PolicyError(pub String);

impl From<BrokerError> for PolicyError {
    fn from(error: BrokerError) -> Self {
        Self(error.to_string())
    }
}

/// Answers for callers; cheap to clone.
#[derive(Clone)]
pub struct Policy(Arc<Inner>);

struct Inner {
    source: PermissionSource,
    broker: Broker,
    store: Store,
    fills: Flights<(TenantId, UserId), Result<(), PolicyError>>,
}

impl Policy {
    /// By the settings.
    pub fn new(source: PermissionSource, broker: Broker, store: Store) -> Self {
        Self(Arc::new(Inner { source, broker, store, fills: Flights::new() }))
    }

    /// Whether the caller holds the permission.
    pub async fn check(&self, caller: &Caller, permission: &Permission) -> Result<bool, PolicyError> {
        if let Grant::Token(granted) = self.grant(caller, permission) {
            return Ok(granted);
        }
        for _ in 0..CHECK_ATTEMPTS {
            let cached = self.0.broker.check_permission(&caller.tenant, &caller.user, permission).await?;
            if let Some(granted) = cached {
                return Ok(granted);
            }
            self.ensure_cached(&caller.tenant, &caller.user).await?;
        }
        Err(PolicyError("the cache in Redis does not keep them".to_owned()))
    }

    /// How a submission says that this caller is permitted.
    pub fn grant(&self, caller: &Caller, permission: &Permission) -> Grant {
        match self.0.source {
            PermissionSource::Database => Grant::Database,
            PermissionSource::Token => {
                let held = caller.permissions.iter().flatten().map(String::as_str);
                Grant::Token(permission.is_granted(held))
            }
        }
    }

    /// Reads the user's permissions from SQL into the cache (after `PermissionsUnknown`); one read at a
    /// time for each user.
    pub async fn ensure_cached(&self, tenant: &TenantId, user: &UserId) -> Result<(), PolicyError> {
        let key = (tenant.clone(), user.clone());
        self.0.fills.run(&key, || self.fill(tenant, user)).await
    }

    async fn fill(&self, tenant: &TenantId, user: &UserId) -> Result<(), PolicyError> {
        for attempt in 0..FILL_ATTEMPTS {
            let reading = self.0.store.permissions_of(user);
            let set = tokio::time::timeout(SQL_TIMEOUT, reading)
                .await
                .map_err(|_| PolicyError("the database did not answer within a second".to_owned()))?
                .map_err(|error| PolicyError(error.to_string()))?;
            match self.0.broker.fill_permissions(tenant, user, &set, CACHE_TTL).await? {
                Filled::Stored => return Ok(()),
                // Somebody changed permissions while this was read: read again, after a moment that grows.
                Filled::Stale => {
                    let most = 20 << attempt;
                    tokio::time::sleep(Duration::from_millis(fastrand::u64(1..=most))).await;
                }
            }
        }
        Err(PolicyError("they change faster than they can be read".to_owned()))
    }
}
