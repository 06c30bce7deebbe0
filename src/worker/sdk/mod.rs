//! What job code is written against: the trait of a job, its errors, and what it has in its hands while it runs.

pub(crate) mod context;
pub(crate) mod error;
pub(crate) mod files;
pub(crate) mod job;
pub(crate) mod recorder;

pub use context::JobContext;
pub use error::{BoxError, Cancelled, JobError};
pub use job::Job;
