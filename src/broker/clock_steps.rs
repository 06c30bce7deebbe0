//! Steps forwards of Redis's clock, noticed by comparing it with this machine's monotonic clock.
//!
//! A command waits by Redis's clock. When somebody sets that clock an hour forwards, every waiting command seems an hour
//! older, and all of them would be ended as expired. Whoever ends commands because of their age adds what
//! [`ClockSteps::total_within`] says to the time for which they may wait.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Partition;

/// A difference up to this is no step: clocks drift, and NTP slews them.
const TOLERANCE: Duration = Duration::from_secs(2);
/// Steps remembered of one partition. A clock that is set more often than that in one `command.ttl` is beyond help.
const REMEMBERED: usize = 16;

/// What is known of the clock of each partition's server.
#[derive(Default)]
pub(super) struct ClockSteps {
    partitions: Mutex<HashMap<Partition, ClockReadings>>,
}

struct ClockReadings {
    /// When the newest reading was asked for, and what it said (Unix ms).
    newest: (Instant, i64),
    /// When a step was noticed, and how far it went.
    steps: VecDeque<(Instant, Duration)>,
}

impl ClockSteps {
    /// The server that has this partition said `redis_ms` (Unix ms) to whoever asked it at `asked`.
    pub(super) fn observe(&self, partition: Partition, asked: Instant, redis_ms: i64) {
        self.observe_at(partition, asked, Instant::now(), redis_ms);
    }

    fn observe_at(&self, partition: Partition, asked: Instant, answered: Instant, redis_ms: i64) {
        let mut partitions = self.partitions.lock();
        let readings = partitions
            .entry(partition)
            .or_insert_with(|| ClockReadings { newest: (asked, redis_ms), steps: VecDeque::new() });
        let (before, said) = readings.newest;
        if asked < before {
            return; // Two calls overtook each other.
        }
        // Without a step it cannot have got further than this: the earlier reading was made after it was asked for.
        let passed = i64::try_from(answered.saturating_duration_since(before).as_millis()).unwrap_or(i64::MAX);
        let ahead = u64::try_from(redis_ms.saturating_sub(said).saturating_sub(passed)).unwrap_or(0);
        let step = Duration::from_millis(ahead);
        if step > TOLERANCE {
            tracing::warn!(%partition, seconds = step.as_secs(), "broker.clock_set_forwards");
            if readings.steps.len() == REMEMBERED {
                readings.steps.pop_front();
            }
            readings.steps.push_back((answered, step));
        }
        readings.newest = (asked, redis_ms);
    }

    /// How far the clock was set forwards total_within this time, all steps together.
    pub(super) fn total_within(&self, partition: Partition, time: Duration) -> Duration {
        let partitions = self.partitions.lock();
        let steps = partitions.get(&partition).into_iter().flat_map(|readings| &readings.steps);
        steps.filter(|(at, _)| at.elapsed() <= time).map(|(_, step)| *step).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Keys;

    #[test]
    fn a_step_forwards_is_what_the_clock_gained_on_this_machines_and_slow_answers_are_none() {
        let (steps, partition) = (ClockSteps::default(), Keys::new(2).partitions().next().expect("one"));
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let total_within = || steps.total_within(partition, Duration::from_secs(3_600));
        steps.observe_at(partition, at(0), at(10), 1_000_000);
        steps.observe_at(partition, at(1_000), at(1_010), 1_001_000);
        // The answer took ten seconds, and was read at their end.
        steps.observe_at(partition, at(2_000), at(12_000), 1_012_000);
        // Backwards is no step forwards.
        steps.observe_at(partition, at(13_000), at(13_010), 500_000);
        assert_eq!(total_within(), Duration::ZERO);
        steps.observe_at(partition, at(14_000), at(14_000), 4_101_000);
        assert_eq!(total_within(), Duration::from_secs(3_600));
        let other = Keys::new(2).partitions().nth(1).expect("two");
        assert_eq!(steps.total_within(other, Duration::from_secs(3_600)), Duration::ZERO);
    }
}
