//! How long a run has run.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::domain::{Job, JobStatus};

/// The job's limit, and the words for a run that has used it up.
pub(crate) fn limit(job: &Job) -> Option<Duration> {
    job.timeout_seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs)
}

/// Why such a run has failed.
pub(crate) fn words(limit: Duration) -> String {
    format!("timed out after {} s", limit.as_secs())
}

/// Returns when a job has been running for so long; the time that it stands paused does not count. Never, if there
/// is no limit.
pub(crate) async fn used_up(mut status: watch::Receiver<JobStatus>, limit: Option<Duration>) -> Duration {
    let mut left = limit.unwrap_or(Duration::MAX);
    while let Some(limit) = limit {
        if status.wait_for(|status| *status == JobStatus::Running).await.is_err() {
            break; // The run is gone.
        }
        let begun = Instant::now();
        tokio::select! {
            () = tokio::time::sleep(left) => return limit,
            changed = status.wait_for(|status| *status != JobStatus::Running) => {
                if changed.is_err() {
                    break;
                }
            }
        }
        left = left.saturating_sub(begun.elapsed());
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_time_that_a_job_stands_paused_does_not_count() {
        let status = watch::Sender::new(JobStatus::Running);
        let begun = Instant::now();
        let limit = Some(Duration::from_secs(10));
        let running = tokio::spawn(used_up(status.subscribe(), limit));
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(2)).await;
            status.send_replace(JobStatus::Paused);
            tokio::time::sleep(Duration::from_secs(100)).await;
            status.send_replace(JobStatus::Running);
        }
        assert_eq!(running.await.ok(), limit);
        assert_eq!(begun.elapsed().as_secs(), 310);
        let without = used_up(status.subscribe(), None);
        assert!(tokio::time::timeout(Duration::from_secs(1_000_000), without).await.is_err());
    }
}
