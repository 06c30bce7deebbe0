//! How many messages a socket may send, how many requests a user: so many a second, and a burst of a multiple of that.

use std::collections::HashMap;
use std::hash::Hash;

use parking_lot::Mutex;
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

impl Budget {
    /// Whether nothing has been taken lately: a new one would be the same.
    fn is_full(&self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left + passed * self.per_second >= self.most
    }
}

/// So many are kept before those that are full again are looked for.
const KEPT: usize = 1_024;

/// A bucket for each of many users or addresses. Only those are kept that have taken something lately.
pub struct Budgets<K> {
    per_second: u32,
    burst_seconds: f64,
    kept: Mutex<KeptBudgets<K>>,
}

struct KeptBudgets<K> {
    of: HashMap<K, Budget>,
    /// With so many the full ones are thrown away; then twice as many as are left may come, so that the work for each
    /// stays the same.
    clean_at: usize,
}

impl<K: Eq + Hash> Budgets<K> {
    /// Each with room for a burst of so many seconds.
    pub fn over_seconds(per_second: u32, burst_seconds: f64) -> Self {
        let kept = KeptBudgets { of: HashMap::new(), clean_at: KEPT };
        Self { per_second, burst_seconds, kept: Mutex::new(kept) }
    }

    /// Takes one out of somebody's; `false`: there is none left.
    pub fn take(&self, whose: K, now: Instant) -> bool {
        let mut kept = self.kept.lock();
        if kept.of.len() >= kept.clean_at {
            kept.of.retain(|_, budget| !budget.is_full(now));
            kept.clean_at = KEPT.max(kept.of.len() * 2);
        }
        let new = || Budget::over_seconds(self.per_second, self.burst_seconds);
        kept.of.entry(whose).or_insert_with(new).take(now)
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

    #[test]
    fn each_has_a_bucket_and_full_ones_are_not_kept() {
        let budgets = Budgets::over_seconds(2, 1.0);
        let start = Instant::now();
        assert_eq!((0..5).filter(|_| budgets.take(0, start)).count(), 2);
        assert!(budgets.take(1, start), "another's is another");
        for other in 2..3 * KEPT {
            assert!(budgets.take(other, start + Duration::from_secs(other as u64)));
        }
        let kept = budgets.kept.lock().of.len();
        assert!(kept <= KEPT, "{kept} are kept of those that are full again");
    }
}
