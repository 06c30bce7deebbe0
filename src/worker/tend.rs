//! What goes on beside every hosted run: renewing it, passing its progress on, recording its end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::core::{Core, backoff};
use super::gate::CONFIRMED_FOR;
use super::hosts::{Flush, Gone, Hosted, Phase};
use super::report::Latest;
use crate::broker::scripts::runs::RunState;
use crate::broker::scripts::updates::Update;
use crate::domain::{Job, JobStatus};
use crate::protocol::server;
use crate::store::{Account, Finished, RunEnd, StoreError};

/// Between two renewals: the longest that a lost wake-up of a hosted job's command can last.
const RENEW: Duration = Duration::from_secs(1);
/// Between two progress messages of one job.
const PUBLISH: Duration = Duration::from_millis(250);
/// Between two writes of one job's progress to SQL.
const SAVE: Duration = Duration::from_secs(1);

impl Core {
    /// Takes a run into the table and looks after it until it is gone.
    pub(crate) async fn host(self: &Arc<Self>, hosted: &Arc<Hosted>, hear_flush: mpsc::Receiver<Flush>) {
        self.hosts.insert(hosted.clone());
        // Before anything else: from now on its commands are for this worker alone.
        self.renew(hosted).await;
        self.spawn(renewer(self.clone(), hosted.clone()));
        self.spawn(writer(self.clone(), hosted.clone(), hear_flush));
    }

    async fn renew(self: &Arc<Self>, hosted: &Arc<Hosted>) {
        match self.broker.renew_run(hosted.resource(), &self.id, hosted.run().number).await {
            Ok(RunState::Held { waiting }) => {
                let silent = hosted.last_renewed.borrow().elapsed();
                hosted.confirm();
                if silent > CONFIRMED_FOR && hosted.gate.is_none() {
                    self.spawn(back_in_contact(self.clone(), hosted.clone()));
                }
                hosted.commands.send_replace(waiting);
                if waiting > 0 {
                    self.offer(hosted.resource().clone());
                }
            }
            Ok(RunState::Lost) => self.abandon(hosted),
            Err(error) => tracing::debug!(job = %hosted.resource(), %error, "worker.renewal_delayed"),
        }
    }

    /// Records how work ended that no command has ended; waits for SQL as long as it takes.
    /// Gives the row where this recorded it.
    pub(crate) async fn settle(self: &Arc<Self>, hosted: &Arc<Hosted>, end: RunEnd) -> (Gone, Option<Box<Job>>) {
        let mut phase = hosted.phase.subscribe();
        let mut status = hosted.status.subscribe();
        let mut tries = 0;
        loop {
            if let Err(now) = hosted.advance(&[Phase::Open, Phase::EndedPaused], Phase::Closing) {
                // A command is bringing it to its end as well: that command finds out who was first.
                if let Phase::Gone(how) = now {
                    return (how, None);
                }
                if phase.changed().await.is_err() {
                    return (Gone::Elsewhere, None);
                }
                continue;
            }
            match self.record(hosted, &end, &mut tries).await {
                Recorded::As(job) => {
                    self.announce_left(&job, hosted.run().number).await;
                    self.hosts.close(hosted, Gone::Recorded);
                    self.dispatch.notify_one();
                    return (Gone::Recorded, Some(job));
                }
                Recorded::NotOurs => {
                    self.end_run(hosted.resource(), hosted.run().number).await;
                    self.hosts.close(hosted, Gone::Elsewhere);
                    return (Gone::Elsewhere, None);
                }
                Recorded::Paused => {
                    if hosted.advance(&[Phase::Closing], Phase::EndedPaused).is_err() {
                        continue;
                    }
                    if *status.borrow() == JobStatus::Running {
                        // Paused by plain SQL: nobody will tell when that ends.
                        tokio::time::sleep(SAVE).await;
                        continue;
                    }
                    tokio::select! {
                        _ = status.wait_for(|status| *status == JobStatus::Running) => {}
                        _ = phase.wait_for(|phase| !matches!(phase, Phase::EndedPaused)) => {}
                    }
                }
            }
        }
    }

    async fn record(&self, hosted: &Hosted, end: &RunEnd, tries: &mut u32) -> Recorded {
        loop {
            // What the work said last first: once its end is in SQL, nothing more of it can be written.
            if !hosted.flush().await {
                tokio::time::sleep(backoff(Duration::from_millis(200), Duration::from_secs(5), *tries)).await;
                *tries = tries.saturating_add(1);
                continue;
            }
            let progress = hosted.report.latest().progress;
            let answer = match self.store.finish(hosted.run(), &progress, end).await {
                Ok(Finished::Done(job)) => return Recorded::As(job),
                // Not running, or not ours any more: a write that only needs it to be ours tells which.
                Ok(Finished::Lost) => self.store.save(hosted.run(), &Account { progress, ..Account::default() }).await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(true) => return Recorded::Paused,
                Ok(false) => return Recorded::NotOurs,
                Err(error) => {
                    self.complain(hosted, &error, "worker.end_not_recorded");
                    tokio::time::sleep(backoff(Duration::from_millis(200), Duration::from_secs(5), *tries)).await;
                    *tries = tries.saturating_add(1);
                }
            }
        }
    }

    /// Gives a run whose work is stopped and dropped to whoever comes next.
    pub(crate) async fn hand_back(self: &Arc<Self>, hosted: &Arc<Hosted>) {
        if hosted.advance(&[Phase::Open, Phase::Cancelled, Phase::EndedPaused], Phase::Closing).is_err() {
            return;
        }
        let mut tries = 0;
        loop {
            if hosted.flush().await {
                match self.store.hand_back(hosted.run()).await {
                    Ok(_) => break,
                    Err(error) => self.complain(hosted, &error, "worker.hand_back_delayed"),
                }
            }
            tokio::time::sleep(backoff(Duration::from_millis(100), Duration::from_secs(1), tries)).await;
            tries += 1;
        }
        match self.store.job_without_contents(hosted.resource()).await {
            Ok(Some(job)) => self.announce_left(&job, hosted.run().number).await,
            Ok(None) | Err(_) => self.end_run(hosted.resource(), hosted.run().number).await,
        }
        tracing::info!(job_id = %hosted.resource().id, tenant_id = %hosted.resource().tenant, run = hosted.run().number, "worker.job_handed_back");
        self.hosts.close(hosted, Gone::Elsewhere);
    }

    fn complain(&self, hosted: &Hosted, error: &StoreError, event: &'static str) {
        if error.is_transient() {
            tracing::warn!(job = %hosted.resource(), %error, "{event}");
        } else {
            tracing::error!(job = %hosted.resource(), %error, "{event}");
        }
    }
}

/// Others may have written into the row that they have lost contact with this host. They see that it is back, but
/// there may be none of them any more.
async fn back_in_contact(core: Arc<Core>, hosted: Arc<Hosted>) {
    match core.store.regain_contact(hosted.run()).await {
        Ok(Some(job)) => core.publish_contact(&job).await,
        Ok(None) => {}
        Err(error) => tracing::debug!(job = %hosted.resource(), %error, "worker.contact_not_recorded"),
    }
}

/// What the row says about an end.
enum Recorded {
    As(Box<Job>),
    Paused,
    NotOurs,
}

async fn renewer(core: Arc<Core>, hosted: Arc<Hosted>) {
    loop {
        tokio::select! {
            () = hosted.gone() => return,
            () = tokio::time::sleep(RENEW) => core.renew(&hosted).await,
        }
    }
}

/// The only one who writes a run's progress, so that an older one never follows a newer one.
async fn writer(core: Arc<Core>, hosted: Arc<Hosted>, mut hear_flush: mpsc::Receiver<Flush>) {
    let mut written = Written::default();
    let (mut publish_at, mut save_at) = (Instant::now(), Instant::now() + SAVE);
    let mut tried_first_point = false;
    loop {
        let latest = hosted.report.latest();
        let to_publish = latest.progress_version != written.published;
        let to_save = !written.has_saved(&latest);
        // The first resume point is written at once: a job that takes its worker along within a second has then still
        // got further, if it has.
        let first_point = latest.resume_version > 0 && written.resume == 0 && !tried_first_point;
        if first_point {
            save_at = Instant::now();
        }
        tokio::select! {
            () = hosted.gone() => return,
            Some(done) = hear_flush.recv() => {
                written.publish(&core, &hosted).await;
                let saved = written.save(&core, &hosted).await;
                (publish_at, save_at) = (Instant::now() + PUBLISH, Instant::now() + SAVE);
                let _ = done.send(saved);
            }
            () = hosted.report.changed.notified() => {}
            () = tokio::time::sleep_until(publish_at), if to_publish => {
                written.publish(&core, &hosted).await;
                publish_at = Instant::now() + PUBLISH;
            }
            () = tokio::time::sleep_until(save_at), if to_save => {
                tried_first_point |= first_point;
                written.save(&core, &hosted).await;
                save_at = Instant::now() + SAVE;
            }
        }
    }
}

/// The versions passed on so far.
#[derive(Default)]
struct Written {
    published: u64,
    saved: u64,
    resume: u64,
    failed: u64,
}

impl Written {
    fn has_saved(&self, latest: &Latest) -> bool {
        (latest.progress_version, latest.resume_version, latest.failed_version)
            == (self.saved, self.resume, self.failed)
    }

    async fn publish(&mut self, core: &Core, hosted: &Hosted) {
        let latest = hosted.report.latest();
        if latest.progress_version == self.published {
            return;
        }
        let status = *hosted.status.borrow();
        let update = Update {
            run: Some(hosted.run().number),
            message: server::job_progress(hosted.resource(), status, &latest.progress),
            progress: Some(latest.progress),
            desired: None,
        };
        match core.broker.publish_update(hosted.resource(), &update).await {
            Ok(_) => self.published = latest.progress_version,
            Err(error) => tracing::debug!(job = %hosted.resource(), %error, "worker.progress_delayed"),
        }
    }

    /// `false`: SQL did not take it, and may later.
    async fn save(&mut self, core: &Arc<Core>, hosted: &Arc<Hosted>) -> bool {
        if self.has_saved(&hosted.report.latest()) {
            return true;
        }
        let (latest, failed_items) = hosted.report.everything();
        let resume_point = latest.resume_point.filter(|_| latest.resume_version != self.resume);
        let is_new_point = resume_point.is_some() && resume_point != hosted.job.resume_point;
        let account = Account { progress: latest.progress, resume_point, failed_items };
        match core.store.save(hosted.run(), &account).await {
            Ok(true) => {
                (self.saved, self.resume, self.failed) =
                    (latest.progress_version, latest.resume_version, latest.failed_version);
                hosted.report.stored(latest.failed_version);
                if is_new_point {
                    hosted.got_further.store(true, Ordering::Relaxed);
                }
            }
            // While a command or the end is being recorded, the row may have left this run on purpose.
            Ok(false) if hosted.phase() == Phase::Open => core.abandon(hosted),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(job = %hosted.resource(), %error, "worker.progress_not_saved");
                return !error.is_transient();
            }
        }
        true
    }
}
