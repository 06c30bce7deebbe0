//! Rows of jobs that cannot be read or run, which only plain SQL can have written: they are taken out of everybody's way. Such a
//! row has failed from then on and says why, and the log says it as well.

use std::collections::BTreeMap;

use super::job_indexes::{BY_TYPE, END, ENDED, HALVES};
use super::run_rows::message_and_detail;
use super::sql::{MultiRowInsert, Row, Tx, Value, time_text};
use super::{Store, StoreError, rows};

/// The last number that a run can have: `0038_numbers_in_range.sql` lets nobody write a higher one.
pub(super) const MAX_RUN: i64 = 2_147_483_647;
/// Most rows of corrupt tenants in one transaction.
const MAX_ROWS: usize = 1_000;
/// How the error of such a row begins.
const UNREADABLE: &str = "The row cannot be read: ";
/// Jobs that ended last among which such rows are looked for.
const MAX_LOOKED_AT: u32 = 20_000;

/// A row that is to be taken out of the way.
#[derive(Debug)]
pub(super) struct CorruptRow {
    /// Its key; of one that is no text, which only SQLite can hold, nothing. SQLite finds rows by their numbers.
    key: (String, String),
    /// Who has it; empty where nobody has.
    host: String,
    why: String,
}

/// Rows that were taken out of the way lately.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantinedRows {
    /// How many of the jobs that ended last.
    pub count: i64,
    /// More jobs have ended in that time than were looked at.
    pub is_partial: bool,
    /// The newest of them.
    pub newest: Option<QuarantinedRow>,
    /// The statement by which a person finds all of them.
    pub select: String,
}

/// One of them, as it stands in SQL: its key may be none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantinedRow {
    /// `tenant_id`.
    pub tenant: String,
    /// `id`.
    pub id: String,
    /// Why it cannot be read or run.
    pub why: String,
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
        let (message, _) = message_and_detail(&format!("{UNREADABLE}{}", row.why));
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
    /// Rows that were taken out of the way after this time (Unix ms), among the last of the jobs that ended since.
    pub async fn quarantined_since(&self, since: i64) -> Result<QuarantinedRows, StoreError> {
        // Along the index of ended jobs, newest first: it is read no further than the limit, however many have ended.
        let ended = format!(
            "SELECT j.tenant_id, j.id, j.status, j.error_message, {{ms:{END}}} AS ended FROM jobs j
             WHERE {ENDED} AND {{ms:{END}}} > {{time:$1}} ORDER BY {{ms:{END}}} DESC LIMIT {MAX_LOOKED_AT}"
        );
        let is_one = format!("status = 'failed' AND error_message LIKE '{UNREADABLE}%'");
        let count = format!("SELECT COUNT(*) AS looked_at, COUNT(CASE WHEN {is_one} THEN 1 END) AS n FROM ({ended}) e");
        let newest =
            format!("SELECT tenant_id, id, error_message FROM ({ended}) e WHERE {is_one} ORDER BY ended DESC LIMIT 1");
        let time = time_text(since);
        let values: [Value; 1] = [time.as_str().into()];
        let mut tx = self.database.read().await?;
        let counted = tx.row(&count, &values).await?;
        let number = |column| counted.as_ref().map_or(Ok(None), |row| row.int(column)).map(Option::unwrap_or_default);
        let (count, looked_at) = (number("n")?, number("looked_at")?);
        let newest = match count {
            0 => None,
            _ => tx.row(&newest, &values).await?.as_ref().map(quarantined_row).transpose()?,
        };
        // As it stands in the index, for a person.
        let end = match tx {
            Tx::Sqlite(_) => format!("strftime('%Y-%m-%dT%H:%M:%fZ', {END})"),
            Tx::Postgres(_) => END.to_owned(),
        };
        let select =
            format!("SELECT tenant_id, id, error_message FROM jobs WHERE {is_one} AND {ENDED} AND {end} > '{time}'");
        Ok(QuarantinedRows { count, is_partial: looked_at >= i64::from(MAX_LOOKED_AT), newest, select })
    }

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

fn quarantined_row(row: &Row) -> Result<QuarantinedRow, StoreError> {
    let why = row.text("error_message")?.unwrap_or_default();
    Ok(QuarantinedRow {
        tenant: row.shown_key("tenant_id")?,
        id: row.shown_key("id")?,
        why: why.strip_prefix(UNREADABLE).unwrap_or(&why).to_owned(),
    })
}
