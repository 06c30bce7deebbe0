//! What a command changes: one guarded statement, once per command.

use std::collections::HashMap;

use super::sql::{Row, Tx, Value};
use super::{Applied, Change, Run, Store, StoreError, rows};
use crate::domain::transition::{self, Decision};
use crate::domain::{Action, CampaignStatus, CommandId, JobStatus, Resource, ResourceKind};

impl Store {
    /// Applies a command in one guarded transaction, once: the same command again gives the first outcome.
    pub async fn apply(&self, change: &Change) -> Result<Applied, StoreError> {
        self.batch.apply(change).await
    }

    /// Gives a command up, unless it has been applied (`true`): from now on no older claim of it can apply it any more.
    /// A look would not do: what a worker sent before it lost its claim may still be waiting for its turn.
    pub async fn give_up(&self, change: &Change) -> Result<bool, StoreError> {
        let _one = self.batch.few().one_of(change).await?;
        let mut tx = self.database.write().await?;
        // The row first, as in `apply_in`.
        row_of(&mut tx, &change.resource).await?;
        let applied = applied_before(&mut tx, &[change.command]).await?.contains_key(&change.command);
        if !applied {
            raise_fences(&mut tx, change.resource.kind, &[change]).await?;
        }
        tx.commit().await?;
        Ok(applied)
    }

    /// Jobs of a campaign that a worker still hosts (running, or paused inside it).
    pub async fn hosted_jobs(&self, campaign: &Resource) -> Result<Vec<Resource>, StoreError> {
        let found = self
            .database
            .read()
            .await?
            .rows(
                "SELECT id, tenant_id FROM jobs WHERE tenant_id = $1 AND campaign_id = $2 AND host IS NOT NULL
                   AND status IN ('pending', 'running', 'paused')",
                &[campaign.tenant.as_str().into(), campaign.id.as_str().into()],
            )
            .await?;
        Ok(found.iter().filter_map(|row| rows::readable(rows::job_resource(row))).collect())
    }
}

/// Where what a command did is noted, and one row of it for [`Tx::insert_many`].
pub(super) const NOTE: &str = "INSERT INTO applied_commands (command_id, outcome)";
pub(super) const NOTED: &str = "(?, ?)";

/// One row of [`NOTE`].
pub(super) fn note(command: CommandId, outcome: &str) -> Vec<Value> {
    vec![command.to_string().into(), outcome.into()]
}

/// What is noted of a command; `None`: it was not applied, and may be yet.
pub(super) fn outcome_of(applied: &Applied) -> Option<&str> {
    match applied {
        Applied::Succeeded { status, .. } => Some(status),
        Applied::Refused => Some(REFUSED),
        Applied::Hosted(_) | Applied::Stale => None,
    }
}

/// The inverse of [`outcome_of`], for a repeat.
pub(super) fn recorded(outcome: &str) -> Applied {
    match outcome {
        REFUSED => Applied::Refused,
        status => Applied::Succeeded { status: status.to_owned(), changed: false },
    }
}

const REFUSED: &str = "refused";

/// Those of these commands that were applied before, with what was noted.
pub(super) async fn applied_before(
    tx: &mut Tx,
    commands: &[CommandId],
) -> Result<HashMap<CommandId, String>, StoreError> {
    let values: Vec<Value> = commands.iter().map(|command| command.to_string().into()).collect();
    let places: Vec<_> = (1..=values.len()).map(|n| tx.place(n)).collect();
    let text = format!("SELECT command_id, outcome FROM applied_commands WHERE command_id IN ({})", places.join(", "));
    let mut known = HashMap::new();
    for row in tx.rows(&text, &values).await? {
        if let Ok(command) = row.needed("command_id")?.parse() {
            known.insert(command, row.needed("outcome")?);
        }
    }
    Ok(known)
}

/// Applies a command inside a transaction that the caller commits.
pub(super) async fn apply_in(tx: &mut Tx, change: &Change) -> Result<Applied, StoreError> {
    // The row first: while it is held nobody else can be applying the same command, so the look after it is sure.
    let row = row_of(tx, &change.resource).await?;
    if let Some(outcome) = applied_before(tx, &[change.command]).await?.get(&change.command) {
        return Ok(recorded(outcome));
    }
    let applied = change_row(tx, change, row.as_ref()).await?;
    if let Some(outcome) = outcome_of(&applied) {
        tx.insert_many(NOTE, NOTED, &[note(change.command, outcome)]).await?;
    }
    Ok(applied)
}

/// As [`apply_in`], for a command that is known not to have been applied; the caller notes it.
pub(super) async fn change_in(tx: &mut Tx, change: &Change) -> Result<Applied, StoreError> {
    let row = row_of(tx, &change.resource).await?;
    change_row(tx, change, row.as_ref()).await
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
    let places: Vec<String> =
        (1..values.len()).step_by(2).map(|n| format!("({}, {})", tx.place(n), tx.place(n + 1))).collect();
    let text = format!(
        "SELECT tenant_id, id, {JOB_ROW} FROM jobs WHERE (tenant_id, id) IN (VALUES {}) {{skip}}",
        places.join(", ")
    );
    let mut found = HashMap::new();
    for row in tx.rows(&text, &values).await? {
        found.insert(rows::job_resource(&row)?, row);
    }
    Ok(found)
}

/// What a command looks at in a job's row.
const JOB_ROW: &str = "status, origin, host, run, fence, paused_from, CAST(started_at AS TEXT) AS started_at";

fn key_of(resource: &Resource) -> [Value; 2] {
    [resource.tenant.as_str().into(), resource.id.as_str().into()]
}

async fn row_of(tx: &mut Tx, resource: &Resource) -> Result<Option<Row>, StoreError> {
    let (table, columns) = match resource.kind {
        ResourceKind::Job => ("jobs", JOB_ROW),
        ResourceKind::Campaign => {
            ("campaigns", "status, fence, CAST(CASE WHEN is_active THEN 1 ELSE 0 END AS BIGINT) AS is_active")
        }
    };
    let text = format!("SELECT {columns} FROM {table} WHERE tenant_id = $1 AND id = $2 {{lock}}");
    tx.row(&text, &key_of(resource)).await
}

async fn change_row(tx: &mut Tx, change: &Change, row: Option<&Row>) -> Result<Applied, StoreError> {
    match (change.resource.kind, row) {
        (ResourceKind::Job, row) => {
            let (applied, write) = decide(change, row)?;
            write_jobs(tx, &[(change, write)]).await?;
            Ok(applied)
        }
        (ResourceKind::Campaign, Some(row)) => apply_to_campaign(tx, change, row).await,
        (ResourceKind::Campaign, None) => Ok(Applied::Refused),
    }
}

/// What a command writes into a job's row.
#[derive(Clone, Copy)]
pub(super) enum Write {
    /// Nothing: the row is not the command's.
    Nothing,
    /// A command that changes nothing, and one that is refused, still makes older claims void.
    Fence,
    Move {
        from: JobStatus,
        to: JobStatus,
    },
}

/// What a command does to a job, as its row stands.
pub(super) fn decide(change: &Change, row: Option<&Row>) -> Result<(Applied, Write), StoreError> {
    let Some(row) = row else { return Ok((Applied::Refused, Write::Nothing)) };
    if row.int("fence")?.unwrap_or(0) > fence_of(change) {
        return Ok((Applied::Stale, Write::Nothing));
    }
    let status = rows::job_status(row)?;
    let host = host_of(row, &change.resource)?;
    if !status.is_final()
        && host != change.run
        && let Some(host) = &host
    {
        return Ok((Applied::Hosted(host.clone()), Write::Nothing));
    }
    Ok(match transition::job(status, change.action, before_pause(row, host.is_some())?) {
        Decision::Refuse => (Applied::Refused, Write::Fence),
        Decision::Unchanged => (Applied::Succeeded { status: status.word().to_owned(), changed: false }, Write::Fence),
        Decision::Move(to) => {
            (Applied::Succeeded { status: to.word().to_owned(), changed: true }, Write::Move { from: status, to })
        }
    })
}

/// Writes what was decided for jobs, each of them here once, in two statements for all.
pub(super) async fn write_jobs(tx: &mut Tx, decided: &[(&Change, Write)]) -> Result<(), StoreError> {
    let mut fences = Vec::new();
    let mut moves = Vec::new();
    for (change, write) in decided {
        match write {
            Write::Nothing => {}
            Write::Fence => fences.push(*change),
            Write::Move { from, to } => {
                let [tenant, id] = key_of(&change.resource);
                let (fence, user) = (fence_of(change).into(), change.user.as_str().into());
                moves.push(vec![tenant, id, to.word().into(), fence, user, from.word().into()]);
            }
        }
    }
    raise_fences(tx, ResourceKind::Job, &fences).await?;
    // The WHERE repeats what was read: whoever changed a row in between, this writes nothing over it.
    let changed = tx
        .execute_many(
            "UPDATE jobs SET status = given.column3, fence = given.column4, updated_at = {now},
               paused_from = CASE WHEN given.column3 = 'paused' THEN status ELSE NULL END,
               host = CASE WHEN given.column3 = 'cancelled' THEN NULL ELSE host END,
               run_after = CASE WHEN given.column3 = 'cancelled' THEN NULL ELSE run_after END,
               cancelled_by = CASE WHEN given.column3 = 'cancelled' THEN given.column5 ELSE cancelled_by END,
               cancelled_at = CASE WHEN given.column3 = 'cancelled' THEN {now} ELSE cancelled_at END
             FROM (VALUES ",
            "(?, ?, ?, ?, ?, ?)",
            ") AS given WHERE tenant_id = given.column1 AND id = given.column2 AND status = given.column6
               AND fence <= given.column4",
            &moves,
        )
        .await?;
    if changed < moves.len() as u64 {
        return Err(StoreError::Unavailable("the row changed meanwhile".to_owned()));
    }
    Ok(())
}

/// Makes older claims on these rows of one table void.
async fn raise_fences(tx: &mut Tx, kind: ResourceKind, changes: &[&Change]) -> Result<(), StoreError> {
    let table = match kind {
        ResourceKind::Job => "jobs",
        ResourceKind::Campaign => "campaigns",
    };
    let row = |change: &&Change| {
        let [tenant, id] = key_of(&change.resource);
        vec![tenant, id, fence_of(change).into()]
    };
    tx.execute_many(
        &format!("UPDATE {table} SET fence = given.column3 FROM (VALUES "),
        "(?, ?, ?)",
        ") AS given WHERE tenant_id = given.column1 AND id = given.column2 AND fence < given.column3",
        &changes.iter().map(row).collect::<Vec<_>>(),
    )
    .await
    .map(|_| ())
}

/// The fence that a change brings.
fn fence_of(change: &Change) -> i64 {
    #[cfg(feature = "test-faults")]
    if crate::faults::fence_is_off() {
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
fn before_pause(row: &Row, hosted: bool) -> Result<JobStatus, StoreError> {
    if row.text("origin")?.as_deref() == Some("queued") && !hosted {
        return Ok(JobStatus::Pending);
    }
    if hosted {
        return Ok(JobStatus::Running);
    }
    match row.text("paused_from")?.and_then(|word| JobStatus::from_word(&word)) {
        Some(status @ (JobStatus::Pending | JobStatus::Running)) => Ok(status),
        _ if row.text("started_at")?.is_some() => Ok(JobStatus::Running),
        _ => Ok(JobStatus::Pending),
    }
}

async fn apply_to_campaign(tx: &mut Tx, change: &Change, row: &Row) -> Result<Applied, StoreError> {
    let (key, fence) = (key_of(&change.resource), fence_of(change));
    if row.int("fence")?.unwrap_or(0) > fence {
        return Ok(Applied::Stale);
    }
    let status = rows::campaign_status(row)?;
    let to = match transition::campaign(status, change.action) {
        Decision::Refuse => {
            raise_fences(tx, ResourceKind::Campaign, &[change]).await?;
            return Ok(Applied::Refused);
        }
        Decision::Move(to) => to,
        // A row put there by hand may say active and is_active = false: the command makes it one.
        Decision::Unchanged if (row.int("is_active")? == Some(1)) != (change.action == Action::Resume) => status,
        Decision::Unchanged => {
            raise_fences(tx, ResourceKind::Campaign, &[change]).await?;
            return Ok(Applied::Succeeded { status: status.word().to_owned(), changed: false });
        }
    };
    let active = if to == CampaignStatus::Active { "TRUE" } else { "FALSE" };
    let text = format!(
        "UPDATE campaigns SET status = $3, is_active = {active}, fence = $4, updated_at = {{now}},
           cancelled_by = CASE WHEN $3 = 'cancelled' THEN $5 ELSE cancelled_by END,
           cancelled_at = CASE WHEN $3 = 'cancelled' THEN {{now}} ELSE cancelled_at END
         WHERE tenant_id = $1 AND id = $2 AND fence <= $4"
    );
    tx.execute(&text, &[key[0].clone(), key[1].clone(), to.word().into(), fence.into(), change.user.as_str().into()])
        .await?;
    if to == CampaignStatus::Cancelled {
        // Those inside a worker are cancelled through it; nothing may start any more.
        tx.execute(
            "UPDATE jobs SET status = 'cancelled', cancelled_by = $3, cancelled_at = {now}, updated_at = {now}, paused_from = NULL,
               run_after = NULL
             WHERE tenant_id = $1 AND campaign_id = $2 AND host IS NULL AND status IN ('pending', 'running', 'paused')",
            &[key[0].clone(), key[1].clone(), change.user.as_str().into()],
        )
        .await?;
    }
    Ok(Applied::Succeeded { status: to.word().to_owned(), changed: true })
}
