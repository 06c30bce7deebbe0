//! What any one worker does now and then for all of them.

use std::time::Duration;

use super::database::Database;
use super::sql::{Value, time_text};
use super::{Store, StoreError, rows};
use crate::domain::Resource;

/// Something to be done for all workers, by one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaintenanceTask {
    /// Campaigns whose jobs have all ended are completed.
    Campaigns,
    /// What old commands did is forgotten.
    Commands,
    /// Jobs that ended long ago are deleted.
    Jobs,
    /// Ends of commands that Redis did not keep until they were in the audit trail are put there.
    Audit,
    /// Changes of the counts of jobs are added up.
    Counts,
}

impl MaintenanceTask {
    /// As in the table `upkeep`.
    fn as_str(self) -> &'static str {
        match self {
            Self::Campaigns => "campaigns",
            Self::Commands => "commands",
            Self::Jobs => "jobs",
            Self::Audit => "audit",
            Self::Counts => "counts",
        }
    }
}

/// Changes that are added up in one transaction.
const ADDED_UP: u64 = 10_000;
/// Rows deleted in one transaction: other writers get their turn after that.
const FORGET: u32 = 1_000;

impl Store {
    /// Takes the turn at a task if it is due; nobody else gets it before `every` has passed. Only reads while
    /// it is not due. Whoever dies in its turn costs one `every`.
    pub async fn try_acquire_lease(&self, task: MaintenanceTask, every: Duration) -> Result<bool, StoreError> {
        let now = jiff::Timestamp::now().as_millisecond();
        let every = i64::try_from(every.as_millis()).unwrap_or(i64::MAX / 4);
        // A time far ahead is from a clock that was wrong: it must not stop everyone.
        let due = "task = $1 AND (due <= $2 OR due > $3)";
        let values: [Value; 3] = [task.as_str().into(), now.into(), (now + 2 * every).into()];
        let text = format!("SELECT task FROM upkeep WHERE {due}");
        if self.database.read().await?.row(&text, &values).await?.is_none() {
            return Ok(false);
        }
        let text = format!("UPDATE upkeep SET due = $4 WHERE {due}");
        let values = [&values[..], &[(now + every).into()]].concat();
        self.change(&text, &values).await
    }

    /// What time it is by the database's own clock, Unix ms. SQLite has none but that of this program.
    pub async fn clock(&self) -> Result<i64, StoreError> {
        let row = self.database.read().await?.row("SELECT CAST({now} AS TEXT) AS now", &[]).await?;
        let text = row.map(|row| row.text("now")).transpose()?.flatten();
        let time = rows::time(text).and_then(|text| text.parse::<jiff::Timestamp>().ok());
        time.map(|time| time.as_millisecond())
            .ok_or_else(|| StoreError::Refused("the database tells no time".to_owned()))
    }

    /// Active campaigns that are not open, with submitted jobs that have all ended, some of them: their worker died before it
    /// could say so. Campaigns of other systems are left to those.
    pub async fn campaigns_to_complete(&self, limit: u32) -> Result<Vec<Resource>, StoreError> {
        // One look into the index of a campaign's jobs for each active campaign; as EXISTS, PostgreSQL may walk along all jobs instead. The
        // statuses are ranges of that index, in the order of the alphabet: named one by one they would also be those of indexes in which
        // the ended jobs of a whole tenant stand, and PostgreSQL would walk along these where it has not counted the rows yet.
        let one = |only: &str| {
            format!(
                "(SELECT j.id FROM jobs j WHERE j.tenant_id = c.tenant_id AND j.campaign_id = c.id AND {only} LIMIT 1)"
            )
        };
        let text = |limit| {
            format!(
                "SELECT c.id, c.tenant_id FROM campaigns c WHERE c.is_active AND c.status = 'active' AND NOT c.is_open
                   AND {} IS NULL AND {} IS NOT NULL LIMIT {limit}",
                one("j.status BETWEEN 'paused' AND 'running'"),
                one("j.status BETWEEN 'cancelled' AND 'failed' AND j.origin = 'queued'"),
            )
        };
        self.readable(limit, text, &[], rows::campaign_resource).await
    }

    /// Adds up the changes of the counts of jobs that have gathered on PostgreSQL; SQLite adds them up as they come. `tidy`:
    /// also removes the counts of campaigns that are gone.
    pub async fn add_up_job_counts(&self, tidy: bool) -> Result<(), StoreError> {
        if let Database::Sqlite { .. } = &self.database {
            if tidy {
                self.change("DELETE FROM job_counts WHERE n = 0", &[]).await?;
            }
            return Ok(());
        }
        loop {
            let text = format!("SELECT add_up_job_counts({ADDED_UP}, {tidy}) AS n");
            let mut tx = self.database.write().await?;
            let added = tx.row(&text, &[]).await?.map_or(Ok(None), |row| row.int("n"))?.unwrap_or(0);
            tx.commit().await?;
            if u64::try_from(added).unwrap_or(0) < ADDED_UP {
                return Ok(());
            }
        }
    }

    /// Forgets what commands did that were applied longer ago than `age`, as of `now` (Unix ms, of a clock that others
    /// agree with); some of them. How many.
    pub async fn prune_applied_commands(&self, age: Duration, now: i64) -> Result<u64, StoreError> {
        let before = now.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        let text = format!(
            "DELETE FROM applied_commands WHERE command_id IN
               (SELECT command_id FROM applied_commands WHERE at < {{time:$1}} ORDER BY at LIMIT {FORGET})"
        );
        let mut tx = self.database.write().await?;
        // Three digits, as SQLite writes them: there it is a comparison of texts.
        let forgotten = tx.execute(&text, &[time_text(before).into()]).await?;
        tx.commit().await?;
        Ok(forgotten)
    }
}
