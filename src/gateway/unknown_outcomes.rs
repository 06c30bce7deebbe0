//! Requests that this gateway has accepted, or of which it said that their outcome is unknown. Asked again while Redis or SQL is
//! away, such a request cannot be answered with "nothing was done": it may have been carried out long ago, or will be.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::http::Refusal;
use crate::protocol::ErrorCode;

/// As long as Redis remembers a request.
const TTL: Duration = Duration::from_secs(24 * 3600);
/// Requests remembered, some MB. When it is full the oldest one gives way.
const CAPACITY: usize = 16_384;
/// Accepted requests remembered at least, and twice as many at most: some MB.
const ACCEPTED: usize = 65_536;

/// What identifies a request: whose it is, what about, and its id.
pub(super) type RequestKey = String;

#[derive(Default)]
pub(super) struct UnknownOutcomes {
    requests: Mutex<HashMap<RequestKey, Instant>>,
    /// How many there are, for those who come while all is well.
    count: AtomicUsize,
    accepted: Mutex<AcceptedRequests>,
}

/// The newest requests that were accepted, by their hashes. Two that share one are so rare, and the answer to the second of them
/// so harmless (it is asked for once more), that their keys are not kept.
#[derive(Default)]
struct AcceptedRequests {
    hasher: RandomState,
    newest: HashSet<u64>,
    older: HashSet<u64>,
}

impl AcceptedRequests {
    fn insert(&mut self, key: &str) {
        if self.newest.len() >= ACCEPTED {
            self.older = std::mem::take(&mut self.newest);
        }
        self.newest.insert(self.hasher.hash_one(key));
    }

    fn contains(&self, key: &str) -> bool {
        let hash = self.hasher.hash_one(key);
        self.newest.contains(&hash) || self.older.contains(&hash)
    }
}

impl UnknownOutcomes {
    /// The answer to a request, as it may be given. `key`: of a request with an id.
    pub(super) fn revise<T>(
        &self,
        key: impl FnOnce() -> Option<RequestKey>,
        answer: Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        match answer {
            Ok(done) => {
                if let Some(key) = key() {
                    self.accepted.lock().insert(&key);
                    if self.count.load(Ordering::Relaxed) > 0 {
                        self.forget(&key);
                    }
                }
                Ok(done)
            }
            Err(refusal) if refusal.code == ErrorCode::OutcomeUnknown => {
                if let Some(key) = key() {
                    self.remember(key);
                }
                Err(refusal)
            }
            Err(refusal) if refusal.code == ErrorCode::Unavailable && self.knows(key) => {
                Err(Refusal::new(ErrorCode::OutcomeUnknown, STILL_UNKNOWN))
            }
            Err(refusal) => Err(refusal),
        }
    }

    fn knows(&self, key: impl FnOnce() -> Option<RequestKey>) -> bool {
        key().is_some_and(|key| self.requests.lock().contains_key(&key) || self.accepted.lock().contains(&key))
    }

    fn remember(&self, key: RequestKey) {
        let mut requests = self.requests.lock();
        if requests.len() >= CAPACITY {
            requests.retain(|_, since| since.elapsed() < TTL);
        }
        if requests.len() >= CAPACITY
            && let Some(oldest) = requests.iter().min_by_key(|(_, since)| **since).map(|(key, _)| key.clone())
        {
            requests.remove(&oldest);
        }
        requests.insert(key, Instant::now());
        self.count.store(requests.len(), Ordering::Relaxed);
    }

    fn forget(&self, key: &RequestKey) {
        let mut requests = self.requests.lock();
        requests.remove(key);
        self.count.store(requests.len(), Ordering::Relaxed);
    }
}

/// Said of a request that was sent before, while nobody can be asked what became of it.
pub(super) const STILL_UNKNOWN: &str = "Redis or the database cannot be asked just now, and this request was sent before: it may have been carried out or not. Send the same request_id again to find out";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_stays_unknown_until_somebody_knows() {
        let outcomes = UnknownOutcomes::default();
        let key = |name: &'static str| move || Some(name.to_owned());
        let refused = |code| Err::<(), _>(Refusal::new(code, "x"));
        let code = |answer: Result<(), Refusal>| answer.expect_err("refused").code;
        let (unknown, away) = (ErrorCode::OutcomeUnknown, ErrorCode::Unavailable);
        assert_eq!(code(outcomes.revise(key("r1"), refused(away))), away, "it was never sent");
        assert_eq!(code(outcomes.revise(key("r1"), refused(unknown))), unknown);
        assert_eq!(code(outcomes.revise(key("r1"), refused(away))), unknown);
        assert_eq!(code(outcomes.revise(key("r2"), refused(away))), away, "another one");
        assert_eq!(code(outcomes.revise(|| None, refused(away))), away);
        outcomes.revise(key("r1"), Ok(())).expect("found out");
        assert_eq!(code(outcomes.revise(key("r1"), refused(away))), unknown, "it was accepted");
        for n in 0..CAPACITY + 10 {
            outcomes.revise(|| Some(n.to_string()), refused(unknown)).expect_err("refused");
        }
        assert_eq!(outcomes.requests.lock().len(), CAPACITY);
    }

    #[test]
    fn the_newest_requests_that_were_accepted_are_remembered() {
        let mut accepted = AcceptedRequests::default();
        for n in 0..=2 * ACCEPTED {
            accepted.insert(&n.to_string());
        }
        let is_kept = |n: usize| accepted.contains(&n.to_string());
        assert!((ACCEPTED..=2 * ACCEPTED).all(is_kept), "as many as are promised, and more");
        assert!(accepted.newest.len() + accepted.older.len() <= 2 * ACCEPTED);
        assert!(!is_kept(0), "the oldest give way");
    }
}
