//! Which indexes have which jobs, in the words that the indexes are made with (`0035_cheaper_rows.sql`).
//!
//! A job that waits and has never been touched stands in as few indexes as possible, since jobs come by the thousand: it is left out
//! where another index has it anyway. So a list is put together from several indexes, and each row stands in one of them.

use crate::domain::JobStatus;

/// Rows that one index has, with the words by which the database finds that out.
#[derive(Debug, Clone)]
pub(super) struct IndexPiece {
    pub index: &'static str,
    pub only: String,
    /// The time by which the index has them, where it is one of a time.
    pub time: Option<&'static str>,
}

impl IndexPiece {
    pub(super) fn new(index: &'static str, only: impl Into<String>) -> Self {
        Self { index, only: only.into(), time: None }
    }
}

pub(super) const UNENDED: &str = "status IN ('pending', 'running', 'paused')";
pub(super) const ENDED: &str = "status IN ('completed', 'failed', 'cancelled')";
/// When a job, or a campaign, ended, in the words of the index `jobs_ended`.
pub(super) const END: &str = "COALESCE(completed_at, cancelled_at, updated_at)";
/// It waits and has not run yet, and the contrary.
pub(super) const NOT_RUN: &str = "status = 'pending' AND COALESCE(running_ms, 0) = 0";
const HAS_RUN: &str = "(status <> 'pending' OR COALESCE(running_ms, 0) <> 0)";
/// It does not run, and is none of those that have not run yet.
pub(super) const RAN_OR_ENDED: &str = "status <> 'running' AND (status <> 'pending' OR COALESCE(running_ms, 0) <> 0)";
/// The index of those that have not.
pub(super) const OF_NOT_RUN: &str = "jobs_not_run";
/// Nobody has changed it since it was made, and the contrary.
pub(super) const UNTOUCHED: &str = "updated_at = created_at";
pub(super) const TOUCHED: &str = "(updated_at = created_at) IS NOT TRUE";
pub(super) const OF_UNTOUCHED: &str = "jobs_untouched";
/// Jobs with a type: those that wait for a worker are found along the queue.
pub(super) const OF_TYPE: &str = "jobs_of_type_not_queued";
const NOT_QUEUED: &str = "(origin <> 'queued' OR status <> 'pending')";
const QUEUED: &str = "origin = 'queued' AND status = 'pending' AND run >= 0";
/// The queue: jobs without a campaign, and the others.
pub(super) const QUEUE: &str = "jobs_queue_alone";
pub(super) const QUEUE_IN_CAMPAIGNS: &str = "jobs_queue_in_campaigns";
/// The others once more, campaign by campaign.
pub(super) const QUEUE_OF_CAMPAIGN: &str = "jobs_queue_by_campaign";
/// A job that waits, for looks by type and for looks by campaign. The indexes are made for these words, and both
/// databases have to be told which one to take: SQLite by its name, PostgreSQL by the condition that is always true.
pub(super) const BY_TYPE: &str = "j.origin = 'queued' AND j.status = 'pending' AND j.run >= 0";
pub(super) const BY_CAMPAIGN: &str =
    "j.origin = 'queued' AND j.status = 'pending' AND j.fence >= 0 AND j.campaign_id IS NOT NULL";
/// The queue by type has two halves, jobs without a campaign and the others, so that the first stand in one index alone.
pub(super) const HALVES: [(&str, &str); 2] =
    [(QUEUE, "j.campaign_id IS NULL"), (QUEUE_IN_CAMPAIGNS, "j.campaign_id IS NOT NULL")];

/// A tenant's jobs with a status, in the order of their making.
pub(super) fn of_status(status: JobStatus) -> Vec<IndexPiece> {
    let is = format!("status = '{}'", status.as_str());
    match status {
        _ if status.is_final() => vec![IndexPiece::new("jobs_ended_of_tenant", format!("{is} AND {ENDED}"))],
        JobStatus::Pending => vec![
            IndexPiece::new(OF_NOT_RUN, NOT_RUN),
            IndexPiece::new("jobs_begun", format!("{is} AND {UNENDED} AND {HAS_RUN}")),
        ],
        _ => vec![IndexPiece::new("jobs_begun", format!("{is} AND {UNENDED} AND {HAS_RUN}"))],
    }
}

/// Jobs that a filter finds by its own index, `only`, with one of these statuses (`of_status` in words). Those with one status
/// are in the order of their making.
pub(super) fn of_filter(index: &'static str, only: &str, of_status: &str, statuses: &[JobStatus]) -> Vec<IndexPiece> {
    if index != OF_TYPE {
        return vec![IndexPiece::new(index, format!("{only} AND {of_status}"))];
    }
    let mut pieces = vec![IndexPiece::new(index, format!("{only} AND {of_status} AND {NOT_QUEUED}"))];
    if statuses.contains(&JobStatus::Pending) {
        pieces.push(IndexPiece::new(QUEUE, format!("{only} AND {QUEUED} AND campaign_id IS NULL")));
        pieces.push(IndexPiece::new(QUEUE_IN_CAMPAIGNS, format!("{only} AND {QUEUED} AND campaign_id IS NOT NULL")));
    }
    pieces
}

/// A tenant's jobs by a time, `created_at` or `updated_at`.
pub(super) fn of_time(column: &'static str) -> Vec<IndexPiece> {
    let index = if column == "created_at" { "jobs_touched_by_creation" } else { "jobs_touched_by_update" };
    vec![
        IndexPiece { index, only: TOUCHED.to_owned(), time: Some(column) },
        // Both times are the same there.
        IndexPiece { index: OF_UNTOUCHED, only: UNTOUCHED.to_owned(), time: Some("created_at") },
    ]
}
