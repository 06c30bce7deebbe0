//! What can go wrong on the way to Redis.

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
