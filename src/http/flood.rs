//! How many messages a socket may send: so many a second, and a burst of twice that.

use tokio::time::Instant;

/// A bucket that fills with time.
pub struct Budget {
    per_second: f64,
    left: f64,
    at: Instant,
}

impl Budget {
    /// Full.
    pub fn new(per_second: u32) -> Self {
        let per_second = f64::from(per_second);
        Self { per_second, left: per_second * 2.0, at: Instant::now() }
    }

    /// Takes one message out; `false`: there is none left.
    pub fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + passed * self.per_second).min(self.per_second * 2.0);
        self.at = now;
        if self.left < 1.0 {
            return false;
        }
        self.left -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_of_twice_the_rate_passes_and_then_the_rate() {
        let mut budget = Budget::new(20);
        let start = budget.at;
        let taken = |budget: &mut Budget, at| (0..100).filter(|_| budget.take(at)).count();
        assert_eq!(taken(&mut budget, start), 40);
        assert_eq!(taken(&mut budget, start + Duration::from_secs(1)), 20);
        assert_eq!(taken(&mut budget, start + Duration::from_secs(60)), 40);
    }
}
