//! Very many jobs, a batch to a transaction, from requests that may be sent again.

use std::collections::{HashMap, HashSet};

use super::jobs::accepts_jobs;
use super::sql::{MultiRowInsert, Value};
use super::{NewJob, Store, StoreError};
use crate::domain::{ResourceId, TenantId};

/// Ids in one statement: SQLite takes 32,766 values, PostgreSQL 65,535.
const TOGETHER: usize = 1_000;

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
        let Some(tenant) = batch.first().map(|first| first.job.tenant.clone()) else {
            return Ok(BatchOutcome::Made(0));
        };
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
            let mut there: HashMap<String, Option<String>> = HashMap::new();
            for some in batch.chunks(TOGETHER) {
                let mut values: Vec<Value> = vec![tenant.as_str().into()];
                values.extend(some.iter().map(|one| Value::from(one.job.id.as_str())));
                let places = (2..=values.len()).map(|n| format!("${n}")).collect::<Vec<_>>().join(", ");
                let text = format!("SELECT id, submitted_as FROM jobs WHERE tenant_id = $1 AND id IN ({places})");
                for row in tx.rows(&text, &values).await? {
                    there.insert(row.required("id")?, row.text("submitted_as")?);
                }
            }
            let is_other =
                |one: &SubmittedJob| there.get(one.job.id.as_str()).and_then(Option::as_ref) != Some(&one.submitted_as);
            if let Some(place) = batch.iter().position(is_other) {
                tx.rollback().await?;
                let why = format!("there is a job {} already", batch[place].job.id);
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
