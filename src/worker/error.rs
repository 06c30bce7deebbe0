//! Why a worker could not start.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::broker::BrokerError;
use crate::store::StoreError;

/// Why a worker could not start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// Redis did not answer, or refused.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// SQL did not answer, or refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system does not let it listen for signals.
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
    /// The tables are missing or old.
    #[error("the database is not up to date: run `wheelhouse migrate` first")]
    NotMigrated,
    /// The folder of the setting `worker.files_root` cannot be opened.
    #[error("setting worker.files_root: cannot open the folder {}: {}", .0.display(), .1)]
    FilesRoot(PathBuf, std::io::Error),
    /// The certificate of its listener cannot be used.
    #[error("{0}")]
    Tls(String),
    /// The address of the setting `worker.listen` cannot be listened on.
    #[error("setting worker.listen: cannot listen on {0}: {1}; is another program using it?")]
    Listen(SocketAddr, std::io::Error),
    /// Tokens of foreign workers cannot be checked.
    #[error("worker.listen needs a key to check tokens with: {0}")]
    Tokens(String),
}
