//! One way to talk to both databases: a text of SQL, values, rows.
//!
//! Both take `$1` placeholders. Where their words differ, a text holds a mark that is replaced:
//! `{now}`, `{json:$n}`, `{time:$n}`, `{lock}` (rows are locked), `{skip}` (and locked ones passed over),
//! `{share}` (rows may not change until the transaction ends), `{by:index}` (SQLite uses that index),
//! `{ms:column}` (a time to compare with `{time:$n}`; SQLite's are texts: with as many digits as [`time_text`]'s),
//! `{ms:+column}` (the same, and SQLite does not use an index on it), `{key:column}` (a time to sort by, none before all others,
//! word for word as the indexes of lists have it), `{now_ms}` (Unix ms), `{like}` (whatever the case of the letters).

mod dialect;
mod postgres;
mod sqlite;

use std::borrow::Cow;

use sqlx::Row as _;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;

use super::StoreError;
use crate::domain::JsonText;
pub(super) use dialect::time_text;
pub(super) use postgres::PgTx;
pub(super) use sqlite::SqliteTx;

/// Rows of one statement.
const ROWS_AT_ONCE: usize = 128;

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
    pub fn json(value: &JsonText) -> Self {
        value.without_nul().as_str().into()
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

    pub fn required(&self, column: &str) -> Result<String, StoreError> {
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
    Sqlite(SqliteTx),
    Postgres(PgTx),
}

/// A statement for many rows of values: `before (…), (…) after`.
pub(super) struct MultiRowInsert<'a> {
    pub before: &'a str,
    /// The places of one row, `(?, {time:?}, …)`, with a question mark for each value.
    pub row: &'a str,
    pub after: &'a str,
    pub rows: &'a [Vec<Value>],
}

/// The query with its values.
macro_rules! bound {
    ($sql:expr, $values:expr) => {{
        let mut query = sqlx::query(sqlx::AssertSqlSafe($sql));
        for value in $values {
            query = match value {
                Value::Text(text) => query.bind(text.as_deref()),
                Value::Int(number) => query.bind(*number),
                Value::Real(number) => query.bind(*number),
            };
        }
        query
    }};
}
use bound;

impl Tx {
    /// How the database goes about these statements: the text of each with its plan. PostgreSQL carries them out, to say how many rows
    /// each part gave.
    pub async fn explain(&mut self, statements: Vec<(String, Vec<Value>)>) -> Result<Vec<String>, StoreError> {
        let (word, column) = match self {
            Self::Sqlite(_) => ("EXPLAIN QUERY PLAN", "detail"),
            Self::Postgres(_) => ("EXPLAIN (ANALYZE, TIMING OFF, SUMMARY OFF)", "QUERY PLAN"),
        };
        let mut plans = Vec::new();
        for (text, values) in statements {
            let rows = self.rows(&format!("{word} {text}"), &values).await?;
            let lines = rows.iter().map(|row| row.required(column)).collect::<Result<Vec<_>, _>>()?;
            plans.push(format!("{text}\n=> {}", lines.join("\n=> ")));
        }
        Ok(plans)
    }

    pub async fn rows(&mut self, text: &str, values: &[Value]) -> Result<Vec<Row>, StoreError> {
        let text = self.to_dialect(text);
        let values = &Vec::from_iter(values);
        Ok(match self {
            Self::Sqlite(tx) => tx.rows(text, values).await?.into_iter().map(Row::Sqlite).collect(),
            Self::Postgres(tx) => tx.rows(text, values).await?.into_iter().map(Row::Postgres).collect(),
        })
    }

    pub async fn row(&mut self, text: &str, values: &[Value]) -> Result<Option<Row>, StoreError> {
        Ok(self.rows(text, values).await?.into_iter().next())
    }

    /// How many rows it changed.
    pub async fn execute(&mut self, text: &str, values: &[Value]) -> Result<u64, StoreError> {
        let text = self.to_dialect(text);
        let values = &Vec::from_iter(values);
        match self {
            Self::Sqlite(tx) => tx.execute(text, values, false).await,
            Self::Postgres(tx) => tx.execute(text, values).await,
        }
    }

    /// As [`Tx::execute`], and commits: to SQLite both in one trip to its thread, so that others wait for that trip alone.
    pub async fn execute_and_commit(self, text: &str, values: &[Value]) -> Result<u64, StoreError> {
        let text = self.to_dialect(text);
        let values = &Vec::from_iter(values);
        match self {
            Self::Sqlite(mut tx) => tx.execute(text, values, true).await,
            Self::Postgres(mut tx) => {
                let changed = tx.execute(text, values).await?;
                tx.end("COMMIT").await?;
                Ok(changed)
            }
        }
    }

    /// One statement after another, to SQLite in one trip to its thread; those without rows are left out. How many rows
    /// they changed in all.
    pub async fn execute_many(&mut self, statements: &[MultiRowInsert<'_>]) -> Result<u64, StoreError> {
        self.send_many(statements, false).await
    }

    /// Sends them as [`Tx::execute_many`] does, and commits.
    pub async fn commit_many(mut self, statements: &[MultiRowInsert<'_>]) -> Result<(), StoreError> {
        self.send_many(statements, true).await?;
        // On SQLite that is done: it came along with the statements.
        self.commit().await
    }

    async fn send_many(&mut self, statements: &[MultiRowInsert<'_>], commit: bool) -> Result<u64, StoreError> {
        // A statement gets no more values than both databases take.
        let mut parts: Vec<(String, Vec<&Value>)> = Vec::new();
        for many in statements {
            for rows in many.rows.chunks(ROWS_AT_ONCE) {
                parts.push((self.text_of(many, rows.len()), rows.iter().flatten().collect()));
            }
        }
        match self {
            Self::Sqlite(_) if parts.is_empty() && !commit => Ok(0),
            Self::Sqlite(tx) => {
                let (texts, values): (Vec<String>, Vec<_>) = parts.into_iter().unzip();
                tx.execute(texts.join("; "), &values.concat(), commit).await
            }
            Self::Postgres(tx) => {
                let mut changed = 0;
                for (text, values) in parts {
                    changed += tx.execute(text, &values).await?;
                }
                Ok(changed)
            }
        }
    }

    fn text_of(&self, many: &MultiRowInsert<'_>, rows: usize) -> String {
        let [mut text, row, after] = [many.before, many.row, many.after].map(|text| self.to_dialect(text));
        let mut number = 0;
        for n in 0..rows {
            text.push_str(if n > 0 { ", " } else { "" });
            for (at, part) in row.split('?').enumerate() {
                if at > 0 {
                    number += 1;
                    text.push_str(&self.placeholder(number));
                }
                text.push_str(part);
            }
        }
        text.push_str(&after);
        text
    }

    /// The rows that a statement for many rows of values returns.
    pub async fn rows_of_many(&mut self, many: &MultiRowInsert<'_>) -> Result<Vec<Row>, StoreError> {
        let mut found = Vec::new();
        for rows in many.rows.chunks(ROWS_AT_ONCE) {
            let (text, values) = (self.text_of(many, rows.len()), rows.iter().flatten().collect::<Vec<_>>());
            match self {
                Self::Sqlite(tx) => found.extend(tx.rows(text, &values).await?.into_iter().map(Row::Sqlite)),
                Self::Postgres(tx) => found.extend(tx.rows(text, &values).await?.into_iter().map(Row::Postgres)),
            }
        }
        Ok(found)
    }

    /// The text in the words of this database.
    fn to_dialect(&self, text: &str) -> String {
        match self {
            Self::Sqlite(_) => dialect::to_sqlite(text),
            Self::Postgres(_) => dialect::to_postgres(text),
        }
    }

    /// The place of the n-th value, for texts with many values in their order. SQLite looks a numbered one up among
    /// all before it; one without a number it just takes.
    pub fn placeholder(&self, number: usize) -> Cow<'static, str> {
        match self {
            Self::Sqlite(_) => "?".into(),
            Self::Postgres(_) => format!("${number}").into(),
        }
    }

    pub async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => tx.commit().await,
            Self::Postgres(tx) => tx.end("COMMIT").await,
        }
    }

    /// The same as dropping it, but the connection can be used again: for ways that are usual.
    pub async fn rollback(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => tx.rollback().await,
            Self::Postgres(tx) => tx.end("ROLLBACK").await?,
        }
        Ok(())
    }
}
