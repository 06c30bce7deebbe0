//! A job as everyone sees it.

use serde::{Deserialize, Serialize};

use super::ids::{ResourceId, TenantId};
use super::json_text::JsonText;
use super::resource::ResourceKind;

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobStatus {
    /// Waits for a worker.
    Pending,
    /// A worker runs it.
    Running,
    /// Stopped until resumed.
    Paused,
    /// Ended well.
    Completed,
    /// Ended badly.
    Failed,
    /// Ended by an operator.
    Cancelled,
}

impl JobStatus {
    /// Every status, in the order of a job's life.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Running, Self::Paused, Self::Completed, Self::Failed, Self::Cancelled];

    /// The status as it stands in SQL and in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The inverse of [`Self::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }

    /// Nothing leaves a final status.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// What a command on a job reaches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Control {
    /// A worker hosts the job: the work itself is stopped, continued or ended.
    Live,
    /// No worker does: only the row is changed, and what works on it elsewhere hears nothing of it.
    #[default]
    Row,
}

impl Control {
    /// Of a resource of this kind; campaigns have none of their own.
    pub fn of(kind: ResourceKind, hosted: bool) -> Option<Self> {
        match (kind, hosted) {
            (ResourceKind::Campaign, _) => None,
            (ResourceKind::Job, true) => Some(Self::Live),
            (ResourceKind::Job, false) => Some(Self::Row),
        }
    }

    /// As it stands in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Row => "row",
        }
    }

    /// The inverse of [`Self::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Live, Self::Row].into_iter().find(|control| control.as_str() == text)
    }
}

/// How far a job is. Counts are items of the job's own kind (rows, messages, files).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// 0 to 100, whole.
    pub progress_percent: u8,
    /// How many items there are, where known.
    pub items_total: Option<i64>,
    /// How many have been looked at.
    pub items_processed: i64,
    /// How many of those went well.
    pub items_succeeded: i64,
    /// How many of those failed.
    pub items_failed: i64,
    /// What is being worked on, in words.
    pub current_item: Option<String>,
}

/// Something that a job could not do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedItem {
    /// Which: its name within the job.
    pub item: String,
    /// Why, in words.
    pub error: String,
}

/// One job: the row of the table `jobs` (CONTRACT section 7).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The fence of the last command that its row knows: what the row says is older than whatever came by a later one.
    #[serde(skip)]
    pub fence: i64,
    /// Unique within the tenant.
    pub id: ResourceId,
    /// Whose it is.
    pub tenant_id: TenantId,
    /// The campaign it belongs to, if any.
    pub campaign_id: Option<ResourceId>,
    /// Which code runs it.
    pub job_type: String,
    /// For people.
    pub title: Option<String>,
    /// Where it stands.
    pub status: JobStatus,
    /// How far it is.
    #[serde(flatten)]
    pub progress: Progress,
    /// What it was given.
    pub parameters: JsonText,
    /// What it produced, null until completed.
    pub result: JsonText,
    /// Why it failed, in words; of a very long text the beginning and the end.
    pub error_message: Option<String>,
    /// How often it may be tried again after a failure.
    pub max_retries: i64,
    /// How often it has been.
    pub retry_count: i64,
    /// When it may be tried again; null unless it waits for that.
    pub run_after: Option<String>,
    /// Longest running time of one run in seconds, without the time it stands paused; null: no limit.
    pub timeout_seconds: Option<i64>,
    /// Since when the program that hosts it has not been heard of; its work probably goes on. Left out where that is not so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact_lost_at: Option<String>,
    /// The user who made it.
    pub created_by: Option<String>,
    /// The user who cancelled it.
    pub cancelled_by: Option<String>,
    /// RFC 3339, UTC, like every time here.
    pub created_at: Option<String>,
    /// When it first ran.
    pub started_at: Option<String>,
    /// When it completed or failed.
    pub completed_at: Option<String>,
    /// When it was cancelled.
    pub cancelled_at: Option<String>,
    /// When the row last changed.
    pub updated_at: Option<String>,
    /// For how long it has been running, in seconds; the time that it stands paused or waits does not count. null: it ran
    /// before this was recorded.
    #[serde(default)]
    pub running_seconds: Option<f64>,
    /// For how long it has been standing paused, in seconds; likewise.
    #[serde(default)]
    pub paused_seconds: Option<f64>,
    /// The worker that hosts it; left out where none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<JobWorker>,
    /// The job that it is a rerun of; left out where it is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun_of: Option<ResourceId>,
    /// Its newest reruns, newest first; left out where there are none, and in lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reruns: Vec<ResourceId>,
    /// What a command on it would reach.
    #[serde(default)]
    pub control: Control,
    /// What a pending job lacks, in words; absent where nothing is known to be missing. Not in SQL: whoever shows the job
    /// finds out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    /// Whether it was submitted for workers to run, and not put there by another system. Not shown.
    #[serde(skip)]
    pub is_queued: bool,
}

/// Where a job runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobWorker {
    /// The id that leases have.
    pub id: String,
    /// Its name for people (`worker.name`); null: it has not said.
    pub name: Option<String>,
    /// The machine or container that it runs on.
    pub host: Option<String>,
    /// Since when the job is there.
    pub since: Option<String>,
    /// Of work in a foreign process: its client software, and its machine or address. Left out where that is not so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_host: Option<String>,
}

/// What a job's messages do not say of it, and what never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFacts {
    /// The campaign it belongs to, if any.
    pub campaign_id: Option<ResourceId>,
    /// Which code runs it.
    pub job_type: String,
}
