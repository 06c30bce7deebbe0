//! The time limit of a try, over all workers that go on with it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::domain::JobStatus;

/// How often SQL is told how much of the limit is used, as a share of it: what a worker that is killed has not told is not
/// counted.
const TOLD_EACH: u32 = 20;
const TOLD_INTERVAL: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(5);

/// Why a run whose time is over has failed.
pub(crate) fn message(limit: Duration) -> String {
    format!("timed out after {} s", limit.as_secs())
}

/// How much of its time limit a try has used.
#[derive(Debug)]
pub(crate) struct TimeLimit {
    limit: Duration,
    used: Mutex<Used>,
}

/// The time for which the job has been running.
#[derive(Debug)]
struct Used {
    before: Duration,
    running_since: Option<Instant>,
}

impl TimeLimit {
    /// `used_ms`: by earlier runs of this try. `None`: there is no limit.
    pub(crate) fn new(seconds: Option<i64>, used_ms: i64) -> Option<Arc<Self>> {
        let limit = Duration::from_secs(seconds.and_then(|seconds| u64::try_from(seconds).ok())?);
        let before = Duration::from_millis(u64::try_from(used_ms).unwrap_or(0));
        Some(Arc::new(Self { limit, used: Mutex::new(Used { before, running_since: None }) }))
    }

    /// How much is used.
    pub(crate) fn used_ms(&self) -> i64 {
        let used = self.used.lock();
        i64::try_from(used.total(Instant::now()).as_millis()).unwrap_or(i64::MAX)
    }

    /// How long what is used may be left untold.
    pub(crate) fn told_interval(&self) -> Duration {
        (self.limit / TOLD_EACH).clamp(*TOLD_INTERVAL.start(), *TOLD_INTERVAL.end())
    }

    /// Returns when the job has been running for as long as it may; the time that it is paused does not count.
    async fn expired(&self, mut status: watch::Receiver<JobStatus>) {
        loop {
            let is_running = *status.borrow_and_update() == JobStatus::Running;
            self.used.lock().set(is_running, Instant::now());
            let ends = self.used.lock().ends(self.limit);
            let time_is_up = async {
                match ends {
                    Some(end) => tokio::time::sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = time_is_up => return,
                changed = status.changed() => {
                    if changed.is_err() {
                        return std::future::pending().await; // The run is gone.
                    }
                }
            }
        }
    }
}

impl Used {
    fn total(&self, now: Instant) -> Duration {
        self.before + self.running_since.map_or(Duration::ZERO, |since| now.duration_since(since))
    }

    /// The job runs, or is paused, from now on.
    fn set(&mut self, running: bool, now: Instant) {
        match (running, self.running_since) {
            (true, None) => self.running_since = Some(now),
            (false, Some(_)) => (self.before, self.running_since) = (self.total(now), None),
            _ => {}
        }
    }

    /// When the time is over, if the job goes on running.
    fn ends(&self, limit: Duration) -> Option<Instant> {
        self.running_since.and_then(|since| since.checked_add(limit.saturating_sub(self.before)))
    }
}

/// Returns the limit when a job, whose row has this status, has been running for that long. Never, if there is none.
pub(crate) async fn expired(status: watch::Receiver<JobStatus>, limit: Option<Arc<TimeLimit>>) -> Duration {
    let Some(limit) = limit else { return std::future::pending().await };
    limit.expired(status).await;
    limit.limit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_that_a_job_stands_paused_does_not_count_and_that_of_earlier_runs_does() {
        let begun = Instant::now();
        let (at, limit) = (|seconds| begun + Duration::from_secs(seconds), Duration::from_secs(10));
        let mut used = Used { before: Duration::ZERO, running_since: None };
        assert_eq!(used.ends(limit), None, "it does not run yet");
        used.set(true, at(0));
        used.set(true, at(2));
        assert_eq!(used.ends(limit), Some(at(10)));
        used.set(false, at(4));
        used.set(false, at(50));
        assert_eq!(used.ends(limit), None, "it stands");
        assert_eq!(used.total(at(60)), Duration::from_secs(4));
        used.set(true, at(100));
        assert_eq!(used.ends(limit), Some(at(106)));
        let mut next = Used { before: used.total(at(103)), running_since: None };
        next.set(true, at(200));
        assert_eq!(next.ends(limit), Some(at(203)), "the next run has what is left");
    }
}
