//! Very many rows for the measurement of lists.

use crate::domain::TenantId;
use crate::store::sql::Tx;
use crate::store::{Store, StoreError};

/// Rows of one transaction.
const TOGETHER: u64 = 100_000;

impl Store {
    /// Puts so many jobs of a tenant there, made by the database itself: of 100 one is failed, two run and five wait, in
    /// 10,000 campaigns of a hundred, of 20 types and 50 users.
    pub async fn insert_list_rows(&self, tenant: &TenantId, count: u64) -> Result<(), StoreError> {
        for first in (0..count).step_by(usize::try_from(TOGETHER).unwrap_or(usize::MAX)) {
            let last = (first + TOGETHER).min(count);
            let mut tx = self.database.write().await?;
            let numbers = match &tx {
                Tx::Sqlite(_) => format!(
                    "WITH RECURSIVE n (n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM n WHERE n < {})",
                    last - 1
                ),
                Tx::Postgres(_) => format!("WITH n (n) AS (SELECT generate_series({first}, {})::BIGINT)", last - 1),
            };
            // A time for each: a day and a half for a million.
            let time = match &tx {
                Tx::Sqlite(_) => "strftime('%Y-%m-%dT%H:%M:%fZ', 1767225600 + n * 0.13, 'unixepoch')",
                Tx::Postgres(_) => "to_timestamp(1767225600 + n * 0.13)",
            };
            let text = format!(
                "{numbers} INSERT INTO jobs (id, tenant_id, status, campaign_id, job_type, created_by, title, error_message,
                   created_at, updated_at, running_ms, status_since)
                 SELECT 'job-' || n, $1,
                   CASE WHEN n % 100 = 1 THEN 'failed' WHEN n % 100 < 4 THEN 'running' WHEN n % 100 < 9 THEN 'pending'
                     ELSE 'completed' END,
                   'campaign-' || (n % 10000), 'type-' || (n % 20), 'user-' || (n % 50), 'Letters of day ' || (n % 977),
                   CASE WHEN n % 100 = 1 THEN 'The mailbox of customer ' || n || ' is full' END,
                   {time}, {time}, n * 7919 % 3600000, 1767225600000 + n FROM n"
            );
            tx.execute(&text, &[tenant.as_str().into()]).await?;
            tx.execute(
                "INSERT INTO campaigns (id, tenant_id, name, status)
                 SELECT DISTINCT campaign_id, $1, 'Campaign ' || campaign_id, 'completed' FROM jobs
                 WHERE tenant_id = $1 ON CONFLICT (tenant_id, id) DO NOTHING",
                &[tenant.as_str().into()],
            )
            .await?;
            tx.commit().await?;
        }
        Ok(())
    }
}
