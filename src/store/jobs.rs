//! Making, reading and listing jobs.

use std::collections::HashSet;

use super::page::{cursor, limit_of, page_of, sql_limit};
use super::sql::{Row, Tx, Value};
use super::{ClaimedJob, JobFilter, NewJob, Page, Run, Store, StoreError, rows};
use crate::domain::{CampaignStatus, Job, Resource, ResourceId, TenantId, WorkerId};

impl Store {
    /// Inserts a job as `pending`, for workers to run. `Conflict` if the tenant has a job with this id.
    pub async fn create_job(&self, job: &NewJob) -> Result<Job, StoreError> {
        let mut tx = self.database.write().await?;
        accepts_jobs(&mut tx, job).await?;
        insert(&mut tx, job, None).await?;
        let made = read_with_contents(&mut tx, &Resource::job(job.tenant.clone(), job.id.clone())).await?;
        tx.commit().await?;
        made.ok_or_else(|| StoreError::Refused("the job vanished while it was made".to_owned()))
    }

    /// Inserts many jobs as `pending`, all or none of them.
    pub async fn create_jobs(&self, jobs: &[NewJob]) -> Result<(), StoreError> {
        let mut tx = self.database.write().await?;
        let mut accepted: HashSet<(&TenantId, &ResourceId)> = HashSet::new();
        for job in jobs {
            if let Some(campaign) = &job.campaign
                && accepted.insert((&job.tenant, campaign))
            {
                accepts_jobs(&mut tx, job).await?;
            }
        }
        for job in jobs {
            insert(&mut tx, job, None).await?;
        }
        tx.commit().await
    }

    /// Inserts a job that already runs inside this worker (`wheelhouse run`), never to be started by another.
    pub async fn create_attached_job(&self, job: &NewJob, host: &WorkerId) -> Result<ClaimedJob, StoreError> {
        let resource = Resource::job(job.tenant.clone(), job.id.clone());
        let mut tx = self.database.write().await?;
        accepts_jobs(&mut tx, job).await?;
        insert(&mut tx, job, Some(host)).await?;
        let made = read_with_contents(&mut tx, &resource).await?;
        tx.commit().await?;
        let made = made.ok_or_else(|| StoreError::Refused("the job vanished while it was made".to_owned()))?;
        Ok(ClaimedJob {
            job: made,
            run: Run { job: resource, host: host.clone(), number: 1 },
            resume_point: None,
            deaths: 0,
            timeout_used_ms: 0,
        })
    }

    /// One job, with everything that it holds.
    pub async fn job(&self, job: &Resource) -> Result<Option<Job>, StoreError> {
        read_with_contents(&mut self.database.read().await?, job).await
    }

    /// As [`Self::job`], without its parameters and its result.
    pub async fn job_without_contents(&self, job: &Resource) -> Result<Option<Job>, StoreError> {
        read(&mut self.database.read().await?, job).await
    }

    /// The whole text of a job's error, which its row shows in part where it is long. The outer `None`: no such job.
    pub async fn job_error(&self, job: &Resource) -> Result<Option<Option<String>>, StoreError> {
        let text = "SELECT COALESCE(error_detail, error_message) AS error FROM jobs WHERE tenant_id = $1 AND id = $2";
        let values = [job.tenant.as_str().into(), job.id.as_str().into()];
        let found = self.database.read().await?.row(text, &values).await?;
        found.map(|row| row.text("error")).transpose()
    }

    /// Jobs of a tenant, newest first, with a cursor; without parameters and results, however long the list is. Rows that
    /// cannot be read are left out and logged.
    pub async fn jobs(&self, filter: &JobFilter) -> Result<Page<Job>, StoreError> {
        let found = self.job_rows(filter).await?;
        page_of(&found, filter.limit, rows::job)
    }

    /// As [`Self::jobs`], with parameters and results: a page ends before they are longer than `most` bytes together, but
    /// not before its first row.
    pub async fn jobs_with_contents(&self, filter: &JobFilter, most: usize) -> Result<Page<Job>, StoreError> {
        let found = self.job_rows(filter).await?;
        let shown = &found[..found.len().min(limit_of(filter.limit))];
        let (mut items, mut bytes, mut last) = (Vec::new(), 0, None);
        let mut tx = self.database.read().await?;
        for row in shown {
            // One by one: nobody knows how long the next one is.
            let text = "SELECT CAST(parameters AS TEXT) AS parameters, CAST(result AS TEXT) AS result
                        FROM jobs WHERE tenant_id = $1 AND rowid = $2";
            let row_id = row.int("row_id")?;
            let contents = tx.row(text, &[filter.tenant.as_str().into(), row_id.into()]).await?;
            let read = |column| contents.as_ref().map_or(Ok(None), |contents| contents.text(column));
            let (parameters, result) = (read("parameters")?, read("result")?);
            bytes += [&parameters, &result].into_iter().flatten().map(String::len).sum::<usize>();
            if bytes > most && last.is_some() {
                return Ok(Page { items, next: last });
            }
            last = row_id.map(|id| id.to_string());
            if let Some(job) = rows::skip_unreadable(rows::job(row)) {
                items.push(Job { parameters: rows::json(parameters), result: rows::json(result), ..job });
            }
        }
        Ok(Page { items, next: last.filter(|_| found.len() > shown.len()) })
    }

    async fn job_rows(&self, filter: &JobFilter) -> Result<Vec<Row>, StoreError> {
        let mut wheres = "tenant_id = $1".to_owned();
        let mut values: Vec<Value> = vec![filter.tenant.as_str().into()];
        let mut only = |condition: &str, value: Value| {
            values.push(value);
            wheres.push_str(&format!(" AND {condition} ${}", values.len()));
        };
        if let Some(status) = filter.status {
            only("status =", status.as_str().into());
        }
        if let Some(campaign) = &filter.campaign {
            only("campaign_id =", campaign.as_str().into());
        }
        if let Some(job_type) = &filter.job_type {
            only("job_type =", job_type.as_str().into());
        }
        only("rowid <", cursor(filter.after.as_deref())?.into());
        let text = format!(
            "SELECT {} FROM jobs WHERE {wheres} ORDER BY rowid DESC LIMIT {}",
            *rows::JOB,
            sql_limit(filter.limit)
        );
        self.database.read().await?.rows(&text, &values).await
    }
}

/// Whether a job's campaign, if it names one, is there and takes jobs. It is held until the transaction ends.
pub(super) async fn accepts_jobs(tx: &mut Tx, job: &NewJob) -> Result<(), StoreError> {
    let Some(campaign) = &job.campaign else { return Ok(()) };
    let found = tx
        .row(
            "SELECT status, CAST(closed_at AS TEXT) AS closed_at FROM campaigns WHERE tenant_id = $1 AND id = $2 {share}",
            &[job.tenant.as_str().into(), campaign.as_str().into()],
        )
        .await?;
    let Some(row) = found else { return Err(StoreError::Conflict(format!("there is no campaign {campaign}"))) };
    match rows::campaign_status(&row)? {
        CampaignStatus::Completed => Err(StoreError::Conflict(format!(
            "campaign {campaign} is completed: one that is made without jobs takes them until it is closed"
        ))),
        CampaignStatus::Cancelled => Err(StoreError::Conflict(format!("campaign {campaign} is cancelled"))),
        _ if row.text("closed_at")?.is_some() => {
            Err(StoreError::Conflict(format!("campaign {campaign} is closed: it takes no more jobs")))
        }
        CampaignStatus::Active | CampaignStatus::Paused => Ok(()),
    }
}

/// Inserts one job.
pub(super) async fn insert(tx: &mut Tx, job: &NewJob, host: Option<&WorkerId>) -> Result<(), StoreError> {
    let (origin, status, run) = if host.is_some() { ("attached", "running", 1) } else { ("queued", "pending", 0) };
    tx.execute(
        "INSERT INTO jobs (id, tenant_id, campaign_id, job_type, title, parameters, max_retries, created_by,
           origin, status, host, run, started_at, timeout_seconds)
         VALUES ($1, $2, $3, $4, $5, {json:$6}, $7, $8, $9, $10, $11, $12, CASE WHEN $13 = 1 THEN {now} ELSE NULL END, $14)",
        &[
            job.id.as_str().into(),
            job.tenant.as_str().into(),
            job.campaign.as_ref().map(ToString::to_string).into(),
            job.job_type.as_str().into(),
            job.title.clone().into(),
            Value::json(&job.parameters),
            i64::from(job.max_retries).into(),
            job.created_by.as_ref().map(ToString::to_string).into(),
            origin.into(),
            status.into(),
            host.map(ToString::to_string).into(),
            run.into(),
            run.into(),
            job.timeout_seconds.map(i64::from).into(),
        ],
    )
    .await
    .map_err(|error| match error {
        StoreError::Conflict(_) => StoreError::Conflict(format!("there is a job {} already", job.id)),
        other => other,
    })?;
    Ok(())
}

/// A job without its parameters and its result.
pub(super) async fn read(tx: &mut Tx, job: &Resource) -> Result<Option<Job>, StoreError> {
    read_columns(tx, job, &rows::JOB).await
}

/// A job with everything that it holds.
pub(super) async fn read_with_contents(tx: &mut Tx, job: &Resource) -> Result<Option<Job>, StoreError> {
    read_columns(tx, job, &rows::JOB_WITH_CONTENTS).await
}

async fn read_columns(tx: &mut Tx, job: &Resource, columns: &str) -> Result<Option<Job>, StoreError> {
    let text = format!("SELECT {columns} FROM jobs WHERE tenant_id = $1 AND id = $2");
    let found = tx.row(&text, &[job.tenant.as_str().into(), job.id.as_str().into()]).await?;
    found.map(|row| rows::job(&row)).transpose()
}
