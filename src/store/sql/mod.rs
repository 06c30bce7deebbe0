//! One way to talk to both databases: a text of SQL, values, rows.
//!
//! Both take `$1` placeholders. Where their words differ, a text holds a mark that is replaced:
//! `{now}`, `{json:$n}`, `{time:$n}`, `{lock}` (rows are locked), `{skip}` (and locked ones passed over),
//! `{share}` (rows may not change until the transaction ends), `{by:index}` (SQLite uses that index),
//! `{ms:column}` (a time to compare with `{time:$n}`; SQLite's are texts: with as many digits as [`time_text`]'s),
//! `{ms:+column}` (the same, and SQLite does not use an index on it), `{key:column}` (a time to sort by, none before all others,
//! word for word as the indexes of lists have it), `{now_ms}` (Unix ms), `{like}` (whatever the case of the letters),
//! `{hide:column}` (the same text, and PostgreSQL only takes an index that is made with it in these words).

mod dialect;
mod postgres;
mod sqlite;

use std::borrow::Cow;

use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, TypeInfo as _, ValueRef as _};

use super::StoreError;
use crate::domain::JsonText;
pub(super) use dialect::time_text;
pub(super) use postgres::PgTx;
pub(super) use sqlite::SqliteTx;

/// Rows of one statement on SQLite, where each value has a place of its own.
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

    /// A key: SQLite holds some that are no texts, where plain SQL has written them, and finds those by no text that looks the same.
    pub fn key(&self, column: &str) -> Result<Option<String>, StoreError> {
        match self {
            Self::Sqlite(row) if row.try_get_raw(column).map_err(StoreError::from)?.type_info().name() == "BLOB" => {
                Err(StoreError::Refused(format!("column {column} is no text")))
            }
            _ => self.text(column),
        }
    }

    /// A key as it is shown, and compared with keys that can be read.
    pub fn shown_key(&self, column: &str) -> Result<String, StoreError> {
        let bytes: Option<Vec<u8>> = match self {
            Self::Sqlite(row) => row.try_get_unchecked(column).map_err(StoreError::from)?,
            Self::Postgres(_) => return self.required(column),
        };
        Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
    }

    pub fn required(&self, column: &str) -> Result<String, StoreError> {
        self.key(column)?.ok_or_else(|| StoreError::Refused(format!("column {column} is null")))
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

/// A statement for many rows of values: `before VALUES (…), (…) after`. To PostgreSQL they go as an array for each column, so that
/// the statement is the same however many rows there are, and is analysed and planned once for all of them. Its columns are
/// `column1`, `column2`, … there, too.
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

    /// Sends them, and then one for rows, and commits: to SQLite all in one trip to its thread, as long as the last one is for no more rows
    /// than go at once.
    pub async fn commit_with_rows(
        mut self,
        statements: &[MultiRowInsert<'_>],
        last: &MultiRowInsert<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        if let Self::Sqlite(tx) = &mut self
            && !last.rows.is_empty()
            && last.rows.len() <= ROWS_AT_ONCE
        {
            let (mut texts, mut values) = sqlite_texts(statements);
            texts.push(sqlite_text(last, last.rows.len()));
            values.extend(last.rows.iter().flatten());
            return Ok(tx.commit_with_rows(texts.join("; "), &values).await?.into_iter().map(Row::Sqlite).collect());
        }
        self.send_many(statements, false).await?;
        let rows = self.rows_of_many(last).await?;
        self.commit().await?;
        Ok(rows)
    }

    async fn send_many(&mut self, statements: &[MultiRowInsert<'_>], commit: bool) -> Result<u64, StoreError> {
        match self {
            Self::Sqlite(tx) => {
                let (texts, values) = sqlite_texts(statements);
                if texts.is_empty() && !commit {
                    return Ok(0);
                }
                tx.execute(texts.join("; "), &values, commit).await
            }
            Self::Postgres(tx) => {
                let mut changed = 0;
                for many in statements.iter().filter(|many| !many.rows.is_empty()) {
                    changed += tx.execute_for_all(postgres_text(many), many.rows).await?;
                }
                Ok(changed)
            }
        }
    }

    /// The rows that a statement for many rows of values returns.
    pub async fn rows_of_many(&mut self, many: &MultiRowInsert<'_>) -> Result<Vec<Row>, StoreError> {
        match self {
            Self::Sqlite(tx) => {
                let mut found = Vec::new();
                for rows in many.rows.chunks(ROWS_AT_ONCE) {
                    let values = rows.iter().flatten().collect::<Vec<_>>();
                    found.extend(tx.rows(sqlite_text(many, rows.len()), &values).await?.into_iter().map(Row::Sqlite));
                }
                Ok(found)
            }
            Self::Postgres(_) if many.rows.is_empty() => Ok(Vec::new()),
            Self::Postgres(tx) => {
                let found = tx.rows_for_all(postgres_text(many), many.rows).await?;
                Ok(found.into_iter().map(Row::Postgres).collect())
            }
        }
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

/// The texts of statements with their values. None of them gets more values than SQLite takes.
fn sqlite_texts<'a>(statements: &'a [MultiRowInsert<'_>]) -> (Vec<String>, Vec<&'a Value>) {
    let (mut texts, mut values): (Vec<String>, Vec<&Value>) = (Vec::new(), Vec::new());
    for many in statements {
        for rows in many.rows.chunks(ROWS_AT_ONCE) {
            texts.push(sqlite_text(many, rows.len()));
            values.extend(rows.iter().flatten());
        }
    }
    (texts, values)
}

/// The statement for so many rows, each value with a place of its own. Places have no numbers: SQLite looks a numbered one up among
/// all before it, and one without a number it just takes.
fn sqlite_text(many: &MultiRowInsert<'_>, rows: usize) -> String {
    let [before, row, after] = [many.before, many.row, many.after].map(dialect::to_sqlite);
    format!("{before}VALUES {}{after}", vec![row; rows].join(", "))
}

/// The statement for any number of rows, with an array for each column.
fn postgres_text(many: &MultiRowInsert<'_>) -> String {
    let [before, row, after] = [many.before, many.row, many.after].map(dialect::to_postgres);
    let row = row.strip_prefix('(').and_then(|row| row.strip_suffix(')')).unwrap_or(&row);
    let mut parts = row.split('?');
    let mut columns = parts.next().unwrap_or_default().to_owned();
    let (mut names, mut places) = (Vec::new(), Vec::new());
    for (at, part) in parts.enumerate() {
        columns.push_str(&format!("column{}{part}", at + 1));
        names.push(format!("column{}", at + 1));
        places.push(format!("${}", at + 1));
    }
    format!("{before}SELECT {columns} FROM unnest({}) AS given ({}){after}", places.join(", "), names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_rows_are_places_on_sqlite_and_an_array_for_each_column_on_postgresql() {
        let rows = [vec![Value::from(1_i64), "a".into()], vec![Value::from(2_i64), "b".into()]];
        let many = MultiRowInsert {
            before: "INSERT INTO t (a, b, c) ",
            row: "(CAST(? AS BIGINT), 'x', {json:?})",
            after: " ON CONFLICT DO NOTHING",
            rows: &rows,
        };
        assert_eq!(
            sqlite_text(&many, 2),
            "INSERT INTO t (a, b, c) VALUES (CAST(? AS BIGINT), 'x', ?), (CAST(? AS BIGINT), 'x', ?) ON CONFLICT DO NOTHING"
        );
        assert_eq!(
            postgres_text(&many),
            "INSERT INTO t (a, b, c) SELECT CAST(column1 AS BIGINT), 'x', CAST(column2 AS JSONB) FROM unnest($1, $2) \
             AS given (column1, column2) ON CONFLICT DO NOTHING"
        );
    }
}
