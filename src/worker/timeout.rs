//! How long a run has run.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::domain::{Job, JobStatus};

/// The job's limit.
pub(crate) fn limit(job: &Job) -> Option<Duration> {
    job.timeout_seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs)
}

/// Why a run that has used up its time has failed.
pub(crate) fn words(limit: Duration) -> String {
    format!("timed out after {} s", limit.as_secs())
}

/// Running time that is left.
struct Clock {
    left: Duration,
    running_since: Option<Instant>,
}

impl Clock {
    fn new(limit: Duration) -> Self {
        Self { left: limit, running_since: None }
    }

    /// It runs, or stands, from now on.
    fn set(&mut self, running: bool, now: Instant) {
        match (running, self.running_since) {
            (true, None) => self.running_since = Some(now),
            (false, Some(since)) => {
                self.left = self.left.saturating_sub(now.duration_since(since));
                self.running_since = None;
            }
            _ => {}
        }
    }

    /// When the time is used up, if it runs on.
    fn ends(&self) -> Option<Instant> {
        self.running_since.and_then(|since| since.checked_add(self.left))
    }
}

/// Returns when a job has been running for as long as it may; the time that it stands paused does not count.
/// Never, if there is no limit.
pub(crate) async fn used_up(mut status: watch::Receiver<JobStatus>, limit: Option<Duration>) -> Duration {
    let Some(limit) = limit else { return std::future::pending().await };
    let mut clock = Clock::new(limit);
    loop {
        clock.set(*status.borrow_and_update() == JobStatus::Running, Instant::now());
        let time_is_up = async {
            match clock.ends() {
                Some(end) => tokio::time::sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = time_is_up => return limit,
            changed = status.changed() => {
                if changed.is_err() {
                    return std::future::pending().await; // The run is gone.
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_that_a_job_stands_paused_does_not_count() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut clock = Clock::new(Duration::from_secs(10));
        assert_eq!(clock.ends(), None, "it does not run yet");
        clock.set(true, at(0));
        clock.set(true, at(2));
        assert_eq!(clock.ends(), Some(at(10)));
        clock.set(false, at(4));
        clock.set(false, at(50));
        assert_eq!(clock.ends(), None, "it stands");
        clock.set(true, at(100));
        assert_eq!(clock.ends(), Some(at(106)));
    }
}
