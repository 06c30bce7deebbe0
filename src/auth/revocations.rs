//! Which tokens are refused although their time is not over: `revoked_tokens` in SQL, read by one task of each process
//! into memory, where every entrance asks.
//!
//! Both roles use it: gateways for the tokens of users, workers for those of foreign workers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::store::{Revocation, RevocationChanges, RevocationKind, Store, StoreError};

/// Between two questions to SQL. A revocation must be known everywhere within a second, and an answer takes a while too.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Longest wait for an answer.
const SQL_TIMEOUT: Duration = Duration::from_secs(5);
/// A revocation without a known end is kept for this long at least, in seconds: the longest lifetime of tokens may have
/// been set higher since, or the token may not say when it was issued.
const MIN_KEPT_SECONDS: i64 = 366 * 24 * 60 * 60;

/// What a token says of itself, for the question whether it was revoked.
#[derive(Debug, Clone, Copy)]
pub struct TokenFacts<'a> {
    /// [`RevocationKind::User`] or [`RevocationKind::Worker`]: whose token it is.
    pub kind: RevocationKind,
    /// The user or the worker.
    pub name: &'a str,
    /// The one tenant that it is for. `None`: it is for several.
    pub tenant: Option<&'a str>,
    /// Its `jti`.
    pub token_id: Option<&'a str>,
    /// Its `iat`. Without one it counts as issued before any revocation.
    pub issued_at: Option<i64>,
}

/// Every revocation that is in force; cheap to clone.
#[derive(Clone)]
pub struct Revocations(Arc<RevocationSet>);

struct RevocationSet {
    store: Store,
    known: RwLock<Known>,
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct Known {
    version: i64,
    revoked: HashMap<RevocationKind, HashMap<String, Vec<Entry>>>,
}

struct Entry {
    tenant: Option<String>,
    revoked_at: i64,
    keep_until: Option<i64>,
}

impl Revocations {
    /// Reads all of them: nobody may be let in before.
    pub async fn load(store: Store) -> Result<Self, StoreError> {
        let changes = store.revocations_since(None).await?;
        let mut known = Known::default();
        known.take(changes);
        Ok(Self(Arc::new(RevocationSet { store, known: RwLock::new(known), changes: watch::Sender::new(0) })))
    }

    /// Whether a token with a valid signature is refused all the same.
    pub fn is_revoked(&self, token: &TokenFacts<'_>) -> bool {
        let known = self.0.known.read();
        let entries = |kind: RevocationKind, name: &str| {
            let entries = known.revoked.get(&kind).and_then(|names| names.get(name));
            entries.into_iter().flatten().filter(|entry| entry.is_for(token.tenant))
        };
        token.token_id.is_some_and(|jti| entries(RevocationKind::Token, jti).next().is_some())
            || entries(token.kind, token.name).any(|entry| token.issued_at.is_none_or(|at| at <= entry.revoked_at))
    }

    /// Changes with every change of what is revoked: whoever lets a socket stay open has to ask again then.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Asks SQL for what is new until told to stop. Where SQL is away, what is known stays in force.
    pub async fn poll(self, stop: CancellationToken) {
        let polling = async {
            let mut tick = tokio::time::interval(POLL_INTERVAL);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut has_failed = false;
            loop {
                tick.tick().await;
                let problem = self.refresh().await.err();
                if let (Some(problem), false) = (&problem, has_failed) {
                    tracing::warn!(problem, "auth.revocations_unreadable");
                }
                has_failed = problem.is_some();
            }
        };
        stop.run_until_cancelled(polling).await;
    }

    async fn refresh(&self) -> Result<(), String> {
        let version = self.0.known.read().version;
        let asked = tokio::time::timeout(SQL_TIMEOUT, self.0.store.revocations_since(Some(version))).await;
        let changes = asked.map_err(|_| "the database does not answer")?.map_err(|error| error.to_string())?;
        if changes.version != version || changes.is_complete {
            self.0.known.write().take(changes);
            self.0.changes.send_modify(|count| *count = count.wrapping_add(1));
        }
        Ok(())
    }
}

impl Known {
    fn take(&mut self, changes: RevocationChanges) {
        if changes.is_complete {
            self.revoked.clear();
        }
        self.version = changes.version;
        let now = jiff::Timestamp::now().as_second();
        for Revocation { kind, name, tenant, revoked_at, keep_until } in changes.rows {
            let entries = self.revoked.entry(kind).or_default().entry(name).or_default();
            entries.retain(|entry| entry.tenant != tenant && entry.keep_until.is_none_or(|until| until >= now));
            entries.push(Entry { tenant, revoked_at, keep_until });
        }
    }
}

impl Entry {
    fn is_for(&self, tenant: Option<&str>) -> bool {
        self.tenant.is_none() || self.tenant.as_deref() == tenant
    }
}

/// How long a revocation is kept when the end of what it refuses is not known, in Unix seconds; `None`: for ever, because
/// tokens may live for ever. `longest`: the longest lifetime of a token.
pub fn keep_until(longest: Option<Duration>) -> Option<i64> {
    let longest = i64::try_from(longest?.as_secs()).unwrap_or(i64::MAX);
    Some(jiff::Timestamp::now().as_second().saturating_add(longest.max(MIN_KEPT_SECONDS)))
}
