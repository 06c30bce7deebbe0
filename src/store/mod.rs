//! Everything that talks to SQL: SQLite (WAL, one writer) and PostgreSQL behind one type.

mod error;
pub mod types;

use std::time::Duration;

use crate::broker::scripts::audit::AuditEntry;
use crate::broker::scripts::permissions::PermissionSet;
use crate::domain::{Campaign, Job, Progress, Resource, ResourceId, TenantId, UserId, WorkerId};

pub use error::StoreError;
pub use types::*;

/// SQL, as the rest of the program sees it; cheap to clone.
#[derive(Clone)]
pub struct Store {}

#[allow(unused_variables)]
impl Store {
    /// Connects (SQLite: creates the file where it is missing). Does not migrate.
    pub async fn open(settings: &crate::config::Database) -> Result<Self, StoreError> {
        unimplemented!()
    }
    /// Applies the migrations that are missing; several programs may do it at once. Returns how many it applied.
    pub async fn migrate(&self) -> Result<usize, StoreError> {
        unimplemented!()
    }
    /// Whether every migration has been applied.
    pub async fn is_migrated(&self) -> Result<bool, StoreError> {
        unimplemented!()
    }
    /// A read and (SQLite) a look at the file, within the time.
    pub async fn ping(&self, within: Duration) -> Result<(), StoreError> {
        unimplemented!()
    }

    /// Inserts a job as `pending`, for workers to run. `Conflict` if the id is taken in any tenant's rows with it.
    pub async fn create_job(&self, job: &NewJob) -> Result<Job, StoreError> {
        unimplemented!()
    }
    /// Inserts a job that already runs inside this worker (`wheelhouse run`), never to be started by another.
    pub async fn create_attached_job(&self, job: &NewJob, host: &WorkerId) -> Result<HostedJob, StoreError> {
        unimplemented!()
    }
    /// One job.
    pub async fn job(&self, job: &Resource) -> Result<Option<Job>, StoreError> {
        unimplemented!()
    }
    /// Jobs of a tenant, newest first, with a cursor.
    pub async fn jobs(&self, filter: &JobFilter) -> Result<Page<Job>, StoreError> {
        unimplemented!()
    }
    /// Inserts a campaign and its jobs, all or nothing.
    pub async fn create_campaign(&self, campaign: &NewCampaign) -> Result<Campaign, StoreError> {
        unimplemented!()
    }
    /// One campaign, with its counts.
    pub async fn campaign(&self, campaign: &Resource) -> Result<Option<Campaign>, StoreError> {
        unimplemented!()
    }
    /// Campaigns of a tenant, newest first, with a cursor.
    pub async fn campaigns(&self, filter: &CampaignFilter) -> Result<Page<Campaign>, StoreError> {
        unimplemented!()
    }

    /// Applies a command in one guarded transaction, once: the same command again gives the first outcome.
    pub async fn apply(&self, change: &Change) -> Result<Applied, StoreError> {
        unimplemented!()
    }
    /// Jobs of a campaign that a worker still hosts (running, or paused inside it).
    pub async fn hosted_jobs(&self, campaign: &Resource) -> Result<Vec<Resource>, StoreError> {
        unimplemented!()
    }

    /// Takes the oldest job that waits for a worker: its campaign, if any, is active, its type is known.
    pub async fn claim_job(
        &self,
        host: &WorkerId,
        tenants: Option<&[TenantId]>,
        job_types: &[String],
    ) -> Result<Option<HostedJob>, StoreError> {
        unimplemented!()
    }
    /// Writes progress and, where given, the resume point. `false`: the job is no longer this run's.
    pub async fn save_progress(
        &self,
        run: &Run,
        progress: &Progress,
        resume_point: Option<&serde_json::Value>,
    ) -> Result<bool, StoreError> {
        unimplemented!()
    }
    /// The work has ended. A failure goes back to `pending` while retries are left.
    pub async fn finish(&self, run: &Run, progress: &Progress, end: &RunEnd) -> Result<Finished, StoreError> {
        unimplemented!()
    }
    /// The worker is leaving: the job waits for another (or stays paused), from its resume point.
    pub async fn hand_back(&self, run: &Run) -> Result<bool, StoreError> {
        unimplemented!()
    }
    /// Runs of jobs that have not ended, of every host: the reaper looks whether the hosts live.
    pub async fn hosted_runs(&self) -> Result<Vec<Run>, StoreError> {
        unimplemented!()
    }
    /// The host died: a queued job waits for another worker (or stays paused), an attached one has failed. `None`: it had moved on.
    pub async fn release_dead(&self, run: &Run, error: &str) -> Result<Option<Job>, StoreError> {
        unimplemented!()
    }
    /// Marks a campaign completed if it is active and all its jobs have ended (and there is at least one).
    pub async fn complete_campaign(&self, campaign: &Resource) -> Result<Option<Campaign>, StoreError> {
        unimplemented!()
    }

    /// A user's permissions and patterns, direct and by role, with the version, in one snapshot.
    pub async fn permissions_of(&self, user: &UserId) -> Result<PermissionSet, StoreError> {
        unimplemented!()
    }
    /// The version: grows with every change of any permission, also by plain SQL.
    pub async fn permission_version(&self) -> Result<i64, StoreError> {
        unimplemented!()
    }
    /// Grants; returns the new version.
    pub async fn grant(&self, user: &UserId, permissions: &[String]) -> Result<i64, StoreError> {
        unimplemented!()
    }
    /// Revokes; returns the new version.
    pub async fn revoke(&self, user: &UserId, permissions: &[String]) -> Result<i64, StoreError> {
        unimplemented!()
    }

    /// The id of the last entry of a stream that is in SQL (`0` for none).
    pub async fn audit_position(&self, stream: &str) -> Result<String, StoreError> {
        unimplemented!()
    }
    /// Appends entries and moves the position from `after` in one transaction. `false`: another writer was first.
    pub async fn append_audit(&self, stream: &str, after: &str, entries: &[AuditEntry]) -> Result<bool, StoreError> {
        unimplemented!()
    }
    /// Rows of the audit trail, oldest first after the cursor.
    pub async fn audit(&self, filter: &AuditFilter) -> Result<Page<AuditRow>, StoreError> {
        unimplemented!()
    }
}

/// Where a list goes on.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Pass it as `after` for the next page; `None` at the end.
    pub next: Option<String>,
}

#[allow(dead_code)]
fn _unused(_: Option<ResourceId>) {}
