//! Rows of jobs that cannot be read or run, which only plain SQL can have written: they are taken out of everybody's way. Such a
//! row has failed from then on and says why, and the log says it as well.

use std::collections::BTreeMap;

use super::job_indexes::{BY_TYPE, HALVES};
use super::run_rows::message_and_detail;
use super::sql::{MultiRowInsert, Row, Tx, Value};
use super::{Store, StoreError, rows};

/// The last number that a run can have: `0038_numbers_in_range.sql` lets nobody write a higher one.
pub(super) const MAX_RUN: i64 = 2_147_483_647;
/// Most rows of corrupt tenants in one transaction.
const MAX_ROWS: usize = 1_000;

/// A row that is to be taken out of the way.
#[derive(Debug)]
pub(super) struct CorruptRow {
    /// Its key; of one that is no text, which only SQLite can hold, nothing. SQLite finds rows by their numbers.
    key: (String, String),
    /// Who has it; empty where nobody has.
    host: String,
    why: String,
}

/// The rows that were found, by their numbers.
pub(super) type CorruptRows = BTreeMap<i64, CorruptRow>;

/// What waits under the name of a tenant that cannot be one.
#[derive(Debug)]
pub(super) struct CorruptTenant {
    /// As it stands there; empty where it is no text.
    pub tenant: String,
    pub job_type: String,
    /// One of the rows.
    pub row_id: i64,
}

/// Adds a row, which has `row_id`, `host` and its key. Why: an error of its reading.
pub(super) fn add_corrupt(rows: &mut CorruptRows, row: &Row, why: &StoreError) {
    let text = |column| row.text(column).ok().flatten().unwrap_or_default();
    let Ok(Some(row_id)) = row.int("row_id") else { return };
    let why = match why {
        StoreError::Refused(why) => why.clone(),
        other => other.to_string(),
    };
    rows.insert(row_id, CorruptRow { key: (text("tenant_id"), text("id")), host: text("host"), why });
}

/// Whether a job whose row has this run can be run once more.
pub(super) fn check_run(job: &str, run: i64) -> Result<(), StoreError> {
    match run >= MAX_RUN {
        true => Err(StoreError::Refused(format!("job {job:?} has the run {run}, after which there can be no other"))),
        false => Ok(()),
    }
}

/// Lets rows have failed, as far as they are not in other hands since they were read.
pub(super) async fn quarantine(tx: &mut Tx, rows: &CorruptRows) -> Result<(), StoreError> {
    let Some((_, first)) = rows.first_key_value() else { return Ok(()) };
    let key = match tx {
        // What is no text cannot be named.
        Tx::Sqlite(_) => "rowid = given.column3",
        Tx::Postgres(_) => "tenant_id = given.column1 AND id = given.column2 AND COALESCE(host, '') = given.column5",
    };
    let values = |(row_id, row): (&i64, &CorruptRow)| {
        let (message, _) = message_and_detail(&format!("The row cannot be read: {}", row.why));
        vec![
            row.key.0.as_str().into(),
            row.key.1.as_str().into(),
            (*row_id).into(),
            message.into(),
            row.host.as_str().into(),
        ]
    };
    let values: Vec<Vec<Value>> = rows.iter().map(values).collect();
    let fail = MultiRowInsert {
        before:
            "UPDATE jobs SET status = 'failed', error_message = given.column4, completed_at = {now}, updated_at = {now},
           host = NULL
         FROM (",
        row: "(?, ?, CAST(? AS BIGINT), ?, ?)",
        after: &format!(") AS given WHERE {key} AND (status || '') IN ('pending', 'running', 'paused')"),
        rows: &values,
    };
    tx.execute_many(&[fail]).await?;
    tracing::error!(rows = rows.len(), why = first.why, "store.rows_quarantined");
    Ok(())
}

impl Store {
    /// Takes what waits for corrupt tenants out of the queue, some of it, together with these rows. Whether there was any.
    pub(super) async fn quarantine_waiting(
        &self,
        tenants: &[CorruptTenant],
        mut corrupt: CorruptRows,
    ) -> Result<bool, StoreError> {
        if tenants.is_empty() && corrupt.is_empty() {
            return Ok(false);
        }
        let mut tx = self.database.write().await?;
        let mut by_type: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        for of in tenants {
            by_type.entry(&of.job_type).or_default().push(match tx {
                Tx::Sqlite(_) => of.row_id.into(),
                Tx::Postgres(_) => of.tenant.as_str().into(),
            });
        }
        for (job_type, tenants) in by_type {
            let places: Vec<String> = (0..tenants.len()).map(|n| format!("${}", n + 2)).collect();
            let tenants_of = match tx {
                Tx::Sqlite(_) => format!("SELECT h.tenant_id FROM jobs h WHERE h.rowid IN ({})", places.join(", ")),
                Tx::Postgres(_) => places.join(", "),
            };
            let values = [vec![job_type.into()], tenants].concat();
            for (index, half) in HALVES {
                let text = format!(
                    "SELECT j.rowid AS row_id, j.tenant_id, j.id, j.host FROM jobs j {{by:{index}}}
                     WHERE {BY_TYPE} AND {half} AND j.job_type = $1 AND j.tenant_id IN ({tenants_of}) LIMIT {MAX_ROWS} {{skip}}"
                );
                for row in tx.rows(&text, &values).await? {
                    // What has been changed meanwhile is left alone.
                    if let Err(why) = rows::tenant(&row) {
                        add_corrupt(&mut corrupt, &row, &why);
                    }
                }
            }
        }
        quarantine(&mut tx, &corrupt).await?;
        tx.commit().await?;
        Ok(true)
    }
}
