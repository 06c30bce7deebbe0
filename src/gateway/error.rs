//! Why a gateway cannot start.

use std::net::SocketAddr;

use crate::auth::SetupError;
use crate::broker::BrokerError;
use crate::store::StoreError;

/// Why a gateway could not start: one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// Redis cannot be used.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// SQL cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// SQL is there, its tables are not.
    #[error("the database has not been migrated: run `wheelhouse migrate` first")]
    NotMigrated,
    /// The keys that tokens are checked with cannot be used.
    #[error(transparent)]
    Auth(#[from] SetupError),
    /// The certificate of the listener cannot be used.
    #[error("{0}")]
    Tls(String),
    /// The address cannot be listened on.
    #[error("setting {setting}: cannot listen on {address}: {error}; is another program using it?")]
    Listen {
        /// `server.listen` or `server.admin_listen`.
        setting: &'static str,
        /// The address of the setting.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
}
