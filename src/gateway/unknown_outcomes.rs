//! Requests of which this gateway said that their outcome is unknown. Asked again while Redis is away, such a request cannot be
//! answered with "nothing was done": it may have been carried out long ago.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::http::Refusal;
use crate::protocol::ErrorCode;

/// As long as Redis remembers a request.
const TTL: Duration = Duration::from_secs(24 * 3600);
/// Requests remembered, some MB. When it is full the oldest one gives way.
const CAPACITY: usize = 16_384;

/// What identifies a request: whose it is, what about, and its id.
pub(super) type RequestKey = String;

#[derive(Default)]
pub(super) struct UnknownOutcomes {
    requests: Mutex<HashMap<RequestKey, Instant>>,
    /// How many there are, for those who come while all is well.
    count: AtomicUsize,
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
                if self.count.load(Ordering::Relaxed) > 0
                    && let Some(key) = key()
                {
                    self.forget(&key);
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
        self.count.load(Ordering::Relaxed) > 0 && key().is_some_and(|key| self.requests.lock().contains_key(&key))
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

/// Said of a command that was carried out although no Redis can be asked.
pub(super) const STILL_UNKNOWN: &str = "Redis cannot be asked just now, and this request was sent before: it may have been carried out or not. Send the same request_id again to find out";

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
        assert_eq!(code(outcomes.revise(key("r1"), refused(away))), away);
        for n in 0..CAPACITY + 10 {
            outcomes.revise(|| Some(n.to_string()), refused(unknown)).expect_err("refused");
        }
        assert_eq!(outcomes.requests.lock().len(), CAPACITY);
    }
}
