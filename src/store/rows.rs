//! Rows of SQL in the domain's terms. Rows that other systems put there may hold surprises: what cannot be
//! read is an error that names the row.

use std::borrow::Cow;
use std::sync::LazyLock;

use super::StoreError;
use super::sql::Row;
use crate::domain::text::{MAX_LONG_TEXT, MAX_SHORT_TEXT, excerpt, split_half};
use crate::domain::{
    Campaign, CampaignStatus, Control, Job, JobCounts, JobStatus, JobWorker, JsonText, Progress, Resource, ResourceId,
    TenantId, printable,
};

/// The columns of a job but its parameters and its result, which may have megabytes each: for lists, and for whoever only
/// wants to know how a job stands. In types that both databases give alike; texts of any length cut down by the database.
pub(super) static JOB: LazyLock<String> = LazyLock::new(|| job_columns("CAST(NULL AS TEXT)", "CAST(NULL AS TEXT)"));

/// Every column of a job.
pub(super) static JOB_WITH_CONTENTS: LazyLock<String> =
    LazyLock::new(|| job_columns("CAST(parameters AS TEXT)", "CAST(result AS TEXT)"));

fn job_columns(parameters: &str, result: &str) -> String {
    let [job_type, title, item] = ["job_type", "title", "current_item"].map(|column| shorten(column, MAX_SHORT_TEXT));
    let error = shorten("error_message", MAX_LONG_TEXT);
    format!(
        "id, tenant_id, campaign_id, {job_type} AS job_type, {title} AS title, status,
         CAST(progress_percent AS DOUBLE PRECISION) AS progress_percent, CAST(items_total AS BIGINT) AS items_total,
         CAST(items_processed AS BIGINT) AS items_processed, CAST(items_succeeded AS BIGINT) AS items_succeeded,
         CAST(items_failed AS BIGINT) AS items_failed, {item} AS current_item, {parameters} AS parameters,
         {result} AS result, {error} AS error_message, CAST(max_retries AS BIGINT) AS max_retries,
         CAST(retry_count AS BIGINT) AS retry_count, run_after, timeout_seconds,
         CAST(contact_lost_at AS TEXT) AS contact_lost_at, created_by, cancelled_by,
         CAST(created_at AS TEXT) AS created_at, CAST(started_at AS TEXT) AS started_at,
         CAST(completed_at AS TEXT) AS completed_at, CAST(cancelled_at AS TEXT) AS cancelled_at,
         CAST(updated_at AS TEXT) AS updated_at, origin, host, run, fence,
         CAST(running_ms + CASE WHEN status = 'running' THEN {{now_ms}} - status_since ELSE 0 END AS BIGINT) AS ran,
         CAST(paused_ms + CASE WHEN status = 'paused' THEN {{now_ms}} - status_since ELSE 0 END AS BIGINT) AS stood,
         rerun_of, CAST(hosted_at AS TEXT) AS hosted_at,
         (SELECT w.name FROM workers w WHERE w.id = host) AS worker_name,
         (SELECT w.machine FROM workers w WHERE w.id = host) AS worker_machine,
         (SELECT w.client FROM workers w WHERE w.id = remote_session) AS client_software,
         (SELECT w.machine FROM workers w WHERE w.id = remote_session) AS client_machine,
         CAST(deaths AS BIGINT) AS deaths, paused_from, rowid AS row_id"
    )
}

/// A column as [`excerpt`] would cut its text down, so that a long one does not even leave the database.
pub(super) fn shorten(column: &str, longest: usize) -> String {
    let half = split_half(longest);
    format!(
        "CASE WHEN LENGTH({column}) <= {longest} THEN {column} ELSE SUBSTR({column}, 1, {half}) || ' … ['
           || CAST(LENGTH({column}) - {} AS TEXT) || ' characters left out] … '
           || SUBSTR({column}, LENGTH({column}) - {}) END",
        2 * half,
        half - 1
    )
}

/// Every column of a campaign, with the counts of its jobs.
pub(super) static CAMPAIGN: LazyLock<String> = LazyLock::new(|| {
    let counts = JobStatus::ALL.map(JobStatus::as_str).map(|status| {
        format!(
            "(SELECT CAST(COALESCE(SUM(k.n), 0) AS BIGINT) FROM job_totals k WHERE k.tenant_id = c.tenant_id
               AND k.campaign_id = c.id AND k.status = '{status}') AS jobs_{status}"
        )
    });
    format!(
        "c.id, c.tenant_id, {} AS name, CAST(CASE WHEN c.is_active THEN 1 ELSE 0 END AS BIGINT) AS is_active,
         CAST(CASE WHEN c.is_open THEN 1 ELSE 0 END AS BIGINT) AS is_open, c.status, c.created_by, c.cancelled_by,
         CAST(c.created_at AS TEXT) AS created_at, CAST(c.closed_at AS TEXT) AS closed_at,
         CAST(c.completed_at AS TEXT) AS completed_at, CAST(c.cancelled_at AS TEXT) AS cancelled_at,
         CAST(c.updated_at AS TEXT) AS updated_at, c.fence, c.rowid AS row_id, {}",
        shorten("c.name", MAX_SHORT_TEXT),
        counts.join(", ")
    )
});

fn unreadable(what: &str, id: &str) -> StoreError {
    StoreError::Refused(format!("row {id:?} has {what}"))
}

/// A row of a list that cannot be read is left out and logged: one odd row must not hide the others.
pub(super) fn skip_unreadable<T>(read: Result<T, StoreError>) -> Option<T> {
    read.inspect_err(|error| tracing::warn!(%error, "store.unreadable_row")).ok()
}

pub(super) fn job(row: &Row) -> Result<Job, StoreError> {
    let id = row.required("id")?;
    let percent = row.real("progress_percent")?.unwrap_or(0.0).clamp(0.0, 100.0);
    Ok(Job {
        fence: row.int("fence")?.unwrap_or(0),
        tenant_id: tenant(row)?,
        campaign_id: row.text("campaign_id")?.and_then(|c| c.parse().ok()),
        job_type: short(row, "job_type", MAX_SHORT_TEXT)?.unwrap_or_default(),
        title: short(row, "title", MAX_SHORT_TEXT)?,
        status: job_status(row)?,
        progress: Progress {
            // Clamped above: the cast only drops the fraction.
            progress_percent: percent as u8,
            items_total: row.int("items_total")?,
            items_processed: row.int("items_processed")?.unwrap_or(0),
            items_succeeded: row.int("items_succeeded")?.unwrap_or(0),
            items_failed: row.int("items_failed")?.unwrap_or(0),
            current_item: short(row, "current_item", MAX_SHORT_TEXT)?,
        },
        parameters: json(row.text("parameters")?),
        result: json(row.text("result")?),
        error_message: short(row, "error_message", MAX_LONG_TEXT)?,
        max_retries: row.int("max_retries")?.unwrap_or(0),
        retry_count: row.int("retry_count")?.unwrap_or(0),
        run_after: row
            .int("run_after")?
            .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
            .map(|t| t.to_string()),
        timeout_seconds: row.int("timeout_seconds")?,
        contact_lost_at: time(row.text("contact_lost_at")?),
        created_by: visible(row, "created_by")?,
        cancelled_by: visible(row, "cancelled_by")?,
        created_at: time(row.text("created_at")?),
        started_at: time(row.text("started_at")?),
        completed_at: time(row.text("completed_at")?),
        cancelled_at: time(row.text("cancelled_at")?),
        updated_at: time(row.text("updated_at")?),
        running_seconds: seconds(row.int("ran")?),
        paused_seconds: seconds(row.int("stood")?),
        worker: worker(row)?,
        rerun_of: row.text("rerun_of")?.and_then(|id| id.parse().ok()),
        reruns: Vec::new(),
        is_queued: row.text("origin")?.as_deref() == Some("queued"),
        waiting_for: None,
        // A host of which nothing is heard carries out no command, and Redis says the same in the ack.
        control: match row.text("host")? {
            Some(_) if row.text("contact_lost_at")?.is_none() => Control::Live,
            _ => Control::Row,
        },
        id: id.parse().map_err(|_| unreadable("an id that is none", &id))?,
    })
}

/// A time in ms, as seconds. A clock that was set back makes none negative.
fn seconds(ms: Option<i64>) -> Option<f64> {
    // Exact up to 285,000 years.
    ms.map(|ms| ms.max(0) as f64 / 1_000.0)
}

/// Who hosts the job.
fn worker(row: &Row) -> Result<Option<JobWorker>, StoreError> {
    let Some(id) = row.text("host")? else { return Ok(None) };
    Ok(Some(JobWorker {
        id,
        name: row.text("worker_name")?,
        host: row.text("worker_machine")?,
        since: time(row.text("hosted_at")?),
        client: row.text("client_software")?.filter(|client| !client.is_empty()),
        client_host: row.text("client_machine")?.filter(|host| !host.is_empty()),
    }))
}

/// A text of the row. The database has cut it down already, but SQLite counts characters only up to a NUL.
pub(super) fn short(row: &Row, column: &str, longest: usize) -> Result<Option<String>, StoreError> {
    Ok(row.text(column)?.map(|text| match excerpt(&text, longest) {
        Cow::Borrowed(_) => text,
        Cow::Owned(short) => short,
    }))
}

pub(super) fn job_status(row: &Row) -> Result<JobStatus, StoreError> {
    let word = row.required("status")?;
    JobStatus::parse(&word).ok_or_else(|| unreadable("an unknown status", &word))
}

pub(super) fn campaign_status(row: &Row) -> Result<CampaignStatus, StoreError> {
    let word = row.required("status")?;
    CampaignStatus::parse(&word).ok_or_else(|| unreadable("an unknown status", &word))
}

pub(super) fn campaign(row: &Row) -> Result<Campaign, StoreError> {
    let id = row.required("id")?;
    let count = |status: JobStatus| -> Result<i64, StoreError> {
        Ok(row.int(&format!("jobs_{}", status.as_str()))?.unwrap_or(0))
    };
    let jobs = JobCounts {
        pending: count(JobStatus::Pending)?,
        running: count(JobStatus::Running)?,
        paused: count(JobStatus::Paused)?,
        completed: count(JobStatus::Completed)?,
        failed: count(JobStatus::Failed)?,
        cancelled: count(JobStatus::Cancelled)?,
    };
    let (total, processed) = (jobs.total(), jobs.ended());
    let percent = if total > 0 { processed * 100 / total } else { 0 };
    Ok(Campaign {
        tenant_id: tenant(row)?,
        name: short(row, "name", MAX_SHORT_TEXT)?,
        is_active: row.int("is_active")? == Some(1),
        is_open: row.int("is_open")? == Some(1),
        status: campaign_status(row)?,
        progress_percent: u8::try_from(percent.clamp(0, 100)).unwrap_or(100),
        items_total: total,
        items_processed: processed,
        items_succeeded: jobs.completed,
        items_failed: jobs.failed + jobs.cancelled,
        jobs_by_status: jobs,
        created_by: visible(row, "created_by")?,
        cancelled_by: visible(row, "cancelled_by")?,
        created_at: time(row.text("created_at")?),
        closed_at: time(row.text("closed_at")?),
        completed_at: time(row.text("completed_at")?),
        cancelled_at: time(row.text("cancelled_at")?),
        updated_at: time(row.text("updated_at")?),
        id: id.parse().map_err(|_| unreadable("an id that is none", &id))?,
    })
}

/// A user's id as other systems may have written it: a character that cannot be seen is shown as an escape, so that nobody
/// is taken for somebody else.
fn visible(row: &Row, column: &str) -> Result<Option<String>, StoreError> {
    Ok(row.text(column)?.map(|user| printable(&user).into_owned()))
}

/// The tenant of a row.
pub(super) fn tenant(row: &Row) -> Result<TenantId, StoreError> {
    let text = row.required("tenant_id")?;
    text.parse().map_err(|_| unreadable("a tenant id that is none", &text))
}

/// The job that a row of `jobs` is about.
pub(super) fn job_resource(row: &Row) -> Result<Resource, StoreError> {
    let id = row.required("id")?;
    let id: ResourceId = id.parse().map_err(|_| unreadable("an id that is none", &id))?;
    Ok(Resource::job(tenant(row)?, id))
}

/// The campaign that a row of `campaigns` is about.
pub(super) fn campaign_resource(row: &Row) -> Result<Resource, StoreError> {
    let id = row.required("id")?;
    let id: ResourceId = id.parse().map_err(|_| unreadable("an id that is none", &id))?;
    Ok(Resource::campaign(tenant(row)?, id))
}

/// What is not JSON, or JSON that a client could not read (put there by hand), is given as a JSON text.
pub(super) fn json(text: Option<String>) -> JsonText {
    text.map_or_else(JsonText::default, |text| JsonText::parse(&text).unwrap_or_else(|_| JsonText::string(&text)))
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
