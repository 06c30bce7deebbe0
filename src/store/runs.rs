//! What a worker that hosts a job writes. Every statement names the run: one that is over changes nothing.

use super::announcement_rows::{AnnouncementKind, record_announcement};
use super::jobs::read;
use super::quarantine::{CorruptRows, add_corrupt};
use super::run_rows::{OWNED_BY_RUN, end_with_campaign, message_and_detail, owned_by_run};
use super::sql::{Tx, Value};
use super::{FinishOutcome, HandBack, Hosting, ReleasedRun, Run, RunEnd, Store, StoreError, rows};
use crate::domain::{Job, Progress, Resource, WorkerId};

/// A paused job without a host goes back to the queue when it is resumed.
const RELEASE: &str = "paused_from = CASE WHEN status = 'paused' THEN 'pending' ELSE NULL END";

/// Holds a job's campaign until the transaction ends, so that a cancel of it comes before or after, not in the
/// middle. The campaign before its jobs, as everywhere: two that wait for each other would both fail.
async fn lock_campaign(tx: &mut Tx, job: &Resource) -> Result<(), StoreError> {
    tx.row(
        "SELECT c.id FROM campaigns c WHERE c.tenant_id = $1
           AND c.id = (SELECT j.campaign_id FROM jobs j WHERE j.tenant_id = $1 AND j.id = $2) {share}",
        &[job.tenant.as_str().into(), job.id.as_str().into()],
    )
    .await
    .map(|_| ())
}

impl Store {
    /// The work has ended. A failure goes back to `pending` while retries are left.
    pub async fn finish(&self, run: &Run, progress: &Progress, end: &RunEnd) -> Result<FinishOutcome, StoreError> {
        self.run_ends.record(run, progress, end, self.now_ms()).await
    }

    /// The worker is leaving: the job waits for another (or stays paused), from its resume point. `false`: it is
    /// no longer this run's, or an attached one, which no other worker can run.
    pub async fn release_run(&self, run: &Run) -> Result<bool, StoreError> {
        self.hand_back(run, &HandBack::default()).await
    }

    /// As [`Self::release_run`], for a job whose own queue says when and how it goes on.
    pub async fn hand_back(&self, run: &Run, how: &HandBack) -> Result<bool, StoreError> {
        let mut tx = self.database.write().await?;
        lock_campaign(&mut tx, &run.job).await?;
        let text = format!(
            "UPDATE jobs SET host = NULL, remote_session = NULL, run_after = $5, updated_at = {{now}}, {RELEASE},
               timeout_used_ms = CASE WHEN $6 = 1 THEN 0 ELSE timeout_used_ms END, retry_count = retry_count + $6,
               error_message = COALESCE($7, error_message), error_detail = COALESCE($8, error_detail),
               ended_run = CASE WHEN $9 = 1 THEN $4 ELSE ended_run END,
               status = CASE WHEN status = 'running' THEN 'pending' ELSE status END
             WHERE {OWNED_BY_RUN} AND (origin = 'queued' OR remote_session IS NOT NULL)
               AND (status || '') IN ('running', 'paused')"
        );
        let mut values = owned_by_run(run);
        let (message, detail) = how.failed_with.as_ref().map(message_and_detail).unzip();
        values.extend([
            how.run_after.into(),
            i64::from(how.failed_with.is_some()).into(),
            message.into(),
            detail.flatten().into(),
            i64::from(how.by_the_work).into(),
        ]);
        let given = tx.execute(&text, &values).await? > 0;
        end_with_campaign(&mut tx, &run.job).await?;
        if given {
            record_announcement(&mut tx, &run.job, AnnouncementKind::Status, run.number).await?;
        }
        tx.commit().await?;
        Ok(given)
    }

    /// A worker leaves on purpose: whatever becomes of it before it has handed its jobs back, it has not died in them.
    pub async fn leave_runs(&self, host: &WorkerId) -> Result<(), StoreError> {
        let text = "UPDATE jobs SET left_run = run WHERE host = $1 AND status IN ('pending', 'running', 'paused')";
        self.change(text, &[host.as_str().into()]).await.map(|_| ())
    }

    /// Nobody has heard of the program that hosts an attached job for a while. Its row says so until it is heard of
    /// again; its work probably goes on, and nobody else can do it. `None`: nothing changed.
    pub async fn lose_contact(&self, run: &Run) -> Result<Option<Job>, StoreError> {
        self.set_contact(run, "{now}", "contact_lost_at IS NULL").await
    }

    /// That program has been heard of again. `None`: nothing changed.
    pub async fn regain_contact(&self, run: &Run) -> Result<Option<Job>, StoreError> {
        self.set_contact(run, "NULL", "contact_lost_at IS NOT NULL").await
    }

    async fn set_contact(&self, run: &Run, to: &str, while_it_is: &str) -> Result<Option<Job>, StoreError> {
        let text = format!(
            "UPDATE jobs SET contact_lost_at = {to}, updated_at = {{now}}
             WHERE {OWNED_BY_RUN} AND origin = 'attached' AND (status || '') IN ('running', 'paused') AND {while_it_is}"
        );
        if self.change(&text, &owned_by_run(run)).await? { self.job(&run.job).await } else { Ok(None) }
    }

    /// Whether this run's work belongs to the program that hosts it.
    pub async fn is_attached(&self, run: &Run) -> Result<bool, StoreError> {
        let text = format!("SELECT id FROM jobs WHERE {OWNED_BY_RUN} AND origin = 'attached'");
        Ok(self.database.read().await?.row(&text, &owned_by_run(run)).await?.is_some())
    }

    /// Runs of jobs that have not ended, of every host.
    pub async fn hosted_runs(&self) -> Result<Vec<Run>, StoreError> {
        Ok(self.hostings().await?.into_iter().map(|hosting| hosting.run).collect())
    }

    /// The same, with what the reaper needs to know, who looks whether the hosts live.
    pub async fn hostings(&self) -> Result<Vec<Hosting>, StoreError> {
        self.find_hostings(None).await
    }

    /// The same of one host.
    pub async fn hostings_of(&self, host: &WorkerId) -> Result<Vec<Hosting>, StoreError> {
        self.find_hostings(Some(host)).await
    }

    async fn find_hostings(&self, only: Option<&WorkerId>) -> Result<Vec<Hosting>, StoreError> {
        let (of_host, values) = match only {
            Some(host) => ("AND host = $1", vec![Value::from(host.as_str())]),
            None => ("", Vec::new()),
        };
        let found = self
            .database
            .read()
            .await?
            .rows(
                &format!(
                    "SELECT id, tenant_id, host, run, origin, remote_session, renewals, jobs.rowid AS row_id,
                       CAST(CASE WHEN contact_lost_at IS NULL THEN 0 ELSE 1 END AS BIGINT) AS lost
                     FROM jobs LEFT JOIN worker_leases ON worker_id = host
                     WHERE host IS NOT NULL AND status IN ('pending', 'running', 'paused') {of_host}"
                ),
                &values,
            )
            .await?;
        let hosting = |row: &super::sql::Row| -> Result<Hosting, StoreError> {
            let host = row.required("host")?;
            let host = host.parse().map_err(|_| StoreError::Refused(format!("{host:?} is no worker id")))?;
            let run = Run { job: rows::job_resource(row)?, host, number: row.int("run")?.unwrap_or(0) };
            let is_attached = row.required("origin")? == "attached";
            let is_remote = row.text("remote_session")?.is_some();
            let (is_contact_lost, renewals) = (row.int("lost")? == Some(1), row.int("renewals")?);
            Ok(Hosting { run, is_attached, is_remote, is_contact_lost, renewals })
        };
        let (mut hostings, mut corrupt) = (Vec::with_capacity(found.len()), CorruptRows::default());
        for row in &found {
            match hosting(row) {
                Ok(hosting) => hostings.push(hosting),
                // Other systems may say of their own jobs who has them.
                Err(_) if row.text("origin")?.as_deref() == Some("external") => {}
                Err(why) => add_corrupt(&mut corrupt, row, &why),
            }
        }
        // No worker has them, none will ever end them, and none would take them.
        self.quarantine_waiting(&[], corrupt).await?;
        Ok(hostings)
    }

    /// The host died: a queued job waits for another worker (or stays paused), an attached one has failed; a paused
    /// one by way of `running`, since nothing else leads there. So has a queued one in which the `deaths`-th worker
    /// died without its getting further: it may be what kills them. One that was leaving has not died in it. `None`: it had moved on.
    pub async fn release_dead_run(
        &self,
        run: &Run,
        error: &str,
        deaths: u32,
    ) -> Result<Option<ReleasedRun>, StoreError> {
        let mut tx = self.database.write().await?;
        lock_campaign(&mut tx, &run.job).await?;
        let mut values = owned_by_run(run);
        let text = format!(
            "UPDATE jobs SET status = 'running', paused_from = NULL, updated_at = {{now}}
             WHERE {OWNED_BY_RUN} AND origin = 'attached' AND (status || '') = 'paused'"
        );
        let resumed = tx.execute(&text, &values).await? > 0;
        values.extend([error.into(), i64::from(deaths).into(), too_many_crashes(deaths).into()]);
        // What stands paused does nothing that could kill anyone.
        // Nor does work in a foreign process, which does not even end with its host.
        let died = "status = 'running' AND (left_run IS NULL OR left_run <> run) AND remote_session IS NULL";
        let poison = format!("origin = 'queued' AND {died} AND deaths + 1 >= $6");
        let text = format!(
            "UPDATE jobs SET host = NULL, remote_session = NULL, updated_at = {{now}}, {RELEASE},
               deaths = CASE WHEN {died} THEN deaths + 1 ELSE deaths END, contact_lost_at = NULL,
               status = CASE WHEN origin = 'attached' OR ({poison}) THEN 'failed' WHEN status = 'running' THEN 'pending'
                 ELSE status END,
               error_message = CASE WHEN origin = 'attached' THEN $5 WHEN {poison} THEN $7 ELSE error_message END,
               completed_at = CASE WHEN origin = 'attached' OR ({poison}) THEN {{now}} ELSE completed_at END
             WHERE {OWNED_BY_RUN} AND (status || '') IN ('pending', 'running', 'paused')"
        );
        if tx.execute(&text, &values).await? == 0 {
            tx.rollback().await?;
            return Ok(None);
        }
        end_with_campaign(&mut tx, &run.job).await?;
        record_announcement(&mut tx, &run.job, AnnouncementKind::Status, run.number).await?;
        // It is released, whoever can read it.
        let job = rows::skip_unreadable(read(&mut tx, &run.job).await).flatten();
        tx.commit().await?;
        Ok(job.map(|job| ReleasedRun { job, resumed }))
    }

    /// One statement in its own transaction; whether it changed a row.
    pub(super) async fn change(&self, text: &str, values: &[Value]) -> Result<bool, StoreError> {
        let mut tx = self.database.write().await?;
        let changed = tx.execute(text, values).await?;
        tx.commit().await?;
        Ok(changed > 0)
    }
}

fn too_many_crashes(deaths: u32) -> String {
    let workers = if deaths == 1 { "A worker".to_owned() } else { format!("{deaths} workers") };
    format!("{workers} died while running this job. Look at their machines' logs (memory?) before you submit it again")
}
