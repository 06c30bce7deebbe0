//! What a command writes into rows: one guarded statement, once per command, in a transaction of the caller's.

use std::collections::HashMap;

use super::announcement_rows::{AnnouncementKind, record_announcement};
use super::applied::{applied_before, outcome_of, repeated_request, request_key};
use super::sql::{MultiRowInsert, Row, Tx, Value};
use super::{ApplyOutcome, CommandChange, Run, StoreError, rows};
use crate::domain::transition::{self, Decision};
use crate::domain::{Action, CampaignStatus, Control, JobStatus, Resource, ResourceKind};

/// Applies a command inside a transaction that the caller commits.
pub(super) async fn apply_in(tx: &mut Tx, change: &CommandChange) -> Result<ApplyOutcome, StoreError> {
    // The row first: while it is held nobody else can be applying the same command, so the look after it is sure.
    let row = row_of(tx, &change.resource).await?;
    if let Some(noted) = applied_before(tx, &[change.command]).await?.get(&change.command) {
        return Ok(noted.applied());
    }
    if let Some(applied) = repeated_request(tx, change).await? {
        let mut writes = RowWrites::default();
        writes.record_repeat(change, &applied);
        return match writes.write(tx).await? {
            true => Ok(applied),
            false => Err(StoreError::Unavailable("the command was applied meanwhile".to_owned())),
        };
    }
    let mut writes = RowWrites::default();
    let applied = match (change.resource.kind, row) {
        (ResourceKind::Job, row) => {
            let (applied, write) = plan_write(change, row.as_ref())?;
            writes.add(change, write);
            applied
        }
        (ResourceKind::Campaign, Some(row)) => apply_to_campaign(tx, change, &row).await?,
        (ResourceKind::Campaign, None) => ApplyOutcome::Refused,
    };
    writes.record_applied(change, &applied);
    if !writes.write(tx).await? {
        return Err(StoreError::Unavailable("the row changed meanwhile".to_owned()));
    }
    Ok(applied)
}

/// The rows of these commands' jobs, in one statement; on PostgreSQL locked, without those that somebody else has locked.
pub(super) async fn job_rows<'a>(
    tx: &mut Tx,
    resources: impl Iterator<Item = &'a Resource>,
) -> Result<HashMap<Resource, Row>, StoreError> {
    let jobs = resources.filter(|resource| resource.kind == ResourceKind::Job);
    let values: Vec<Value> = jobs.flat_map(key_of).collect();
    if values.is_empty() {
        return Ok(HashMap::new());
    }
    let placeholders: Vec<String> =
        (1..values.len()).step_by(2).map(|n| format!("({}, {})", tx.placeholder(n), tx.placeholder(n + 1))).collect();
    let text = format!(
        "SELECT tenant_id, id, {} FROM jobs WHERE (tenant_id, id) IN (VALUES {}) {{skip}}",
        job_row(),
        placeholders.join(", ")
    );
    let mut found = HashMap::new();
    for row in tx.rows(&text, &values).await? {
        found.insert(rows::job_resource(&row)?, row);
    }
    Ok(found)
}

/// What a command looks at in a job's row, as columns and (`seen`) as one text.
fn job_row() -> String {
    format!(
        "status, origin, host, run, fence, paused_from, CAST(started_at AS TEXT) AS started_at, {ROW_AS_READ} AS seen"
    )
}

/// What a command looks at in a job's row, as one text. Whoever writes says what it has seen, and nothing is written
/// over what has changed since.
const ROW_AS_READ: &str = "status || '|' || origin || '|' || COALESCE(host, '') || '|' || run || '|' || fence || '|'
  || COALESCE(paused_from, '') || '|' || COALESCE(CAST(started_at AS TEXT), '')";

pub(super) fn key_of(resource: &Resource) -> [Value; 2] {
    [resource.tenant.as_str().into(), resource.id.as_str().into()]
}

pub(super) async fn row_of(tx: &mut Tx, resource: &Resource) -> Result<Option<Row>, StoreError> {
    let (table, columns) = match resource.kind {
        ResourceKind::Job => ("jobs", job_row()),
        ResourceKind::Campaign => (
            "campaigns",
            "status, fence, CAST(CASE WHEN is_active THEN 1 ELSE 0 END AS BIGINT) AS is_active".to_owned(),
        ),
    };
    let text = format!("SELECT {columns} FROM {table} WHERE tenant_id = $1 AND id = $2 {{lock}}");
    tx.row(&text, &key_of(resource)).await
}

/// What a command writes into a job's row, and what it has seen there.
pub(super) enum RowWrite {
    /// Nothing: the row is not the command's.
    Nothing,
    /// A command that changes nothing, and one that is refused, still makes older claims void.
    Fence(String),
    Move(JobStatus, String),
}

/// What a command does to a job, as its row stands.
pub(super) fn plan_write(change: &CommandChange, row: Option<&Row>) -> Result<(ApplyOutcome, RowWrite), StoreError> {
    let Some(row) = row else { return Ok((ApplyOutcome::Refused, RowWrite::Nothing)) };
    if row.int("fence")?.unwrap_or(0) > fence_of(change) {
        return Ok((ApplyOutcome::Stale, RowWrite::Nothing));
    }
    let status = rows::job_status(row)?;
    let host = host_of(row, &change.resource)?;
    if !status.is_final()
        && host != change.run
        && let Some(host) = &host
    {
        return Ok((ApplyOutcome::Hosted(host.clone()), RowWrite::Nothing));
    }
    let seen = row.required("seen")?;
    // A host's own command gets this far, and any command on a job without one.
    let control = Control::of(ResourceKind::Job, host.is_some());
    let succeeded =
        |status: JobStatus, changed| ApplyOutcome::Succeeded { status: status.as_str().to_owned(), changed, control };
    Ok(match transition::job_transition(status, change.action, status_before_pause(row, host.is_some())?) {
        Decision::Refuse => (ApplyOutcome::Refused, RowWrite::Fence(seen)),
        Decision::Unchanged => (succeeded(status, false), RowWrite::Fence(seen)),
        Decision::Move(to) => (succeeded(to, true), RowWrite::Move(to, seen)),
    })
}

/// What was decided for jobs, each of them here once, and what is to be noted of commands.
#[derive(Default)]
pub(super) struct RowWrites {
    fences: Vec<Vec<Value>>,
    moves: Vec<Vec<Value>>,
    notes: Vec<Vec<Value>>,
}

impl RowWrites {
    /// What was decided for a job.
    pub fn add(&mut self, change: &CommandChange, write: RowWrite) {
        let [tenant, id] = key_of(&change.resource);
        let fence = fence_of(change).into();
        match write {
            RowWrite::Nothing => {}
            RowWrite::Fence(seen) => self.fences.push(vec![tenant, id, seen.into(), fence]),
            RowWrite::Move(to, seen) => {
                self.moves.push(vec![tenant, id, seen.into(), fence, to.as_str().into(), change.user.as_str().into()]);
            }
        }
    }

    /// What a command did, if that is for good.
    pub fn record_applied(&mut self, change: &CommandChange, applied: &ApplyOutcome) {
        self.note(change, request_key(change), applied);
    }

    /// The same of one that did nothing, since its request had been carried out as another command.
    pub fn record_repeat(&mut self, change: &CommandChange, applied: &ApplyOutcome) {
        self.note(change, None, applied);
    }

    fn note(&mut self, change: &CommandChange, request: Option<String>, applied: &ApplyOutcome) {
        self.notes.extend(outcome_of(applied).map(|(outcome, control)| {
            let control = control.map(|control| control.as_str().to_owned());
            let command = change.command.to_string();
            vec![command.into(), outcome.into(), control.into(), request.into(), change.record.clone().into()]
        }));
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        self.fences.len() + self.moves.len() + self.notes.len()
    }

    /// `false`: a row is not as it was seen, or a command has been noted before; the caller takes back what was written.
    pub async fn write(&self, tx: &mut Tx) -> Result<bool, StoreError> {
        let as_seen = format!(
            ") AS given WHERE tenant_id = given.column1 AND id = given.column2 AND {ROW_AS_READ} = given.column3"
        );
        let fence = MultiRowInsert {
            before: "UPDATE jobs SET fence = given.column4 FROM (",
            row: "(?, ?, ?, ?)",
            after: &as_seen,
            rows: &self.fences,
        };
        let change = MultiRowInsert {
            before: "UPDATE jobs SET status = given.column5, fence = given.column4, updated_at = {now},
               paused_from = CASE WHEN given.column5 = 'paused' THEN status ELSE NULL END,
               host = CASE WHEN given.column5 = 'cancelled' THEN NULL ELSE host END,
               run_after = CASE WHEN given.column5 = 'cancelled' THEN NULL ELSE run_after END,
               cancelled_by = CASE WHEN given.column5 = 'cancelled' THEN given.column6 ELSE cancelled_by END,
               cancelled_at = CASE WHEN given.column5 = 'cancelled' THEN {now} ELSE cancelled_at END
             FROM (",
            row: "(?, ?, ?, ?, ?, ?)",
            after: &as_seen,
            rows: &self.moves,
        };
        let note = MultiRowInsert {
            before: "INSERT INTO applied_commands (command_id, outcome, control, request, record) ",
            row: "(?, ?, ?, ?, ?)",
            // Also where another command has the same request: then this one is applied by itself, which finds that out.
            after: " ON CONFLICT DO NOTHING",
            rows: &self.notes,
        };
        Ok(tx.execute_many(&[fence, change, note]).await? == self.len() as u64)
    }
}

/// Makes older claims on a campaign void.
pub(super) async fn raise_fence(tx: &mut Tx, change: &CommandChange) -> Result<(), StoreError> {
    let [tenant, id] = key_of(&change.resource);
    let text = "UPDATE campaigns SET fence = $3 WHERE tenant_id = $1 AND id = $2 AND fence < $3";
    tx.execute(text, &[tenant, id, fence_of(change).into()]).await.map(drop)
}

/// The fence that a change brings.
fn fence_of(change: &CommandChange) -> i64 {
    #[cfg(feature = "test-faults")]
    if crate::test_faults::fence_is_off() {
        return i64::MAX;
    }
    change.fence
}

fn host_of(row: &Row, job: &Resource) -> Result<Option<Run>, StoreError> {
    let Some(host) = row.text("host")? else { return Ok(None) };
    let host = host.parse().map_err(|_| StoreError::Refused(format!("job {job} has an unreadable host")))?;
    Ok(Some(Run { job: job.clone(), host, number: row.int("run")?.unwrap_or(0) }))
}

/// Where a resumed job goes back to. A queued job without a host needs a worker first.
fn status_before_pause(row: &Row, hosted: bool) -> Result<JobStatus, StoreError> {
    if row.text("origin")?.as_deref() == Some("queued") && !hosted {
        return Ok(JobStatus::Pending);
    }
    if hosted {
        return Ok(JobStatus::Running);
    }
    match row.text("paused_from")?.and_then(|word| JobStatus::parse(&word)) {
        Some(status @ (JobStatus::Pending | JobStatus::Running)) => Ok(status),
        _ if row.text("started_at")?.is_some() => Ok(JobStatus::Running),
        _ => Ok(JobStatus::Pending),
    }
}

async fn apply_to_campaign(tx: &mut Tx, change: &CommandChange, row: &Row) -> Result<ApplyOutcome, StoreError> {
    let (key, fence) = (key_of(&change.resource), fence_of(change));
    if row.int("fence")?.unwrap_or(0) > fence {
        return Ok(ApplyOutcome::Stale);
    }
    let status = rows::campaign_status(row)?;
    let to = match transition::campaign_transition(status, change.action) {
        Decision::Refuse => {
            raise_fence(tx, change).await?;
            return Ok(ApplyOutcome::Refused);
        }
        Decision::Move(to) => to,
        // A row put there by hand may say active and is_active = false: the command makes it one.
        Decision::Unchanged if (row.int("is_active")? == Some(1)) != (change.action == Action::Resume) => status,
        Decision::Unchanged => {
            raise_fence(tx, change).await?;
            return Ok(ApplyOutcome::Succeeded { status: status.as_str().to_owned(), changed: false, control: None });
        }
    };
    let active = if to == CampaignStatus::Active { "TRUE" } else { "FALSE" };
    let text = format!(
        "UPDATE campaigns SET status = $3, is_active = {active}, fence = $4, updated_at = {{now}},
           cancelled_by = CASE WHEN $3 = 'cancelled' THEN $5 ELSE cancelled_by END,
           cancelled_at = CASE WHEN $3 = 'cancelled' THEN {{now}} ELSE cancelled_at END
         WHERE tenant_id = $1 AND id = $2 AND fence <= $4"
    );
    tx.execute(&text, &[key[0].clone(), key[1].clone(), to.as_str().into(), fence.into(), change.user.as_str().into()])
        .await?;
    if to == CampaignStatus::Cancelled {
        // Those inside a worker are cancelled through it; nothing may start any more. That the others are cancelled is
        // said to those who watch them by whoever gets to it, however many they are: it is owed from here on.
        record_announcement(tx, &change.resource, AnnouncementKind::Jobs, 0).await?;
        cancel_jobs(tx, &change.resource, change.user.as_str()).await?;
    }
    Ok(ApplyOutcome::Succeeded { status: to.as_str().to_owned(), changed: true, control: None })
}

/// Rows of one statement of [`cancel_jobs`] on SQLite.
const CANCELLED_TOGETHER: u64 = 50;

/// Cancels the jobs of a campaign that no worker hosts.
async fn cancel_jobs(tx: &mut Tx, campaign: &Resource, user: &str) -> Result<(), StoreError> {
    let waiting = "tenant_id = $1 AND campaign_id = $2 AND host IS NULL AND status IN ('pending', 'running', 'paused')";
    // SQLite keeps in memory what a statement has overwritten until the statement ends, and a job may hold megabytes.
    let step = match tx {
        Tx::Sqlite(_) => format!("rowid IN (SELECT rowid FROM jobs WHERE {waiting} LIMIT {CANCELLED_TOGETHER})"),
        Tx::Postgres(_) => waiting.to_owned(),
    };
    let text = format!(
        "UPDATE jobs SET status = 'cancelled', cancelled_by = $3, cancelled_at = {{now}}, updated_at = {{now}},
           paused_from = NULL, run_after = NULL
         WHERE {step}"
    );
    let [tenant, id] = key_of(campaign);
    let values = [tenant, id, user.into()];
    while tx.execute(&text, &values).await? == CANCELLED_TOGETHER && matches!(tx, Tx::Sqlite(_)) {}
    Ok(())
}
