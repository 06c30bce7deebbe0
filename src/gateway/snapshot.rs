//! The state of a resource at a number of its stream: the row, with what Redis knows beyond it.

use std::sync::Arc;

use super::job_types::JobTypes;
use crate::broker::scripts::updates::LiveProgress;
use crate::broker::{Broker, BrokerError};
use crate::domain::{Campaign, Job, JobStatus, JsonText, Progress, Resource, ResourceKind};
use crate::protocol::server;
use crate::store::{Store, StoreError};

/// Longest snapshot that travels whole. A longer one goes without the job's parameters and result, which the
/// HTTP API gives.
pub const MAX_SNAPSHOT: usize = 1024 * 1024;

/// Why a state could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Redis.
    #[error("{0}")]
    Broker(#[from] BrokerError),
    /// SQL.
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// What was read.
#[derive(Debug, Clone)]
pub struct ResourceSnapshot {
    row: ResourceRow,
    live: LiveProgress,
}

#[derive(Debug, Clone)]
enum ResourceRow {
    Job(Box<Job>),
    Campaign(Box<Campaign>),
}

/// Reads states; cheap to clone.
#[derive(Clone)]
pub struct SnapshotReader {
    broker: Broker,
    store: Store,
    job_types: Arc<JobTypes>,
}

impl SnapshotReader {
    /// From Redis and SQL.
    pub fn new(broker: Broker, store: Store, job_types: Arc<JobTypes>) -> Self {
        Self { broker, store, job_types }
    }

    /// Reads everything there is to show. `None`: there is no such resource in the tenant.
    pub async fn read(&self, resource: &Resource) -> Result<Option<ResourceSnapshot>, SnapshotError> {
        self.read_with(resource, true).await
    }

    /// As [`Self::read`], for [`ResourceSnapshot::status_message`] and [`ResourceSnapshot::progress_message`] alone: a job's parameters and its
    /// result, which may have megabytes each, are not read.
    pub async fn read_state(&self, resource: &Resource) -> Result<Option<ResourceSnapshot>, SnapshotError> {
        self.read_with(resource, false).await
    }

    /// Reads the live part first: SQL commits before an update is numbered, so the row, read after it, is at least as
    /// new as the number.
    async fn read_with(&self, resource: &Resource, whole: bool) -> Result<Option<ResourceSnapshot>, SnapshotError> {
        let live = self.broker.live(resource).await?;
        let row = match resource.kind {
            ResourceKind::Job => {
                let job = match whole {
                    true => self.store.job(resource).await?,
                    false => self.store.job_without_contents(resource).await?,
                };
                job.map(|job| ResourceRow::Job(Box::new(job)))
            }
            ResourceKind::Campaign => {
                self.store.campaign(resource).await?.map(|campaign| ResourceRow::Campaign(Box::new(campaign)))
            }
        };
        Ok(row.map(|row| ResourceSnapshot::new(row, live)))
    }

    /// Says of a job that waits for a worker which nobody has, what it waits for.
    pub async fn explain(&self, mut state: ResourceSnapshot) -> ResourceSnapshot {
        if let ResourceRow::Job(job) = &mut state.row {
            let tenant = job.tenant_id.clone();
            self.job_types.explain(&tenant, std::slice::from_mut(&mut **job)).await;
        }
        state
    }
}

impl ResourceSnapshot {
    fn new(mut row: ResourceRow, live: LiveProgress) -> Self {
        if let (ResourceRow::Job(job), Some(progress)) = (&mut row, &live.progress)
            && matches!(job.status, JobStatus::Running | JobStatus::Paused)
            && is_newer(progress, &job.progress)
        {
            job.progress = progress.clone();
        }
        Self { row, live }
    }

    /// What comes later on the stream has a higher number.
    pub fn seq(&self) -> i64 {
        self.live.seq
    }

    /// As the second message on a socket has it, whole.
    pub fn message(&self) -> String {
        let (desired, seq) = (self.live.desired.as_deref(), self.live.seq);
        match &self.row {
            ResourceRow::Job(job) => server::job_snapshot(job, desired, seq),
            ResourceRow::Campaign(campaign) => server::campaign_snapshot(campaign, desired, seq),
        }
    }

    /// As an answer over HTTP has it, whole: the message without its type.
    pub fn state(&self) -> String {
        let (desired, seq) = (self.live.desired.as_deref(), self.live.seq);
        match &self.row {
            ResourceRow::Job(job) => server::job_state(job, desired, seq),
            ResourceRow::Campaign(campaign) => server::campaign_state(campaign, desired, seq),
        }
    }

    /// The second message on a socket; with the number of workers alive for the tenant, where that is known.
    pub fn greeting(&self, workers_online: Option<usize>) -> String {
        let mut text = self.message_within(MAX_SNAPSHOT);
        if let Some(workers) = workers_online
            && text.pop() == Some('}')
        {
            text.push_str(&format!(",\"workers_online\":{workers}}}"));
        }
        text
    }

    /// As [`Self::message`]; without the job's parameters and result where it would have more bytes than these.
    pub fn message_within(&self, bytes: usize) -> String {
        let whole = self.message();
        match &self.row {
            ResourceRow::Job(job) if whole.len() > bytes => {
                let mut short = job.clone();
                (short.parameters, short.result) = (JsonText::default(), JsonText::default());
                server::job_snapshot(&short, self.live.desired.as_deref(), self.live.seq)
            }
            _ => whole,
        }
    }

    /// As a change of state.
    pub fn status_message(&self) -> String {
        let desired = self.live.desired.as_deref();
        self.with_seq(match &self.row {
            ResourceRow::Job(job) => {
                let resource = Resource::job(job.tenant_id.clone(), job.id.clone());
                server::job_status(&resource, job.status, desired)
            }
            ResourceRow::Campaign(campaign) => server::campaign_status(campaign, desired),
        })
    }

    /// As progress.
    pub fn progress_message(&self) -> String {
        self.with_seq(match &self.row {
            ResourceRow::Job(job) => {
                let resource = Resource::job(job.tenant_id.clone(), job.id.clone());
                server::job_progress(&resource, job.status, &job.progress)
            }
            ResourceRow::Campaign(campaign) => server::campaign_progress(campaign),
        })
    }

    fn with_seq(&self, open: String) -> String {
        format!("{open},\"seq\":{}}}", self.live.seq)
    }
}

/// Hosts write progress to SQL now and then, to Redis four times a second.
fn is_newer(live: &Progress, row: &Progress) -> bool {
    (live.items_processed, live.progress_percent) > (row.items_processed, row.progress_percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(status: &str, processed: i64, parameters: serde_json::Value) -> Job {
        serde_json::from_value(serde_json::json!({
            "id":"ID","tenant_id":"T","campaign_id":null,"job_type":"x","title":null,"status":status,"progress_percent":10,
            "items_total":100,"items_processed":processed,"items_succeeded":processed,"items_failed":0,"current_item":null,
            "parameters":parameters,"result":null,"error_message":null,"max_retries":0,"retry_count":0,"created_by":null,
            "cancelled_by":null,"created_at":null,"started_at":null,"completed_at":null,"cancelled_at":null,"updated_at":null
        }))
        .expect("job")
    }

    fn live(processed: i64) -> LiveProgress {
        let progress = Progress {
            progress_percent: 20,
            items_processed: processed,
            items_total: Some(100),
            ..Progress::default()
        };
        LiveProgress { seq: 7, progress: Some(progress), desired: Some("paused".to_owned()) }
    }

    fn snapshot(job: Job, live: LiveProgress) -> serde_json::Value {
        let state = ResourceSnapshot::new(ResourceRow::Job(Box::new(job)), live);
        serde_json::from_str(&state.message_within(MAX_SNAPSHOT)).expect("JSON")
    }

    #[test]
    fn live_progress_counts_while_the_job_has_not_ended_and_only_if_it_is_further() {
        assert_eq!(snapshot(job("running", 10, 0.into()), live(20))["items_processed"], 20);
        assert_eq!(snapshot(job("paused", 10, 0.into()), live(20))["items_processed"], 20);
        assert_eq!(snapshot(job("running", 30, 0.into()), live(20))["items_processed"], 30);
        assert_eq!(snapshot(job("completed", 10, 0.into()), live(20))["items_processed"], 10);
    }

    #[test]
    fn the_messages_carry_the_number_and_where_a_command_takes_it() {
        let state = ResourceSnapshot::new(ResourceRow::Job(Box::new(job("running", 1, 0.into()))), live(2));
        assert_eq!(
            state.status_message(),
            r#"{"type":"job_status","job_id":"ID","tenant_id":"T","status":"running","desired":"paused","seq":7}"#
        );
        let progress: serde_json::Value = serde_json::from_str(&state.progress_message()).expect("JSON");
        assert_eq!((&progress["type"], &progress["seq"]), (&"job_progress".into(), &7.into()));
    }

    #[test]
    fn a_snapshot_that_is_too_long_goes_without_parameters() {
        let long = snapshot(job("running", 1, "x".repeat(MAX_SNAPSHOT).into()), live(2));
        assert_eq!(long["parameters"], serde_json::Value::Null);
        assert_eq!(long["status"], "running");
        let short = snapshot(job("running", 1, serde_json::json!({"a": 1})), live(2));
        assert_eq!(short["parameters"], serde_json::json!({"a": 1}));
    }
}
