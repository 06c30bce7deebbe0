//! A campaign: many jobs, handed to workers only while it is active.

use serde::{Deserialize, Serialize};

use super::ids::{ResourceId, TenantId};
use super::job::JobStatus;

/// Where a campaign stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CampaignStatus {
    /// Its jobs are dispatched.
    Active,
    /// Dispatch has stopped until resumed.
    Paused,
    /// Every job has ended.
    Completed,
    /// Ended by an operator.
    Cancelled,
}

impl CampaignStatus {
    /// Every status, in the order of a campaign's life.
    pub const ALL: [Self; 4] = [Self::Active, Self::Paused, Self::Completed, Self::Cancelled];

    /// The status as it stands in SQL and in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The inverse of [`Self::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }

    /// Nothing leaves a final status.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Cancelled)
    }
}

/// One campaign: the row of the table `campaigns`, with the counts of its jobs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Campaign {
    /// Unique within the tenant.
    pub id: ResourceId,
    /// Whose it is.
    pub tenant_id: TenantId,
    /// For people.
    pub name: Option<String>,
    /// Whether its jobs are dispatched.
    pub is_active: bool,
    /// Whether jobs are still being added: an open campaign is not completed, whatever its jobs do, until it is closed.
    #[serde(default)]
    pub is_open: bool,
    /// Where it stands.
    pub status: CampaignStatus,
    /// 0 to 100: ended jobs of all jobs.
    pub progress_percent: u8,
    /// How many jobs it has.
    pub items_total: i64,
    /// How many have ended.
    pub items_processed: i64,
    /// How many completed.
    pub items_succeeded: i64,
    /// How many failed or were cancelled.
    pub items_failed: i64,
    /// The same in full: a completed campaign may have failed jobs.
    #[serde(default)]
    pub jobs_by_status: JobCounts,
    /// The user who made it.
    pub created_by: Option<String>,
    /// The user who cancelled it.
    pub cancelled_by: Option<String>,
    /// RFC 3339, UTC, like every time here.
    pub created_at: Option<String>,
    /// When it was told to close; null where it was not.
    #[serde(default)]
    pub closed_at: Option<String>,
    /// When every job had ended.
    pub completed_at: Option<String>,
    /// When it was cancelled.
    pub cancelled_at: Option<String>,
    /// When the row last changed.
    pub updated_at: Option<String>,
}

/// How many jobs of a campaign are in each status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobCounts {
    /// Wait for a worker.
    pub pending: i64,
    /// Run.
    pub running: i64,
    /// Stand until resumed.
    pub paused: i64,
    /// Ended well.
    pub completed: i64,
    /// Ended badly.
    pub failed: i64,
    /// Were ended by an operator.
    pub cancelled: i64,
}

impl JobCounts {
    /// All of them.
    pub fn total(&self) -> i64 {
        self.pending + self.running + self.paused + self.ended()
    }

    /// Those in one status.
    pub fn of_mut(&mut self, status: JobStatus) -> &mut i64 {
        match status {
            JobStatus::Pending => &mut self.pending,
            JobStatus::Running => &mut self.running,
            JobStatus::Paused => &mut self.paused,
            JobStatus::Completed => &mut self.completed,
            JobStatus::Failed => &mut self.failed,
            JobStatus::Cancelled => &mut self.cancelled,
        }
    }

    /// Those that have ended, one way or another.
    pub fn ended(&self) -> i64 {
        self.completed + self.failed + self.cancelled
    }
}
