//! Rows of SQL in the domain's terms. Rows that other systems put there may hold surprises: what cannot be
//! read is an error that names the row.

use super::StoreError;
use super::sql::Row;
use crate::domain::{Campaign, CampaignStatus, Job, JobStatus, Progress, Resource, ResourceId, TenantId};

/// Every column of a job, in types that both databases give alike.
pub(super) const JOB: &str = "id, tenant_id, campaign_id, job_type, title, status,
  CAST(progress_percent AS DOUBLE PRECISION) AS progress_percent, CAST(items_total AS BIGINT) AS items_total,
  CAST(items_processed AS BIGINT) AS items_processed, CAST(items_succeeded AS BIGINT) AS items_succeeded,
  CAST(items_failed AS BIGINT) AS items_failed, current_item, CAST(parameters AS TEXT) AS parameters,
  CAST(result AS TEXT) AS result, error_message, CAST(max_retries AS BIGINT) AS max_retries,
  CAST(retry_count AS BIGINT) AS retry_count, run_after, timeout_seconds, created_by, cancelled_by, CAST(created_at AS TEXT) AS created_at,
  CAST(started_at AS TEXT) AS started_at, CAST(completed_at AS TEXT) AS completed_at,
  CAST(cancelled_at AS TEXT) AS cancelled_at, CAST(updated_at AS TEXT) AS updated_at,
  origin, host, run, fence, paused_from, resume_point, rowid AS row_id";

/// Every column of a campaign, with the counts of its jobs.
pub(super) const CAMPAIGN: &str = "c.id, c.tenant_id, c.name, CAST(CASE WHEN c.is_active THEN 1 ELSE 0 END AS BIGINT) AS is_active,
  c.status, c.created_by, c.cancelled_by, CAST(c.created_at AS TEXT) AS created_at,
  CAST(c.completed_at AS TEXT) AS completed_at, CAST(c.cancelled_at AS TEXT) AS cancelled_at,
  CAST(c.updated_at AS TEXT) AS updated_at, c.fence, c.rowid AS row_id,
  (SELECT COUNT(*) FROM jobs j WHERE j.tenant_id = c.tenant_id AND j.campaign_id = c.id) AS items_total,
  (SELECT COUNT(*) FROM jobs j WHERE j.tenant_id = c.tenant_id AND j.campaign_id = c.id AND j.status = 'completed') AS items_succeeded,
  (SELECT COUNT(*) FROM jobs j WHERE j.tenant_id = c.tenant_id AND j.campaign_id = c.id AND j.status IN ('failed', 'cancelled')) AS items_failed";

fn odd(what: &str, id: &str) -> StoreError {
    StoreError::Refused(format!("row {id:?} has {what}"))
}

/// A row of a list that cannot be read is left out and logged: one odd row must not hide the others.
pub(super) fn readable<T>(read: Result<T, StoreError>) -> Option<T> {
    read.inspect_err(|error| tracing::warn!(%error, "store.unreadable_row")).ok()
}

pub(super) fn job(row: &Row) -> Result<Job, StoreError> {
    let id = row.needed("id")?;
    let percent = row.real("progress_percent")?.unwrap_or(0.0).clamp(0.0, 100.0);
    Ok(Job {
        tenant_id: tenant(row)?,
        campaign_id: row.text("campaign_id")?.and_then(|c| c.parse().ok()),
        job_type: row.text("job_type")?.unwrap_or_default(),
        title: row.text("title")?,
        status: job_status(row)?,
        progress: Progress {
            // Clamped above: the cast only drops the fraction.
            progress_percent: percent as u8,
            items_total: row.int("items_total")?,
            items_processed: row.int("items_processed")?.unwrap_or(0),
            items_succeeded: row.int("items_succeeded")?.unwrap_or(0),
            items_failed: row.int("items_failed")?.unwrap_or(0),
            current_item: row.text("current_item")?,
        },
        parameters: json(row.text("parameters")?),
        result: json(row.text("result")?),
        error_message: row.text("error_message")?,
        max_retries: row.int("max_retries")?.unwrap_or(0),
        retry_count: row.int("retry_count")?.unwrap_or(0),
        run_after: row
            .int("run_after")?
            .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
            .map(|t| t.to_string()),
        timeout_seconds: row.int("timeout_seconds")?,
        created_by: row.text("created_by")?,
        cancelled_by: row.text("cancelled_by")?,
        created_at: time(row.text("created_at")?),
        started_at: time(row.text("started_at")?),
        completed_at: time(row.text("completed_at")?),
        cancelled_at: time(row.text("cancelled_at")?),
        updated_at: time(row.text("updated_at")?),
        id: id.parse().map_err(|_| odd("an id that is none", &id))?,
    })
}

pub(super) fn job_status(row: &Row) -> Result<JobStatus, StoreError> {
    let word = row.needed("status")?;
    JobStatus::from_word(&word).ok_or_else(|| odd("an unknown status", &word))
}

pub(super) fn campaign_status(row: &Row) -> Result<CampaignStatus, StoreError> {
    let word = row.needed("status")?;
    CampaignStatus::from_word(&word).ok_or_else(|| odd("an unknown status", &word))
}

pub(super) fn campaign(row: &Row) -> Result<Campaign, StoreError> {
    let id = row.needed("id")?;
    let total = row.int("items_total")?.unwrap_or(0);
    let succeeded = row.int("items_succeeded")?.unwrap_or(0);
    let failed = row.int("items_failed")?.unwrap_or(0);
    let processed = succeeded + failed;
    let percent = if total > 0 { processed * 100 / total } else { 0 };
    Ok(Campaign {
        tenant_id: tenant(row)?,
        name: row.text("name")?,
        is_active: row.int("is_active")? == Some(1),
        status: campaign_status(row)?,
        progress_percent: u8::try_from(percent.clamp(0, 100)).unwrap_or(100),
        items_total: total,
        items_processed: processed,
        items_succeeded: succeeded,
        items_failed: failed,
        created_by: row.text("created_by")?,
        cancelled_by: row.text("cancelled_by")?,
        created_at: time(row.text("created_at")?),
        completed_at: time(row.text("completed_at")?),
        cancelled_at: time(row.text("cancelled_at")?),
        updated_at: time(row.text("updated_at")?),
        id: id.parse().map_err(|_| odd("an id that is none", &id))?,
    })
}

fn tenant(row: &Row) -> Result<TenantId, StoreError> {
    let text = row.needed("tenant_id")?;
    text.parse().map_err(|_| odd("a tenant id that is none", &text))
}

/// The job that a row of `jobs` is about.
pub(super) fn job_resource(row: &Row) -> Result<Resource, StoreError> {
    let id = row.needed("id")?;
    let id: ResourceId = id.parse().map_err(|_| odd("an id that is none", &id))?;
    Ok(Resource::job(tenant(row)?, id))
}

/// The campaign that a row of `campaigns` is about.
pub(super) fn campaign_resource(row: &Row) -> Result<Resource, StoreError> {
    let id = row.needed("id")?;
    let id: ResourceId = id.parse().map_err(|_| odd("an id that is none", &id))?;
    Ok(Resource::campaign(tenant(row)?, id))
}

/// What is not JSON (a text put there by hand) is given as a JSON text.
pub(super) fn json(text: Option<String>) -> serde_json::Value {
    match text {
        None => serde_json::Value::Null,
        Some(text) => serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text)),
    }
}

/// RFC 3339 in UTC from either database's own form; what is no time is given as it is.
pub(super) fn time(text: Option<String>) -> Option<String> {
    let text = text?;
    let with_zone = if text.ends_with(['Z', 'z']) || text.get(10..).is_some_and(|t| t.contains(['+', '-'])) {
        text.clone()
    } else {
        format!("{text}Z")
    };
    Some(with_zone.parse::<jiff::Timestamp>().map_or(text, |t| t.to_string()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_of_both_databases_become_rfc_3339() {
        let read = |text: &str| super::time(Some(text.to_owned())).expect("a time");
        assert_eq!(read("2026-01-02T03:04:05.600Z"), "2026-01-02T03:04:05.6Z");
        assert_eq!(read("2026-01-02 03:04:05.6+00"), "2026-01-02T03:04:05.6Z");
        assert_eq!(read("2026-01-02 03:04:05"), "2026-01-02T03:04:05Z");
        assert_eq!(read("yesterday"), "yesterday");
    }
}
