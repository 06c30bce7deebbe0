//! What several statements have in common that write about a run: that the row is still this run's, its progress, its error, and
//! when it is tried again.

use std::time::Duration;

use super::sql::{Tx, Value};
use super::{Run, StoreError};
use crate::domain::text::{MAX_LONG_TEXT, excerpt};
use crate::domain::{Progress, Resource, full_jitter_backoff};

/// The row is still this run's.
///
/// Only the key may choose the row: `host` and `status` are compared in words for which no index is made, and which do not say either that
/// there is a host. Otherwise a database whose statistics are old, or that planned the statement when there were few rows, takes the
/// index of a status or of hosts for the shorter way, and reads every other job that has one. The same holds for every
/// statement that names a row by its key and a status.
pub(super) const OWNED_BY_RUN: &str = "tenant_id = $1 AND id = $2 AND COALESCE(host, '') = $3 AND run = $4";

pub(super) fn owned_by_run(run: &Run) -> Vec<Value> {
    vec![run.job.tenant.as_str().into(), run.job.id.as_str().into(), run.host.as_str().into(), run.number.into()]
}

/// Columns of a progress, as `$5` to `$10`.
pub(super) const PROGRESS: &str = "progress_percent = $5, items_total = $6, items_processed = $7, items_succeeded = $8,
  items_failed = $9, current_item = $10";

pub(super) fn progress_values(values: &mut Vec<Value>, p: &Progress) {
    values.push(Value::Real(f64::from(p.progress_percent)));
    values.push(p.items_total.into());
    values.extend([p.items_processed, p.items_succeeded, p.items_failed].map(Value::from));
    values.push(p.current_item.clone().into());
}

/// A job that comes back from a worker after its campaign was cancelled is cancelled with it: nobody would ever
/// start it, and it would look as if it waited.
pub(super) async fn end_with_campaign(tx: &mut Tx, job: &Resource) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE jobs SET status = 'cancelled', cancelled_at = {now}, updated_at = {now}, paused_from = NULL, run_after = NULL,
           cancelled_by = (SELECT c.cancelled_by FROM campaigns c WHERE c.tenant_id = jobs.tenant_id AND c.id = jobs.campaign_id)
         WHERE tenant_id = $1 AND id = $2 AND (origin = 'queued' OR run > 0) AND host IS NULL AND (status || '') IN ('pending', 'paused')
           AND EXISTS (SELECT 1 FROM campaigns c
             WHERE c.tenant_id = jobs.tenant_id AND c.id = jobs.campaign_id AND c.status = 'cancelled')",
        &[job.tenant.as_str().into(), job.id.as_str().into()],
    )
    .await
    .map(|_| ())
}

/// Every message and every list carries the error: what is too long for them stands in a column of its own.
pub(super) fn message_and_detail(error: &String) -> (String, Option<String>) {
    let message = excerpt(error, MAX_LONG_TEXT).into_owned();
    let detail = (message != *error).then(|| error.clone());
    (message, detail)
}

/// First wait for a retry at its longest; doubled each time.
const MIN_RETRY_DELAY: Duration = Duration::from_secs(1);
/// The longest of them.
pub(super) const MAX_RETRY_DELAY: Duration = Duration::from_secs(60);

pub(super) fn retry_delay_ms(retries: i64) -> i64 {
    let wait =
        full_jitter_backoff(MIN_RETRY_DELAY, MAX_RETRY_DELAY, u32::try_from(retries).unwrap_or(0), fastrand::f64());
    i64::try_from(wait.as_millis()).unwrap_or(0)
}
