//! Very many rows for the measurements of lists and claims.

use crate::domain::{ResourceId, TenantId};
use crate::store::sql::Tx;
use crate::store::{Store, StoreError};

/// Rows of one transaction.
const TOGETHER: u64 = 20_000;

impl Store {
    /// Puts so many jobs of a tenant there, made by the database itself: of 100 one is failed, two run and five wait; of ten
    /// three are in one large campaign and the others in 10,000 small ones; they have 20 types and 50 users.
    pub async fn insert_list_rows(&self, tenant: &TenantId, count: u64) -> Result<(), StoreError> {
        for first in (0..count).step_by(usize::try_from(TOGETHER).unwrap_or(usize::MAX)) {
            let last = (first + TOGETHER).min(count);
            let mut tx = self.database.write().await?;
            let numbers = numbers(&tx, first, last);
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
                   CASE WHEN n / 7 % 10 < 3 THEN 'campaign-large' ELSE 'campaign-' || (n % 10000) END, 'type-' || (n % 20), 'user-' || (n % 50), 'Letters of day ' || (n % 977),
                   CASE WHEN n % 100 = 1 THEN 'The mailbox of customer ' || n || ' is full' END,
                   {time}, {time}, n * 7919 % 3600000, 1767225600000 + n FROM n"
            );
            tx.execute(&text, &[tenant.as_str().into()]).await?;
            tx.execute(
                "INSERT INTO campaigns (id, tenant_id, name, status)
                 SELECT DISTINCT campaign_id, $1, 'Campaign ' || campaign_id, 'completed' FROM jobs
                 WHERE tenant_id = $1 AND campaign_id IS NOT NULL ON CONFLICT (tenant_id, id) DO NOTHING",
                &[tenant.as_str().into()],
            )
            .await?;
            tx.commit().await?;
        }
        Ok(())
    }

    /// Puts so many jobs there that wait for a worker, of these tenants in turn.
    pub async fn insert_waiting_rows(
        &self,
        tenants: &[TenantId],
        job_type: &str,
        count: u64,
    ) -> Result<(), StoreError> {
        for (number, tenant) in tenants.iter().enumerate() {
            let of_tenant = (count + tenants.len() as u64 - 1 - number as u64) / tenants.len().max(1) as u64;
            let marker = ResourceId::generate();
            for first in (0..of_tenant).step_by(usize::try_from(TOGETHER).unwrap_or(usize::MAX)) {
                let last = (first + TOGETHER).min(of_tenant);
                let mut tx = self.database.write().await?;
                let text = format!(
                    "{} INSERT INTO jobs (id, tenant_id, job_type, origin) SELECT $3 || '-' || n, $1, $2, 'queued' FROM n",
                    numbers(&tx, first, last)
                );
                tx.execute(&text, &[tenant.as_str().into(), job_type.into(), marker.as_str().into()]).await?;
                tx.commit().await?;
            }
        }
        Ok(())
    }
}

/// A table `n` with the numbers from `first` to below `last`.
fn numbers(tx: &Tx, first: u64, last: u64) -> String {
    match tx {
        Tx::Sqlite(_) => {
            format!("WITH RECURSIVE n (n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM n WHERE n < {})", last - 1)
        }
        Tx::Postgres(_) => format!("WITH n (n) AS (SELECT generate_series({first}, {})::BIGINT)", last - 1),
    }
}
