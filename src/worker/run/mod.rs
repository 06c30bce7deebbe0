//! The runs in this worker: job code and programs while they run, and what is recorded about them.

pub(crate) mod active_run;
pub(crate) mod child;
pub(crate) mod control;
pub(crate) mod control_problem;
pub(crate) mod job_queue;
pub(crate) mod lifecycle;
pub(crate) mod output_writer;
pub(crate) mod pause_gate;
pub(crate) mod paused_jobs;
pub(crate) mod progress_writer;
pub(crate) mod registry;
pub(crate) mod run_output;
pub(crate) mod run_progress;
pub(crate) mod run_saves;
pub(crate) mod run_updates;
pub(crate) mod runner;
pub(crate) mod timeout;

pub use child::ChildProgram;
pub use control::{ControlOutcome, Controlled};
