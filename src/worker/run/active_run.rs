//! One run of a job in this process, from the moment SQL gave it to this worker until its end is recorded. Commands and the
//! work's own end meet here, and exactly one of them wins.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};

use super::control::Controlled;
use super::pause_gate::PauseGate;
use super::run_progress::RunProgress;
use super::timeout::TimeLimit;
use crate::domain::{JobStatus, Resource};
use crate::store::{ClaimedJob, Run};

/// Where a run is between its start and its recorded end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The work runs or is paused.
    Open,
    /// A cancel command is ending the work.
    Cancelling,
    /// A cancel command has ended the work, and that is still to be written into the row.
    Cancelled,
    /// The work has ended by itself, and that is still to be written into the row.
    Closing,
    /// The work has ended while the job was paused. That is recorded when the job is resumed, for only a running job
    /// can become completed or failed.
    EndedPaused,
    /// Nothing is left to write.
    Exited(ExitReason),
}

/// Why a run is not active in this process any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitReason {
    /// Its end has been written into the row.
    Recorded,
    /// A cancel command has ended it.
    Cancelled,
    /// The job goes on in another worker, or belongs to another run already.
    Elsewhere,
}

/// Asks the progress writer to write everything now. The answer is `false` where SQL did not take it and may do so later.
pub(crate) struct FlushRequest {
    pub(crate) done: oneshot::Sender<bool>,
    /// Whoever asks writes the progress into SQL by itself.
    pub(crate) has_progress: bool,
}

/// One run in this process.
pub(crate) struct ActiveRun {
    pub(crate) job: ClaimedJob,
    pub(crate) work: Arc<dyn Controlled>,
    pub(crate) progress: Arc<RunProgress>,
    /// Where job code waits while it is paused. A program that is not job code has none.
    pub(crate) gate: Option<Arc<PauseGate>>,
    pub(crate) phase: watch::Sender<Phase>,
    /// The status in the row, as far as this process knows.
    pub(crate) status: watch::Sender<JobStatus>,
    /// As `started`, until Redis has been heard of it.
    pub(crate) last_renewed: watch::Sender<Instant>,
    /// When it began here.
    pub(crate) started: Instant,
    /// When Redis was last told to keep what it knows of the job.
    pub(crate) kept: Mutex<Option<Instant>>,
    /// Whether it has saved a resume point that no run before had: then the crashes of workers before it do not count.
    pub(crate) got_further: AtomicBool,
    /// How much of its `timeout_seconds` is used; `None`: it has none.
    pub(crate) time_limit: Option<Arc<TimeLimit>>,
    /// The number of commands that waited for it at the last renewal.
    pub(crate) commands: watch::Sender<i64>,
    /// Holds a few requests at most, for only a command and the end of the run make them; a caller waits while it is full.
    flush: mpsc::Sender<FlushRequest>,
}

impl ActiveRun {
    pub(crate) fn new(
        job: ClaimedJob,
        work: Arc<dyn Controlled>,
        progress: Arc<RunProgress>,
        gate: Option<Arc<PauseGate>>,
    ) -> (Arc<Self>, mpsc::Receiver<FlushRequest>) {
        let (flush, flush_requests) = mpsc::channel(8);
        let started = Instant::now();
        let run = Self {
            status: watch::Sender::new(job.job.status),
            time_limit: TimeLimit::new(job.job.timeout_seconds, job.timeout_used_ms),
            job,
            work,
            progress,
            gate,
            phase: watch::Sender::new(Phase::Open),
            last_renewed: watch::Sender::new(started),
            started,
            kept: Mutex::default(),
            got_further: AtomicBool::new(false),
            commands: watch::Sender::new(0),
            flush,
        };
        (Arc::new(run), flush_requests)
    }

    pub(crate) fn run(&self) -> &Run {
        &self.job.run
    }

    pub(crate) fn resource(&self) -> &Resource {
        &self.job.run.job
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Goes from one of the phases `from` to another one. `Err` has the phase that it is in instead.
    pub(crate) fn advance(&self, from: &[Phase], to: Phase) -> Result<(), Phase> {
        let mut was = Phase::Open;
        let moved = self.phase.send_if_modified(|phase| {
            was = *phase;
            let may = from.contains(phase);
            if may {
                *phase = to;
            }
            may
        });
        if moved { Ok(()) } else { Err(was) }
    }

    pub(crate) fn has_exited(&self) -> bool {
        matches!(self.phase(), Phase::Exited(_))
    }

    pub(crate) async fn exited(&self) {
        // The sender lives in `self`: the wait ends with the phase only.
        let _ = self.phase.subscribe().wait_for(|phase| matches!(phase, Phase::Exited(_))).await;
    }

    /// The job still belongs to this run: job code may go on.
    pub(crate) fn confirm(&self) {
        self.last_renewed.send_replace(Instant::now());
        if let Some(gate) = &self.gate {
            gate.confirm();
        }
    }

    /// Has everything written that the work has reported. `false`: SQL did not take it, and may do so later.
    pub(crate) async fn flush(&self) -> bool {
        self.request_flush(false).await
    }

    /// As [`Self::flush`], for the end of the run, which has the newest progress: that alone is not written into SQL before.
    pub(crate) async fn flush_before_end(&self) -> bool {
        self.request_flush(true).await
    }

    async fn request_flush(&self, has_progress: bool) -> bool {
        let (done, wait) = oneshot::channel();
        // Without a writer the run has exited, and nothing more of it is to be written.
        self.flush.send(FlushRequest { done, has_progress }).await.is_err() || wait.await.unwrap_or(true)
    }
}
