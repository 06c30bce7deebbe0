//! Very many rows for the measurements of lists, claims and the audit trail.

use crate::domain::{ResourceId, TenantId};
use crate::store::sql::{Tx, Value};
use crate::store::{Store, StoreError};

/// Rows of one transaction.
const TOGETHER: u64 = 5_000;
/// Small campaigns of the lists, beside the large one.
const CAMPAIGNS: u64 = 10_000;

impl Store {
    /// Puts so many jobs of a tenant there, made by the database itself: of 100 one is failed, two run and five wait; of ten
    /// three are in one large campaign and the others in 10,000 small ones; they have 20 types and 50 users.
    pub async fn insert_list_rows(&self, tenant: &TenantId, count: u64) -> Result<(), StoreError> {
        let mut tx = self.database.write().await?;
        let text = format!(
            "{} INSERT INTO campaigns (id, tenant_id, name, status)
               SELECT 'campaign-' || n, $1, 'Campaign ' || n, 'completed' FROM n UNION ALL SELECT 'campaign-large', $1, 'Large', 'completed'",
            numbers(&tx, 0, CAMPAIGNS)
        );
        tx.execute(&text, &[tenant.as_str().into()]).await?;
        tx.commit().await?;
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
                   CASE WHEN n / 7 % 10 < 3 THEN 'campaign-large' ELSE 'campaign-' || (n % {CAMPAIGNS}) END,
                   'type-' || (n % 20), 'user-' || (n % 50), 'Letters of day ' || (n % 977),
                   CASE WHEN n % 100 = 1 THEN 'The mailbox of customer ' || n || ' is full' END,
                   {time}, {time}, n * 7919 % 3600000, 1767225600000 + n FROM n"
            );
            tx.execute(&text, &[tenant.as_str().into()]).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    /// Puts so many rows of a tenant behind the audit trail, made by the database itself: ten a second, by 50 users, on 100,000 jobs; of
    /// ten commands one is a cancel, and of a thousand rows one is five seconds late. The chain of their hashes is made up.
    pub async fn insert_audit_rows(&self, tenant: &TenantId, count: u64) -> Result<(), StoreError> {
        for first in (0..count).step_by(usize::try_from(TOGETHER).unwrap_or(usize::MAX)) {
            let last = (first + TOGETHER).min(count);
            let mut tx = self.database.write().await?;
            let time = match &tx {
                Tx::Sqlite(_) => {
                    "strftime('%Y-%m-%dT%H:%M:%fZ', 1767225600 + n * 0.1 - 5 * (n % 1000 = 999), 'unixepoch')"
                }
                Tx::Postgres(_) => "to_timestamp(1767225600 + n * 0.1 - 5 * (n % 1000 = 999)::INT)",
            };
            let text = format!(
                "{} INSERT INTO command_audit (id, at, tenant_id, user_id, resource_kind, resource_id, action, command_id, event,
                   stream_id, previous_hash, hash, latency_ms)
                 SELECT (SELECT last_id FROM audit_head) + 1 + n - {first}, {time}, $1, 'user-' || (n / 2 % 50), 'job', 'job-' || (n / 2 % 100000),
                   CASE WHEN n / 2 % 10 = 7 THEN 'cancel' WHEN n / 2 % 10 < 4 THEN 'pause' ELSE 'resume' END, $1 || '-' || (n / 2),
                   CASE WHEN n % 500 = 77 THEN 'denied' WHEN n % 2 = 0 THEN 'accepted' ELSE 'succeeded' END,
                   'made up', $2, $2, n % 50 FROM n",
                numbers(&tx, first, last)
            );
            tx.execute(&text, &[tenant.as_str().into(), "0123456789abcdef".repeat(4).into()]).await?;
            let text = format!(
                "UPDATE audit_head SET last_id = last_id + {rows}, times_to = last_id + {rows}, hash = $1, most_late = 5000,
                   latest_at = 1767225600000 + {last} * 100",
                rows = last - first
            );
            tx.execute(&text, &["0123456789abcdef".repeat(4).into()]).await?;
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
        let marker = ResourceId::generate();
        let mut values: Vec<Value> = vec![job_type.into(), marker.as_str().into()];
        values.extend(tenants.iter().map(|tenant| Value::from(tenant.as_str())));
        let in_turn: String = (0..tenants.len()).map(|n| format!(" WHEN {n} THEN ${}", n + 3)).collect();
        for first in (0..count).step_by(usize::try_from(TOGETHER).unwrap_or(usize::MAX)) {
            let last = (first + TOGETHER).min(count);
            let mut tx = self.database.write().await?;
            let text = format!(
                "{} INSERT INTO jobs (id, tenant_id, job_type, origin)
                   SELECT $2 || '-' || n, CASE n % {}{in_turn} END, $1, 'queued' FROM n",
                numbers(&tx, first, last),
                tenants.len()
            );
            tx.execute(&text, &values).await?;
            tx.commit().await?;
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
