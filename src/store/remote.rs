//! Jobs whose work is in a foreign process.
//!
//! A foreign run is hosted as any other: the row names the worker and the run. Beside that it names the session, which is
//! the foreign process, so that the same process may take its run to another worker at once.

use super::jobs::{accepts_jobs, read_with_contents};
use super::new_rows::{Beginning, INSERT_JOB, values_of};
use super::quarantine::check_run;
use super::sql::{Row, Tx};
use super::{ClaimedJob, NewJob, RemoteAttach, RemoteWish, Run, Store, StoreError, rows};
use crate::domain::{Job, JobStatus, Resource, WorkerId};

/// Tries where somebody else inserts or changes the row at the same moment.
const ATTEMPTS: u32 = 4;

impl Store {
    /// Gives a job to a foreign session that is connected to this worker: inserts it, adopts a row that nobody hosts, or
    /// moves the run that the session holds already. After an error the same wish may be asked again.
    pub async fn attach_remote(
        &self,
        job: &NewJob,
        host: &WorkerId,
        wish: &mut RemoteWish<'_>,
    ) -> Result<RemoteAttach, StoreError> {
        for _ in 1..ATTEMPTS {
            match self.try_attach(job, host, wish).await {
                Ok(Some(attach)) => return Ok(attach),
                // Somebody else inserted or changed it just now: what stands there now decides.
                Ok(None) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Unavailable("the row changes all the time".to_owned()))
    }

    /// Looks beside whoever writes, and writes one statement that says what it has seen: others wait for that one alone.
    /// `None`: somebody was faster.
    async fn try_attach(
        &self,
        job: &NewJob,
        host: &WorkerId,
        wish: &mut RemoteWish<'_>,
    ) -> Result<Option<RemoteAttach>, StoreError> {
        let resource = Resource::job(job.tenant.clone(), job.id.clone());
        let RemoteWish { session, reference, run, .. } = *wish;
        let Some(row) = self.row_as_seen(&resource).await? else {
            wish.tried = Some(1);
            let is_new = self.insert(job, Beginning::Remote { host, session, reference }).await?;
            return if is_new { self.attached(resource, host, 1).await.map(Some) } else { Ok(None) };
        };
        let status = rows::job_status(&row)?;
        let number = row.int("run")?.unwrap_or(0);
        let hosted = row.text("host")?;
        let is_session = row.text("remote_session")?.as_deref() == Some(session);
        // The session gives the number of the job to no other: by it the run is its own even where it never heard of that.
        // Not from another worker: this wish may be an old one, and the session has taken the job there meanwhile.
        let is_here = hosted.as_deref() == Some(host.as_str());
        let is_named = is_session && is_here && row.int("remote_ref")? == Some(reference);
        if is_named && wish.tried == Some(number) && !status.is_final() {
            return self.attached(resource, host, number).await.map(Some);
        }
        let is_own = is_named || (is_session && run == Some(number));
        if status.is_final() {
            return Ok(Some(RemoteAttach::Ended { status, is_own }));
        }
        if run == Some(number) && row.int("ended_run")? == run {
            return Ok(Some(RemoteAttach::Ended { status, is_own: true }));
        }
        // A session that comes back late goes on only if nobody else has had the job meanwhile.
        let had_by_others = run.is_some_and(|run| run != number);
        if (hosted.is_some() || had_by_others) && !is_own {
            return Ok(Some(RemoteAttach::Elsewhere));
        }
        check_run(job.id.as_str(), number)?;
        let mut tx = self.database.write().await?;
        if row.text("campaign_id")?.is_some() && hosted.is_none() && status != JobStatus::Paused {
            // The campaign before its jobs, as everywhere: two that wait for each other would both fail.
            if campaign_of(&mut tx, &resource).await? == Some(false) {
                tx.rollback().await?;
                return Ok(Some(RemoteAttach::CampaignPaused));
            }
        }
        wish.tried = Some(number + 1);
        // The row is as it was read, or nothing is written.
        let taken = tx
            .execute_and_commit(
                "UPDATE jobs SET host = $3, run = run + 1, remote_session = $4, updated_at = {now}, run_after = NULL,
                   started_at = COALESCE(started_at, {now}), contact_lost_at = NULL, alone_in = NULL,
                   error_message = CASE WHEN host IS NULL THEN NULL ELSE error_message END,
                   error_detail = CASE WHEN host IS NULL THEN NULL ELSE error_detail END,
                   status = CASE WHEN status = 'paused' THEN 'paused' ELSE 'running' END,
                   title = COALESCE(title, $5), created_by = COALESCE(created_by, $6),
                   timeout_seconds = COALESCE(timeout_seconds, $7), remote_ref = $11
                 WHERE tenant_id = $1 AND id = $2 AND run = $8 AND COALESCE(host, '') = $9 AND (status || '') = $10",
                &[
                    job.tenant.as_str().into(),
                    job.id.as_str().into(),
                    host.as_str().into(),
                    session.into(),
                    job.title.clone().into(),
                    job.created_by.as_ref().map(ToString::to_string).into(),
                    job.timeout_seconds.map(i64::from).into(),
                    number.into(),
                    hosted.unwrap_or_default().into(),
                    status.as_str().into(),
                    reference.into(),
                ],
            )
            .await?;
        if taken == 0 { Ok(None) } else { self.attached(resource, host, number + 1).await.map(Some) }
    }

    /// Makes the row of a job that was published and has not begun, unless there is one. Gives the row, and whether it is
    /// new.
    pub async fn expect_remote(&self, job: &NewJob, run_after: Option<i64>) -> Result<(Job, bool), StoreError> {
        let resource = Resource::job(job.tenant.clone(), job.id.clone());
        let mut is_new = false;
        if self.row_as_seen(&resource).await?.is_none() {
            is_new = self.insert(job, Beginning::Expected { run_after }).await?;
        }
        let row = self.job_without_contents(&resource).await?;
        let row = row.ok_or_else(|| StoreError::Unavailable("the row is being made by somebody else".to_owned()))?;
        Ok((row, is_new))
    }

    async fn row_as_seen(&self, job: &Resource) -> Result<Option<Row>, StoreError> {
        let text = "SELECT status, host, run, remote_session, remote_ref, ended_run, campaign_id FROM jobs
                    WHERE tenant_id = $1 AND id = $2";
        let key = [job.tenant.as_str().into(), job.id.as_str().into()];
        self.database.read().await?.row(text, &key).await
    }

    /// Inserts a job of a foreign process: running in a worker, or expected. `false`: somebody else has inserted it.
    async fn insert(&self, job: &NewJob, beginning: Beginning<'_>) -> Result<bool, StoreError> {
        let mut tx = self.database.write().await?;
        accepts_jobs(&mut tx, job).await?;
        Ok(tx.execute_and_commit(INSERT_JOB, &values_of(job, &beginning)).await? > 0)
    }

    /// The job that a session has just been given, as it is now.
    async fn attached(&self, resource: Resource, host: &WorkerId, number: i64) -> Result<RemoteAttach, StoreError> {
        let text = "SELECT resume_point, CAST(deaths AS BIGINT) AS deaths, timeout_used_ms FROM jobs
                    WHERE tenant_id = $1 AND id = $2";
        let mut reading = self.database.read().await?;
        let more = reading.row(text, &[resource.tenant.as_str().into(), resource.id.as_str().into()]).await?;
        let job = read_with_contents(&mut reading, &resource).await?;
        let (Some(job), Some(more)) = (job, more) else {
            return Err(StoreError::Unavailable("the job vanished while it was attached".to_owned()));
        };
        let run = Run { job: resource, host: host.clone(), number };
        let (resume_point, deaths) = (more.text("resume_point")?, more.int("deaths")?.unwrap_or(0));
        let timeout_used_ms = more.int("timeout_used_ms")?.unwrap_or(0);
        Ok(RemoteAttach::Attached(Box::new(ClaimedJob { job, run, resume_point, deaths, timeout_used_ms })))
    }

    /// Whether this run's work is in a foreign process.
    pub async fn is_remote(&self, run: &Run) -> Result<bool, StoreError> {
        let text = "SELECT id FROM jobs WHERE tenant_id = $1 AND id = $2 AND run = $3 AND remote_session IS NOT NULL";
        let values = [run.job.tenant.as_str().into(), run.job.id.as_str().into(), run.number.into()];
        Ok(self.database.read().await?.row(text, &values).await?.is_some())
    }
}

/// Whether the campaign of a job lets its jobs start; it is held until the transaction ends. `None`: it has none.
async fn campaign_of(tx: &mut Tx, job: &Resource) -> Result<Option<bool>, StoreError> {
    let text = "SELECT c.status, CAST(CASE WHEN c.is_active THEN 1 ELSE 0 END AS BIGINT) AS is_active FROM campaigns c
                WHERE c.tenant_id = $1
                  AND c.id = (SELECT j.campaign_id FROM jobs j WHERE j.tenant_id = $1 AND j.id = $2) {share}";
    let found = tx.row(text, &[job.tenant.as_str().into(), job.id.as_str().into()]).await?;
    found
        .map(|row| Ok(row.int("is_active")? == Some(1) && row.text("status")?.as_deref() == Some("active")))
        .transpose()
}
