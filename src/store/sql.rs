//! One way to talk to both databases: a text of SQL, values, rows.
//!
//! Both take `$1` placeholders. Where their words differ, a text holds a mark that is replaced:
//! `{now}`, `{json:$n}`, `{time:$n}`, `{lock}` (rows are locked), `{skip}` (and locked ones passed over),
//! `{share}` (rows may not change until the transaction ends).

use std::str::FromStr;
use std::time::Duration;

use secrecy::ExposeSecret;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgRow};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, Postgres, Row as _, Sqlite, Transaction};

use super::StoreError;

/// Longest wait for a connection.
const ACQUIRE: Duration = Duration::from_millis(1_200);
/// Longest that SQLite waits for another process's write.
const BUSY: Duration = Duration::from_secs(5);

/// A connected database.
#[derive(Clone)]
pub(super) enum Database {
    /// WAL: any number of readers beside the one writer. One writing connection a process, so that its own
    /// tasks queue fairly in memory instead of fighting for the file's lock.
    Sqlite {
        writer: SqlitePool,
        readers: SqlitePool,
    },
    Postgres {
        pool: PgPool,
    },
}

/// A value on its way in.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(Option<String>),
    Int(Option<i64>),
    Real(f64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}

impl From<Option<String>> for Value {
    fn from(text: Option<String>) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(Some(number))
    }
}

impl From<Option<i64>> for Value {
    fn from(number: Option<i64>) -> Self {
        Self::Int(number)
    }
}

/// One row of an answer.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    pub fn text(&self, column: &str) -> Result<Option<String>, StoreError> {
        match self {
            // Unchecked: SQLite's columns hold what was put there, whatever their type says.
            Self::Sqlite(row) => row.try_get_unchecked(column).map_err(StoreError::from),
            Self::Postgres(row) => row.try_get(column).map_err(StoreError::from),
        }
    }

    pub fn needed(&self, column: &str) -> Result<String, StoreError> {
        self.text(column)?.ok_or_else(|| StoreError::Refused(format!("column {column} is null")))
    }

    pub fn int(&self, column: &str) -> Result<Option<i64>, StoreError> {
        match self {
            Self::Sqlite(row) => row.try_get_unchecked(column).map_err(StoreError::from),
            Self::Postgres(row) => row.try_get(column).map_err(StoreError::from),
        }
    }

    pub fn real(&self, column: &str) -> Result<Option<f64>, StoreError> {
        match self {
            Self::Sqlite(row) => row.try_get_unchecked(column).map_err(StoreError::from),
            Self::Postgres(row) => row.try_get(column).map_err(StoreError::from),
        }
    }
}

/// A transaction; rolled back when dropped.
pub(super) enum Tx {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

macro_rules! bound {
    ($sql:expr, $values:expr) => {{
        let mut query = sqlx::query(AssertSqlSafe($sql));
        for value in $values {
            query = match value {
                Value::Text(text) => query.bind(text.clone()),
                Value::Int(number) => query.bind(*number),
                Value::Real(number) => query.bind(*number),
            };
        }
        query
    }};
}

impl Tx {
    pub async fn rows(&mut self, text: &str, values: &[Value]) -> Result<Vec<Row>, StoreError> {
        Ok(match self {
            Self::Sqlite(tx) => {
                let rows = bound!(sqlite_words(text), values).fetch_all(&mut **tx).await?;
                rows.into_iter().map(Row::Sqlite).collect()
            }
            Self::Postgres(tx) => {
                let rows = bound!(postgres_words(text), values).fetch_all(&mut **tx).await?;
                rows.into_iter().map(Row::Postgres).collect()
            }
        })
    }

    pub async fn row(&mut self, text: &str, values: &[Value]) -> Result<Option<Row>, StoreError> {
        Ok(self.rows(text, values).await?.into_iter().next())
    }

    /// How many rows it changed.
    pub async fn execute(&mut self, text: &str, values: &[Value]) -> Result<u64, StoreError> {
        Ok(match self {
            Self::Sqlite(tx) => bound!(sqlite_words(text), values).execute(&mut **tx).await?.rows_affected(),
            Self::Postgres(tx) => bound!(postgres_words(text), values).execute(&mut **tx).await?.rows_affected(),
        })
    }

    pub async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => tx.commit().await?,
            Self::Postgres(tx) => tx.commit().await?,
        }
        Ok(())
    }
}

impl Database {
    pub async fn open(settings: &crate::config::Database) -> Result<Self, StoreError> {
        let url = settings.url.expose_secret();
        if url.starts_with("sqlite:") {
            let options = SqliteConnectOptions::from_str(url)
                .map_err(|e| StoreError::Refused(format!("database.url: {e}")))?
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                // With WAL this loses nothing when a process dies; a power cut may take the last moments, as it
                // does with Redis's append-only file at its usual setting.
                .synchronous(SqliteSynchronous::Normal)
                .busy_timeout(BUSY);
            // A writer may wait for its own process's other writers; a reader need not wait at all.
            let writer =
                SqlitePoolOptions::new().max_connections(1).acquire_timeout(BUSY).connect_with(options.clone()).await?;
            let readers = SqlitePoolOptions::new()
                .max_connections(settings.connections)
                .acquire_timeout(ACQUIRE)
                .connect_lazy_with(options.read_only(true));
            return Ok(Self::Sqlite { writer, readers });
        }
        let options = PgConnectOptions::from_str(url)
            .map_err(|_| StoreError::Refused("database.url: not a PostgreSQL address".to_owned()))?
            .options([
                ("timezone", "UTC"),
                ("statement_timeout", "5000"),
                ("idle_in_transaction_session_timeout", "15000"),
            ]);
        let pool = PgPoolOptions::new()
            .max_connections(settings.connections)
            .acquire_timeout(ACQUIRE)
            .connect_with(options)
            .await?;
        Ok(Self::Postgres { pool })
    }

    /// A transaction that may write. SQLite takes the file's write lock at once: a lock taken later could fail.
    pub async fn write(&self) -> Result<Tx, StoreError> {
        Ok(match self {
            Self::Sqlite { writer, .. } => Tx::Sqlite(writer.begin_with("BEGIN IMMEDIATE").await?),
            Self::Postgres { pool } => Tx::Postgres(pool.begin().await?),
        })
    }

    /// A transaction that only reads: everything in it is of one moment.
    pub async fn read(&self) -> Result<Tx, StoreError> {
        Ok(match self {
            Self::Sqlite { readers, .. } => Tx::Sqlite(readers.begin().await?),
            Self::Postgres { pool } => {
                Tx::Postgres(pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?)
            }
        })
    }
}

fn sqlite_words(text: &str) -> String {
    let text = text.replace("{lock}", "").replace("{skip}", "").replace("{share}", "");
    typed(&text.replace("{now}", "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"), |value, _| value.to_owned())
}

fn postgres_words(text: &str) -> String {
    let text = text.replace("{lock}", "FOR UPDATE").replace("{skip}", "FOR UPDATE SKIP LOCKED");
    let text = text.replace("{share}", "FOR SHARE").replace("{now}", "now()");
    typed(&text, |value, kind| format!("CAST({value} AS {kind})"))
}

/// Replaces `{json:…}` and `{time:…}`.
fn typed(text: &str, write: impl Fn(&str, &str) -> String) -> String {
    let mut out = text.to_owned();
    for (mark, kind) in [("{json:", "JSONB"), ("{time:", "TIMESTAMPTZ")] {
        while let Some(start) = out.find(mark) {
            let end = start + out[start..].find('}').unwrap_or(out.len() - start - 1);
            let value = write(&out[start + mark.len()..end], kind);
            out.replace_range(start..=end, &value);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_become_the_words_of_each_database() {
        let text = "UPDATE t SET a = {json:$1}, b = {time:$2}, c = {now} WHERE d = $3 {lock}";
        assert_eq!(
            sqlite_words(text),
            "UPDATE t SET a = $1, b = $2, c = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') WHERE d = $3 "
        );
        assert_eq!(
            postgres_words(text),
            "UPDATE t SET a = CAST($1 AS JSONB), b = CAST($2 AS TIMESTAMPTZ), c = now() WHERE d = $3 FOR UPDATE"
        );
    }
}
