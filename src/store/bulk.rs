//! Very many jobs, a batch to a transaction, from requests that may be sent again.

use std::collections::HashSet;

use super::jobs::accepts_jobs;
use super::sql::{MultiRowInsert, Value};
use super::{NewJob, Store, StoreError};
use crate::domain::{ResourceId, TenantId};

/// A job to be made, and which line of which request it is.
#[derive(Debug, Clone)]
pub struct SubmittedJob {
    /// The job.
    pub job: NewJob,
    /// `USER REQUEST_ID LINE`.
    pub submitted_as: String,
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchOutcome {
    /// All of them are there now, so many of them new; the others were made by the same lines of the same request before.
    Made(usize),
    /// None was made, because this one of them could not be.
    Refused {
        /// Its place in the batch.
        place: usize,
        /// Why, in words.
        why: String,
    },
}

impl Store {
    /// Inserts jobs of one tenant as `pending`, all or none of them; one that the same line of the same request has made before
    /// is left as it is.
    pub async fn submit_jobs(&self, batch: &[SubmittedJob]) -> Result<BatchOutcome, StoreError> {
        if batch.is_empty() {
            return Ok(BatchOutcome::Made(0));
        }
        let rows: Vec<Vec<Value>> = batch.iter().map(values_of).collect();
        let mut tx = self.database.write().await?;
        let mut accepted: HashSet<&ResourceId> = HashSet::new();
        for (place, SubmittedJob { job, .. }) in batch.iter().enumerate() {
            if job.campaign.as_ref().is_some_and(|campaign| accepted.insert(campaign)) {
                match accepts_jobs(&mut tx, job).await {
                    Ok(()) => {}
                    Err(StoreError::Conflict(why)) => {
                        tx.rollback().await?;
                        return Ok(BatchOutcome::Refused { place, why });
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        let insert = MultiRowInsert {
            before:
                "INSERT INTO jobs (id, tenant_id, campaign_id, job_type, title, parameters, max_retries, created_by,
                       origin, timeout_seconds, submitted_as) ",
            row: "(?, ?, ?, ?, ?, {json:?}, ?, ?, 'queued', ?, ?)",
            after: " ON CONFLICT (tenant_id, id) DO NOTHING",
            rows: &rows,
        };
        let made = usize::try_from(tx.execute_many(&[insert]).await?).unwrap_or(usize::MAX);
        if made < batch.len() {
            // Some were there: by the same lines, or they are other jobs.
            let contents: Vec<Vec<Value>> = batch.iter().map(contents_of).collect();
            let same = MultiRowInsert {
                before:
                    "SELECT submitted_as FROM jobs WHERE (tenant_id, id, submitted_as, job_type, COALESCE(title, ''), parameters,
                           COALESCE(campaign_id, ''), max_retries, COALESCE(timeout_seconds, 0)) IN (",
                row: "(?, ?, ?, ?, ?, {json:?}, ?, ?, ?)",
                after: ")",
                rows: &contents,
            };
            let found = tx.rows_of_many(&same).await?;
            let there = found.iter().map(|row| row.required("submitted_as")).collect::<Result<HashSet<_>, _>>()?;
            if let Some(place) = batch.iter().position(|one| !there.contains(&one.submitted_as)) {
                tx.rollback().await?;
                let id = &batch[place].job.id;
                let why =
                    format!("there is a job {id} already, made by another line or by this one before it was changed");
                return Ok(BatchOutcome::Refused { place, why });
            }
        }
        tx.commit().await?;
        Ok(BatchOutcome::Made(made))
    }
}

impl Store {
    /// Whether there is a job of this id that this line of this request has made.
    pub async fn is_submitted(&self, tenant: &TenantId, id: &str, submitted_as: &str) -> Result<bool, StoreError> {
        let text = "SELECT id FROM jobs WHERE tenant_id = $1 AND id = $2 AND submitted_as = $3";
        let values = [tenant.as_str().into(), id.into(), submitted_as.into()];
        Ok(self.database.read().await?.row(text, &values).await?.is_some())
    }
}

/// What a row has if this line has made it, in the order of the statement that looks.
fn contents_of(SubmittedJob { job, submitted_as }: &SubmittedJob) -> Vec<Value> {
    vec![
        job.tenant.as_str().into(),
        job.id.as_str().into(),
        submitted_as.as_str().into(),
        job.job_type.as_str().into(),
        job.title.clone().unwrap_or_default().into(),
        Value::json(&job.parameters),
        job.campaign.as_ref().map(ToString::to_string).unwrap_or_default().into(),
        i64::from(job.max_retries).into(),
        job.timeout_seconds.map_or(0, i64::from).into(),
    ]
}

fn values_of(SubmittedJob { job, submitted_as }: &SubmittedJob) -> Vec<Value> {
    vec![
        job.id.as_str().into(),
        job.tenant.as_str().into(),
        job.campaign.as_ref().map(ToString::to_string).into(),
        job.job_type.as_str().into(),
        job.title.clone().into(),
        Value::json(&job.parameters),
        i64::from(job.max_retries).into(),
        job.created_by.as_ref().map(ToString::to_string).into(),
        job.timeout_seconds.map(i64::from).into(),
        submitted_as.as_str().into(),
    ]
}
