//! How long to wait before something is tried again.

use std::time::Duration;

/// Exponential with full jitter: `base` doubled for each earlier attempt, `longest` at most, times `roll`.
///
/// `roll` is the caller's random number, from 0 up to 1: many who failed together then come back spread over
/// the whole wait, not all at its end.
pub fn full_jitter_backoff(base: Duration, longest: Duration, attempts: u32, roll: f64) -> Duration {
    let doubled = base.saturating_mul(1_u32.checked_shl(attempts).unwrap_or(u32::MAX));
    doubled.min(longest).mul_f64(roll.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_the_longest_and_the_roll_spreads_it() {
        let (base, most) = (Duration::from_secs(1), Duration::from_secs(60));
        let longest: Vec<u64> = (0..8).map(|tries| full_jitter_backoff(base, most, tries, 1.0).as_secs()).collect();
        assert_eq!(longest, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(full_jitter_backoff(base, most, u32::MAX, 1.0), most);
        assert_eq!(full_jitter_backoff(base, most, 3, 0.25), Duration::from_secs(2));
        assert_eq!(full_jitter_backoff(base, most, 3, 0.0), Duration::ZERO);
    }
}
