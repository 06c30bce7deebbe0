//! The memory that requests under way may take: bodies that are being read, rows that are being made into an answer, and
//! answers that clients have not taken yet. Each user has a share, each tenant at most half, and all of them together
//! what a gateway has; so nobody takes it from another tenant, and a gateway does not run out of memory.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::auth::Caller;
use crate::config::Limits;
use crate::domain::{TenantId, UserId};
use crate::http::Refusal;
use crate::protocol::ErrorCode;

/// [`Budget::wait`].
const WAIT: Duration = Duration::from_secs(2);
/// What reading one job takes, with all that it was given and produced, and making a message of it.
pub const READ_SNAPSHOT: usize = 4 * 1024 * 1024;
/// So many shares are kept before those that nobody uses are looked for.
const KEPT: usize = 1_024;

/// What there is; cheap to clone.
#[derive(Clone)]
pub struct MemoryBudget(Arc<Budget>);

struct Budget {
    gateway: Arc<Semaphore>,
    per_tenant: usize,
    per_user: usize,
    /// How long a request waits until others have been answered.
    wait: Duration,
    shares: Mutex<Shares>,
}

struct Shares {
    /// Without a user: the tenant's. Only those live that somebody holds something of.
    of: HashMap<(TenantId, Option<UserId>), Weak<Semaphore>>,
    clean_at: usize,
}

/// Bytes that a request holds; given back when dropped.
pub struct MemoryShare {
    /// Of the user, of the tenant, of the gateway: as many of each.
    held: [OwnedSemaphorePermit; 3],
    bytes: usize,
}

/// Whose bytes are used up.
const LEVELS: [fn() -> Refusal; 3] = [user_full, tenant_full, gateway_full];

fn user_full() -> Refusal {
    let message = "Your other requests hold all the memory that one user gets here (limits.memory_per_user_mib): take \
                   their answers, or wait for them";
    Refusal::new(ErrorCode::RateLimitExceeded, message).with_retry_after(1)
}

fn tenant_full() -> Refusal {
    let message = "Other requests of your tenant hold all the memory that one tenant gets here: try again shortly";
    Refusal::new(ErrorCode::RateLimitExceeded, message).with_retry_after(1)
}

fn gateway_full() -> Refusal {
    let message = "This gateway has no memory left for more requests just now: try again shortly, or another gateway";
    Refusal::new(ErrorCode::Unavailable, message).with_retry_after(1)
}

impl MemoryBudget {
    /// As the settings say.
    pub fn new(limits: &Limits) -> Self {
        Self::waiting(limits, WAIT)
    }

    fn waiting(limits: &Limits, wait: Duration) -> Self {
        let (all, user) = (limits.memory as usize, limits.memory_per_user as usize);
        Self(Arc::new(Budget {
            gateway: Arc::new(Semaphore::new(all)),
            per_tenant: all / 2,
            per_user: user.min(all / 2),
            wait,
            shares: Mutex::new(Shares { of: HashMap::new(), clean_at: KEPT }),
        }))
    }

    /// So many bytes for a request of this caller, or of as many as one user gets; waits for a while until they are free.
    pub async fn reserve(&self, caller: &Caller, bytes: usize) -> Result<MemoryShare, Refusal> {
        let bytes = bytes.min(self.0.per_user);
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let mut held = Vec::with_capacity(LEVELS.len());
        // The user's own first: whoever waits for those keeps nothing from others.
        for (level, refusal) in self.levels(caller).into_iter().zip(LEVELS) {
            match tokio::time::timeout(self.0.wait, level.acquire_many_owned(permits)).await {
                Ok(Ok(permit)) => held.push(permit),
                Ok(Err(_)) | Err(_) => return Err(refusal()),
            }
        }
        let held = held.try_into().map_err(|_| Refusal::internal())?;
        Ok(MemoryShare { held, bytes })
    }

    fn levels(&self, caller: &Caller) -> [Arc<Semaphore>; 3] {
        let mut shares = self.0.shares.lock();
        if shares.of.len() >= shares.clean_at {
            shares.of.retain(|_, share| share.strong_count() > 0);
            shares.clean_at = KEPT.max(shares.of.len() * 2);
        }
        let mut share = |user: Option<&UserId>, most: usize| {
            let kept = shares.of.entry((caller.tenant.clone(), user.cloned())).or_default();
            kept.upgrade().unwrap_or_else(|| {
                let new = Arc::new(Semaphore::new(most));
                *kept = Arc::downgrade(&new);
                new
            })
        };
        [share(Some(&caller.user), self.0.per_user), share(None, self.0.per_tenant), self.0.gateway.clone()]
    }
}

impl MemoryShare {
    /// So many bytes at least. Nothing is waited for: a request that holds some already could wait for another that waits
    /// for it.
    pub fn grow_to(&mut self, bytes: usize) -> Result<(), Refusal> {
        let Some(more) = bytes.checked_sub(self.bytes).filter(|more| *more > 0) else { return Ok(()) };
        let permits = u32::try_from(more).map_err(|_| Refusal::internal())?;
        let mut taken = Vec::with_capacity(LEVELS.len());
        for (held, refusal) in self.held.iter().zip(LEVELS) {
            taken.push(held.semaphore().clone().try_acquire_many_owned(permits).map_err(|_| refusal())?);
        }
        for (held, taken) in self.held.iter_mut().zip(taken) {
            held.merge(taken);
        }
        self.bytes = bytes;
        Ok(())
    }

    /// No more bytes than these.
    pub fn shrink_to(&mut self, bytes: usize) {
        let Some(less) = self.bytes.checked_sub(bytes) else { return };
        for held in &mut self.held {
            drop(held.split(less));
        }
        self.bytes = bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    fn budget() -> MemoryBudget {
        let limits = crate::config::load_from(None, [], Vec::new()).expect("settings").limits;
        MemoryBudget::waiting(&limits, Duration::from_millis(20))
    }

    fn caller(user: &str, tenant: &str) -> Caller {
        Caller {
            user: user.parse().expect("user"),
            tenant: tenant.parse().expect("tenant"),
            token_id: None,
            expires_at: 0,
            issued_at: None,
            permissions: None,
        }
    }

    #[tokio::test]
    async fn nobody_takes_more_than_a_share_and_what_is_given_back_is_there_for_the_next() {
        let budget = budget();
        let [ann, bob, eve] = [("ann", "acme"), ("bob", "acme"), ("eve", "acme")].map(|(u, t)| caller(u, t));
        let mut first = budget.reserve(&ann, 24 * MIB).await.expect("room");
        let refusal = budget.reserve(&ann, 16 * MIB).await.err().expect("refused");
        assert_eq!((refusal.code.http_status(), refusal.retry_after), (429, Some(1)));
        first.shrink_to(MIB);
        let second = budget.reserve(&ann, 16 * MIB).await.expect("room");
        // More than a user gets is all that a user gets.
        let third = budget.reserve(&bob, 1_000 * MIB).await.expect("room");
        assert_eq!(third.bytes, 32 * MIB);
        let refusal = budget.reserve(&eve, 32 * MIB).await.err().expect("refused");
        assert!(refusal.message.contains("your tenant"), "{}", refusal.message);
        let others = [budget.reserve(&caller("ann", "globex"), 32 * MIB).await.expect("room of another tenant")];
        drop((first, second, third, others));
        assert!(budget.reserve(&eve, 32 * MIB).await.is_ok());
    }

    #[tokio::test]
    async fn what_grows_does_not_wait_and_leaves_nothing_behind_where_it_may_not() {
        let budget = budget();
        let ann = caller("ann", "acme");
        let mut first = budget.reserve(&ann, 20 * MIB).await.expect("room");
        let mut second = budget.reserve(&ann, 0).await.expect("room");
        assert!(second.grow_to(10 * MIB).is_ok() && second.grow_to(5 * MIB).is_ok());
        assert!(second.grow_to(20 * MIB).is_err());
        first.shrink_to(0);
        assert!(second.grow_to(32 * MIB).is_ok());
        drop((first, second));
        let all = budget.reserve(&ann, 32 * MIB).await.expect("all of it");
        assert_eq!(budget.0.gateway.available_permits(), 96 * MIB);
        drop(all);
        assert_eq!(budget.0.gateway.available_permits(), 128 * MIB);
    }
}
