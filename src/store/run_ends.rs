//! Ends of runs, many to a transaction: each commit waits for the disk, and each statement for its answer.
//!
//! An end waits for no company (`batches.rs`), nor for a row that somebody else holds: on PostgreSQL such an end is written by
//! itself, beside the others.

use std::collections::{BTreeSet, HashMap, HashSet};

use futures_util::future::join_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::announcement_rows::{AnnouncementKind, INSERT, ONCE, announcement_rows, insert_announcements};
use super::database::Database;
use super::run_rows::{end_with_campaign, message_and_detail, owned_by_run, progress_values, retry_delay_ms};
use super::sql::{MultiRowInsert, Row, Tx, Value};
use super::{FinishOutcome, Run, RunEnd, StoreError, batches, rows};
use crate::domain::{Job, Progress, Resource, ResourceKind};

/// Most ends in one transaction: other writers get their turn after that.
const MAX_BATCH: usize = 128;
/// Ends that may wait. When it is full, whoever records an end waits for a place.
const QUEUE_CAPACITY: usize = 1_024;
/// Transactions at once. With two, each would have half as many ends, and cost nearly as much.
const AT_ONCE: usize = 1;
/// Ends that are written each by itself at once: the other connections are for others.
const MAX_ALONE: usize = 2;

type Answer = Result<FinishOutcome, StoreError>;

/// The end of one run, to be recorded.
#[derive(Clone)]
struct Ending {
    run: Run,
    progress: Progress,
    end: RunEnd,
    /// When, by the clock of the store.
    now: i64,
}

struct Waiting {
    ending: Ending,
    answer: oneshot::Sender<Answer>,
}

/// The way to the task that writes them.
pub(super) struct RunEnds {
    queue: mpsc::Sender<Waiting>,
    _tasks: TaskTracker,
    /// The last clone of the store stops it; nobody can be waiting for it then.
    _stop: DropGuard,
}

impl RunEnds {
    pub fn start(database: Database) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE_CAPACITY);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let write = move |waiting, lane| answer(database.clone(), waiting, lane);
        tasks.spawn(batches::run(waiting, (AT_ONCE, MAX_BATCH), tasks.clone(), stop.clone(), write));
        tasks.close();
        Self { queue, _tasks: tasks, _stop: stop.drop_guard() }
    }

    /// Writes the end of a run, at this time (Unix ms, by the clock of the store).
    pub async fn record(&self, run: &Run, progress: &Progress, end: &RunEnd, now: i64) -> Answer {
        let gone = || StoreError::Unavailable("the writer has stopped".to_owned());
        let ending = Ending { run: run.clone(), progress: progress.clone(), end: end.clone(), now };
        let (answer, answered) = oneshot::channel();
        self.queue.send(Waiting { ending, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

async fn answer(database: Database, waiting: Vec<Waiting>, lane: OwnedSemaphorePermit) {
    let endings: Vec<Ending> = waiting.iter().map(|waiting| waiting.ending.clone()).collect();
    let written = match database {
        Database::Postgres { .. } if !endings.iter().any(may_be_tried_again) => {
            write_in_one_statement(&database, &endings).await
        }
        _ => write(&database, &endings, true).await,
    };
    drop(lane);
    let mut alone = Vec::new();
    match written {
        Ok(outcomes) => {
            for (waiting, outcome) in waiting.into_iter().zip(outcomes) {
                match outcome {
                    // Whoever does not listen any more asks again, and finds the row changed.
                    Some(outcome) => drop(waiting.answer.send(Ok(outcome))),
                    None => alone.push(waiting),
                }
            }
        }
        // One of them failed: again, so that it fails alone.
        Err(_) => alone = waiting,
    }
    let places = Semaphore::new(MAX_ALONE);
    join_all(alone.into_iter().map(async |Waiting { ending, mut answer }| {
        let written = async {
            let _place = places.acquire().await;
            let outcome = write(&database, std::slice::from_ref(&ending), false).await?.pop().flatten();
            Ok(outcome.unwrap_or(FinishOutcome::Lost))
        };
        tokio::select! {
            written = written => drop(answer.send(written)),
            () = answer.closed() => {}
        }
    }))
    .await;
}

/// Whether nobody knows without its row what this end means for the job.
fn may_be_tried_again(ending: &Ending) -> bool {
    matches!(ending.end, RunEnd::Failed { permanent: false, .. })
}

/// Writes ends after which no job is tried again, each where nobody else holds its row, on PostgreSQL: with their announcements in one statement,
/// which it commits by itself. `None`: the row is held, or is not this run's any more, which whoever writes the end by itself finds out.
async fn write_in_one_statement(
    database: &Database,
    endings: &[Ending],
) -> Result<Vec<Option<FinishOutcome>>, StoreError> {
    let rows: Vec<Vec<Value>> = endings.iter().map(|ending| values_of(ending, None)).collect();
    let announced = AnnouncementKind::Status.as_str();
    let statement = MultiRowInsert {
        before: "WITH told AS (",
        row: ENDING,
        after: &format!(
            "), given AS MATERIALIZED (
               SELECT t.* FROM told t JOIN jobs j ON j.tenant_id = t.column1 AND j.id = t.column2 {{skip}}),
             ended AS ({END_RUN} FROM given WHERE {OWNED} AND {CAN_END} RETURNING {}),
             owed AS ({INSERT} SELECT tenant_id, '{}', id, '{announced}', run FROM ended {ONCE})
             SELECT * FROM ended",
            *rows::JOB,
            ResourceKind::Job.as_str()
        ),
        rows: &rows,
    };
    let mut tx = database.write_once().await?;
    let mut ended = HashMap::new();
    for row in tx.rows_of_many(&statement).await? {
        let key = (rows::job_resource(&row)?, row.int("run")?.unwrap_or(0));
        ended.insert(key, rows::skip_unreadable(rows::job(&row)));
    }
    tx.commit().await?;
    let outcome = |ending: &Ending| {
        // Who cannot read the row that is written has nothing to say of it.
        let row = ended.get(&(ending.run.job.clone(), ending.run.number))?;
        Some(row.clone().map_or(FinishOutcome::Lost, |job| done(job, &ending.end)))
    };
    Ok(endings.iter().map(outcome).collect())
}

/// The job as it is after this end.
fn done(mut job: Job, end: &RunEnd) -> FinishOutcome {
    if let RunEnd::Completed(result) = end {
        // Known here: it need not come back from the database.
        job.result = result.without_nul();
    }
    FinishOutcome::Done(Box::new(job))
}

/// Writes them in one transaction. `None`: nothing was done because somebody else holds the row or its campaign, where those
/// are to be passed over (`skip_held`).
async fn write(
    database: &Database,
    endings: &[Ending],
    skip_held: bool,
) -> Result<Vec<Option<FinishOutcome>>, StoreError> {
    let jobs = || endings.iter().map(|ending| &ending.run.job);
    let (mut tx, held, is_passed_over) = match database {
        // What is read of a row that belongs to a run stays so. Read beside the other writers: only who writes has to wait for them.
        Database::Sqlite { .. } => {
            let held = read_to_hold(&mut database.read().await?, jobs(), "").await?;
            (database.write().await?, held, false)
        }
        Database::Postgres { .. } => {
            let mut tx = database.write().await?;
            let held = if skip_held { hold_free(&mut tx, jobs()).await? } else { hold(&mut tx, jobs()).await? };
            (tx, held, skip_held)
        }
    };
    let to_write: Vec<(&Ending, Option<i64>)> =
        endings.iter().filter_map(|ending| Some((ending, retries_of(ending, held.get(&ending.run.job)?)))).collect();
    let mut written = record(&mut tx, &to_write).await?;
    let owed: Vec<(&Resource, i64)> = written.keys().map(|(job, run)| (job, *run)).collect();
    let owed = announcement_rows(&owed, AnnouncementKind::Status);
    let mut after: HashMap<(Resource, i64), Job> = HashMap::new();
    // Rows of which it is not known how they are then.
    let mut to_read: Vec<&Run> = Vec::new();
    for (Ending { run, .. }, retries) in &to_write {
        let key = (run.job.clone(), run.number);
        match written.remove(&key) {
            Some(_) if retries.is_some() && held.get(&run.job).is_some_and(|row| row.campaign.is_some()) => {
                end_with_campaign(&mut tx, &run.job).await?;
                to_read.push(run);
            }
            Some(Some(row)) => drop(after.insert(key, row)),
            None if after.contains_key(&key) => {} // It stands here twice.
            Some(None) => to_read.push(run),
            // It stands there already, where the answer to that was lost.
            None if is_recorded(&mut tx, run).await? => to_read.push(run),
            None => {}
        }
    }
    let keys = keys(to_read.iter().map(|run| (run.job.tenant.as_str(), run.job.id.as_str())));
    let read = MultiRowInsert {
        before: &format!("SELECT {} FROM jobs WHERE (tenant_id, id) IN (", *rows::JOB),
        row: "(?, ?)",
        after: ")",
        rows: &keys,
    };
    let mut found = HashMap::new();
    for row in tx.commit_with_rows(&[insert_announcements(&owed)], &read).await? {
        // It is written, whoever can read it: then the run is over, and its worker has nothing to say of the row.
        if let Some(job) = rows::skip_unreadable(rows::job(&row)) {
            found.insert(Resource::job(job.tenant_id.clone(), job.id.clone()), job);
        }
    }
    for run in to_read {
        if let Some(job) = found.get(&run.job) {
            after.insert((run.job.clone(), run.number), job.clone());
        }
    }
    let outcome = |Ending { run, end, .. }: &Ending| match after.get(&(run.job.clone(), run.number)) {
        Some(job) => Some(done(job.clone(), end)),
        None if is_passed_over && !held.contains_key(&run.job) => None,
        None => Some(FinishOutcome::Lost),
    };
    Ok(endings.iter().map(outcome).collect())
}

/// Keys as the values of a statement.
fn keys<'a>(keys: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<Vec<Value>> {
    keys.collect::<BTreeSet<_>>().into_iter().map(|(tenant, id)| vec![tenant.into(), id.into()]).collect()
}

/// What has to be known of a row before the end of its run is written.
struct HeldRow {
    campaign: Option<String>,
    max_retries: i64,
    retry_count: i64,
}

/// `lock`: how the rows are held.
async fn read_to_hold(
    tx: &mut Tx,
    jobs: impl Iterator<Item = &Resource>,
    lock: &str,
) -> Result<HashMap<Resource, HeldRow>, StoreError> {
    let text = MultiRowInsert {
        before: "SELECT tenant_id, id, campaign_id, CAST(max_retries AS BIGINT) AS max_retries,
             CAST(retry_count AS BIGINT) AS retry_count FROM jobs WHERE (tenant_id, id) IN (",
        row: "(?, ?)",
        after: &format!(") {lock}"),
        rows: &keys(jobs.map(|job| (job.tenant.as_str(), job.id.as_str()))),
    };
    let mut held = HashMap::new();
    for row in &tx.rows_of_many(&text).await? {
        let number = |column| Ok::<_, StoreError>(row.int(column)?.unwrap_or(0));
        let (max_retries, retry_count) = (number("max_retries")?, number("retry_count")?);
        held.insert(rows::job_resource(row)?, HeldRow { campaign: row.text("campaign_id")?, max_retries, retry_count });
    }
    Ok(held)
}

/// The keys of the campaigns of jobs.
fn campaigns_of(held: &HashMap<Resource, HeldRow>) -> Vec<Vec<Value>> {
    keys(held.iter().filter_map(|(job, row)| Some((job.tenant.as_str(), row.campaign.as_deref()?))))
}

/// Reads rows that nobody else holds, and whose campaigns nobody else holds, and holds both until the transaction ends. It waits
/// for nobody, so that it does not matter which of them comes first: what cannot be had is left out.
async fn hold_free(
    tx: &mut Tx,
    jobs: impl Iterator<Item = &Resource>,
) -> Result<HashMap<Resource, HeldRow>, StoreError> {
    let mut held = read_to_hold(tx, jobs, "{skip}").await?;
    let campaigns = campaigns_of(&held);
    let locked = campaign_keys(tx, &campaigns, "{share} SKIP LOCKED").await?;
    if locked.len() < campaigns.len() {
        // A campaign that is not there, where plain SQL has named one, holds nobody up.
        let there = campaign_keys(tx, &campaigns, "").await?;
        held.retain(|job, row| {
            let of = row.campaign.as_ref().map(|id| (job.tenant.to_string(), id.clone()));
            of.is_none_or(|of| locked.contains(&of) || !there.contains(&of))
        });
    }
    Ok(held)
}

/// Reads rows and holds their campaigns until the transaction ends. The campaign before its jobs, as everywhere, so that a cancel of
/// one comes before or after, not in the middle, and that no two wait for each other.
async fn hold(tx: &mut Tx, jobs: impl Iterator<Item = &Resource>) -> Result<HashMap<Resource, HeldRow>, StoreError> {
    let held = read_to_hold(tx, jobs, "").await?;
    campaign_keys(tx, &campaigns_of(&held), "ORDER BY tenant_id, id {share}").await?;
    Ok(held)
}

async fn campaign_keys(
    tx: &mut Tx,
    campaigns: &[Vec<Value>],
    lock: &str,
) -> Result<HashSet<(String, String)>, StoreError> {
    let text = MultiRowInsert {
        before: "SELECT tenant_id, id FROM campaigns WHERE (tenant_id, id) IN (",
        row: "(?, ?)",
        after: &format!(") {lock}"),
        rows: campaigns,
    };
    let found = tx.rows_of_many(&text).await?;
    found.iter().map(|row| Ok((row.required("tenant_id")?, row.required("id")?))).collect()
}

/// How often the job was tried again before, where this is a failure that is no end, since retries are left. The run has its row to
/// itself, so what was read of that still holds.
fn retries_of(ending: &Ending, row: &HeldRow) -> Option<i64> {
    (may_be_tried_again(ending) && row.retry_count < row.max_retries).then_some(row.retry_count)
}

/// Whether the end of this run is the newest that the row knows, and no other run has begun since.
async fn is_recorded(tx: &mut Tx, run: &Run) -> Result<bool, StoreError> {
    let text = "SELECT id FROM jobs WHERE tenant_id = $1 AND id = $2 AND run = $3 AND ended_run = $3";
    let values = [run.job.tenant.as_str().into(), run.job.id.as_str().into(), run.number.into()];
    Ok(tx.row(text, &values).await?.is_some())
}

/// The row is still this run's; only the key may choose it (see `OWNED_BY_RUN`).
const OWNED: &str =
    "tenant_id = given.column1 AND id = given.column2 AND COALESCE(host, '') = given.column3 AND run = given.column4";

/// Writes the end that `given` says, which has the columns of an [`ENDING`].
const END_RUN: &str = "UPDATE jobs SET progress_percent = given.column5, items_total = given.column6, items_processed = given.column7,
    items_succeeded = given.column8, items_failed = given.column9, current_item = given.column10, status = given.column11,
    result = given.column12, error_message = given.column13, run_after = given.column14, error_detail = given.column16,
    retry_count = retry_count + given.column15, host = NULL, ended_run = given.column4, contact_lost_at = NULL,
    updated_at = {now}, remote_session = CASE WHEN given.column15 = 1 THEN NULL ELSE remote_session END,
    timeout_used_ms = CASE WHEN given.column15 = 1 THEN 0 ELSE timeout_used_ms END,
    cancelled_by = COALESCE(given.column17, cancelled_by),
    cancelled_at = CASE WHEN given.column11 = 'cancelled' THEN {now} ELSE NULL END,
    completed_at = CASE WHEN given.column11 IN ('completed', 'failed') THEN {now} ELSE NULL END";
/// What [`values_of`] an end are.
const ENDING: &str = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, {json:?}, ?, ?, ?, ?, ?)";
/// Only a running job can end otherwise than by its cancel.
const CAN_END: &str = "((status || '') = 'running' OR ((status || '') = 'paused' AND given.column11 = 'cancelled'))";

/// Writes ends in one statement, each with its retries before where the job is tried again, and returns the runs whose rows were
/// still theirs, and running: each with its row as it is then, where the database says that (SQLite returns rows as they were before its
/// triggers).
async fn record(
    tx: &mut Tx,
    endings: &[(&Ending, Option<i64>)],
) -> Result<HashMap<(Resource, i64), Option<Job>>, StoreError> {
    let returns_rows = matches!(tx, Tx::Postgres(_));
    let returned = if returns_rows { &*rows::JOB } else { "tenant_id, id, run" };
    let failed = endings.iter().filter(|(ending, _)| matches!(ending.end, RunEnd::Failed { .. }));
    // A foreign process may die while its job is paused. Nobody can make it go on, and only a running job can fail.
    let go_on = MultiRowInsert {
        before: "UPDATE jobs SET status = 'running', paused_from = NULL FROM (",
        row: "(?, ?, ?, ?)",
        after: &format!(") AS given WHERE {OWNED} AND (status || '') = 'paused' AND remote_session IS NOT NULL"),
        rows: &failed.map(|(ending, _)| owned_by_run(&ending.run)).collect::<Vec<_>>(),
    };
    let end = MultiRowInsert {
        before: &format!("{END_RUN} FROM ("),
        row: ENDING,
        after: &format!(") AS given WHERE {OWNED} AND {CAN_END} RETURNING {returned}"),
        rows: &endings.iter().map(|(ending, retries)| values_of(ending, *retries)).collect::<Vec<_>>(),
    };
    tx.execute_many(&[go_on]).await?;
    let written = tx.rows_of_many(&end).await?;
    let row_after = |row: &Row| if returns_rows { rows::skip_unreadable(rows::job(row)) } else { None };
    let known = |row: &Row| Ok(((rows::job_resource(row)?, row.int("run")?.unwrap_or(0)), row_after(row)));
    written.iter().map(known).collect()
}

fn values_of(Ending { run, progress, end, now }: &Ending, retries: Option<i64>) -> Vec<Value> {
    let mut values = owned_by_run(run);
    progress_values(&mut values, progress);
    let (status, result, error) = match end {
        RunEnd::Completed(result) => ("completed", Value::json(result), None),
        RunEnd::Failed { error, .. } if retries.is_some() => ("pending", Value::Text(None), Some(error)),
        RunEnd::Failed { error, .. } => ("failed", Value::Text(None), Some(error)),
        RunEnd::Cancelled { .. } => ("cancelled", Value::Text(None), None),
    };
    let cancelled_by = match end {
        RunEnd::Cancelled { by } => Some(by.clone()),
        _ => None,
    };
    let (message, detail) = error.map(message_and_detail).unzip();
    values.extend([
        status.into(),
        result,
        message.into(),
        retries.map(|retries| now + retry_delay_ms(retries)).into(),
        i64::from(retries.is_some()).into(),
        detail.flatten().into(),
        cancelled_by.into(),
    ]);
    values
}
