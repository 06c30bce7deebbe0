//! Connecting to SQLite or PostgreSQL, and how long anything may wait for them.

use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use secrecy::ExposeSecret;
use sqlx::Connection;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};

use super::StoreError;
use super::error::NO_CONNECTION;
use super::files::FileIdentity;
use super::sql::{PgTx, SqliteTx, Tx};
use super::tls_files;
use super::writer_lock::WriterLock;

/// Longest wait for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_millis(1_000);
/// Longest wait for a connection with a transaction begun on it: a database that is away is known by then.
const BEGIN_TIMEOUT: Duration = Duration::from_millis(1_300);
/// Longest that SQLite waits for another process's write, and a writer for the other writers of its process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// PostgreSQL ends a statement after so many ms. Long enough to cancel a campaign of 100,000 jobs.
const STATEMENT_TIMEOUT_MS: &str = "10000";
/// PostgreSQL waits so many ms for a row that somebody else holds: then it is worth trying again later.
const LOCK_TIMEOUT_MS: &str = "1000";

/// Statements name rows by their keys or walk along an index, and each is planned once for a connection, whatever its values: planning took
/// PostgreSQL a quarter of its time. Such a plan stays while the table grows, so it may not be one that suits a table of few rows.
/// What may not be counts as very dear, and what is dear would be compiled first (`jit`).
const PLANS: [(&str, &str); 5] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
];

/// A connected database.
#[derive(Clone)]
pub(super) enum Database {
    /// WAL: any number of readers beside the one writer. One writing connection a process, so that its own
    /// tasks queue fairly in memory instead of fighting for the file's lock.
    Sqlite {
        writer: SqlitePool,
        readers: SqlitePool,
        files: FileIdentity,
        writer_lock: WriterLock,
        /// The file, for errors.
        location: Arc<str>,
    },
    Postgres {
        pool: PgPool,
        /// How a connection is made, for the question why none can be.
        options: Box<PgConnectOptions>,
        /// The server and its database, for errors.
        location: Arc<str>,
    },
}

impl Database {
    pub async fn open(settings: &crate::config::Database) -> Result<Self, StoreError> {
        let url = settings.url.expose_secret();
        if url.starts_with("sqlite:") { sqlite(url, settings.connections).await } else { postgres(settings).await }
    }

    /// Most connections at once that may write.
    pub fn connections(&self) -> u32 {
        match self {
            Self::Sqlite { writer, .. } => writer.options().get_max_connections(),
            Self::Postgres { pool, .. } => pool.options().get_max_connections(),
        }
    }

    /// A transaction that may write.
    pub async fn write(&self) -> Result<Tx, StoreError> {
        match self {
            Self::Sqlite { writer, files, writer_lock, location, .. } => {
                // The connection first: there is one, so that nobody here holds a turn and waits for it.
                let mut connection = acquire(writer).await.map_err(|error| error.at(location))?;
                if let Err(error) = files.check() {
                    // What was committed before may lie in a log that no other program will find: this one can still
                    // fold it back.
                    let _ = sqlx::query("PRAGMA wal_checkpoint").execute(&mut *connection).await;
                    return Err(error);
                }
                let guard = writer_lock.acquire().await;
                Ok(Tx::Sqlite(SqliteTx::writing(connection, guard, location.clone())))
            }
            Self::Postgres { pool, options, location } => {
                let begun = async { PgTx::single(acquire(pool).await?, location.clone()).begin().await };
                explained(in_time(begun).await, options, location).await.map(Tx::Postgres)
            }
        }
    }

    /// For one statement that writes, which PostgreSQL commits by itself. To be ended with `commit`, which then costs nothing there.
    pub async fn write_once(&self) -> Result<Tx, StoreError> {
        match self {
            Self::Sqlite { .. } => self.write().await,
            Self::Postgres { .. } => self.read().await,
        }
    }

    /// For one statement that reads, which sees one moment on both databases. On PostgreSQL each further
    /// statement would see a moment of its own.
    pub async fn read(&self) -> Result<Tx, StoreError> {
        match self {
            Self::Sqlite { readers, location, .. } => {
                let connection = acquire(readers).await.map_err(|error| error.at(location))?;
                Ok(Tx::Sqlite(SqliteTx::reading(connection, location.clone())))
            }
            Self::Postgres { pool, options, location } => {
                let taken = async { Ok(Tx::Postgres(PgTx::single(acquire(pool).await?, location.clone()))) };
                explained(in_time(taken).await, options, location).await
            }
        }
    }

    /// For statements that read along an index. PostgreSQL, while it has not yet counted the rows of a sudden crowd, believes
    /// that there are few, and would rather collect and sort them: here it may not. To be ended with `rollback`.
    pub async fn read_in_order(&self) -> Result<Tx, StoreError> {
        let mut tx = match self {
            Self::Sqlite { .. } => return self.read().await,
            Self::Postgres { pool, options, location } => {
                let begun = async { PgTx::single(acquire(pool).await?, location.clone()).begin().await };
                Tx::Postgres(explained(in_time(begun).await, options, location).await?)
            }
        };
        // Versions that have no such setting are left as they are.
        let settings = [
            ("plan_cache_mode", "force_custom_plan"),
            ("enable_sort", "off"),
            ("enable_incremental_sort", "off"),
            ("enable_bitmapscan", "off"),
            ("enable_hashjoin", "on"),
            ("enable_mergejoin", "on"),
        ];
        let settings = settings.map(|(name, value)| format!("('{name}', '{value}')")).join(", ");
        let text = format!(
            "SELECT set_config(s.name, s.value, TRUE) AS value FROM (VALUES {settings}) s (name, value)
             WHERE current_setting(s.name, TRUE) IS NOT NULL"
        );
        tx.rows(&text, &[]).await?;
        Ok(tx)
    }

    /// The pool says only that it has no connection. Where one cannot be made, this says why, with the address;
    /// otherwise all were in use, and `error` stands.
    pub async fn explain(&self, error: StoreError) -> StoreError {
        match self {
            Self::Postgres { options, location, .. } if error.is_contention() => match connect(options, location).await
            {
                Ok(()) => error,
                Err(cause) => cause,
            },
            _ => error,
        }
    }
}

/// A connection of the pool. In a box: what it takes to make a new one is 30 KB large, and would be so in every future
/// of the program that may come to wait for SQL.
async fn acquire<DB: sqlx::Database>(pool: &sqlx::Pool<DB>) -> Result<PoolConnection<DB>, StoreError> {
    Ok(Box::pin(pool.acquire()).await?)
}

async fn in_time<T>(connected: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let late = |_| StoreError::Unavailable(NO_CONNECTION.to_owned());
    tokio::time::timeout(BEGIN_TIMEOUT, connected).await.map_err(late)?
}

/// The file of an SQLite database, as the settings name it.
pub(super) fn file_name(settings: &crate::config::Database) -> String {
    let url = settings.url.expose_secret();
    SqliteConnectOptions::from_str(url).map_or_else(|_| String::new(), |o| o.get_filename().display().to_string())
}

/// Whether the address names a SQLite file that is not there.
pub(super) fn is_missing_file(settings: &crate::config::Database) -> bool {
    let url = settings.url.expose_secret();
    url.starts_with("sqlite:")
        && SqliteConnectOptions::from_str(url).is_ok_and(|options| !options.get_filename().exists())
}

async fn sqlite(url: &str, connections: u32) -> Result<Database, StoreError> {
    if url.contains(":memory:") || url.contains("mode=memory") {
        let why =
            "database.url: a database in memory cannot be shared by programs: name a file, sqlite://wheelhouse.db";
        return Err(StoreError::Refused(why.to_owned()));
    }
    let options = SqliteConnectOptions::from_str(url)
        .map_err(|e| StoreError::Refused(format!("database.url: {e}")))?
        .create_if_missing(true)
        .foreign_keys(true)
        .journal_mode(SqliteJournalMode::Wal)
        // Every commit reaches the disk: once an operator has been told "cancelled", not even a power cut may
        // bring the job back. The cost is shared: waiting commands are committed together (`batch`).
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT);
    let file = options.get_filename().to_owned();
    let location: Arc<str> = file.display().to_string().into();
    let files = FileIdentity::of(file.clone());
    let writing = options
        .clone()
        // What a statement would take back if it failed half-way is kept in memory: beyond 64 KiB, a few dozen rows,
        // SQLite would write it to a temporary file, for each statement anew.
        .pragma("temp_store", "MEMORY")
        // The log is folded into the file every 16 MiB instead of every 4: pages that change again and again are
        // written back less often.
        .pragma("wal_autocheckpoint", "4000");
    // Connections that stay: the last one to close would fold the log back into the file, for nothing.
    // And none is asked whether it still lives before each use: it is a file, not a line that could break.
    let pool = || SqlitePoolOptions::new().idle_timeout(None).max_lifetime(None).test_before_acquire(false);
    let started = Instant::now();
    let writer = loop {
        // SQLite does not wait for its lock while it turns a new file to WAL: programs started together try again.
        let noted = files.clone();
        let opened = pool()
            .max_connections(1)
            .acquire_timeout(BUSY_TIMEOUT)
            .after_connect(move |connection, _| {
                let noted = noted.clone();
                Box::pin(async move {
                    sqlx::query("SELECT 1 FROM sqlite_schema LIMIT 1").execute(connection).await?;
                    noted.note();
                    Ok(())
                })
            })
            .connect_with(writing.clone())
            .await;
        match opened.map_err(StoreError::from) {
            Err(error) if error.is_transient() && file.exists() && started.elapsed() < BUSY_TIMEOUT => {
                tokio::time::sleep(Duration::from_millis(fastrand::u64(5..50))).await;
            }
            opened => break opened.map_err(|error| error.at(&location))?,
        }
    };
    let readers = pool().max_connections(connections).acquire_timeout(ACQUIRE_TIMEOUT);
    // They look single rows up, which the system keeps in memory once for all; eight caches of 2 MiB would be for nothing.
    let readers = readers.connect_lazy_with(options.read_only(true).pragma("cache_size", "-512"));
    let writer_lock = WriterLock::for_file(&file);
    Ok(Database::Sqlite { writer, readers, files, writer_lock, location })
}

async fn postgres(settings: &crate::config::Database) -> Result<Database, StoreError> {
    let options = PgConnectOptions::from_str(settings.url.expose_secret())
        // The error may quote the address, and with it the password.
        .map_err(|_| StoreError::Refused("database.url: not a PostgreSQL address".to_owned()))?
        .options([
            ("timezone", "UTC"),
            ("datestyle", "ISO"),
            ("statement_timeout", STATEMENT_TIMEOUT_MS),
            ("lock_timeout", LOCK_TIMEOUT_MS),
            ("idle_in_transaction_session_timeout", "15000"),
        ])
        .options(PLANS);
    let location: Arc<str> = location_of(&options).into();
    // Once without the pool, which tries again and again and then says only that its time was over.
    connect(&options, &location).await?;
    let pool = PgPoolOptions::new().max_connections(settings.connections).acquire_timeout(ACQUIRE_TIMEOUT);
    let pool = Box::pin(in_time(async { Ok(pool.connect_with(options.clone()).await?) })).await;
    let pool = pool.map_err(|error| error.at(&location))?;
    Ok(Database::Postgres { pool, options: Box::new(options), location })
}

/// One connection, and its end. An error has the address and the cause, and no password.
async fn connect(options: &PgConnectOptions, location: &str) -> Result<(), StoreError> {
    let connecting = Box::pin(async {
        let connection = sqlx::PgConnection::connect_with(options).await?;
        connection.close().await
    });
    let late = || {
        StoreError::Unavailable(format!(
            "{location}: no answer to a connection within {} ms",
            BEGIN_TIMEOUT.as_millis()
        ))
    };
    let connected = tokio::time::timeout(BEGIN_TIMEOUT, connecting).await.map_err(|_| late())?;
    explained(connected.map_err(StoreError::from), options, location).await
}

/// Why a connection to PostgreSQL could not be made: where, and which file is not as it should be.
async fn explained<T>(
    connected: Result<T, StoreError>,
    options: &PgConnectOptions,
    location: &str,
) -> Result<T, StoreError> {
    match connected {
        Err(error) if !error.is_contention() => Err(tls_files::explain(error, options).await.at(location)),
        Err(error) => Err(error.at(location)),
        Ok(made) => Ok(made),
    }
}

/// `PostgreSQL at host:port/database`.
fn location_of(options: &PgConnectOptions) -> String {
    let (host, port) = (options.get_host(), options.get_port());
    let host = match options.get_socket() {
        Some(socket) => socket.display().to_string(),
        None if host.contains(':') => format!("[{host}]:{port}"),
        None => format!("{host}:{port}"),
    };
    format!("PostgreSQL at {host}/{}", options.get_database().unwrap_or(options.get_username()))
}
