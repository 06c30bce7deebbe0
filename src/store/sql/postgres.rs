//! A transaction on PostgreSQL.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use sqlx::Postgres;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgRow};

use super::{Value, bound};
use crate::store::StoreError;

/// Longest wait for the answer to one statement. The server gives up first (`database::STATEMENT`); this is for
/// a server that does not answer at all.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(11);

/// A PostgreSQL connection, taken from the pool for one transaction (or for one statement without).
pub(in crate::store) struct PgTx {
    connection: PoolConnection<Postgres>,
    state: PgTxState,
    /// A statement is on its way. A connection dropped like this would be probed by the pool before it is used
    /// again, for as long as the server is silent, and its place would be lost: it is closed instead.
    busy: bool,
    /// The server and its database, for errors.
    location: Arc<str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PgTxState {
    /// Each statement for itself.
    Single,
    /// Inside a transaction.
    Open,
    /// The transaction has ended.
    Over,
}

impl Drop for PgTx {
    fn drop(&mut self) {
        if self.busy || self.state == PgTxState::Open {
            self.connection.close_on_drop();
        }
    }
}

/// Sends one statement to PostgreSQL and waits for the answer, not for ever.
macro_rules! asked {
    ($tx:expr, $query:expr, $how:ident) => {{
        if $tx.state == PgTxState::Over {
            return Err(StoreError::Refused("the transaction is over".to_owned()));
        }
        $tx.busy = true;
        match tokio::time::timeout(RESPONSE_TIMEOUT, $query.$how(&mut *$tx.connection)).await {
            Ok(Ok(answer)) => {
                $tx.busy = false;
                Ok(answer)
            }
            Ok(Err(error)) => {
                $tx.failed(&error).await;
                Err(StoreError::from(error).at(&$tx.location))
            }
            Err(_) => Err(late().at(&$tx.location)),
        }
    }};
}

impl PgTx {
    /// Each statement for itself.
    pub fn single(connection: PoolConnection<Postgres>, location: Arc<str>) -> Self {
        Self { connection, state: PgTxState::Single, busy: false, location }
    }

    pub async fn rows(&mut self, text: String, values: &[&Value]) -> Result<Vec<PgRow>, StoreError> {
        asked!(self, bound!(text, &clean(values)), fetch_all)
    }

    pub async fn execute(&mut self, text: String, values: &[&Value]) -> Result<u64, StoreError> {
        Ok(asked!(self, bound!(text, &clean(values)), execute)?.rows_affected())
    }

    /// A statement whose values are an array for each column of these rows.
    pub async fn rows_for_all(&mut self, text: String, rows: &[Vec<Value>]) -> Result<Vec<PgRow>, StoreError> {
        let query = of_columns(text, rows)?;
        asked!(self, query, fetch_all)
    }

    /// The same; how many rows it changed.
    pub async fn execute_for_all(&mut self, text: String, rows: &[Vec<Value>]) -> Result<u64, StoreError> {
        let query = of_columns(text, rows)?;
        Ok(asked!(self, query, execute)?.rows_affected())
    }

    pub async fn begin(mut self) -> Result<Self, StoreError> {
        asked!(self, sqlx::query("BEGIN"), execute)?;
        self.state = PgTxState::Open;
        Ok(self)
    }

    /// An error that the server itself reports ends the transaction there: it is ended here too, and the
    /// connection stays good. After any other error nobody knows what it is worth: it will be closed.
    async fn failed(&mut self, error: &sqlx::Error) {
        if !matches!(error, sqlx::Error::Database(_)) {
            return;
        }
        if self.state == PgTxState::Open {
            let undone =
                tokio::time::timeout(RESPONSE_TIMEOUT, sqlx::query("ROLLBACK").execute(&mut *self.connection)).await;
            if !matches!(undone, Ok(Ok(_))) {
                return;
            }
            self.state = PgTxState::Over;
        }
        self.busy = false;
    }

    /// Where each statement was for itself, nothing is left to end.
    pub async fn end(mut self, how: &'static str) -> Result<(), StoreError> {
        if self.state == PgTxState::Single {
            return Ok(());
        }
        asked!(self, sqlx::query(how), execute)?;
        self.state = PgTxState::Over;
        Ok(())
    }
}

/// The query with an array for each column. What a column has is said by its first row.
fn of_columns(
    text: String,
    rows: &[Vec<Value>],
) -> Result<sqlx::query::Query<'static, Postgres, PgArguments>, StoreError> {
    let mixed = || StoreError::Refused("a column of a statement has values of several types".to_owned());
    let mut query = sqlx::query(sqlx::AssertSqlSafe(text));
    for (at, first) in rows.first().into_iter().flatten().enumerate() {
        let column = rows.iter().map(|row| row.get(at));
        query = match first {
            Value::Text(_) => {
                let texts = column.map(|value| match value {
                    Some(Value::Text(text)) => Ok(text.as_deref().map(|text| without_nul(text).into_owned())),
                    _ => Err(mixed()),
                });
                query.bind(texts.collect::<Result<Vec<Option<String>>, _>>()?)
            }
            Value::Int(_) => {
                let numbers = column.map(|value| if let Some(Value::Int(n)) = value { Ok(*n) } else { Err(mixed()) });
                query.bind(numbers.collect::<Result<Vec<Option<i64>>, _>>()?)
            }
            Value::Real(_) => {
                let numbers = column.map(|value| if let Some(Value::Real(n)) = value { Ok(*n) } else { Err(mixed()) });
                query.bind(numbers.collect::<Result<Vec<f64>, _>>()?)
            }
        };
    }
    Ok(query)
}

fn late() -> StoreError {
    StoreError::Unavailable("no answer in time".to_owned())
}

/// PostgreSQL's TEXT cannot hold the character NUL; SQLite's can.
fn without_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

fn clean(values: &[&Value]) -> Vec<Value> {
    let clean = |value: &&Value| match value {
        Value::Text(Some(text)) => Value::Text(Some(without_nul(text).into_owned())),
        other => (*other).clone(),
    };
    values.iter().map(clean).collect()
}
