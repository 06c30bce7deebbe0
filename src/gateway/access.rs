//! Who has a socket open, and whether they still may: whoever lost the right to watch is shown out (4403).
//!
//! A change by `wheelhouse grant|revoke` names the user; any other is seen by the version of all
//! permissions, asked for once a second, one question for the whole gateway. A token that is revoked closes the sockets
//! that were opened, or last refreshed, with it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::outbox::Outbox;
use crate::auth::{Caller, Policy, PolicyError, Revocations};
use crate::config::PermissionSource;
use crate::domain::{Permission, ResourceKind, TenantId, UserId};
use crate::http::close::Close;
use crate::store::Store;

/// Between two looks at the version of all permissions.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Longer than the cache keeps an answer: a read that was under way during a change may have put the old
/// one back, so everyone is looked at once more after this time.
const CACHE_TTL: Duration = Duration::from_millis(3_200);
/// Until those are looked at again about whom nothing could be known.
const RETRY_DELAY: Duration = Duration::from_millis(500);
/// Checks at once.
const MAX_CONCURRENT: usize = 16;

/// Everyone who has a socket open on this gateway; cheap to clone.
#[derive(Clone)]
pub struct Access(Arc<AccessShared>);

struct AccessShared {
    policy: Policy,
    store: Store,
    source: PermissionSource,
    revocations: Revocations,
    state: Mutex<AccessState>,
    wake: Notify,
}

#[derive(Default)]
struct AccessState {
    next: u64,
    open: HashMap<u64, WatchedSocket>,
    /// To be looked at; only people with an open socket, so bounded by those.
    changed: HashSet<UserId>,
    everyone: bool,
}

struct WatchedSocket {
    caller: Arc<Caller>,
    watching: WatchKind,
    outbox: Arc<Outbox>,
}

/// What a socket shows, and so which rights it takes.
#[derive(Clone)]
pub enum WatchKind {
    /// One resource of this kind: without the right to read it the socket closes.
    One(ResourceKind),
    /// Everything that may be read: without one of the rights it shows less, without any it closes.
    All(Arc<ReadableKinds>),
}

/// Which kinds of resources the caller of a tenant-wide socket may read just now.
#[derive(Debug, Default)]
pub struct ReadableKinds {
    jobs: AtomicBool,
    campaigns: AtomicBool,
}

impl ReadableKinds {
    fn of(&self, kind: ResourceKind) -> &AtomicBool {
        match kind {
            ResourceKind::Job => &self.jobs,
            ResourceKind::Campaign => &self.campaigns,
        }
    }

    /// Whether resources of a kind may be read.
    pub fn may(&self, kind: ResourceKind) -> bool {
        self.of(kind).load(Ordering::Relaxed)
    }

    /// The right was given or taken.
    pub fn set(&self, kind: ResourceKind, may: bool) {
        self.of(kind).store(may, Ordering::Relaxed);
    }

    /// Whether anything may be read.
    pub fn any(&self) -> bool {
        ResourceKind::ALL.into_iter().any(|kind| self.may(kind))
    }
}

impl WatchedSocket {
    fn kinds(&self) -> Vec<ResourceKind> {
        match &self.watching {
            WatchKind::One(kind) => vec![*kind],
            WatchKind::All(_) => ResourceKind::ALL.to_vec(),
        }
    }

    /// What is known now of the right to read one kind. `true`: it has nothing left to show.
    fn set_right(&self, kind: ResourceKind, may: bool) -> bool {
        match &self.watching {
            WatchKind::One(own) => *own == kind && !may,
            WatchKind::All(readable) => {
                readable.set(kind, may);
                !readable.any()
            }
        }
    }
}

/// A socket's place; leaves when dropped.
pub struct AccessGuard {
    access: Access,
    number: u64,
}

/// What one answer decides for all sockets of one user.
type ReadRight = (TenantId, UserId, ResourceKind);

impl Access {
    /// Nobody yet.
    pub fn new(policy: Policy, store: Store, source: PermissionSource, revocations: Revocations) -> Self {
        Self(Arc::new(AccessShared {
            policy,
            store,
            source,
            revocations,
            state: Mutex::default(),
            wake: Notify::new(),
        }))
    }

    /// A socket that may stay only while its caller may read what it shows.
    pub fn register(&self, caller: Arc<Caller>, watching: WatchKind, outbox: Arc<Outbox>) -> AccessGuard {
        let mut state = self.lock();
        state.next += 1;
        let number = state.next;
        let watched = WatchedSocket { caller, watching, outbox };
        // A revocation that became known after the token was checked: from here on `watch_revocations` sees the socket.
        self.close_if_revoked(&watched);
        state.open.insert(number, watched);
        AccessGuard { access: self.clone(), number }
    }

    /// Every open socket.
    pub fn outboxes(&self) -> Vec<Arc<Outbox>> {
        self.lock().open.values().map(|watched| watched.outbox.clone()).collect()
    }

    /// Every open socket, under the tenant of its user.
    pub fn outboxes_by_tenant(&self) -> HashMap<TenantId, Vec<Arc<Outbox>>> {
        let mut sockets: HashMap<TenantId, Vec<Arc<Outbox>>> = HashMap::new();
        for WatchedSocket { caller, outbox, .. } in self.lock().open.values() {
            match sockets.get_mut(&caller.tenant) {
                Some(theirs) => theirs.push(outbox.clone()),
                None => {
                    sockets.insert(caller.tenant.clone(), vec![outbox.clone()]);
                }
            }
        }
        sockets
    }

    /// A user's permissions were changed, and the cache knows.
    pub fn user_changed(&self, user: UserId) {
        let mut state = self.lock();
        if state.open.values().any(|watched| watched.caller.user == user) {
            state.changed.insert(user);
            drop(state);
            self.0.wake.notify_one();
        }
    }

    /// Anyone's may have been.
    pub fn everyone_changed(&self) {
        self.lock().everyone = true;
        self.0.wake.notify_one();
    }

    /// Looks until told to stop.
    pub async fn watch(self, stop: CancellationToken) {
        if self.0.source == PermissionSource::Token {
            return; // The token says it all, until it expires or is replaced.
        }
        let watching = async {
            let mut tick = tokio::time::interval(POLL_INTERVAL);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut known = self.0.store.permission_version().await.ok();
            let mut once_more: Option<Instant> = None;
            loop {
                tokio::select! {
                    () = self.0.wake.notified() => {}
                    _ = tick.tick() => {
                        let version = tokio::time::timeout(POLL_INTERVAL, self.0.store.permission_version()).await;
                        if let Ok(Ok(version)) = version
                            && known.replace(version) != Some(version)
                        {
                            self.lock().everyone = true;
                            once_more = Some(Instant::now() + CACHE_TTL);
                        }
                    }
                }
                if once_more.is_some_and(|at| at <= Instant::now()) {
                    self.lock().everyone = true;
                    once_more = None;
                }
                if self.check().await.is_err() {
                    tokio::time::sleep(RETRY_DELAY).await;
                    self.0.wake.notify_one();
                }
            }
        };
        stop.run_until_cancelled(watching).await;
    }

    /// Closes the sockets of tokens that are revoked, until told to stop. With permissions of the token too: these say
    /// what a valid token allows, not whether it is one.
    pub async fn watch_revocations(self, stop: CancellationToken) {
        let mut changes = self.0.revocations.changes();
        while let Some(Ok(())) = stop.run_until_cancelled(changes.changed()).await {
            for watched in self.lock().open.values() {
                self.close_if_revoked(watched);
            }
        }
    }

    fn close_if_revoked(&self, watched: &WatchedSocket) {
        let caller = &watched.caller;
        if self.0.revocations.is_revoked(&caller.token_facts()) {
            watched.outbox.close(Close::revoked());
            tracing::info!(tenant_id = %caller.tenant, user_id = %caller.user, "websocket.token_revoked");
        }
    }

    /// Checks those about whom something changed; an error if nothing could be known of some.
    async fn check(&self) -> Result<(), ()> {
        let (rights, everyone) = {
            let mut state = self.lock();
            let (everyone, changed) = (std::mem::take(&mut state.everyone), std::mem::take(&mut state.changed));
            let mut rights: HashMap<ReadRight, Arc<Caller>> = HashMap::new();
            for watched in state.open.values() {
                let caller = &watched.caller;
                if everyone || changed.contains(&caller.user) {
                    for kind in watched.kinds() {
                        let right = (caller.tenant.clone(), caller.user.clone(), kind);
                        rights.entry(right).or_insert_with(|| caller.clone());
                    }
                }
            }
            (rights, everyone)
        };
        let answers = futures_util::stream::iter(rights)
            .map(|(right, caller)| async move {
                let holds = self.holds(&caller, right.2, everyone).await;
                (right, holds)
            })
            .buffer_unordered(MAX_CONCURRENT);
        tokio::pin!(answers);
        let mut unknown = false;
        // Each answer as it comes: where Redis does not answer for some, the others' sockets need not wait for that.
        while let Some((right, holds)) = answers.next().await {
            let mut state = self.lock();
            match holds {
                Ok(may) => {
                    let theirs =
                        state.open.values().filter(|w| (&w.caller.tenant, &w.caller.user) == (&right.0, &right.1));
                    for watched in theirs.filter(|watched| watched.set_right(right.2, may)) {
                        watched.outbox.close(Close::revoked());
                        tracing::info!(tenant_id = %right.0, user_id = %right.1, "websocket.access_revoked");
                    }
                }
                // Redis or SQL is away. Nothing is revoked on a guess, and nothing is forgotten.
                Err(_) => {
                    state.changed.insert(right.1);
                    unknown = true;
                }
            }
        }
        if unknown { Err(()) } else { Ok(()) }
    }

    async fn holds(&self, caller: &Caller, kind: ResourceKind, read_sql: bool) -> Result<bool, PolicyError> {
        if read_sql {
            // Plain SQL tells no cache: what it says now replaces what the cache believes.
            self.0.policy.ensure_cached(&caller.tenant, &caller.user).await?;
        }
        self.0.policy.check(caller, &Permission::read(kind)).await
    }

    fn lock(&self) -> MutexGuard<'_, AccessState> {
        self.0.state.lock()
    }
}

impl AccessGuard {
    /// The socket goes on with another token of the same user.
    pub fn refreshed(&self, caller: &Arc<Caller>) {
        if let Some(watched) = self.access.lock().open.get_mut(&self.number) {
            watched.caller = caller.clone();
            self.access.close_if_revoked(watched);
        }
    }
}

impl Drop for AccessGuard {
    fn drop(&mut self) {
        let mut state = self.access.lock();
        state.open.remove(&self.number);
        if state.open.is_empty() {
            state.open.shrink_to(64);
        }
    }
}
