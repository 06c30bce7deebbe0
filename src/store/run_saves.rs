//! What runs have to say beside how they end: how far they are, where they could go on, what has failed.
//!
//! Many go into one transaction, in one statement. No row is waited for there that somebody else holds: on PostgreSQL such a
//! report is passed over, and written by itself.

use std::collections::HashSet;
use std::sync::Arc;

use super::run_rows::{OWNED_BY_RUN, PROGRESS, owned_by_run, progress_values};
use super::sql::{MultiRowInsert, Tx, Value};
use super::{Run, SaveOutcome, SavedRun, Store, StoreError, failed_items, rows};
use crate::domain::Resource;

impl Store {
    /// Writes what a run has to say, all of it or nothing: a resume point that is in SQL has every item before it
    /// accounted for. `false`: the job is no longer this run's.
    pub async fn save(&self, run: &Run, account: &SavedRun) -> Result<bool, StoreError> {
        let text = format!(
            "UPDATE jobs SET {PROGRESS}, deaths = CASE WHEN $11 <> COALESCE(resume_point, '') THEN 0 ELSE deaths END,
               resume_point = COALESCE($11, resume_point), timeout_used_ms = COALESCE($12, timeout_used_ms),
               updated_at = {{now}}
             WHERE {OWNED_BY_RUN} AND (status || '') IN ('running', 'paused')"
        );
        let mut tx = self.database.write().await?;
        let ours = tx.execute(&text, &values_of(run, account)).await? > 0;
        if ours {
            failed_items::add(&mut tx, run, &account.failed_items).await?;
        }
        tx.commit().await?;
        Ok(ours)
    }

    /// As [`Self::save`], for many runs in one transaction: an error is all of theirs, and nothing was written.
    pub async fn save_many(&self, reports: &[Arc<(Run, SavedRun)>]) -> Result<Vec<SaveOutcome>, StoreError> {
        let mut tx = self.database.write().await?;
        let free = free_rows(&mut tx, reports).await?;
        let is_free = |run: &Run| free.as_ref().is_none_or(|free| free.contains(&run.job));
        let to_save = reports.iter().map(|report| &**report).filter(|(run, _)| is_free(run));
        let rows: Vec<Vec<Value>> = to_save.map(|(run, account)| values_of(run, account)).collect();
        let save = MultiRowInsert {
            before: "UPDATE jobs SET progress_percent = given.column5, items_total = given.column6,
               items_processed = given.column7, items_succeeded = given.column8, items_failed = given.column9,
               current_item = given.column10, resume_point = COALESCE(given.column11, resume_point),
               deaths = CASE WHEN given.column11 <> COALESCE(resume_point, '') THEN 0 ELSE deaths END,
               timeout_used_ms = COALESCE(given.column12, timeout_used_ms), updated_at = {now}
             FROM (",
            row: "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            // Only the key may choose the row: see `OWNED_BY_RUN`.
            after: ") AS given WHERE tenant_id = given.column1 AND id = given.column2 AND COALESCE(host, '') = given.column3
               AND run = given.column4 AND (status || '') IN ('running', 'paused') RETURNING tenant_id, id, run",
            rows: &rows,
        };
        let mut saved = HashSet::new();
        for row in tx.rows_of_many(&save).await? {
            saved.insert((rows::job_resource(&row)?, row.int("run")?.unwrap_or(0)));
        }
        let mut outcomes = Vec::with_capacity(reports.len());
        for (run, account) in reports.iter().map(|report| &**report) {
            // Not `remove`: a report that stands here twice was written, as one of the two says.
            let ours = saved.contains(&(run.job.clone(), run.number));
            if ours {
                failed_items::add(&mut tx, run, &account.failed_items).await?;
            }
            outcomes.push(match ours {
                true => SaveOutcome::Saved,
                false if is_free(run) => SaveOutcome::Lost,
                false => SaveOutcome::Passed,
            });
        }
        tx.commit().await?;
        Ok(outcomes)
    }
}

fn values_of(run: &Run, account: &SavedRun) -> Vec<Value> {
    let mut values = owned_by_run(run);
    progress_values(&mut values, &account.progress);
    values.push(account.resume_point.as_ref().map(ToString::to_string).into());
    values.push(account.timeout_used_ms.into());
    values
}

/// Those rows that nobody else holds, held from now on; `None`: all of them (SQLite has one writer, who holds everything).
async fn free_rows(tx: &mut Tx, reports: &[Arc<(Run, SavedRun)>]) -> Result<Option<HashSet<Resource>>, StoreError> {
    if matches!(tx, Tx::Sqlite(_)) {
        return Ok(None);
    }
    let keys: Vec<Vec<Value>> = reports
        .iter()
        .map(|report| &report.0.job)
        .map(|job| vec![job.tenant.as_str().into(), job.id.as_str().into()])
        .collect();
    let hold = MultiRowInsert {
        before: "SELECT tenant_id, id FROM jobs WHERE (tenant_id, id) IN (",
        row: "(?, ?)",
        after: ") {skip}",
        rows: &keys,
    };
    let held = tx.rows_of_many(&hold).await?;
    held.iter().map(rows::job_resource).collect::<Result<_, _>>().map(Some)
}
