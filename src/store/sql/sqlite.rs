//! A transaction on SQLite.
//!
//! Each text is a trip to SQLite's thread and back, and while it is on its way nobody else can write; on a busy machine
//! each costs more than what it does. So the first one brings `BEGIN` along, and the last may bring `COMMIT`.

use std::sync::Arc;

use futures_util::TryStreamExt;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::SqliteRow;
use sqlx::{Either, Executor, Sqlite};

use super::{Value, bound};
use crate::store::StoreError;
use crate::store::writer_lock::WriterLockGuard;

/// A connection, taken from the pool for one transaction (or for single statements that read).
pub(in crate::store) struct SqliteTx {
    /// Ends before the connection is free for the next one here, who must not find its own lock released with this one.
    _guard: Option<WriterLockGuard>,
    connection: PoolConnection<Sqlite>,
    state: SqliteTxState,
    /// A statement is on its way.
    busy: bool,
    /// The file, for errors.
    location: Arc<str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SqliteTxState {
    /// Each statement for itself.
    Single,
    /// The next statement begins the transaction. It takes the file's write lock at once: taken later it could fail.
    Due,
    /// Inside the transaction.
    Open,
    /// The transaction has ended.
    Over,
}

/// What came back from one trip.
#[derive(Default)]
struct SqliteAnswer {
    rows: Vec<SqliteRow>,
    /// Rows changed, statement by statement.
    changed: Vec<u64>,
}

impl Drop for SqliteTx {
    fn drop(&mut self) {
        // Nobody is left to end the transaction: it ends with its connection.
        if self.state == SqliteTxState::Open || (self.state == SqliteTxState::Due && self.busy) {
            self.connection.close_on_drop();
        }
    }
}

impl SqliteTx {
    pub fn reading(connection: PoolConnection<Sqlite>, location: Arc<str>) -> Self {
        Self { connection, _guard: None, state: SqliteTxState::Single, busy: false, location }
    }

    pub fn writing(connection: PoolConnection<Sqlite>, guard: Option<WriterLockGuard>, location: Arc<str>) -> Self {
        Self { connection, _guard: guard, state: SqliteTxState::Due, busy: false, location }
    }

    pub async fn rows(&mut self, text: String, values: &[&Value]) -> Result<Vec<SqliteRow>, StoreError> {
        Ok(self.send(text, values, false).await?.rows)
    }

    /// One statement, or several one after another (`;`). How many rows they changed in all. `commit`: and commits.
    pub async fn execute(&mut self, text: String, values: &[&Value], commit: bool) -> Result<u64, StoreError> {
        Ok(self.send(text, values, commit).await?.changed.iter().sum())
    }

    /// Several statements one after another (`;`), and commits. The rows that they return.
    pub async fn commit_with_rows(&mut self, text: String, values: &[&Value]) -> Result<Vec<SqliteRow>, StoreError> {
        Ok(self.send(text, values, true).await?.rows)
    }

    pub async fn commit(mut self) -> Result<(), StoreError> {
        if self.state == SqliteTxState::Open {
            self.end("COMMIT").await?;
        }
        Ok(())
    }

    /// Takes back what was written; where SQLite cannot, its connection is closed, which does the same.
    pub async fn rollback(mut self) {
        if self.state == SqliteTxState::Open {
            let _ = self.end("ROLLBACK").await;
        }
    }

    async fn end(&mut self, how: &str) -> Result<(), StoreError> {
        self.send(how.to_owned(), &[], false).await?;
        self.state = SqliteTxState::Over;
        Ok(())
    }

    async fn send(&mut self, mut text: String, values: &[&Value], commit: bool) -> Result<SqliteAnswer, StoreError> {
        if self.state == SqliteTxState::Over {
            return Err(StoreError::Refused("the transaction is over".to_owned()));
        }
        let mut begins = self.state == SqliteTxState::Due;
        if begins {
            text.insert_str(0, "BEGIN IMMEDIATE; ");
        }
        if commit {
            text.push_str("; COMMIT");
        }
        self.busy = true;
        let mut answer = SqliteAnswer::default();
        let mut results = (&mut *self.connection).fetch_many(bound!(text, values));
        let ended = loop {
            match results.try_next().await {
                // Neither BEGIN nor COMMIT changes rows, but SQLite says again what the statement before them did.
                Ok(Some(Either::Left(_))) if begins => (begins, self.state) = (false, SqliteTxState::Open),
                Ok(Some(Either::Left(done))) => answer.changed.push(done.rows_affected()),
                Ok(Some(Either::Right(row))) => answer.rows.push(row),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        drop(results);
        self.busy = false;
        ended.map_err(|error| StoreError::from(error).at(&self.location))?;
        if commit {
            answer.changed.pop();
            self.state = SqliteTxState::Over;
        }
        Ok(answer)
    }
}
