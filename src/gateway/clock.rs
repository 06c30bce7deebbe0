//! The wall clock, by which tokens end, and whether it jumps: it is set by hand, or the machine slept. A socket whose
//! timer is set for hours later would not notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::access::Access;

/// Between two looks.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// The two clocks may drift apart by so many milliseconds before it counts.
const DRIFT_MS: i64 = 500;

/// The wall clock as a gateway sees it.
pub struct Clock {
    /// Set by tests alone: milliseconds by which the clock is off.
    off: Option<&'static AtomicI64>,
    jumps: AtomicU64,
}

impl Clock {
    /// The machine's, or one that a test moves.
    pub fn new(off: Option<&'static AtomicI64>) -> Self {
        Self { off, jumps: AtomicU64::new(0) }
    }

    /// Unix milliseconds.
    pub fn now_ms(&self) -> i64 {
        jiff::Timestamp::now().as_millisecond() + self.off.map_or(0, |off| off.load(Ordering::Relaxed))
    }

    /// How often it has jumped.
    pub fn jumps(&self) -> u64 {
        self.jumps.load(Ordering::Relaxed)
    }

    /// Looks until told to stop, and wakes every socket when it has jumped.
    pub async fn watch(self: Arc<Self>, access: Access, stop: CancellationToken) {
        let start = Instant::now();
        let since_start = || i64::try_from(start.elapsed().as_millis()).unwrap_or(i64::MAX);
        let apart = || self.now_ms().saturating_sub(since_start());
        let mut usual = apart();
        let looking = async {
            loop {
                tokio::time::sleep(POLL_INTERVAL).await;
                let now = apart();
                if now.abs_diff(usual) <= DRIFT_MS.unsigned_abs() {
                    continue;
                }
                tracing::warn!(by_ms = now - usual, "gateway.clock_jumped");
                usual = now;
                self.jumps.fetch_add(1, Ordering::Relaxed);
                for outbox in access.outboxes() {
                    outbox.wake();
                }
            }
        };
        stop.run_until_cancelled(looking).await;
    }
}
