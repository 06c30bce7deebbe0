//! One job whose work belongs to this very program (`wheelhouse run`): the same control loop as in a
//! worker, for a single piece of work.

use std::sync::Arc;

use super::WorkerError;
use super::hosted::Controlled;
use crate::broker::Broker;
use crate::config::Settings;
use crate::domain::{Job, Progress};
use crate::store::{HostedJob, RunEnd, Store};

/// How the end of attached work was recorded.
#[derive(Debug)]
pub enum Settled {
    /// As it ended: the row is completed or failed.
    Recorded(Box<Job>),
    /// A cancel command ended it, and has been answered.
    Cancelled,
    /// The job was no longer this run's; nothing was written.
    Lost,
}

/// Keeps one attached job under live control: heartbeats, commands, progress.
///
/// `hosted` comes from [`Store::create_attached_job`]; its `run.host` is the worker id used here.
/// Start the work before (or right after) the host; report its end with [`finish`](Self::finish).
pub struct AttachedHost {}

impl AttachedHost {
    /// Starts listening for commands on the job and keeps the run alive.
    pub async fn start(
        _settings: &Settings,
        _store: Store,
        _broker: Broker,
        _hosted: HostedJob,
        _work: Arc<dyn Controlled>,
    ) -> Result<Self, WorkerError> {
        unimplemented!()
    }

    /// Tells everyone who watches how far the work is: at most four times a second, the last one always.
    pub fn progress(&self, _progress: Progress) {
        unimplemented!()
    }

    /// Returns if another run has taken the job: end the work and write nothing.
    pub async fn lost(&self) {
        unimplemented!()
    }

    /// The work has ended by itself, or because a command cancelled it: this finds out which, records it,
    /// and says goodbye. Keeps trying while SQL is away.
    pub async fn finish(self, _end: RunEnd) -> Settled {
        unimplemented!()
    }
}
