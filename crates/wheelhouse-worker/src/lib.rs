//! Write workers for [Wheelhouse](https://docs.rs/wheelhouse): programs whose jobs operators pause, resume and cancel while
//! they run, and which lose nothing when they are killed.
//!
//! # A first worker
//! A kind of job is one trait: a name, and a function. A worker is a program that knows some kinds.
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use serde_json::{Value, json};
//! use wheelhouse_worker::{Job, JobContext, JobError, Progress};
//!
//! struct Letters;
//!
//! impl Job for Letters {
//!     const TYPE: &'static str = "letters";
//!
//!     async fn run(&self, ctx: JobContext) -> Result<Value, JobError> {
//!         let recipients: Vec<String> = ctx.parameters_as()?;
//!         // Where an earlier run of this job got to.
//!         let mut sent: usize = ctx.resume_point()?.unwrap_or(0);
//!         for recipient in &recipients[sent..] {
//!             // Waits here while the job is paused; leaves with an error when it is cancelled.
//!             ctx.checkpoint().await?;
//!             println!("Dear {recipient}, …");
//!             sent += 1;
//!             ctx.save(&sent)?;
//!             ctx.progress(Progress { items_processed: sent as i64, ..Progress::default() });
//!         }
//!         Ok(json!({ "sent": sent }))
//!     }
//! }
//!
//! fn main() -> ExitCode {
//!     wheelhouse_worker::run(|worker| worker.job(Letters))
//! }
//! ```
//!
//! `examples/worker` in Wheelhouse's repository is a whole project to copy, with tests.
//!
//! # What job code does
//! [`JobContext`] is all that it has in its hands:
//!
//! | to | call |
//! |---|---|
//! | know what to do | [`parameters_as`](JobContext::parameters_as) |
//! | be paused and cancelled | [`checkpoint`](JobContext::checkpoint), [`guard`](JobContext::guard) |
//! | keep two steps together | [`critical`](JobContext::critical) |
//! | go on after a kill, a retry, a deployment | [`save`](JobContext::save), [`resume_point`](JobContext::resume_point) |
//! | say how far it is | [`progress`](JobContext::progress), [`failed_item`](JobContext::failed_item) |
//! | block a thread | [`blocking`](JobContext::blocking), [`checkpoint_blocking`](JobContext::checkpoint_blocking) |
//! | read files that the parameters name | [`open_file`](JobContext::open_file), [`list_files`](JobContext::list_files) |
//! | start programs that stop and end with it | [`child`](JobContext::child) with a [`Program`] |
//!
//! It ends with a result, or with a [`JobError`]: [failed](JobError::failed) is tried again while the job has retries
//! left, [permanent](JobError::permanent) is not, and [`Cancelled`] passes through with `?`.
//!
//! # What `main` does
//! [`run`] is a whole `main`: it reads the [settings](WorkerSettings), starts logs and threads, and works until the
//! program is asked to leave. A worker that has something to set up first (a connection pool, a client) uses [`main`],
//! whose function is `async`. Both make the binary able to look after the programs that its jobs start.
//!
//! # Testing
//! [`JobHarness`] runs a job in a test, without Redis and without SQL. The test pauses it, kills it, and looks at what it
//! saved. See its example, and the tests of `examples/worker`.
//!
//! # What is promised
//! Everything that stands on this page. Types that will grow are `#[non_exhaustive]`. The crate `wheelhouse`, which does
//! the work behind it, makes no such promise: use nothing of it directly.
#![warn(missing_docs)]

mod program;
mod settings;

pub use program::{main, run};
pub use settings::WorkerSettings;
#[doc(inline)]
pub use wheelhouse::config::SettingError;
#[doc(inline)]
pub use wheelhouse::domain::{
    FailedItem, Job as JobRow, JobStatus, Progress, Resource, ResourceId, TenantId, UserId, WorkerId,
};
#[doc(inline)]
pub use wheelhouse::worker::process::{Ended as ProgramEnd, ExitKind as ProgramExit, ProcessError, Program};
#[doc(inline)]
pub use wheelhouse::worker::signals::stop_signals;
#[doc(inline)]
pub use wheelhouse::worker::{
    BoxError, Cancelled, ChildProgram, ControlOutcome, Job, JobContext, JobEnd, JobError, JobHarness, JobRun, Worker,
    WorkerBuilder, WorkerError,
};
