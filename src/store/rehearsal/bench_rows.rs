//! Rows for `wheelhouse bench`: jobs of no one's, people who may do everything with them, and both taken away again.

use crate::domain::{ResourceId, TenantId, UserId};
use crate::store::{Store, StoreError};

impl Store {
    /// Puts rows of running jobs there as another system would (external: no worker ever starts them), and lets
    /// these people watch and control jobs.
    pub async fn insert_bench_rows(
        &self,
        tenant: &TenantId,
        jobs: &[ResourceId],
        users: &[UserId],
    ) -> Result<(), StoreError> {
        let mut tx = self.database.write().await?;
        for job in jobs {
            let text = "INSERT INTO jobs (id, tenant_id, job_type, title, status) VALUES ($1, $2, 'bench', 'bench', 'running')";
            tx.execute(text, &[job.as_str().into(), tenant.as_str().into()]).await?;
        }
        for user in users {
            let text =
                "INSERT INTO user_permissions (user_id, permission) VALUES ($1, 'jobs.*') ON CONFLICT DO NOTHING";
            tx.execute(text, &[user.as_str().into()]).await?;
        }
        tx.commit().await
    }

    /// Takes away what [`Self::insert_bench_rows`] put there. The audit trail keeps what was commanded.
    pub async fn delete_bench_rows(&self, tenant: &TenantId, users: &[UserId]) -> Result<(), StoreError> {
        let mut tx = self.database.write().await?;
        tx.execute("DELETE FROM jobs WHERE tenant_id = $1 AND job_type = 'bench'", &[tenant.as_str().into()]).await?;
        for user in users {
            tx.execute("DELETE FROM user_permissions WHERE user_id = $1", &[user.as_str().into()]).await?;
        }
        tx.commit().await
    }
}
