//! How many messages a socket may send: so many a second, and a burst of a multiple of that.

use tokio::time::Instant;

/// A bucket that fills with time.
pub struct Budget {
    per_second: f64,
    most: f64,
    left: f64,
    at: Instant,
}

impl Budget {
    /// Full, with room for a burst of two seconds.
    pub fn new(per_second: u32) -> Self {
        Self::over_seconds(per_second, 2.0)
    }

    /// Full, with room for a burst of so many seconds.
    pub fn over_seconds(per_second: u32, seconds: f64) -> Self {
        let per_second = f64::from(per_second);
        let most = per_second * seconds;
        Self { per_second, most, left: most, at: Instant::now() }
    }

    /// Takes one message out; `false`: there is none left.
    pub fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + passed * self.per_second).min(self.most);
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
