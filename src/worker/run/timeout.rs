//! The time limit of a run.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::domain::{Job, JobStatus};

/// The longest running time of the job, if it has a limit.
pub(crate) fn limit(job: &Job) -> Option<Duration> {
    job.timeout_seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs)
}

/// Why a run whose time is over has failed.
pub(crate) fn message(limit: Duration) -> String {
    format!("timed out after {} s", limit.as_secs())
}

/// Measures the running time that is left.
struct RunTimer {
    left: Duration,
    running_since: Option<Instant>,
}

impl RunTimer {
    fn new(limit: Duration) -> Self {
        Self { left: limit, running_since: None }
    }

    /// The job runs, or is paused, from now on.
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

    /// When the time is over, if the job goes on running.
    fn ends(&self) -> Option<Instant> {
        self.running_since.and_then(|since| since.checked_add(self.left))
    }
}

/// Returns when a job has been running for as long as it may; the time that it is paused does not count.
/// Never, if there is no limit.
pub(crate) async fn expired(mut status: watch::Receiver<JobStatus>, limit: Option<Duration>) -> Duration {
    let Some(limit) = limit else { return std::future::pending().await };
    let mut timer = RunTimer::new(limit);
    loop {
        timer.set(*status.borrow_and_update() == JobStatus::Running, Instant::now());
        let time_is_up = async {
            match timer.ends() {
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
        let mut timer = RunTimer::new(Duration::from_secs(10));
        assert_eq!(timer.ends(), None, "it does not run yet");
        timer.set(true, at(0));
        timer.set(true, at(2));
        assert_eq!(timer.ends(), Some(at(10)));
        timer.set(false, at(4));
        timer.set(false, at(50));
        assert_eq!(timer.ends(), None, "it stands");
        timer.set(true, at(100));
        assert_eq!(timer.ends(), Some(at(106)));
    }
}
