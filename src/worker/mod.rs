//! Workers: they carry out commands, and run jobs.

mod attached;
mod hosted;

pub use attached::{AttachedHost, Settled};
pub use hosted::{Controlled, Reached};

use crate::broker::BrokerError;
use crate::store::StoreError;

/// Why a worker could not start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// Redis.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// SQL.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The tables are missing or old.
    #[error("the database is not up to date: run `wheelhouse migrate` first")]
    NotMigrated,
}
