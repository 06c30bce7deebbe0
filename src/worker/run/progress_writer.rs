//! Writes what a run has reported: its progress to those who watch the job, and snapshot to SQL.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::active_run::{ActiveRun, FlushRequest, Phase};
use super::registry::RunRegistry;
use super::run_saves::RunSaves;
use super::run_updates::RunUpdates;
use crate::domain::JsonText;
use crate::store::SavedRun;
use crate::worker::context::WorkerContext;

/// Between two progress messages of one job, on average.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(250);
/// So much of the interval may be missing after a message that was late: work that reports in step with the interval would
/// otherwise come a little too early each time, wait, and lose every twelfth report.
const MAX_LATENESS: Duration = Duration::from_millis(50);
/// Between two writes of one job's progress to SQL.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);
/// So many runs of one worker write their progress to SQL each second. Where there are more, each waits longer, up to so many
/// times [`SAVE_INTERVAL`]: those who watch are told by Redis. A resume point and a failed item do not wait.
const SAVES_PER_SECOND: usize = 1_000;
const MAX_SAVE_INTERVALS: u32 = 10;

/// Writes until the run has exited. Nobody else writes its progress, so an older one never follows a newer one. Those who watch do
/// not wait for SQL.
pub(crate) async fn run(
    ctx: Arc<WorkerContext>,
    runs: Arc<RunRegistry>,
    run: Arc<ActiveRun>,
    (updates, saves): (Arc<RunUpdates>, Arc<RunSaves>),
    flush_requests: mpsc::Receiver<FlushRequest>,
) {
    // As those before it: a caller waits while it is full.
    let (published, to_save) = mpsc::channel(1);
    let publisher = Publisher { run: run.clone(), updates, published: 0 };
    let told_at = Instant::now();
    let saver = Saver { ctx, runs, run: run.clone(), saves, saved: 0, resume: 0, failed: 0, told_at, told_ms: None };
    let writing = pin!(async { tokio::join!(publisher.run(flush_requests, published), saver.run(to_save)) });
    tokio::select! {
        () = run.exited() => {}
        _ = writing => {}
    }
}

/// Tells those who watch.
struct Publisher {
    run: Arc<ActiveRun>,
    updates: Arc<RunUpdates>,
    /// The version that has been told.
    published: u64,
}

impl Publisher {
    /// Requests to flush go on to `done` when the newest progress is told.
    async fn run(mut self, mut flush_requests: mpsc::Receiver<FlushRequest>, done: mpsc::Sender<FlushRequest>) {
        let mut publish_at = Instant::now();
        // A request that came while something was being told.
        let mut asked: Option<FlushRequest> = None;
        loop {
            if let Some(request) = asked.take() {
                self.publish(true).await;
                publish_at = Instant::now() + PUBLISH_INTERVAL;
                if done.send(request).await.is_err() {
                    return;
                }
                continue;
            }
            let to_publish = self.run.progress.versions().0 != self.published;
            tokio::select! {
                Some(request) = flush_requests.recv() => asked = Some(request),
                () = self.run.progress.reported.notified(), if !to_publish => {}
                () = tokio::time::sleep_until(publish_at), if to_publish => {
                    publish_at = next_publish(publish_at, Instant::now());
                    let (updates, run) = (self.updates.clone(), self.run.clone());
                    asked = hurried(pin!(self.publish(false)), &mut flush_requests, || updates.hurry(&run)).await.1;
                }
            }
        }
    }

    async fn publish(&mut self, is_urgent: bool) {
        let run = &self.run;
        let latest = run.progress.latest();
        if latest.progress_version == self.published {
            return;
        }
        match self.updates.publish(run, latest.progress, is_urgent).await {
            Ok(()) => self.published = latest.progress_version,
            Err(error) => tracing::debug!(job = %run.resource(), %error, "worker.progress_delayed"),
        }
    }
}

/// When the next message may go after one that was due then and goes now. Never less than an interval after it was due, so there are
/// four a second, however long Redis takes.
fn next_publish(due: Instant, now: Instant) -> Instant {
    (due + PUBLISH_INTERVAL).max(now + PUBLISH_INTERVAL - MAX_LATENESS)
}

/// Writes into SQL.
struct Saver {
    ctx: Arc<WorkerContext>,
    runs: Arc<RunRegistry>,
    run: Arc<ActiveRun>,
    saves: Arc<RunSaves>,
    /// The versions that have been written so far.
    saved: u64,
    resume: u64,
    failed: u64,
    /// When SQL was told last how much of the time limit is used.
    told_at: Instant,
    told_ms: Option<i64>,
}

impl Saver {
    async fn run(mut self, mut flush_requests: mpsc::Receiver<FlushRequest>) {
        let run = self.run.clone();
        let mut save_at = Instant::now() + SAVE_INTERVAL;
        let told_interval = run.time_limit.as_ref().map(|limit| limit.told_interval());
        let mut tried_first_point = false;
        // A request that came while something was being written.
        let mut asked: Option<FlushRequest> = None;
        loop {
            if let Some(request) = asked.take() {
                let saved = (request.has_progress && self.has_saved_all_but_progress()) || self.save(true).await;
                save_at = Instant::now() + SAVE_INTERVAL;
                let _ = request.done.send(saved);
                continue;
            }
            let (progress, resume, _) = run.progress.versions();
            let only_progress = self.has_saved_all_but_progress();
            let to_save = !only_progress || progress != self.saved;
            // The first resume point is written at once: if the job crashes its worker within a second, it is known all the
            // same that it got further.
            let first_point = resume > 0 && self.resume == 0 && !tried_first_point;
            if first_point {
                save_at = Instant::now();
            }
            let save_due = if only_progress { save_at + self.further_wait() } else { save_at };
            let saves = self.saves.clone();
            let is_urgent = tokio::select! {
                Some(request) = flush_requests.recv() => {
                    asked = Some(request);
                    continue;
                }
                () = run.progress.to_save.notified() => continue,
                () = tokio::time::sleep_until(self.told_at + told_interval.unwrap_or_default()), if told_interval.is_some() => false,
                () = tokio::time::sleep_until(save_due), if to_save => first_point,
            };
            tried_first_point |= first_point;
            asked = hurried(pin!(self.save(is_urgent)), &mut flush_requests, || saves.hurry()).await.1;
            save_at = Instant::now() + SAVE_INTERVAL;
        }
    }

    fn has_saved_all_but_progress(&self) -> bool {
        let (_, resume, failed) = self.run.progress.versions();
        (resume, failed) == (self.resume, self.failed)
    }

    /// How much longer than [`SAVE_INTERVAL`] progress alone waits among very many runs.
    fn further_wait(&self) -> Duration {
        let intervals = u32::try_from(self.runs.len() / SAVES_PER_SECOND).unwrap_or(u32::MAX);
        SAVE_INTERVAL * intervals.min(MAX_SAVE_INTERVALS - 1)
    }

    /// `false`: SQL did not take it, and may do so later.
    async fn save(&mut self, is_urgent: bool) -> bool {
        let run = &self.run;
        self.told_at = Instant::now();
        let timeout_used_ms = run.time_limit.as_ref().map(|limit| limit.used_ms());
        let is_saved = run.progress.versions() == (self.saved, self.resume, self.failed);
        if is_saved && timeout_used_ms == self.told_ms {
            return true;
        }
        let (latest, failed_items) = run.progress.snapshot();
        let resume_point = latest.resume_point.filter(|_| latest.resume_version != self.resume);
        let is_new_point =
            resume_point.is_some() && resume_point.as_ref().map(JsonText::as_str) != run.job.resume_point.as_deref();
        let account = SavedRun { progress: latest.progress, resume_point, failed_items, timeout_used_ms };
        match self.saves.save(run.run(), account, is_urgent).await {
            Ok(true) => {
                (self.saved, self.resume, self.failed) =
                    (latest.progress_version, latest.resume_version, latest.failed_version);
                run.progress.mark_stored(latest.failed_version);
                self.told_ms = timeout_used_ms;
                if is_new_point {
                    run.got_further.store(true, Ordering::Relaxed);
                }
            }
            // While a command or the end is being recorded, the row may have left this run on purpose.
            Ok(false) if run.phase() == Phase::Open => self.runs.drop_run(&self.ctx, run),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(job = %run.resource(), %error, "worker.progress_not_saved");
                return !error.is_transient();
            }
        }
        true
    }
}

/// The output, and a request to flush that came before it: whoever asks for that waits for the output, which is hurried.
async fn hurried<T>(
    mut write: Pin<&mut impl Future<Output = T>>,
    flush_requests: &mut mpsc::Receiver<FlushRequest>,
    hurry: impl Fn(),
) -> (T, Option<FlushRequest>) {
    let request = tokio::select! {
        output = &mut write => return (output, None),
        Some(request) = flush_requests.recv() => request,
    };
    hurry();
    (write.await, Some(request))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_reports_in_step_with_the_interval_never_waits_and_nobody_is_told_more_than_four_times_a_second() {
        let begun = Instant::now();
        let (late, mut due) = (Duration::from_millis(3), begun);
        for n in 0..100 {
            let now = begun + PUBLISH_INTERVAL * n + late;
            assert!(due <= now, "the report {n} waits");
            due = next_publish(due, now);
        }
        // After a pause, reports come as fast as they are taken.
        let resumed = begun + Duration::from_secs(600);
        let (mut sent, mut now) = (0, resumed);
        while now < resumed + Duration::from_secs(10) {
            due = next_publish(due, now);
            now = due;
            sent += 1;
        }
        assert!(sent <= 41, "{sent} in ten seconds");
    }
}
