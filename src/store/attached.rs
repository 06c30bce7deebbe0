//! The job of a `wheelhouse run`: made, or adopted where it is there already.

use super::jobs::{accepts_jobs, read_with_contents};
use super::new_rows::{Beginning, insert};
use super::quarantine::check_run;
use super::{AttachedStart, ClaimedJob, NewJob, Run, Store, StoreError, rows};
use crate::domain::{JobStatus, Resource, WorkerId};

impl Store {
    /// Gives a job to the program that runs its work: inserts it, or adopts a row that nobody hosts, be it of another
    /// system, of a queue that tries again, or handed back. `dead` is a run whose host is known to be gone.
    pub async fn start_attached_job(
        &self,
        job: &NewJob,
        host: &WorkerId,
        dead: Option<&Run>,
    ) -> Result<AttachedStart, StoreError> {
        let resource = Resource::job(job.tenant.clone(), job.id.clone());
        let mut tx = self.database.write().await?;
        let key = [job.tenant.as_str().into(), job.id.as_str().into()];
        let text = "SELECT status, host, run, remote_session FROM jobs WHERE tenant_id = $1 AND id = $2 {lock}";
        let Some(row) = tx.row(text, &key).await? else {
            accepts_jobs(&mut tx, job).await?;
            insert(&mut tx, job, &Beginning::Attached(host)).await?;
            let made = read_with_contents(&mut tx, &resource).await?;
            tx.commit().await?;
            return hosted(made, resource, host, 1);
        };
        let (status, number) = (rows::job_status(&row)?, row.int("run")?.unwrap_or(0));
        if status.is_final() {
            return Ok(AttachedStart::Ended(status));
        }
        if let Some(name) = row.text("host")? {
            let unreadable = |_| StoreError::Refused(format!("job {resource} has an unreadable host"));
            let run = Run { job: resource.clone(), host: name.parse().map_err(unreadable)?, number };
            // A foreign process outlives its host, and may come back for its run.
            if dead != Some(&run) || row.text("remote_session")?.is_some() {
                return Ok(AttachedStart::Elsewhere(run));
            }
        }
        if status == JobStatus::Paused {
            return Ok(AttachedStart::Paused);
        }
        check_run(job.id.as_str(), number)?;
        // The row is locked, or (SQLite) nobody else writes: it is as it was read.
        tx.execute(
            "UPDATE jobs SET origin = 'attached', host = $3, run = run + 1, status = 'running', updated_at = {now},
               started_at = COALESCE(started_at, {now}), run_after = NULL, error_message = NULL, error_detail = NULL,
               contact_lost_at = NULL, remote_session = NULL, alone_in = NULL, timeout_used_ms = 0, title = COALESCE(title, $4),
               created_by = COALESCE(created_by, $5), timeout_seconds = COALESCE($6, timeout_seconds),
               max_retries = CASE WHEN max_retries > $7 THEN max_retries ELSE $7 END
             WHERE tenant_id = $1 AND id = $2",
            &[
                job.tenant.as_str().into(),
                job.id.as_str().into(),
                host.as_str().into(),
                job.title.clone().into(),
                job.created_by.as_ref().map(ToString::to_string).into(),
                job.timeout_seconds.map(i64::from).into(),
                i64::from(job.max_retries).into(),
            ],
        )
        .await?;
        let adopted = read_with_contents(&mut tx, &resource).await?;
        tx.commit().await?;
        hosted(adopted, resource, host, number + 1)
    }
}

fn hosted(
    job: Option<crate::domain::Job>,
    resource: Resource,
    host: &WorkerId,
    number: i64,
) -> Result<AttachedStart, StoreError> {
    let job = job.ok_or_else(|| StoreError::Refused("the job vanished while it was made".to_owned()))?;
    let run = Run { job: resource, host: host.clone(), number };
    Ok(AttachedStart::Hosted(Box::new(ClaimedJob { job, run, resume_point: None, deaths: 0, timeout_used_ms: 0 })))
}
