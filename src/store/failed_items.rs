//! What jobs could not do, item by item.

use super::sql::{Row, Tx, Value};
use super::{FailedItemFilter, FailedItemRow, Page, Run, Store, StoreError, page, rows};
use crate::domain::FailedItem;
use crate::domain::text::{MAX_LONG_TEXT, MAX_SHORT_TEXT};

/// Rows kept of one job: enough to see what is wrong and to repair it. `items_failed` counts on.
pub const MAX_FAILED_ITEMS: usize = 10_000;
/// Rows of one statement: SQLite takes 32,766 values in one, PostgreSQL 65,535.
const ROWS_PER_STATEMENT: usize = 500;

impl Store {
    /// The failed items of a job in the order in which they failed, with a cursor.
    pub async fn failed_items(&self, filter: &FailedItemFilter) -> Result<Page<FailedItemRow>, StoreError> {
        let after = match filter.after.as_deref() {
            None => 0,
            after => page::cursor(after)?,
        };
        let text = format!(
            "SELECT {} AS item, {} AS error, run, CAST(at AS TEXT) AS at, rowid AS row_id FROM failed_items
             WHERE tenant_id = $1 AND job_id = $2 AND rowid > $3 ORDER BY rowid LIMIT {}",
            rows::shorten("item", MAX_SHORT_TEXT),
            rows::shorten("error", MAX_LONG_TEXT),
            page::sql_limit(filter.limit)
        );
        let values = [filter.job.tenant.as_str().into(), filter.job.id.as_str().into(), after.into()];
        let found = self.database.read().await?.rows(&text, &values).await?;
        page::page_of(&found, filter.limit, failed_item)
    }
}

fn failed_item(row: &Row) -> Result<FailedItemRow, StoreError> {
    Ok(FailedItemRow {
        failed: FailedItem { item: row.required("item")?, error: row.required("error")? },
        run: row.int("run")?.unwrap_or(0),
        at: rows::time(row.text("at")?),
    })
}

/// Adds what failed, each item once in `items`; one that is there already gets its newest error.
pub(super) async fn add(tx: &mut Tx, run: &Run, mut items: &[FailedItem]) -> Result<(), StoreError> {
    let job: [Value; 2] = [run.job.tenant.as_str().into(), run.job.id.as_str().into()];
    while !items.is_empty() {
        let text = "SELECT COUNT(*) AS n FROM failed_items WHERE tenant_id = $1 AND job_id = $2";
        let kept = tx.row(text, &job).await?.map_or(Ok(None), |row| row.int("n"))?.unwrap_or(0);
        let room = MAX_FAILED_ITEMS.saturating_sub(usize::try_from(kept).unwrap_or(0));
        if room == 0 {
            return Ok(());
        }
        let (now, later) = items.split_at(items.len().min(room).min(ROWS_PER_STATEMENT));
        insert(tx, run, &job, now).await?;
        items = later;
    }
    Ok(())
}

async fn insert(tx: &mut Tx, run: &Run, job: &[Value; 2], items: &[FailedItem]) -> Result<(), StoreError> {
    let mut values: Vec<Value> = job.to_vec();
    values.push(run.number.into());
    let mut places = Vec::with_capacity(items.len());
    for failed in items {
        values.extend([failed.item.as_str().into(), failed.error.as_str().into()]);
        places.push(format!("($1, $2, $3, ${}, ${})", values.len() - 1, values.len()));
    }
    let text = format!(
        "INSERT INTO failed_items (tenant_id, job_id, run, item, error) VALUES {}
         ON CONFLICT (tenant_id, job_id, item) DO UPDATE SET error = excluded.error, run = excluded.run, at = {{now}}",
        places.join(", ")
    );
    tx.execute(&text, &values).await.map(|_| ())
}
