//! Watches the rights of everyone who has a socket open: who may no longer read is shown out (4403).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;

use super::outbox::Outbox;
use crate::auth::{Caller, Policy};
use crate::config::PermissionSource;
use crate::domain::{Permission, ResourceKind};
use crate::store::Store;

/// Between two looks at the version of all permissions.
const LOOK: Duration = Duration::from_secs(1);
/// After a change by plain SQL the cache may say the old for this long (`auth::policy` keeps answers 3 s).
const CACHE: Duration = Duration::from_millis(3_100);
/// Checks at once.
const AT_ONCE: usize = 32;

/// Everyone who has a socket open on this gateway; cheap to clone.
#[derive(Clone)]
pub struct Access(Arc<Shared>);

struct Shared {
    policy: Policy,
    store: Store,
    source: PermissionSource,
    sockets: Mutex<Sockets>,
}

#[derive(Default)]
struct Sockets {
    next: u64,
    open: HashMap<u64, Watched>,
}

#[derive(Clone)]
struct Watched {
    caller: Arc<Caller>,
    kind: ResourceKind,
    outbox: Arc<Outbox>,
}

/// A socket's place; leaves when dropped.
pub struct Place {
    access: Access,
    number: u64,
}

impl Access {
    /// Nobody yet.
    pub fn new(policy: Policy, store: Store, source: PermissionSource) -> Self {
        Self(Arc::new(Shared { policy, store, source, sockets: Mutex::default() }))
    }

    /// A socket that may read resources of this kind only while its caller may.
    pub fn enter(&self, caller: Arc<Caller>, kind: ResourceKind, outbox: Arc<Outbox>) -> Place {
        let mut sockets = self.lock();
        sockets.next += 1;
        let number = sockets.next;
        sockets.open.insert(number, Watched { caller, kind, outbox });
        Place { access: self.clone(), number }
    }

    /// A user's permissions were changed by `wheelhouse grant|revoke`.
    pub async fn changed(&self, user: &str) {
        let theirs: Vec<Watched> =
            self.lock().open.values().filter(|w| w.caller.user.as_str() == user).cloned().collect();
        self.check(theirs).await;
    }

    async fn check(&self, watched: Vec<Watched>) {
        futures_util::stream::iter(watched)
            .for_each_concurrent(AT_ONCE, |one| async move {
                // If it cannot be known just now, the next change or command will tell.
                if let Ok(false) = self.0.policy.check(&one.caller, &Permission::read(one.kind)).await {
                    one.outbox.close(4403, "access revoked");
                }
            })
            .await;
    }

    /// Looks for changes by plain SQL until told to stop.
    pub async fn watch(self, stop: CancellationToken) {
        if self.0.source == PermissionSource::Token {
            return; // The token says it all, until it expires.
        }
        let mut known = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let Ok(version) = self.0.store.permission_version().await else { continue };
            if known.replace(version).is_some_and(|old| old != version) {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(CACHE) => {}
                }
                let everyone: Vec<Watched> = self.lock().open.values().cloned().collect();
                self.check(everyone).await;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Sockets> {
        self.0.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.access.lock().open.remove(&self.number);
    }
}
