//! What can go wrong on the way to Redis.

use redis::RedisError;

/// Server errors after which nothing was done, and which pass: the caller may come again. `MOVED` and `ASK` name
/// another node, which could not be reached either.
const PASSING: [&str; 11] = [
    "READONLY",
    "LOADING",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "MOVED",
    "ASK",
    "MISCONF",
    "OOM",
    "NOREPLICAS",
    "BUSY",
];

/// Why Redis gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// Nothing was sent: there is no connection. Nothing was done, and nothing will be.
    #[error("Redis is not reachable: {0}")]
    Unavailable(String),
    /// It was sent, and no answer came in time: it may have been done.
    #[error("Redis did not answer in time: {0}")]
    Unknown(String),
    /// Redis answered with an error, or with something a wrapper does not understand: a bug or a wrong server.
    #[error("Redis refused: {0}")]
    Refused(String),
}

impl From<RedisError> for BrokerError {
    /// What an error of a command that was sent once means for whoever sent it.
    fn from(error: RedisError) -> Self {
        if error.code().is_some_and(|code| PASSING.contains(&code)) || error.is_connection_refusal() {
            return Self::Unavailable(error.to_string());
        }
        if error.is_io_error() || error.is_unrecoverable_error() {
            return Self::Unknown(error.to_string());
        }
        Self::Refused(error.to_string())
    }
}
