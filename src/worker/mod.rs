//! Workers: they carry out commands, and run jobs.
//!
//! A worker is a few parts, each with a state of its own, that share one small context (`context.rs`).
//! `parts` puts them together.
//!
//! | folder or file | what it does |
//! |---|---|
//! | `sdk` | what job code is written against |
//! | `run` | the runs in this worker: taken from SQL, started, paused, their progress written, their end recorded |
//! | `commands` | the scheduler, and each command from its claim to its one result |
//! | `notify` | tells those who watch, campaigns and other workers that something has changed |
//! | `identity` | who this worker is, for people |
//! | `maintenance` | heartbeats, the jobs of dead workers, the audit trail, what one worker does for all |
//! | `worker` | all of that as one program |
//! | `harness` | runs job code in a test, without Redis and SQL |
//! | `attached` | all of that for the one job of `wheelhouse run` |
//! | `remote` | foreign workers: the listener, and runs whose work is in another program |
//! | `process` | programs as work: stopped, continued and ended with all that belongs to them |
//! | `signals` | what asks the program to leave |
//!
//! Start with [`Job`] to write a type of job of your own.

mod attached;
mod batcher;
mod commands;
mod context;
mod error;
mod harness;
mod identity;
mod maintenance;
mod notify;
mod partition_batchers;
mod parts;
pub mod process;
#[cfg(feature = "server")]
mod remote;
mod run;
mod sdk;
pub mod signals;
#[expect(clippy::module_inception, reason = "it has the type `Worker`, and everything here belongs to one")]
mod worker;

#[cfg(feature = "server")]
pub(crate) use maintenance::clocks;

pub use attached::{AttachedEnd, AttachedHost};
pub use error::WorkerError;
pub use harness::{JobEnd, JobHarness, JobRun};
pub(crate) use run::run_output::LineKeeper;
pub use run::{ChildProgram, ControlOutcome, Controlled};
pub use sdk::{BoxError, Cancelled, Job, JobContext, JobError};
pub use worker::{Worker, WorkerBuilder};
