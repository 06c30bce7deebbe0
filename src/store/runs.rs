//! What a worker that hosts a job writes. Every statement names the run: one that is over changes nothing.

use super::jobs::{read, read_campaign};
use super::sql::Value;
use super::{Finished, HostedJob, Run, RunEnd, Store, StoreError, rows};
use crate::domain::{Campaign, Job, Progress, Resource, TenantId, WorkerId};

/// The row is still this run's.
const MINE: &str = "tenant_id = $1 AND id = $2 AND host = $3 AND run = $4";

fn mine(run: &Run) -> Vec<Value> {
    vec![run.job.tenant.as_str().into(), run.job.id.as_str().into(), run.host.as_str().into(), run.number.into()]
}

/// Columns of a progress, as `$5` to `$10`.
const PROGRESS: &str = "progress_percent = $5, items_total = $6, items_processed = $7, items_succeeded = $8,
  items_failed = $9, current_item = $10";

fn progress_values(values: &mut Vec<Value>, p: &Progress) {
    values.push(Value::Real(f64::from(p.progress_percent)));
    values.push(p.items_total.into());
    values.extend([p.items_processed, p.items_succeeded, p.items_failed].map(Value::from));
    values.push(p.current_item.clone().into());
}

impl Store {
    /// Takes the oldest job that waits for a worker: its campaign, if any, is active, its type is known.
    pub async fn claim_job(
        &self,
        host: &WorkerId,
        tenants: Option<&[TenantId]>,
        job_types: &[String],
    ) -> Result<Option<HostedJob>, StoreError> {
        let mut values: Vec<Value> = vec![jiff::Timestamp::now().as_millisecond().into()];
        let mut wheres = String::new();
        let mut among = |column: &str, words: Vec<&str>| {
            let places: Vec<String> = words
                .into_iter()
                .map(|word| {
                    values.push(word.into());
                    format!("${}", values.len())
                })
                .collect();
            wheres.push_str(&format!(" AND {column} IN ({})", places.join(", ")));
        };
        among("job_type", job_types.iter().map(String::as_str).collect());
        if let Some(tenants) = tenants {
            among("tenant_id", tenants.iter().map(TenantId::as_str).collect());
        }
        let text = format!(
            "SELECT {} FROM jobs j WHERE origin = 'queued' AND status = 'pending' AND host IS NULL
               AND (run_after IS NULL OR run_after <= $1){wheres}
               AND (campaign_id IS NULL OR EXISTS (SELECT 1 FROM campaigns c
                 WHERE c.tenant_id = j.tenant_id AND c.id = j.campaign_id AND c.is_active AND c.status = 'active'))
             ORDER BY rowid LIMIT 1 {{skip}}",
            rows::JOB
        );
        let mut tx = self.database.write().await?;
        let Some(row) = tx.row(&text, &values).await? else { return Ok(None) };
        let job = rows::job(&row)?;
        if let Some(campaign) = &job.campaign_id {
            // Locked until this commits: a pause that commits first is seen here, a later one waits.
            let active = tx
                .row(
                    "SELECT id FROM campaigns WHERE tenant_id = $1 AND id = $2 AND is_active AND status = 'active' {share}",
                    &[job.tenant_id.as_str().into(), campaign.as_str().into()],
                )
                .await?;
            if active.is_none() {
                return Ok(None);
            }
        }
        let number = row.int("run")?.unwrap_or(0) + 1;
        let resource = Resource::job(job.tenant_id.clone(), job.id.clone());
        tx.execute(
            "UPDATE jobs SET status = 'running', host = $3, run = $4, started_at = COALESCE(started_at, {now}),
               error_message = NULL, updated_at = {now}
             WHERE tenant_id = $1 AND id = $2 AND status = 'pending' AND host IS NULL",
            &[resource.tenant.as_str().into(), resource.id.as_str().into(), host.as_str().into(), number.into()],
        )
        .await?;
        let resume_point = row.text("resume_point")?.and_then(|text| serde_json::from_str(&text).ok());
        let claimed = read(&mut tx, &resource).await?;
        tx.commit().await?;
        let run = Run { job: resource, host: host.clone(), number };
        Ok(claimed.map(|job| HostedJob { job, run, resume_point }))
    }

    /// Writes progress and, where given, the resume point. `false`: the job is no longer this run's.
    pub async fn save_progress(
        &self,
        run: &Run,
        progress: &Progress,
        resume_point: Option<&serde_json::Value>,
    ) -> Result<bool, StoreError> {
        let mut values = mine(run);
        progress_values(&mut values, progress);
        values.push(resume_point.map(ToString::to_string).into());
        let text = format!(
            "UPDATE jobs SET {PROGRESS}, resume_point = COALESCE($11, resume_point), updated_at = {{now}}
             WHERE {MINE} AND status IN ('running', 'paused')"
        );
        self.change(&text, &values).await
    }

    /// The work has ended. A failure goes back to `pending` while retries are left.
    pub async fn finish(&self, run: &Run, progress: &Progress, end: &RunEnd) -> Result<Finished, StoreError> {
        let mut tx = self.database.write().await?;
        let Some(job) = read(&mut tx, &run.job).await? else { return Ok(Finished::Lost) };
        let mut values = mine(run);
        progress_values(&mut values, progress);
        let again = matches!(end, RunEnd::Failed { permanent: false, .. }) && job.retry_count < job.max_retries;
        let (status, result, error) = match end {
            RunEnd::Completed(result) => ("completed", Some(result.to_string()), None),
            RunEnd::Failed { error, .. } if again => ("pending", None, Some(error.clone())),
            RunEnd::Failed { error, .. } => ("failed", None, Some(error.clone())),
        };
        let run_after = again.then(|| jiff::Timestamp::now().as_millisecond() + backoff_ms(job.retry_count));
        values.extend([status.into(), result.into(), error.into(), run_after.into(), i64::from(again).into()]);
        let text = format!(
            "UPDATE jobs SET {PROGRESS}, status = $11, result = {{json:$12}}, error_message = $13, run_after = $14,
               retry_count = retry_count + $15, host = NULL, updated_at = {{now}},
               completed_at = CASE WHEN $15 = 0 THEN {{now}} ELSE NULL END
             WHERE {MINE} AND status = 'running'"
        );
        if tx.execute(&text, &values).await? == 0 {
            return Ok(Finished::Lost);
        }
        let ended = read(&mut tx, &run.job).await?;
        tx.commit().await?;
        Ok(ended.map_or(Finished::Lost, |job| Finished::Done(Box::new(job))))
    }

    /// The worker is leaving: the job waits for another (or stays paused), from its resume point.
    pub async fn hand_back(&self, run: &Run) -> Result<bool, StoreError> {
        let text = format!(
            "UPDATE jobs SET status = CASE WHEN status = 'running' THEN 'pending' ELSE status END, host = NULL, updated_at = {{now}}
             WHERE {MINE} AND status IN ('running', 'paused')"
        );
        self.change(&text, &mine(run)).await
    }

    /// Runs of jobs that have not ended, of every host: the reaper looks whether the hosts live.
    pub async fn hosted_runs(&self) -> Result<Vec<Run>, StoreError> {
        let found = self
            .database
            .read()
            .await?
            .rows(
                "SELECT id, tenant_id, host, run FROM jobs WHERE host IS NOT NULL AND status IN ('pending', 'running', 'paused')",
                &[],
            )
            .await?;
        let run = |row: &super::sql::Row| -> Result<Run, StoreError> {
            let host = row.needed("host")?;
            let host = host.parse().map_err(|_| StoreError::Refused(format!("{host:?} is no worker id")))?;
            Ok(Run { job: rows::job_resource(row)?, host, number: row.int("run")?.unwrap_or(0) })
        };
        Ok(found.iter().filter_map(|row| run(row).ok()).collect())
    }

    /// The host died: a queued job waits for another worker (or stays paused), an attached one has failed.
    /// `None`: it had moved on.
    pub async fn release_dead(&self, run: &Run, error: &str) -> Result<Option<Job>, StoreError> {
        let mut tx = self.database.write().await?;
        let mut values = mine(run);
        values.push(error.into());
        let text = format!(
            "UPDATE jobs SET host = NULL, updated_at = {{now}},
               status = CASE WHEN origin = 'attached' THEN 'failed' WHEN status = 'running' THEN 'pending' ELSE status END,
               error_message = CASE WHEN origin = 'attached' THEN $5 ELSE error_message END,
               completed_at = CASE WHEN origin = 'attached' THEN {{now}} ELSE completed_at END
             WHERE {MINE} AND status IN ('pending', 'running', 'paused')"
        );
        if tx.execute(&text, &values).await? == 0 {
            return Ok(None);
        }
        let job = read(&mut tx, &run.job).await?;
        tx.commit().await?;
        Ok(job)
    }

    /// Marks a campaign completed if it is active and all its jobs have ended (and there is at least one).
    pub async fn complete_campaign(&self, campaign: &Resource) -> Result<Option<Campaign>, StoreError> {
        let mut tx = self.database.write().await?;
        let changed = tx
            .execute(
                "UPDATE campaigns SET status = 'completed', is_active = FALSE, completed_at = {now}, updated_at = {now}
                 WHERE tenant_id = $1 AND id = $2 AND status = 'active'
                   AND EXISTS (SELECT 1 FROM jobs j WHERE j.tenant_id = $1 AND j.campaign_id = $2)
                   AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.tenant_id = $1 AND j.campaign_id = $2
                     AND j.status IN ('pending', 'running', 'paused'))",
                &[campaign.tenant.as_str().into(), campaign.id.as_str().into()],
            )
            .await?;
        if changed == 0 {
            return Ok(None);
        }
        let completed = read_campaign(&mut tx, campaign).await?;
        tx.commit().await?;
        Ok(completed)
    }

    /// One statement in its own transaction; whether it changed a row.
    async fn change(&self, text: &str, values: &[Value]) -> Result<bool, StoreError> {
        let mut tx = self.database.write().await?;
        let changed = tx.execute(text, values).await?;
        tx.commit().await?;
        Ok(changed > 0)
    }
}

/// Exponential with full jitter, at most a minute.
fn backoff_ms(retries: i64) -> i64 {
    let most = 1_000_i64 << retries.clamp(0, 6);
    fastrand::i64(0..=most.min(60_000))
}
