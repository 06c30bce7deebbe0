//! Removes rows that are older than the time for which they are kept.
//!
//! The triggers of `command_audit` let a row go only if it lies behind `audit_horizon`, and the horizon moves
//! forward only, over rows that are there and old enough. The hash at the horizon is where the rest of the chain
//! hangs, so that it can still be verified. `audit_prunings` says who removed what, when, and by which clocks.

use std::time::Duration;

use super::{COLUMNS, audit_row};
use crate::store::database::Database;
use crate::store::sql::{Value, time_text};
use crate::store::{AuditPruned, PruningClocks, Store, StoreError};

/// Rows removed in one transaction.
const BATCH: usize = 1_000;

impl Store {
    /// Removes the oldest rows, as far as all of them are older than `keep` (a day at least), one batch of them.
    /// Where a row breaks the chain it stops: what is wrong must not disappear because it is old.
    /// The caller has made sure that the clocks agree, and does so again before each batch.
    pub async fn prune_audit(&self, keep: Duration, by: &PruningClocks) -> Result<AuditPruned, StoreError> {
        let keep = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
        let cutoff = by.now().saturating_sub(keep);
        let mut tx = self.database.write().await?;
        let horizon = tx.row("SELECT last_id, hash FROM audit_horizon WHERE id = 1 {skip}", &[]).await?;
        let Some(horizon) = horizon else {
            // Another worker is at it.
            tx.rollback().await?;
            return Ok(AuditPruned::default());
        };
        let (from, mut hash) = (horizon.int("last_id")?.unwrap_or(0), horizon.required("hash")?);
        let text = format!(
            "SELECT {COLUMNS} FROM command_audit
             WHERE id > $1 AND id <= (SELECT last_id FROM audit_head WHERE id = 1) ORDER BY id LIMIT {BATCH}"
        );
        let rows = tx.rows(&text, &[from.into()]).await?;
        let (mut upto, mut broken, mut times) = (from, None, None::<(i64, i64)>);
        for row in &rows {
            let id = row.int("id")?.unwrap_or(0);
            let read = audit_row(row).ok();
            let good = |r: &&crate::store::AuditRow| id == upto + 1 && r.previous_hash == hash && r.is_intact();
            let Some(read) = read.as_ref().filter(good) else {
                broken = Some(id);
                break;
            };
            if read.entry.at >= cutoff {
                break;
            }
            (upto, hash) = (id, read.hash.clone());
            let oldest = times.map_or(read.entry.at, |(oldest, _)| oldest);
            times = Some((oldest, read.entry.at));
        }
        let Some((oldest, newest)) = times else {
            tx.rollback().await?;
            return Ok(AuditPruned { broken, ..AuditPruned::default() });
        };
        tx.execute(
            "UPDATE audit_horizon SET last_id = $1, hash = $2, older_than = {time:$3} WHERE id = 1",
            &[upto.into(), hash.into(), time_text(cutoff).into()],
        )
        .await?;
        let mut record: Vec<Value> = vec![upto.into(), (from + 1).into(), by.worker.as_str().into()];
        let clocks = [oldest, newest, cutoff, by.worker_clock, by.redis_clock];
        record.extend(clocks.map(|at| Value::from(time_text(at))));
        tx.execute(
            "INSERT INTO audit_prunings
               (last_id, first_id, worker_id, oldest, newest, older_than, worker_clock, redis_clock)
             VALUES ($1, $2, $3, {time:$4}, {time:$5}, {time:$6}, {time:$7}, {time:$8})",
            &record,
        )
        .await?;
        let span = [from.into(), upto.into()];
        let gone = match &self.database {
            Database::Sqlite { .. } => {
                tx.execute("DELETE FROM command_audit WHERE id > $1 AND id <= $2", &span).await?
            }
            // With the rights of the tables' owner, so that a worker's role may do without DELETE.
            Database::Postgres { .. } => {
                let row = tx.row("SELECT remove_old_audit_rows($1, $2) AS gone", &span).await?;
                row.map_or(Ok(None), |row| row.int("gone"))?.and_then(|gone| u64::try_from(gone).ok()).unwrap_or(0)
            }
        };
        tx.commit().await?;
        Ok(AuditPruned { rows: gone, more: gone == BATCH as u64, broken })
    }
}
