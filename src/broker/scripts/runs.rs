//! `lua/renew_run.lua`, `end_run.lua`: which worker hosts a running job.

use super::{bytes, lua, texts};
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
    /// The job runs inside this worker as its `run`-th run: at its start and each second after. An older run
    /// is ended by it; a run that Redis forgot is taken up again.
    pub async fn renew_run(&self, job: &Resource, worker: &WorkerId, run: i64) -> Result<RunState, BrokerError> {
        let keys = [self.keys().state(job), self.keys().queue(job)];
        let args = [worker.to_string(), run.to_string()];
        let answer: i64 = self.client.script(&lua::RENEW_RUN, &texts(&keys), &bytes(&args)).await?;
        Ok(if answer < 0 { RunState::Lost } else { RunState::Held { waiting: answer } })
    }

    /// The job has left this worker; does nothing if a newer run has begun. Waiting commands become anyone's.
    pub async fn end_run(&self, job: &Resource, run: i64) -> Result<(), BrokerError> {
        let names = self.keys();
        let tenants = names.tenants_with_ready(names.partition(&job.tenant));
        let keys = [names.state(job), names.queue(job), names.ready(&job.tenant), tenants];
        let args = [run.to_string(), job.to_string()];
        let _: i64 = self.client.script(&lua::END_RUN, &texts(&keys), &bytes(&args)).await?;
        Ok(())
    }
}
