//! Keeps the issuer's keys fresh: every ten minutes, and when a token names a key that is not known, but
//! then at most every half minute, so that made-up key names cannot be used to flood the issuer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::jwks::{IssuerKey, KeySource};

/// How often keys are fetched.
#[derive(Debug, Clone, Copy)]
pub(super) struct RefreshPolicy {
    /// Without any reason.
    pub(super) regular: Duration,
    /// Because of an unknown key, or after a failure: not before this long after the last time.
    pub(super) eager: Duration,
    /// How long a token that names an unknown key waits for the fetch it caused.
    pub(super) patience: Duration,
}

impl Default for RefreshPolicy {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { regular: seconds(600), eager: seconds(30), patience: seconds(6) }
    }
}

/// What is known of the keys.
#[derive(Clone, Default)]
struct CachedKeys {
    keys: Arc<Vec<IssuerKey>>,
    /// When the last attempt ended.
    checked: Option<Instant>,
    /// Whether it failed: then nothing can be said about keys that are not among `keys`.
    failed: bool,
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

impl Issuer {
    /// Fetches once, then starts the task that keeps on fetching. A file that cannot be read is an error at
    /// once; an issuer that is away may come back.
    pub(super) async fn start(
        place: KeySource,
        policy: RefreshPolicy,
        tracker: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, String> {
        let first = place.fetch().await;
        let mut known = CachedKeys { checked: Some(Instant::now()), ..CachedKeys::default() };
        match first {
            Ok(keys) => known.keys = Arc::new(keys),
            Err(problem) if matches!(place, KeySource::File(_)) => return Err(problem),
            Err(problem) => {
                tracing::warn!(
                    from = place.message(),
                    problem,
                    "the issuer's keys cannot be fetched yet; trying again"
                );
                known.failed = true;
            }
        }
        let (sender, receiver) = watch::channel(known);
        let issuer = Self { known: receiver, wanted: Arc::new(Notify::new()), policy };
        tracker.spawn(run_refresh(place, policy, sender, Arc::clone(&issuer.wanted), stop));
        Ok(issuer)
    }

    /// The keys that fit a token's header; fetches again where none does.
    pub(super) async fn lookup(&self, fits: impl Fn(&IssuerKey) -> bool) -> KeyLookup {
        let mut known = self.known.clone();
        let (found, checked) = {
            let now = known.borrow_and_update();
            (keys_for(&now.keys, &fits), now.checked)
        };
        if !found.is_empty() {
            return KeyLookup::Found(found);
        }
        if checked.is_none_or(|at| at.elapsed() >= self.policy.eager) {
            self.wanted.notify_one();
            // Out of time or shut down: what is known now decides.
            let _ = tokio::time::timeout(self.policy.patience, known.changed()).await;
        }
        let now = known.borrow();
        let found = keys_for(&now.keys, &fits);
        match (found.is_empty(), now.failed) {
            (false, _) => KeyLookup::Found(found),
            (true, false) => KeyLookup::Unknown,
            (true, true) => KeyLookup::Unavailable,
        }
    }
}

fn keys_for(keys: &[IssuerKey], fits: impl Fn(&IssuerKey) -> bool) -> Vec<IssuerKey> {
    keys.iter().filter(|key| fits(key)).cloned().collect()
}

async fn run_refresh(
    place: KeySource,
    policy: RefreshPolicy,
    known: watch::Sender<CachedKeys>,
    wanted: Arc<Notify>,
    stop: CancellationToken,
) {
    let mut last = Instant::now();
    loop {
        let failed = known.borrow().failed;
        let pause = if failed { policy.eager } else { policy.regular };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep_until(last + pause) => {}
            () = wanted.notified() => {
                // Several tokens may have asked for the fetch that has just been made.
                if last.elapsed() < policy.eager {
                    continue;
                }
            }
        }
        let fetched = tokio::select! {
            () = stop.cancelled() => return,
            fetched = place.fetch() => fetched,
        };
        last = Instant::now();
        known.send_modify(|known| {
            known.checked = Some(last);
            match fetched {
                Ok(keys) => {
                    known.keys = Arc::new(keys);
                    known.failed = false;
                }
                Err(problem) => {
                    // Keys that were good stay good until the issuer says otherwise.
                    tracing::warn!(
                        from = place.message(),
                        problem,
                        "the issuer's keys cannot be fetched; keeping the old ones"
                    );
                    known.failed = true;
                }
            }
        });
    }
}
