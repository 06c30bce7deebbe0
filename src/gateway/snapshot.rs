//! A resource as it is now: the row, with what Redis knows beyond it.

use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::reply::Refusal;
use crate::broker::{Broker, BrokerError};
use crate::domain::{Campaign, Job, JobStatus, Resource, ResourceKind};
use crate::protocol::server;
use crate::store::{Store, StoreError};

/// The row.
pub enum Row {
    /// Of a job.
    Job(Box<Job>),
    /// Of a campaign.
    Campaign(Box<Campaign>),
}

/// A resource at a moment.
pub struct Snapshot {
    /// The row.
    pub row: Row,
    /// Where a command under way takes it.
    pub desired: Option<String>,
    /// Updates up to this number are in it.
    pub seq: i64,
}

/// Why there is none.
pub enum SnapshotError {
    /// Redis.
    Broker(BrokerError),
    /// SQL.
    Store(StoreError),
}

impl From<SnapshotError> for Refusal {
    fn from(_: SnapshotError) -> Self {
        Self::unavailable()
    }
}

/// Reads Redis first and then the row: a change is committed to SQL before it is numbered, so the row is at
/// least as new as the number.
pub async fn read(broker: &Broker, store: &Store, resource: &Resource) -> Result<Option<Snapshot>, SnapshotError> {
    let live = broker.live(resource).await.map_err(SnapshotError::Broker)?;
    let row = match resource.kind {
        ResourceKind::Job => {
            let Some(mut job) = store.job(resource).await.map_err(SnapshotError::Store)? else { return Ok(None) };
            if matches!(job.status, JobStatus::Running | JobStatus::Paused)
                && let Some(progress) = live.progress
            {
                // A host writes its row once a second; Redis has what it told everyone since.
                job.progress = progress;
            }
            Row::Job(Box::new(job))
        }
        ResourceKind::Campaign => {
            let found = store.campaign(resource).await.map_err(SnapshotError::Store)?;
            let Some(campaign) = found else { return Ok(None) };
            Row::Campaign(Box::new(campaign))
        }
    };
    Ok(Some(Snapshot { row, desired: live.desired, seq: live.seq }))
}

impl Snapshot {
    /// The second message on a socket.
    pub fn message(&self) -> String {
        match &self.row {
            Row::Job(job) => server::job_snapshot(job, self.desired.as_deref(), self.seq),
            Row::Campaign(campaign) => server::campaign_snapshot(campaign, self.desired.as_deref(), self.seq),
        }
    }

    /// The same as a status and a progress message, for sockets that had a snapshot before.
    pub fn as_updates(&self) -> [Utf8Bytes; 2] {
        let desired = self.desired.as_deref();
        let (status, progress) = match &self.row {
            Row::Job(job) => {
                let resource = Resource::job(job.tenant_id.clone(), job.id.clone());
                (
                    server::job_status(&resource, job.status, desired),
                    server::job_progress(&resource, job.status, &job.progress),
                )
            }
            Row::Campaign(campaign) => {
                (server::campaign_status(campaign, desired), server::campaign_progress(campaign))
            }
        };
        [status, progress].map(|open| format!("{open},\"seq\":{}}}", self.seq).into())
    }
}
