//! The jobs hosted in this process: one entry for each run, from the moment SQL gave it to this worker
//! until its end is recorded. Commands and the work's own end meet here, and exactly one of them wins.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::gate::Gate;
use super::hosted::Controlled;
use super::report::Report;
use crate::domain::{JobStatus, Resource};
use crate::store::{HostedJob, Run};

/// Where a run is between its start and its recorded end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The work runs or stands still.
    Open,
    /// A cancel is bringing it to its end.
    Cancelling,
    /// A cancel has ended the work; the row is still to say so.
    Cancelled,
    /// The work ended by itself; the row is still to say so.
    Closing,
    /// The work ended while the job was paused: that is recorded when it is resumed, for nothing but
    /// `running` leads to `completed` or `failed`.
    EndedPaused,
    /// Nothing is left to write.
    Gone(Gone),
}

/// How a run left this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gone {
    /// Its end is in the row.
    Recorded,
    /// A cancel command has ended it.
    Cancelled,
    /// It goes on elsewhere, or belongs to another run already.
    Elsewhere,
}

/// Asks the writer to pass everything on; it answers whether that is done (or never will be).
pub(crate) type Flush = oneshot::Sender<bool>;

/// One run inside this process.
pub(crate) struct Hosted {
    pub(crate) job: HostedJob,
    pub(crate) work: Arc<dyn Controlled>,
    pub(crate) report: Arc<Report>,
    /// The gate of job code; a foreign program has none.
    pub(crate) gate: Option<Arc<Gate>>,
    pub(crate) phase: watch::Sender<Phase>,
    /// As in the row, as far as this process knows.
    pub(crate) status: watch::Sender<JobStatus>,
    pub(crate) last_renewed: watch::Sender<Instant>,
    /// It has saved a resume point that no run before had: whatever workers died in it, it gets further.
    pub(crate) got_further: AtomicBool,
    /// Commands that waited for it at the last renewal.
    pub(crate) commands: watch::Sender<i64>,
    /// Asks the writer to pass everything on now. A few callers at most: a command and the end.
    flush: mpsc::Sender<Flush>,
}

impl Hosted {
    pub(crate) fn new(
        job: HostedJob,
        work: Arc<dyn Controlled>,
        report: Arc<Report>,
        gate: Option<Arc<Gate>>,
    ) -> (Arc<Self>, mpsc::Receiver<Flush>) {
        let (flush, hear_flush) = mpsc::channel(8);
        let hosted = Self {
            status: watch::Sender::new(job.job.status),
            job,
            work,
            report,
            gate,
            phase: watch::Sender::new(Phase::Open),
            last_renewed: watch::Sender::new(Instant::now()),
            got_further: AtomicBool::new(false),
            commands: watch::Sender::new(0),
            flush,
        };
        (Arc::new(hosted), hear_flush)
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

    /// Goes from one of the phases to another; `Err` has the phase it is in instead.
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

    pub(crate) fn is_gone(&self) -> bool {
        matches!(self.phase(), Phase::Gone(_))
    }

    pub(crate) async fn gone(&self) {
        // The sender lives in `self`: the wait ends with the phase only.
        let _ = self.phase.subscribe().wait_for(|phase| matches!(phase, Phase::Gone(_))).await;
    }

    /// The job is still ours: job code may go on.
    pub(crate) fn confirm(&self) {
        self.last_renewed.send_replace(Instant::now());
        if let Some(gate) = &self.gate {
            gate.confirm();
        }
    }

    /// Passes on what the work has said. `false`: SQL did not take it, and may later.
    pub(crate) async fn flush(&self) -> bool {
        let (done, wait) = oneshot::channel();
        // Without a writer the run is gone, and nothing more of it is to be written.
        self.flush.send(done).await.is_err() || wait.await.unwrap_or(true)
    }
}

/// The table.
#[derive(Default)]
pub(crate) struct Hosts {
    entries: Mutex<HashMap<Resource, Arc<Hosted>>>,
    /// Something left, or stopped using a slot.
    pub(crate) changed: Notify,
}

impl Hosts {
    fn lock(&self) -> MutexGuard<'_, HashMap<Resource, Arc<Hosted>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn insert(&self, hosted: Arc<Hosted>) {
        self.lock().insert(hosted.resource().clone(), hosted);
    }

    pub(crate) fn get(&self, job: &Resource) -> Option<Arc<Hosted>> {
        self.lock().get(job).cloned()
    }

    pub(crate) fn contains(&self, job: &Resource) -> bool {
        self.lock().contains_key(job)
    }

    pub(crate) fn holds(&self, run: &Run) -> bool {
        self.lock().get(&run.job).is_some_and(|hosted| hosted.run() == run)
    }

    /// Takes the entry out, says how it left, and wakes who waits for room.
    pub(crate) fn close(&self, hosted: &Hosted, how: Gone) {
        {
            let mut entries = self.lock();
            if entries.get(hosted.resource()).is_some_and(|there| there.run() == hosted.run()) {
                entries.remove(hosted.resource());
            }
        }
        hosted.phase.send_if_modified(|phase| {
            if matches!(phase, Phase::Gone(_)) {
                return false;
            }
            *phase = Phase::Gone(how);
            true
        });
        self.changed.notify_waiters();
    }

    pub(crate) fn all(&self) -> Vec<Arc<Hosted>> {
        self.lock().values().cloned().collect()
    }

    /// How many use a slot: a paused job keeps its worker but no slot.
    pub(crate) fn running(&self) -> usize {
        self.lock().values().filter(|hosted| *hosted.status.borrow() == JobStatus::Running).count()
    }

    /// Whether a job runs here in which so many workers have died since it last got further: nothing is to run beside it.
    pub(crate) fn runs_suspect(&self, deaths: i64) -> bool {
        let is_suspect = |hosted: &Hosted| {
            let runs = *hosted.status.borrow() == JobStatus::Running;
            runs && hosted.job.deaths >= deaths && !hosted.got_further.load(Ordering::Relaxed)
        };
        self.lock().values().any(|hosted| is_suspect(hosted))
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }
}
