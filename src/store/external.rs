//! Rows as another system puts them into SQL: the demo has one.

use super::sql::Value;
use super::{NewJob, Store, StoreError};

impl Store {
    /// Inserts a job that runs somewhere else, and that no worker hosts.
    pub async fn create_external_job(&self, job: &NewJob) -> Result<(), StoreError> {
        let mut tx = self.database.write().await?;
        tx.execute(
            "INSERT INTO jobs (id, tenant_id, job_type, title, parameters, status, progress_percent, started_at)
             VALUES ($1, $2, $3, $4, {json:$5}, 'running', 40, {now})",
            &[
                job.id.as_str().into(),
                job.tenant.as_str().into(),
                job.job_type.as_str().into(),
                job.title.clone().into(),
                Value::json(&job.parameters),
            ],
        )
        .await?;
        tx.commit().await
    }
}
