//! The table that the built-in job type `csv_import` writes.

use crate::domain::Resource;
use crate::store::{Store, StoreError};

/// A statement for each row would cost more than the row.
const ROWS_A_STATEMENT: usize = 100;

impl Store {
    /// Writes rows of a file, each once: rows written before by a run that was interrupted stay as they are.
    pub async fn import_rows(&self, job: &Resource, rows: &[(i64, String)]) -> Result<(), StoreError> {
        let mut tx = self.database.write().await?;
        for some in rows.chunks(ROWS_A_STATEMENT) {
            let mut values = vec![job.tenant.as_str().into(), job.id.as_str().into()];
            let mut places = Vec::with_capacity(some.len());
            for (number, fields) in some {
                values.extend([(*number).into(), fields.as_str().into()]);
                places.push(format!("($1, $2, ${}, ${})", values.len() - 1, values.len()));
            }
            let text = format!(
                "INSERT INTO imported_rows (tenant_id, job_id, row_number, fields) VALUES {} ON CONFLICT DO NOTHING",
                places.join(", ")
            );
            tx.execute(&text, &values).await?;
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
