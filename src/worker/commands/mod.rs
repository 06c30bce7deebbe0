//! Commands in this worker, from the moment it hears of one to the command's one result.

pub(crate) mod campaign_command;
pub(crate) mod execute;
pub(crate) mod fair_queue;
pub(crate) mod forwarder;
pub(crate) mod held_claim;
pub(crate) mod in_flight;
pub(crate) mod job_command;
pub(crate) mod outcome;
pub(crate) mod scheduler;
