//! Going no faster than asked: a big import must not take the database from everyone else.

use std::time::{Duration, Instant};

use crate::worker::{Cancelled, JobContext};

/// Rows handled since a moment, against the rows allowed since then.
pub(super) struct Pace {
    per_second: Option<u32>,
    begun: Instant,
    rows: u64,
}

impl Pace {
    /// `None`: as fast as it goes.
    pub(super) fn new(per_second: Option<u32>) -> Self {
        Self { per_second, begun: Instant::now(), rows: 0 }
    }

    /// Waits until so many more rows may have been handled.
    pub(super) async fn keep(&mut self, ctx: &JobContext, rows: u64) -> Result<(), Cancelled> {
        let Some(per_second) = self.per_second.filter(|n| *n > 0) else { return Ok(()) };
        self.rows += rows;
        let due = Duration::from_secs_f64(self.rows as f64 / f64::from(per_second));
        let early = due.saturating_sub(self.begun.elapsed());
        if early.is_zero() {
            // Behind, after a pause perhaps: what was missed is not made up for with a rush.
            self.begun = Instant::now();
            self.rows = 0;
            return Ok(());
        }
        ctx.guard(tokio::time::sleep(early)).await
    }
}
