//! When a token's time is over.

use std::time::Duration;

use tokio::time::Instant;

/// Furthest that a timer is set; a token may live for years.
const FAR: Duration = Duration::from_secs(86_400);

/// Unix seconds as a moment of this process, at most [`FAR`] ahead.
pub(super) fn deadline(expires_at: i64) -> Instant {
    let left = expires_at.saturating_mul(1_000).saturating_sub(jiff::Timestamp::now().as_millisecond());
    // A millisecond more than nothing: a clock that runs slow must not make this spin.
    let left = Duration::from_millis(u64::try_from(left).unwrap_or(0).max(1));
    Instant::now() + left.min(FAR)
}

/// Whether these Unix seconds have passed.
pub(super) fn is_over(expires_at: i64) -> bool {
    jiff::Timestamp::now().as_millisecond() >= expires_at.saturating_mul(1_000)
}
