//! Deletes jobs and campaigns that ended long ago, in small steps. The audit trail keeps what was done to them.
//!
//! A job of a campaign that has not ended is kept, however old it is: the campaign counts it. A campaign goes after the
//! last of its jobs.

use std::time::Duration;

use super::job_indexes::{END, ENDED};
use super::sql::{Row, Value, time_text};
use super::{Store, StoreError, rows};
use crate::domain::Resource;

/// Jobs of one step.
const STEP: usize = 100;
/// Rows that belong to those jobs, deleted in one transaction: one job may have hundreds of thousands.
const ROWS: usize = 1_000;
/// What belongs to a job, with the column that tells its rows apart.
const CONTENTS: [(&str, &str); 3] = [("failed_items", "item"), ("imported_rows", "row_number"), ("job_output", "line")];
/// Between two transactions, so that other writers get their turn.
const BREATH: Duration = Duration::from_millis(20);

/// Its campaign, if it has one, has ended or is not there.
const FREE: &str = "(j.campaign_id IS NULL OR NOT EXISTS (SELECT 1 FROM campaigns c
  WHERE c.tenant_id = j.tenant_id AND c.id = j.campaign_id AND c.status IN ('active', 'paused')))";
const FREE_CAMPAIGN: &str = "c.status IN ('completed', 'cancelled')
  AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.tenant_id = c.tenant_id AND j.campaign_id = c.id)";

/// What was deleted, or would be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PrunedJobs {
    /// Jobs.
    pub jobs: u64,
    /// Campaigns.
    pub campaigns: u64,
}

impl Store {
    /// The time (Unix ms) before which a job must have ended to be older than `keep`: by this machine's clock (`now`, Unix
    /// ms) or the database's, whichever shows less. A clock that runs ahead must not delete what is young.
    pub async fn ended_before(&self, now: i64, keep: Duration) -> Result<i64, StoreError> {
        let text = "SELECT CAST({now} AS TEXT) AS now";
        let theirs = self.database.read().await?.row(text, &[]).await?.map_or(Ok(None), |row| row.text("now"))?;
        let theirs = rows::time(theirs).and_then(|time| time.parse::<jiff::Timestamp>().ok());
        let now = theirs.map_or(now, |theirs| theirs.as_millisecond().min(now));
        Ok(now.saturating_sub(i64::try_from(keep.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How many would be deleted: campaigns are counted that have no job but those.
    pub async fn prunable_jobs(&self, before: i64) -> Result<PrunedJobs, StoreError> {
        let old = "{ms:COALESCE(j.completed_at, j.cancelled_at, j.updated_at)} < {time:$1}
          AND j.status IN ('completed', 'failed', 'cancelled')";
        let jobs = format!("SELECT COUNT(*) AS n FROM jobs j WHERE {old} AND {FREE}");
        let campaigns = format!(
            "SELECT COUNT(*) AS n FROM campaigns c WHERE c.status IN ('completed', 'cancelled')
               AND {{ms:COALESCE(c.completed_at, c.cancelled_at, c.updated_at)}} < {{time:$1}}
               AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.tenant_id = c.tenant_id AND j.campaign_id = c.id AND NOT ({old}))"
        );
        let mut tx = self.database.read().await?;
        let mut counts = [0_u64; 2];
        for (count, text) in counts.iter_mut().zip([jobs, campaigns]) {
            let found = tx.row(&text, &[time_text(before).into()]).await?;
            let found = found.map_or(Ok(None), |row| row.int("n"))?;
            *count = u64::try_from(found.unwrap_or(0)).unwrap_or(0);
        }
        Ok(PrunedJobs { jobs: counts[0], campaigns: counts[1] })
    }

    /// Deletes jobs and campaigns that ended before that time (Unix ms), until none is left or `stop` says so.
    pub async fn prune_jobs(&self, before: i64, stop: impl Fn() -> bool) -> Result<PrunedJobs, StoreError> {
        let mut pruned = PrunedJobs::default();
        let mut after = (time_text(0), 0);
        while !stop() {
            let (found, next) = self.oldest_ended(before, &after).await?;
            let Some(next) = next else { break };
            if !found.is_empty() {
                self.delete_contents(&found, &stop).await?;
                let placeholders = placeholders(found.len());
                // Nothing leaves an end; looked at once more all the same, for rows that are changed by hand.
                let text = format!("DELETE FROM jobs WHERE (tenant_id, id) IN (VALUES {placeholders}) AND {ENDED}");
                pruned.jobs += self.delete(&text, &keys(&found)).await?;
                tokio::time::sleep(BREATH).await;
            }
            after = next;
        }
        let text = format!(
            "DELETE FROM campaigns WHERE (tenant_id, id) IN (SELECT c.tenant_id, c.id FROM campaigns c
               WHERE {{ms:COALESCE(c.completed_at, c.cancelled_at, c.updated_at)}} < {{time:$1}} AND {FREE_CAMPAIGN}
               LIMIT {STEP})"
        );
        while !stop() {
            match self.delete(&text, &[time_text(before).into()]).await? {
                0 => break,
                some => pruned.campaigns += some,
            }
            tokio::time::sleep(BREATH).await;
        }
        Ok(pruned)
    }

    /// One step along the index: the jobs that may go, and where the next step begins; `None` at the end.
    async fn oldest_ended(
        &self,
        before: i64,
        (time, row): &(String, i64),
    ) -> Result<(Vec<Resource>, Option<(String, i64)>), StoreError> {
        let text = format!(
            "SELECT j.id, j.tenant_id, j.rowid AS row_id, CAST({{ms:{END}}} AS TEXT) AS ended,
               CAST(CASE WHEN {FREE} THEN 1 ELSE 0 END AS BIGINT) AS free
             FROM jobs j WHERE {{ms:{END}}} < {{time:$1}} AND {ENDED} AND ({{ms:{END}}}, j.rowid) > ({{time:$2}}, $3)
             ORDER BY {{ms:{END}}}, j.rowid LIMIT {STEP}"
        );
        let values = [time_text(before).into(), time.as_str().into(), (*row).into()];
        let found = self.database.read().await?.rows(&text, &values).await?;
        let next = match found.last() {
            Some(last) => Some((last.required("ended")?, last.int("row_id")?.unwrap_or(0))),
            None => None,
        };
        let free = |row: &&Row| matches!(row.int("free"), Ok(Some(1)));
        let resource = |row: &Row| rows::skip_unreadable(rows::job_resource(row));
        Ok((found.iter().filter(free).filter_map(resource).collect(), next))
    }

    /// Deletes what belongs to these jobs. Before the jobs: what is left of a step that breaks off is found again.
    async fn delete_contents(&self, jobs: &[Resource], stop: impl Fn() -> bool) -> Result<(), StoreError> {
        for (table, column) in CONTENTS {
            let text = format!(
                "DELETE FROM {table} WHERE (tenant_id, job_id, {column}) IN (
                   SELECT tenant_id, job_id, {column} FROM {table} WHERE (tenant_id, job_id) IN (VALUES {}) LIMIT {ROWS})",
                placeholders(jobs.len())
            );
            while !stop() && self.delete(&text, &keys(jobs)).await? > 0 {
                tokio::time::sleep(BREATH).await;
            }
        }
        Ok(())
    }

    async fn delete(&self, text: &str, values: &[Value]) -> Result<u64, StoreError> {
        let mut tx = self.database.write().await?;
        let deleted = tx.execute(text, values).await?;
        tx.commit().await?;
        Ok(deleted)
    }
}

/// `($1, $2), ($3, $4), …`
fn placeholders(jobs: usize) -> String {
    (0..jobs).map(|n| format!("(${}, ${})", 2 * n + 1, 2 * n + 2)).collect::<Vec<_>>().join(", ")
}

fn keys(jobs: &[Resource]) -> Vec<Value> {
    jobs.iter().flat_map(|job| [job.tenant.as_str().into(), job.id.as_str().into()]).collect()
}
