//! The one statement that makes a job's row.

use super::sql::{Tx, Value};
use super::{NewJob, StoreError};
use crate::domain::WorkerId;

/// How a job begins.
pub(super) enum Beginning<'a> {
    /// It waits for a worker of the queue.
    Queued,
    /// It runs already, as a program beside this worker.
    Attached(&'a WorkerId),
    /// It runs already, in a foreign process that is connected to this worker.
    Remote { host: &'a WorkerId, session: &'a str, reference: i64 },
    /// It was published to a queue of somebody else, where nobody has begun it; `run_after` is Unix time in ms.
    Expected { run_after: Option<i64> },
}

/// Nothing is changed where there is a row already.
pub(super) const INSERT_JOB: &str =
    "INSERT INTO jobs (id, tenant_id, campaign_id, job_type, title, parameters, max_retries, created_by,
       origin, status, host, run, remote_session, started_at, timeout_seconds, run_after, remote_ref)
     VALUES ($1, $2, $3, $4, $5, {json:$6}, $7, $8, $9, $10, $11, $12, $13,
       CASE WHEN $14 = 1 THEN {now} ELSE NULL END, $15, $16, $17)
     ON CONFLICT (tenant_id, id) DO NOTHING";

/// What [`INSERT_JOB`] takes.
pub(super) fn values_of(job: &NewJob, beginning: &Beginning<'_>) -> [Value; 17] {
    let (origin, host, remote, run_after) = match *beginning {
        Beginning::Queued => ("queued", None, None, None),
        Beginning::Attached(host) => ("attached", Some(host), None, None),
        Beginning::Remote { host, session, reference } => ("external", Some(host), Some((session, reference)), None),
        Beginning::Expected { run_after } => ("external", None, None, run_after),
    };
    let (status, run) = if host.is_some() { ("running", 1) } else { ("pending", 0) };
    [
        job.id.as_str().into(),
        job.tenant.as_str().into(),
        job.campaign.as_ref().map(ToString::to_string).into(),
        job.job_type.as_str().into(),
        job.title.clone().into(),
        Value::json(&job.parameters),
        i64::from(job.max_retries).into(),
        job.created_by.as_ref().map(ToString::to_string).into(),
        origin.into(),
        status.into(),
        host.map(ToString::to_string).into(),
        run.into(),
        remote.map(|(session, _)| session.to_owned()).into(),
        run.into(),
        job.timeout_seconds.map(i64::from).into(),
        run_after.into(),
        remote.map(|(_, reference)| reference).into(),
    ]
}

/// Inserts one job. `Conflict`: there is one of this id.
pub(super) async fn insert(tx: &mut Tx, job: &NewJob, beginning: &Beginning<'_>) -> Result<(), StoreError> {
    match tx.execute(INSERT_JOB, &values_of(job, beginning)).await? {
        0 => Err(StoreError::Conflict(format!("there is a job {} already", job.id))),
        _ => Ok(()),
    }
}
