//! `lua/begin_run.lua`, `renew_run.lua`, `end_run.lua`: which worker hosts a running job.

use crate::broker::{Broker, BrokerError};
use crate::domain::{Resource, WorkerId};

/// What a host learns each second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    /// The job is still this worker's.
    Held {
        /// How many commands wait on it.
        waiting: i64,
    },
    /// Another run has begun, or the run was ended: stop the work, change nothing.
    Lost,
}

impl Broker {
    /// The job runs inside this worker now, as its `run`-th run; an older run is ended by it.
    pub async fn begin_run(&self, _job: &Resource, _worker: &WorkerId, _run: i64) -> Result<RunState, BrokerError> {
        unimplemented!()
    }

    /// Still running. Takes the run up again where Redis lost it; `Lost` only if a newer run is known.
    pub async fn renew_run(&self, _job: &Resource, _worker: &WorkerId, _run: i64) -> Result<RunState, BrokerError> {
        unimplemented!()
    }

    /// The job has left this worker; does nothing if a newer run has begun. Makes waiting commands claimable by anyone.
    pub async fn end_run(&self, _job: &Resource, _worker: &WorkerId, _run: i64) -> Result<(), BrokerError> {
        unimplemented!()
    }
}
