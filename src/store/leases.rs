//! Workers that say in SQL that they live. A heartbeat is in one Redis, and a failover may leave a worker with another one than
//! those who look for it; SQL is the same for all of them.

use std::time::Duration;

use super::sql::time_text;
use super::{Store, StoreError};
use crate::domain::WorkerId;

impl Store {
    /// This worker lives. Whoever looks sees the number grow: clocks are not compared.
    pub async fn renew_worker_lease(&self, worker: &WorkerId) -> Result<(), StoreError> {
        let text = "INSERT INTO worker_leases (worker_id, renewals) VALUES ($1, 1)
            ON CONFLICT (worker_id) DO UPDATE SET renewals = worker_leases.renewals + 1, renewed_at = {now}";
        self.change(text, &[worker.as_str().into()]).await.map(drop)
    }

    /// This worker runs nothing any more.
    pub async fn end_worker_lease(&self, worker: &WorkerId) -> Result<(), StoreError> {
        self.change("DELETE FROM worker_leases WHERE worker_id = $1", &[worker.as_str().into()]).await.map(drop)
    }

    /// Forgets workers whose leases were renewed longer ago than `age`, as of `now` (Unix ms): they have died.
    pub async fn prune_worker_leases(&self, age: Duration, now: i64) -> Result<(), StoreError> {
        let before = now.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        let text = "DELETE FROM worker_leases WHERE {ms:renewed_at} < {time:$1}";
        self.change(text, &[time_text(before).into()]).await.map(drop)
    }
}
