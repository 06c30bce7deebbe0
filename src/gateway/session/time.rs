//! How long a socket may live on its token.

use std::time::Duration;

use tokio::time::Instant;

use crate::auth::{Caller, LEEWAY};
use crate::gateway::clock::Clock;

/// How long before its token's `exp` a client is told.
const WARNING: Duration = Duration::from_secs(60);

/// Furthest that a timer is set; a token may live for years.
const FAR: Duration = Duration::from_secs(86_400);

/// How long before the socket's end that is: a socket may stay for as long behind `exp` as clocks may differ.
const EARLY: Duration = Duration::from_secs(WARNING.as_secs() + LEEWAY.unsigned_abs());

/// The end of a token, on both clocks: the socket ends at whichever comes first. The wall clock alone could be set
/// back, and the socket would live for longer than the token was good for; the other alone does not notice that the
/// machine slept, or that the wall clock was behind.
#[derive(Debug)]
pub(super) struct TokenExpiry {
    /// Unix milliseconds.
    expires_at_ms: i64,
    /// `None`: further away than this clock can say.
    ends: Option<Instant>,
    /// Whether the client has been told that it ends soon.
    is_told: bool,
}

impl TokenExpiry {
    /// From now on.
    pub(super) fn new(caller: &Caller, clock: &Clock) -> Self {
        Self::at(caller.expires_at_ms(), clock.now_ms(), Instant::now())
    }

    fn at(expires_at_ms: i64, wall_ms: i64, now: Instant) -> Self {
        let left = u64::try_from(expires_at_ms.saturating_sub(wall_ms)).unwrap_or(0);
        Self { expires_at_ms, ends: now.checked_add(Duration::from_millis(left)), is_told: false }
    }

    /// When to look again.
    pub(super) fn next_poll(&self) -> Instant {
        let far = Instant::now() + FAR;
        let early = if self.is_told { Duration::ZERO } else { EARLY };
        self.ends.map_or(far, |ends| ends.checked_sub(early).unwrap_or(ends).min(far))
    }

    /// Whether the client is to be told now that its token ends soon: once, by whichever clock says so first.
    pub(super) fn take_warning(&mut self, wall_ms: i64, now: Instant) -> bool {
        let early_ms = i64::try_from(EARLY.as_millis()).unwrap_or(i64::MAX);
        let is_due = wall_ms >= self.expires_at_ms.saturating_sub(early_ms)
            || self.ends.is_some_and(|ends| ends.saturating_duration_since(now) <= EARLY);
        let is_news = is_due && !self.is_told;
        self.is_told |= is_due;
        is_news
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
        let token = TokenExpiry::at(1_060_000, 1_000_000, start);
        assert!(!token.is_over(1_059_999, after(59)));
        assert!(token.is_over(1_060_000, after(60)));
        // The wall clock was set forward, or the machine slept.
        assert!(token.is_over(4_600_000, after(1)));
        // It was set back an hour.
        assert!(!token.is_over(1_059_999 - 3_600_000, after(59)));
        assert!(token.is_over(1_060_000 - 3_600_000, after(60)));
        // A minute before its exp, which is five seconds before its end, and once.
        let mut token = TokenExpiry::at(1_100_000, 1_000_000, start);
        assert!(!token.take_warning(1_034_999, after(34)));
        assert!(token.next_poll() <= after(35));
        assert!(token.take_warning(1_035_000, after(34)), "by the wall clock");
        assert!(!token.take_warning(1_036_000, after(36)));
        assert!(token.next_poll() > after(99));
        let mut token = TokenExpiry::at(1_100_000, 1_000_000, start);
        assert!(token.take_warning(1_000_000, after(35)), "by the other, where the wall clock was set back");
        let mut token = TokenExpiry::at(1_005_000, 1_000_000, start);
        assert!(token.take_warning(1_000_000, start), "at once, where less is left");
        assert!(TokenExpiry::at(i64::MAX, 0, start).next_poll() <= Instant::now() + FAR);
    }
}
