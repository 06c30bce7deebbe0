//! One way to talk to both databases: a text of SQL, values, rows.
//!
//! Both take `$1` placeholders. Where their words differ, a text holds a mark that is replaced:
//! `{now}`, `{json:$n}`, `{time:$n}`, `{lock}` (rows are locked), `{skip}` (and locked ones passed over),
//! `{share}` (rows may not change until the transaction ends), `{by:index}` (SQLite uses that index),
//! `{ms:column}` (a time to compare with `{time:$n}`; SQLite's are texts: with as many digits as [`time_text`]'s),
//! `{ms:+column}` (the same, and SQLite does not use an index on it).

use std::borrow::Cow;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Postgres, Row as _, Sqlite, Transaction};

use super::StoreError;
use super::turn::WriteTurn;

/// Longest wait for the answer to one statement. The server gives up first (`database::STATEMENT`); this is for
/// a server that does not answer at all.
const ANSWER: Duration = Duration::from_secs(11);

/// Rows of one INSERT.
const ROWS_AT_ONCE: usize = 32;

/// A value on its way in.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(Option<String>),
    Int(Option<i64>),
    Real(f64),
}

impl Value {
    /// A JSON value. JSONB cannot hold the character NUL: it is written as U+FFFD, on both databases alike, so
    /// that a result with one is kept instead of refused for ever.
    pub fn json(value: &serde_json::Value) -> Self {
        let text = value.to_string();
        if text.contains("\\u0000") { without_nul(value).to_string().into() } else { text.into() }
    }
}

/// The value with U+FFFD for every NUL in its texts and names.
pub(super) fn without_nul(value: &serde_json::Value) -> serde_json::Value {
    use serde_json::Value::{Array, Object, String};
    match value {
        String(text) => String(text.replace('\0', "\u{fffd}")),
        Array(items) => Array(items.iter().map(without_nul).collect()),
        Object(fields) => {
            Object(fields.iter().map(|(name, v)| (name.replace('\0', "\u{fffd}"), without_nul(v))).collect())
        }
        other => other.clone(),
    }
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
    Sqlite(Transaction<'static, Sqlite>, Option<WriteTurn>),
    /// For one statement that reads: beginning and ending a transaction would be two more trips to SQLite's thread.
    SqliteReader(PoolConnection<Sqlite>),
    Postgres(PgTx),
}

/// A PostgreSQL connection, taken from the pool for one transaction (or for one statement without).
pub(super) struct PgTx {
    connection: PoolConnection<Postgres>,
    state: State,
    /// A statement is on its way. A connection dropped like this would be probed by the pool before it is used
    /// again, for as long as the server is silent, and its place would be lost: it is closed instead.
    busy: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Each statement for itself.
    Single,
    /// Inside a transaction.
    Open,
    /// The transaction has ended.
    Over,
}

impl Drop for PgTx {
    fn drop(&mut self) {
        if self.busy || self.state == State::Open {
            self.connection.close_on_drop();
        }
    }
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

/// Sends one statement to PostgreSQL and waits for the answer, not for ever.
macro_rules! asked {
    ($tx:expr, $query:expr, $how:ident) => {{
        if $tx.state == State::Over {
            return Err(StoreError::Refused("the transaction is over".to_owned()));
        }
        $tx.busy = true;
        match tokio::time::timeout(ANSWER, $query.$how(&mut *$tx.connection)).await {
            Ok(Ok(answer)) => {
                $tx.busy = false;
                Ok(answer)
            }
            Ok(Err(error)) => {
                $tx.failed(&error).await;
                Err(StoreError::from(error))
            }
            Err(_) => Err(late()),
        }
    }};
}

impl PgTx {
    pub fn single(connection: PoolConnection<Postgres>) -> Self {
        Self { connection, state: State::Single, busy: false }
    }

    pub async fn begin(mut self) -> Result<Self, StoreError> {
        asked!(self, sqlx::query("BEGIN"), execute)?;
        self.state = State::Open;
        Ok(self)
    }

    /// An error that the server itself reports ends the transaction there: it is ended here too, and the
    /// connection stays good. After any other error nobody knows what it is worth: it will be closed.
    async fn failed(&mut self, error: &sqlx::Error) {
        if !matches!(error, sqlx::Error::Database(_)) {
            return;
        }
        if self.state == State::Open {
            let undone = tokio::time::timeout(ANSWER, sqlx::query("ROLLBACK").execute(&mut *self.connection)).await;
            if !matches!(undone, Ok(Ok(_))) {
                return;
            }
            self.state = State::Over;
        }
        self.busy = false;
    }

    async fn end(mut self, how: &'static str) -> Result<(), StoreError> {
        asked!(self, sqlx::query(how), execute)?;
        self.state = State::Over;
        Ok(())
    }
}

fn late() -> StoreError {
    StoreError::Unavailable("no answer in time".to_owned())
}

impl Tx {
    pub async fn rows(&mut self, text: &str, values: &[Value]) -> Result<Vec<Row>, StoreError> {
        Ok(match self {
            Self::Sqlite(tx, _) => {
                let rows = bound!(sqlite_words(text), values).fetch_all(&mut **tx).await?;
                rows.into_iter().map(Row::Sqlite).collect()
            }
            Self::SqliteReader(connection) => {
                let rows = bound!(sqlite_words(text), values).fetch_all(&mut **connection).await?;
                rows.into_iter().map(Row::Sqlite).collect()
            }
            Self::Postgres(tx) => {
                let values = postgres_values(values);
                let rows = asked!(tx, bound!(postgres_words(text), &values), fetch_all)?;
                rows.into_iter().map(Row::Postgres).collect()
            }
        })
    }

    pub async fn row(&mut self, text: &str, values: &[Value]) -> Result<Option<Row>, StoreError> {
        Ok(self.rows(text, values).await?.into_iter().next())
    }

    /// Inserts many rows, some to a statement: each statement is a trip to the server, or to SQLite's thread.
    /// `row` is `(?, {time:?}, …)`, with a question mark for each value.
    pub async fn insert_many(&mut self, into: &str, row: &str, rows: &[Vec<Value>]) -> Result<(), StoreError> {
        self.execute_many(&format!("{into} VALUES "), row, "", rows).await.map(|_| ())
    }

    /// One statement for many rows of values, `before (…), (…) after`; some more where there are very many. `row`: the
    /// places of one, `?` each. How many rows it changed.
    pub async fn execute_many(
        &mut self,
        before: &str,
        row: &str,
        after: &str,
        rows: &[Vec<Value>],
    ) -> Result<u64, StoreError> {
        let mut changed = 0;
        for some in rows.chunks(ROWS_AT_ONCE) {
            let mut text = before.to_owned();
            let mut number = 0;
            for n in 0..some.len() {
                text.push_str(if n > 0 { ", " } else { "" });
                for (at, part) in row.split('?').enumerate() {
                    if at > 0 {
                        number += 1;
                        text.push_str(&self.place(number));
                    }
                    text.push_str(part);
                }
            }
            text.push_str(after);
            changed += self.execute(&text, &some.concat()).await?;
        }
        Ok(changed)
    }

    /// The place of the n-th value, for texts with many values in their order. SQLite looks a numbered one up among
    /// all before it; one without a number it just takes.
    pub fn place(&self, number: usize) -> Cow<'static, str> {
        match self {
            Self::Sqlite(..) | Self::SqliteReader(_) => "?".into(),
            Self::Postgres(_) => format!("${number}").into(),
        }
    }

    /// How many rows it changed.
    pub async fn execute(&mut self, text: &str, values: &[Value]) -> Result<u64, StoreError> {
        Ok(match self {
            Self::Sqlite(tx, _) => bound!(sqlite_words(text), values).execute(&mut **tx).await?.rows_affected(),
            Self::SqliteReader(connection) => {
                bound!(sqlite_words(text), values).execute(&mut **connection).await?.rows_affected()
            }
            Self::Postgres(tx) => {
                let values = postgres_values(values);
                asked!(tx, bound!(postgres_words(text), &values), execute)?.rows_affected()
            }
        })
    }

    pub async fn commit(self) -> Result<(), StoreError> {
        match self {
            // The turn ends after the commit.
            Self::Sqlite(tx, _turn) => tx.commit().await?,
            Self::SqliteReader(_) => {}
            Self::Postgres(tx) => tx.end("COMMIT").await?,
        }
        Ok(())
    }

    /// The same as dropping it, but a PostgreSQL connection can be used again: for ways that are usual.
    pub async fn rollback(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx, _turn) => tx.rollback().await?,
            Self::SqliteReader(_) => {}
            Self::Postgres(tx) => tx.end("ROLLBACK").await?,
        }
        Ok(())
    }
}

/// PostgreSQL's TEXT cannot hold the character NUL; SQLite's can.
fn postgres_values(values: &[Value]) -> Vec<Value> {
    let clean = |value: &Value| match value {
        Value::Text(Some(text)) if text.contains('\0') => text.replace('\0', "\u{fffd}").into(),
        other => other.clone(),
    };
    values.iter().map(clean).collect()
}

fn sqlite_words(text: &str) -> String {
    let text = text.replace("{lock}", "").replace("{skip}", "").replace("{share}", "");
    let text = text.replace("{now}", "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')");
    typed(&text, |value, kind| match kind {
        INDEX => format!("INDEXED BY {value}"),
        MS => format!("strftime('%Y-%m-%dT%H:%M:%fZ', {value})"),
        _ => value.to_owned(),
    })
}

fn postgres_words(text: &str) -> String {
    let text = text.replace("{lock}", "FOR UPDATE").replace("{skip}", "FOR UPDATE SKIP LOCKED");
    let text = text.replace("{share}", "FOR SHARE").replace("{now}", "now()");
    typed(&text, |value, kind| match kind {
        INDEX => String::new(),
        MS => value.trim_start_matches('+').to_owned(),
        _ => format!("CAST({value} AS {kind})"),
    })
}

/// What `{by:…}` names instead of a type.
const INDEX: &str = "INDEX";
/// What `{ms:…}` names instead of a type.
const MS: &str = "MS";

/// A time to compare with `{ms:column}`: RFC 3339 with three decimals, always.
pub(super) fn time_text(ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(ms).unwrap_or(if ms < 0 {
        jiff::Timestamp::UNIX_EPOCH
    } else {
        jiff::Timestamp::MAX
    });
    format!("{time:.3}")
}

/// Replaces `{json:…}`, `{time:…}`, `{by:…}` and `{ms:…}`.
fn typed(text: &str, write: impl Fn(&str, &str) -> String) -> String {
    let mut out = text.to_owned();
    for (mark, kind) in [("{json:", "JSONB"), ("{time:", "TIMESTAMPTZ"), ("{by:", INDEX), ("{ms:", MS)] {
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
        assert_eq!(sqlite_words("{ms:at} < {time:$1}"), "strftime('%Y-%m-%dT%H:%M:%fZ', at) < $1");
        assert_eq!(sqlite_words("{ms:+at}"), "strftime('%Y-%m-%dT%H:%M:%fZ', +at)");
        assert_eq!(postgres_words("{ms:+at} < {time:$1}"), "at < CAST($1 AS TIMESTAMPTZ)");
        assert_eq!(postgres_words("{ms:at} < {time:$1}"), "at < CAST($1 AS TIMESTAMPTZ)");
        assert_eq!(time_text(1_767_225_600_000), "2026-01-01T00:00:00.000Z");
    }
}
