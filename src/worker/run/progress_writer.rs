//! Writes what a run has reported: its progress to those who watch the job, and snapshot to SQL.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::active_run::{ActiveRun, FlushRequest, Phase};
use super::registry::RunRegistry;
use super::run_progress::LatestProgress;
use crate::broker::scripts::updates::Update;
use crate::domain::JsonText;
use crate::protocol::server;
use crate::store::SavedRun;
use crate::worker::context::WorkerContext;

/// Between two progress messages of one job.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(250);
/// Between two writes of one job's progress to SQL.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);
/// So many runs of one worker write their progress to SQL each second. Where there are more, each waits longer, up to so many
/// times [`SAVE_INTERVAL`]: those who watch are told by Redis. A resume point and a failed item do not wait.
const SAVES_PER_SECOND: usize = 1_000;
const MAX_SAVE_INTERVALS: u32 = 10;

/// Writes until the run has exited. Nobody else writes its progress, so an older one never follows a newer one.
pub(crate) async fn run(
    ctx: Arc<WorkerContext>,
    runs: Arc<RunRegistry>,
    run: Arc<ActiveRun>,
    mut flush_requests: mpsc::Receiver<FlushRequest>,
) {
    let mut writer = ProgressWriter {
        ctx,
        runs,
        run: run.clone(),
        published: 0,
        saved: 0,
        resume: 0,
        failed: 0,
        told_at: Instant::now(),
        told_ms: None,
    };
    let (mut publish_at, mut save_at) = (Instant::now(), Instant::now() + SAVE_INTERVAL);
    let told_interval = run.time_limit.as_ref().map(|limit| limit.told_interval());
    let mut tried_first_point = false;
    loop {
        let latest = run.progress.latest();
        let to_publish = latest.progress_version != writer.published;
        let to_save = !writer.has_saved(&latest);
        // The first resume point is written at once: if the job crashes its worker within a second, it is known all the
        // same that it got further.
        let first_point = latest.resume_version > 0 && writer.resume == 0 && !tried_first_point;
        if first_point {
            save_at = Instant::now();
        }
        let only_progress = (latest.resume_version, latest.failed_version) == (writer.resume, writer.failed);
        let save_due = if only_progress { save_at + writer.further_wait() } else { save_at };
        tokio::select! {
            () = run.exited() => return,
            Some(done) = flush_requests.recv() => {
                writer.publish().await;
                let saved = writer.save().await;
                (publish_at, save_at) = (Instant::now() + PUBLISH_INTERVAL, Instant::now() + SAVE_INTERVAL);
                let _ = done.send(saved);
            }
            () = run.progress.changed.notified() => {}
            () = tokio::time::sleep_until(publish_at), if to_publish => {
                writer.publish().await;
                publish_at = Instant::now() + PUBLISH_INTERVAL;
            }
            () = tokio::time::sleep_until(writer.told_at + told_interval.unwrap_or_default()), if told_interval.is_some() => {
                writer.save().await;
            }
            () = tokio::time::sleep_until(save_due), if to_save => {
                tried_first_point |= first_point;
                writer.save().await;
                save_at = Instant::now() + SAVE_INTERVAL;
            }
        }
    }
}

struct ProgressWriter {
    ctx: Arc<WorkerContext>,
    runs: Arc<RunRegistry>,
    run: Arc<ActiveRun>,
    /// The versions that have been written so far.
    published: u64,
    saved: u64,
    resume: u64,
    failed: u64,
    /// When SQL was told last how much of the time limit is used.
    told_at: Instant,
    told_ms: Option<i64>,
}

impl ProgressWriter {
    fn has_saved(&self, latest: &LatestProgress) -> bool {
        (latest.progress_version, latest.resume_version, latest.failed_version)
            == (self.saved, self.resume, self.failed)
    }

    /// How much longer than [`SAVE_INTERVAL`] progress alone waits among very many runs.
    fn further_wait(&self) -> Duration {
        let intervals = u32::try_from(self.runs.len() / SAVES_PER_SECOND).unwrap_or(u32::MAX);
        SAVE_INTERVAL * intervals.min(MAX_SAVE_INTERVALS - 1)
    }

    async fn publish(&mut self) {
        let run = &self.run;
        let latest = run.progress.latest();
        if latest.progress_version == self.published {
            return;
        }
        let status = *run.status.borrow();
        let update = Update {
            run: Some(run.run().number),
            message: server::job_progress(run.resource(), status, &latest.progress),
            progress: Some(latest.progress),
            desired: None,
        };
        match self.ctx.broker.publish_update(run.resource(), &update).await {
            Ok(_) => self.published = latest.progress_version,
            Err(error) => tracing::debug!(job = %run.resource(), %error, "worker.progress_delayed"),
        }
    }

    /// `false`: SQL did not take it, and may do so later.
    async fn save(&mut self) -> bool {
        let run = &self.run;
        self.told_at = Instant::now();
        let timeout_used_ms = run.time_limit.as_ref().map(|limit| limit.used_ms());
        if self.has_saved(&run.progress.latest()) && timeout_used_ms == self.told_ms {
            return true;
        }
        let (latest, failed_items) = run.progress.snapshot();
        let resume_point = latest.resume_point.filter(|_| latest.resume_version != self.resume);
        let is_new_point =
            resume_point.is_some() && resume_point.as_ref().map(JsonText::as_str) != run.job.resume_point.as_deref();
        let account = SavedRun { progress: latest.progress, resume_point, failed_items, timeout_used_ms };
        match self.ctx.store.save(run.run(), &account).await {
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
