//! Keeps the issuer's keys fresh: every minute, and at once when a token names a key that is not known. Then at most once
//! a second, so that made-up key names cannot be used to flood the issuer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::jwks::{IssuerKey, KeySource, NO_USABLE_KEY};

/// How often keys are fetched, and how long they are good for.
#[derive(Debug, Clone, Copy)]
pub(super) struct RefreshPolicy {
    /// Between two fetches without any reason.
    pub(super) regular: Duration,
    /// Shortest time between two fetches, whatever the reason.
    pub(super) eager: Duration,
    /// Longest time between two fetches after failures, which double it.
    pub(super) retry: Duration,
    /// How long a token that names an unknown key waits for the fetch it caused.
    pub(super) patience: Duration,
    /// How long keys stay good while they cannot be fetched again.
    pub(super) max_age: Duration,
}

impl Default for RefreshPolicy {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            regular: seconds(60),
            eager: Duration::from_millis(500),
            retry: seconds(30),
            patience: seconds(6),
            max_age: seconds(86_400),
        }
    }
}

/// What is known of the keys.
#[derive(Clone, Default)]
struct CachedKeys {
    keys: Arc<Vec<IssuerKey>>,
    /// When the issuer was last asked: its answer may be older than what it says now, but not older than this.
    asked: Option<Instant>,
    /// When it last gave keys, by which their age counts.
    given: Option<Instant>,
    /// How often in a row it could not be asked: then nothing can be said about keys that are not among `keys`.
    failures: u32,
}

/// What a search among the keys gave.
pub(super) enum KeyLookup {
    /// Those that may have signed the token.
    Found(Vec<IssuerKey>),
    /// The issuer has no such key.
    Unknown,
    /// The issuer could not be asked.
    Unavailable,
}

/// The keys of one issuer; cheap to clone.
#[derive(Clone)]
pub(super) struct Issuer {
    known: watch::Receiver<CachedKeys>,
    wanted: Arc<Notify>,
    policy: RefreshPolicy,
}

impl CachedKeys {
    /// The keys that fit, as long as they may be believed.
    fn fitting(&self, policy: &RefreshPolicy, fits: impl Fn(&IssuerKey) -> bool) -> Vec<IssuerKey> {
        if self.given.is_none_or(|at| at.elapsed() > policy.max_age) {
            return Vec::new();
        }
        self.keys.iter().filter(|key| fits(key)).cloned().collect()
    }

    fn learn(&mut self, asked: Instant, fetched: Result<Vec<IssuerKey>, String>, place: &KeySource) {
        self.asked = Some(asked);
        match fetched {
            Ok(keys) => {
                // Also where there are none: keys that the issuer does not name any more are not good any more.
                self.keys = Arc::new(keys);
                self.given = Some(asked);
                self.failures = 0;
            }
            Err(problem) => {
                self.failures = self.failures.saturating_add(1);
                tracing::warn!(
                    from = place.message(),
                    problem,
                    "the issuer's keys cannot be fetched; those that it gave last stay good for auth.jwks_max_age_seconds"
                );
            }
        }
    }
}

impl Issuer {
    /// Fetches once, then starts the task that keeps on fetching. A file that cannot be read is an error at
    /// once; an issuer that is away may come back.
    pub(super) async fn start(
        place: KeySource,
        policy: RefreshPolicy,
        tracker: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, String> {
        let asked = Instant::now();
        let first = place.fetch().await;
        if matches!(place, KeySource::File(_)) {
            match &first {
                Err(problem) => return Err(problem.clone()),
                Ok(keys) if keys.is_empty() => return Err(NO_USABLE_KEY.to_owned()),
                Ok(_) => {}
            }
        }
        let mut known = CachedKeys::default();
        known.learn(asked, first, &place);
        let (sender, receiver) = watch::channel(known);
        let issuer = Self { known: receiver, wanted: Arc::new(Notify::new()), policy };
        tracker.spawn(run_refresh(place, policy, sender, Arc::clone(&issuer.wanted), stop));
        Ok(issuer)
    }

    /// The keys that fit a token's header; fetches again where none does.
    pub(super) async fn lookup(&self, fits: impl Fn(&IssuerKey) -> bool) -> KeyLookup {
        let now = Instant::now();
        let mut known = self.known.clone();
        let (found, is_away) = {
            let known = known.borrow_and_update();
            (known.fitting(&self.policy, &fits), known.failures > 0)
        };
        if !found.is_empty() {
            return KeyLookup::Found(found);
        }
        self.wanted.notify_one();
        // Nobody is kept waiting for an issuer that did not answer the last time either.
        let patience = if is_away { self.policy.eager } else { self.policy.patience };
        // An answer to a question from before does not count: the key may be newer. Out of time or shut down: what is known
        // then decides.
        let is_newer = |known: &CachedKeys| known.asked.is_some_and(|asked| asked >= now);
        let _ = tokio::time::timeout(patience, known.wait_for(is_newer)).await;
        let known = self.known.borrow();
        let found = known.fitting(&self.policy, &fits);
        match (found.is_empty(), known.failures > 0) {
            (false, _) => KeyLookup::Found(found),
            (true, false) => KeyLookup::Unknown,
            (true, true) => KeyLookup::Unavailable,
        }
    }
}

async fn run_refresh(
    place: KeySource,
    policy: RefreshPolicy,
    known: watch::Sender<CachedKeys>,
    wanted: Arc<Notify>,
    stop: CancellationToken,
) {
    loop {
        let (last, failures) = {
            let known = known.borrow();
            (known.asked.unwrap_or_else(Instant::now), known.failures)
        };
        // Shorter where keys would be too old before the next fetch.
        let regular = policy.regular.min(policy.max_age / 3);
        let after_failure = policy.eager.saturating_mul(2_u32.saturating_pow(failures.min(16))).min(policy.retry);
        let (earliest, latest) =
            if failures > 0 { (after_failure, after_failure) } else { (policy.eager, regular.max(policy.eager)) };
        let wait = async {
            // Several tokens may ask meanwhile: one fetch is for all of them.
            tokio::time::sleep_until(last + earliest).await;
            tokio::select! {
                () = tokio::time::sleep_until(last + latest) => {}
                () = wanted.notified() => {}
            }
        };
        let Some(()) = stop.run_until_cancelled(wait).await else { return };
        let asked = Instant::now();
        let Some(fetched) = stop.run_until_cancelled(place.fetch()).await else { return };
        known.send_modify(|known| known.learn(asked, fetched, &place));
    }
}
