//! What goes on in a worker beside its jobs and commands: heartbeats, the jobs of dead workers, the audit trail, and what
//! one worker does now and then for all.

pub(crate) mod audit_pruner;
pub(crate) mod audit_recovery;
pub(crate) mod audit_shipper;
pub(crate) mod clocks;
pub(crate) mod failure_detector;
pub(crate) mod heartbeat;
pub(crate) mod job_types;
pub(crate) mod leadership;
pub(crate) mod listening;
pub(crate) mod live_workers;
pub(crate) mod periodic;
pub(crate) mod rescuer;
pub(crate) mod sql_lease;
