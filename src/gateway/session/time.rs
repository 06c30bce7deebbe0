//! How long a socket may live on its token.

use std::time::Duration;

use tokio::time::Instant;

use crate::auth::Caller;
use crate::gateway::clock::Clock;

/// Furthest that a timer is set; a token may live for years.
const FAR: Duration = Duration::from_secs(86_400);

/// The end of a token, on both clocks: the socket ends at whichever comes first. The wall clock alone could be set
/// back, and the socket would live for longer than the token was good for; the other alone does not notice that the
/// machine slept, or that the wall clock was behind.
#[derive(Debug)]
pub(super) struct TokenTime {
    /// Unix milliseconds.
    expires_at_ms: i64,
    /// `None`: further away than this clock can say.
    ends: Option<Instant>,
}

impl TokenTime {
    /// From now on.
    pub(super) fn new(caller: &Caller, clock: &Clock) -> Self {
        Self::at(caller.expires_at_ms(), clock.now_ms(), Instant::now())
    }

    fn at(expires_at_ms: i64, wall_ms: i64, now: Instant) -> Self {
        let left = u64::try_from(expires_at_ms.saturating_sub(wall_ms)).unwrap_or(0);
        Self { expires_at_ms, ends: now.checked_add(Duration::from_millis(left)) }
    }

    /// When to look again.
    pub(super) fn next_look(&self) -> Instant {
        let far = Instant::now() + FAR;
        self.ends.map_or(far, |ends| ends.min(far))
    }

    /// Whether it is over, by either clock.
    pub(super) fn is_over(&self, wall_ms: i64, now: Instant) -> bool {
        wall_ms >= self.expires_at_ms || self.ends.is_some_and(|ends| now >= ends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_ends_by_whichever_clock_says_so_first() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let token = TokenTime::at(1_060_000, 1_000_000, start);
        assert!(!token.is_over(1_059_999, after(59)));
        assert!(token.is_over(1_060_000, after(60)));
        // The wall clock was set forward, or the machine slept.
        assert!(token.is_over(4_600_000, after(1)));
        // It was set back an hour.
        assert!(!token.is_over(1_059_999 - 3_600_000, after(59)));
        assert!(token.is_over(1_060_000 - 3_600_000, after(60)));
        assert!(TokenTime::at(i64::MAX, 0, start).next_look() <= Instant::now() + FAR);
    }
}
