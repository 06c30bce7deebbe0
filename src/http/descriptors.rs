//! File descriptors that clients may not take: without some kept back, nobody could go back to Redis or SQL.
//!
//! The system gives out the lowest number that is free. So a connection whose number is high says that nearly all are
//! taken, and as long as none with a number above a line is kept, those above it are there for Redis and SQL.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::{Resource, getrlimit};

use crate::config::Settings;

/// Kept back for Redis, for the log, the signals and the listener, for the issuer's keys, and as a margin.
const FIXED: u64 = 64;
/// For each connection to SQL: an SQLite one has the file, its log and its index open.
const EACH_SQL: u64 = 4;
/// Connections above what sockets may take that still get an answer: health checks theirs, everybody else a refusal.
const REFUSALS: u64 = 16;
/// Between two warnings.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// Where the lines are.
#[derive(Debug)]
pub struct Descriptors {
    full: u64,
    reserve: u64,
    role: &'static str,
    warned: Mutex<Option<Instant>>,
}

/// What may be done with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capacity {
    /// Anything.
    Free,
    /// It may be answered, and is then closed.
    Crowded,
    /// Nothing.
    Full,
}

/// How many descriptors are kept back with these settings.
pub fn reserve(settings: &Settings) -> u64 {
    FIXED + EACH_SQL * u64::from(settings.database.connections)
}

impl Descriptors {
    /// For this process as its limit is now. `role` begins the names of its log events.
    pub fn new(role: &'static str, settings: &Settings) -> Self {
        Self::of(role, getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX), reserve(settings))
    }

    fn of(role: &'static str, limit: u64, reserve: u64) -> Self {
        // With very few, clients get half of them.
        let reserve = reserve.min(limit / 2);
        Self { full: limit - reserve, reserve, role, warned: Mutex::new(None) }
    }

    /// Whether a connection with this number may stay.
    pub fn capacity(&self, number: i32) -> Capacity {
        let number = u64::try_from(number).unwrap_or(0);
        let capacity = if number >= self.full {
            Capacity::Full
        } else if number >= self.full.saturating_sub(REFUSALS) {
            Capacity::Crowded
        } else {
            Capacity::Free
        };
        if capacity != Capacity::Free {
            self.warn();
        }
        capacity
    }

    fn warn(&self) {
        let Some(mut warned) = self.warned.try_lock() else { return };
        if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            *warned = Some(Instant::now());
            let (limit, reserve, role) = (self.full + self.reserve, self.reserve, self.role);
            tracing::warn!(
                limit,
                reserve,
                "{role}.descriptors_short: new clients are refused, since the file descriptors that are left are kept \
                 for Redis and the database; raise the limit with `ulimit -n` or LimitNOFILE"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_numbers_are_kept_back_and_those_below_are_for_refusals() {
        let some = Descriptors::of("gateway", 256, 96);
        for (number, capacity) in [
            (3, Capacity::Free),
            (143, Capacity::Free),
            (144, Capacity::Crowded),
            (159, Capacity::Crowded),
            (160, Capacity::Full),
            (255, Capacity::Full),
        ] {
            assert_eq!(some.capacity(number), capacity, "{number}");
        }
        let few = Descriptors::of("gateway", 64, 96);
        assert_eq!(
            [few.capacity(15), few.capacity(16), few.capacity(32)],
            [Capacity::Free, Capacity::Crowded, Capacity::Full]
        );
        assert_eq!(Descriptors::of("gateway", u64::MAX, 96).capacity(i32::MAX), Capacity::Free);
    }
}
