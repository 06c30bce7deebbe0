//! What can go wrong on the way to SQL.

/// Why SQL did not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Away, busy or too slow: worth trying again.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// The row is there already.
    #[error("{0}")]
    Conflict(String),
    /// There is none, or an older one.
    #[error("the database is not up to date: run `wheelhouse migrate` first")]
    NotMigrated,
    /// There is no such SQLite file.
    #[error(
        "setting database.url: there is no file {0}; name the deployment's database (WHEELHOUSE__DATABASE__URL, --config FILE or --set), or run `wheelhouse migrate` first to make one"
    )]
    MissingFile(String),
    /// The database is not as programs need it: a right, a table, or that it can be written is missing, until somebody gives it back.
    #[error("the database refused: {0}")]
    Unprepared(String),
    /// It can never work like this: a value of the wrong form.
    #[error("the database refused: {0}")]
    Refused(String),
}

impl StoreError {
    /// The same, and which database it is about: the file, or the server's address.
    pub(super) fn at(self, place: &str) -> Self {
        let with = |text: String| if text.contains(place) { text } else { format!("{place}: {text}") };
        match self {
            Self::Unavailable(text) => Self::Unavailable(with(text)),
            Self::Unprepared(text) => Self::Unprepared(with(text)),
            Self::Refused(text) => Self::Refused(with(text)),
            other => other,
        }
    }

    /// The same, and what to do about it.
    pub(super) fn with(self, hint: &str) -> Self {
        match self {
            Self::Unavailable(text) => Self::Unavailable(format!("{text}. {hint}")),
            Self::Unprepared(text) => Self::Unprepared(format!("{text}. {hint}")),
            Self::Refused(text) => Self::Refused(format!("{text}. {hint}")),
            other => other,
        }
    }

    /// Somebody else is writing, or every connection is in use: it says nothing of whether the database can be written.
    pub(super) fn is_contention(&self) -> bool {
        let Self::Unavailable(text) = self else { return false };
        ["database is locked", "database table is locked", NO_CONNECTION, "no answer in time"]
            .iter()
            .any(|busy| text.contains(busy))
    }

    /// Whether trying again can help: it lies with the database, and not with what was asked of it.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Unprepared(_))
    }
}

/// Every connection was in use, or none could be made.
pub(super) const NO_CONNECTION: &str = "no connection in time";

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error;
        let text = error.to_string();
        match &error {
            Error::PoolTimedOut => Self::Unavailable(NO_CONNECTION.to_owned()),
            Error::Io(_)
            | Error::Tls(_)
            // A file that a connection needs is not as it should be; it may just be replaced.
            | Error::Configuration(_)
            | Error::PoolClosed
            | Error::WorkerCrashed
            | Error::BeginFailed
            | Error::Protocol(_) => Self::Unavailable(text),
            Error::Database(inner) if inner.is_unique_violation() => Self::Conflict("it exists already".to_owned()),
            Error::Database(inner) => {
                let code = inner.code().unwrap_or_default();
                // SQLite: busy, locked, I/O, full, cannot open, race for the log.
                let primary = code.parse::<u32>().map_or(0, |c| c & 0xff);
                let sqlite = code.len() < 5 && matches!(primary, 5 | 6 | 10 | 13 | 14 | 15);
                // PostgreSQL: connection, nobody let in (a password or a rule that is just being changed), no such
                // database (one that is just being restored), serialization and deadlock, resources, shutdown and statement
                // timeout, I/O; a row locked for too long, a transaction left idle, a server that became a standby.
                let classes = ["08", "28", "3D", "40", "53", "57", "58", "55P03", "25P03", "25006"];
                let postgres = code.len() == 5 && classes.iter().any(|class| code.starts_with(class));
                // SQLite: no permission, read-only, no such table. PostgreSQL: no right, no such table or schema.
                let unprepared = match code.len() {
                    5 => ["42501", "42P01", "3F000"].contains(&&*code),
                    _ => matches!(primary, 3 | 8) || text.contains("no such table"),
                };
                match (sqlite || postgres, unprepared) {
                    (true, _) => Self::Unavailable(text),
                    (false, true) => Self::Unprepared(text),
                    (false, false) => Self::Refused(text),
                }
            }
            _ => Self::Refused(text),
        }
    }
}
