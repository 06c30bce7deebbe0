//! Whether a caller holds a permission: by the token's claim, or by SQL through the versioned cache in
//! Redis, which all gateways share.
//!
//! The cache alone decides, also right after it was filled: it knows the floor below which no version may be
//! believed any more, and a read that was under way during a revocation does not.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::Caller;
use super::single_flight::SingleFlight;
use crate::broker::scripts::permissions::{FillOutcome, PermissionSet};
use crate::broker::scripts::submit::Grant;
use crate::broker::{Broker, BrokerError};
use crate::config::PermissionSource;
use crate::domain::{Permission, TenantId, UserId};
use crate::store::Store;

/// How long a cached answer is believed without a look at SQL: what plain SQL changes takes effect after it.
const CACHE_TTL: Duration = Duration::from_secs(3);
/// Longest wait for SQL.
const SQL_TIMEOUT: Duration = Duration::from_secs(1);
/// After so long nothing is believed that was read before: the time for reading, the cache's, and one answer of Redis on its
/// way there.
pub const PERMISSIONS_BELIEVED: Duration = Duration::from_secs(5);
/// Reads of SQL at once: thousands of users may come at the same moment, after a restart of Redis for one.
const MAX_CONCURRENT_READS: usize = 4;
/// Longest wait for a turn among those.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(5);
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
pub struct Policy(Arc<PolicyInner>);

struct PolicyInner {
    source: PermissionSource,
    broker: Broker,
    store: Store,
    /// Room for reads of SQL: more of them would only wait inside the database's pool, where waiting too long is
    /// an error, and leave no connection to anyone else.
    sql_permits: Semaphore,
    fills: SingleFlight<(TenantId, UserId), Result<(), PolicyError>>,
    reads: SingleFlight<(TenantId, UserId), Result<PermissionSet, PolicyError>>,
}

impl Policy {
    /// By the settings.
    pub fn new(source: PermissionSource, broker: Broker, store: Store) -> Self {
        let sql_permits = Semaphore::new(MAX_CONCURRENT_READS);
        Self(Arc::new(PolicyInner {
            source,
            broker,
            store,
            sql_permits,
            fills: SingleFlight::new(),
            reads: SingleFlight::new(),
        }))
    }

    /// Whether the caller holds the permission.
    pub async fn check(&self, caller: &Caller, permission: &Permission) -> Result<bool, PolicyError> {
        if let Grant::Token(granted) = self.grant(caller, permission) {
            return Ok(granted);
        }
        for _ in 0..CHECK_ATTEMPTS {
            match self.0.broker.check_permission(&caller.tenant, &caller.user, permission).await {
                Ok(Some(granted)) => return Ok(granted),
                Ok(None) => self.ensure_cached(&caller.tenant, &caller.user).await?,
                // The cache spares SQL; it is not the truth. What needs no Redis goes on without it.
                Err(_) => {
                    let set = self.shared_read(caller).await?;
                    return Ok(permission.is_granted(set.held.iter().map(String::as_str)));
                }
            }
        }
        Err(PolicyError("the cache in Redis does not keep them".to_owned()))
    }

    /// Every permission and pattern the caller holds in their tenant, sorted: for showing, not for deciding.
    pub async fn permissions_of(&self, caller: &Caller) -> Result<Vec<String>, PolicyError> {
        let mut held = match self.0.source {
            PermissionSource::Token => caller.permissions.clone().unwrap_or_default(),
            PermissionSource::Database => self.shared_read(caller).await?.held,
        };
        held.sort();
        held.dedup();
        Ok(held)
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

    /// Reads the user's permissions in a tenant from SQL into the cache (after `PermissionsUnknown`); one read at a
    /// time for each user and tenant.
    pub async fn ensure_cached(&self, tenant: &TenantId, user: &UserId) -> Result<(), PolicyError> {
        let key = (tenant.clone(), user.clone());
        self.0.fills.run(&key, || self.fill(tenant, user)).await
    }

    async fn fill(&self, tenant: &TenantId, user: &UserId) -> Result<(), PolicyError> {
        for attempt in 0..FILL_ATTEMPTS {
            let set = self.read(tenant, user).await?;
            match self.0.broker.fill_permissions(tenant, user, &set, CACHE_TTL).await? {
                FillOutcome::Stored => return Ok(()),
                // Somebody changed permissions while this was read: read again, after a moment that grows.
                FillOutcome::Stale => {
                    let most = 20 << attempt;
                    tokio::time::sleep(Duration::from_millis(fastrand::u64(1..=most))).await;
                }
            }
        }
        Err(PolicyError("they change faster than they can be read".to_owned()))
    }

    async fn shared_read(&self, caller: &Caller) -> Result<PermissionSet, PolicyError> {
        let key = (caller.tenant.clone(), caller.user.clone());
        self.0.reads.run(&key, || self.read(&caller.tenant, &caller.user)).await
    }

    async fn read(&self, tenant: &TenantId, user: &UserId) -> Result<PermissionSet, PolicyError> {
        let permit = tokio::time::timeout(PERMIT_TIMEOUT, self.0.sql_permits.acquire()).await;
        let _permit = permit.map_err(|_| PolicyError("too many wait for the database".to_owned()))?;
        tokio::time::timeout(SQL_TIMEOUT, self.0.store.permissions_of(user, tenant))
            .await
            .map_err(|_| PolicyError("the database did not answer within a second".to_owned()))?
            .map_err(|error| PolicyError(error.to_string()))
    }
}
