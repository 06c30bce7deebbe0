//! The table that the built-in job type `csv_import` writes.

use super::{Store, StoreError};
use crate::domain::Resource;

impl Store {
    /// Writes rows of a file, each once: rows written before by a run that was interrupted stay as they are.
    pub async fn import_rows(&self, job: &Resource, rows: &[(i64, String)]) -> Result<(), StoreError> {
        let mut tx = self.database.write().await?;
        for (number, fields) in rows {
            tx.execute(
                "INSERT INTO imported_rows (tenant_id, job_id, row_number, fields) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
                &[job.tenant.as_str().into(), job.id.as_str().into(), (*number).into(), fields.as_str().into()],
            )
            .await?;
        }
        tx.commit().await
    }

    /// How many rows of a job are there.
    pub async fn imported(&self, job: &Resource) -> Result<i64, StoreError> {
        let text = "SELECT COUNT(*) AS n FROM imported_rows WHERE tenant_id = $1 AND job_id = $2";
        let row = self.database.read().await?.row(text, &[job.tenant.as_str().into(), job.id.as_str().into()]).await?;
        row.map_or(Ok(0), |row| Ok(row.int("n")?.unwrap_or(0)))
    }
}
