//! What can go wrong on the way to SQL.

/// Why SQL did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Away, busy or too slow: worth trying again.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// The row is there already.
    #[error("{0}")]
    Conflict(String),
    /// It can never work like this: a missing table, a value of the wrong form.
    #[error("the database refused: {0}")]
    Refused(String),
}

impl StoreError {
    /// Whether trying again can help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}
