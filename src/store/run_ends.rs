//! Ends of runs, many to a transaction: each commit waits for the disk, and each statement for its answer.
//!
//! An end waits for no company (`batches.rs`), nor for a row that somebody else holds: on PostgreSQL such an end is written by
//! itself, beside the others.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures_util::future::join_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::announcement_rows::{AnnouncementKind, record_announcements};
use super::database::Database;
use super::run_rows::{
    OWNED_BY_RUN, PROGRESS, end_with_campaign, message_and_detail, owned_by_run, progress_values, retry_delay_ms,
};
use super::sql::{Tx, Value};
use super::{FinishOutcome, Run, RunEnd, StoreError, batches, rows};
use crate::domain::{Job, Progress, Resource, TenantId};

/// Most ends in one transaction: other writers get their turn after that.
const MAX_BATCH: usize = 128;
/// Ends that may wait. When it is full, whoever records an end waits for a place.
const QUEUE_CAPACITY: usize = 1_024;
/// Transactions at once on PostgreSQL: one is put together while the other waits for the disk.
const MAX_BATCHES: usize = 2;
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
        let lanes = match database {
            Database::Sqlite { .. } => 1,
            Database::Postgres { .. } => MAX_BATCHES,
        };
        let write = move |waiting, lane| answer(database.clone(), waiting, lane);
        tasks.spawn(batches::run(waiting, (lanes, MAX_BATCH), tasks.clone(), stop.clone(), write));
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
    let written = write(&database, &endings, true).await;
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

/// Writes them in one transaction. `None`: nothing was done because somebody else holds the row or its campaign, where those
/// are to be passed over (`skip_held`).
async fn write(
    database: &Database,
    endings: &[Ending],
    skip_held: bool,
) -> Result<Vec<Option<FinishOutcome>>, StoreError> {
    let mut tx = database.write().await?;
    let before = read(&mut tx, endings.iter().map(|ending| &ending.run.job)).await?;
    let held = hold(&mut tx, &before, skip_held).await?;
    let (mut outcomes, mut owed, mut again) = (Vec::with_capacity(endings.len()), Vec::new(), Vec::new());
    let mut done = Vec::with_capacity(endings.len());
    for ending in endings {
        let job = &ending.run.job;
        let outcome = match before.get(job) {
            Some(_) if !held.contains(job) => None,
            Some(row) if record(&mut tx, ending, row).await? => {
                owed.push((job, ending.run.number));
                done.push(job);
                if may_be_tried_again(ending, row) {
                    again.push(job);
                }
                // Replaced below by the row as it is then.
                Some(FinishOutcome::Done(Box::new(row.clone())))
            }
            // It stands there already: the answer to that was lost.
            Some(row) if is_recorded(&mut tx, &ending.run).await? => {
                done.push(job);
                Some(FinishOutcome::Done(Box::new(row.clone())))
            }
            Some(_) | None => Some(FinishOutcome::Lost),
        };
        outcomes.push(outcome);
    }
    for job in again {
        end_with_campaign(&mut tx, job).await?;
    }
    record_announcements(&mut tx, &owed, AnnouncementKind::Status).await?;
    let mut after = read(&mut tx, done.into_iter()).await?;
    tx.commit().await?;
    for (ending, outcome) in endings.iter().zip(&mut outcomes) {
        if let Some(FinishOutcome::Done(_)) = outcome {
            *outcome = Some(after.remove(&ending.run.job).map_or(FinishOutcome::Lost, |mut job| {
                if let RunEnd::Completed(result) = &ending.end {
                    // Known here: it need not come back from the database.
                    job.result = result.without_nul();
                }
                FinishOutcome::Done(Box::new(job))
            }));
        }
    }
    Ok(outcomes)
}

fn by_tenant<'a>(resources: impl Iterator<Item = (&'a TenantId, &'a str)>) -> BTreeMap<&'a TenantId, Vec<&'a str>> {
    let mut all: BTreeMap<&TenantId, Vec<&str>> = BTreeMap::new();
    for (tenant, id) in resources {
        all.entry(tenant).or_default().push(id);
    }
    for ids in all.values_mut() {
        ids.sort_unstable();
        ids.dedup();
    }
    all
}

/// `tenant_id = $1 AND id IN (…)`, with its values.
fn named(tenant: &TenantId, ids: &[&str]) -> (String, Vec<Value>) {
    let mut values: Vec<Value> = vec![tenant.as_str().into()];
    values.extend(ids.iter().map(|id| Value::from(*id)));
    let places = (2..=values.len()).map(|n| format!("${n}")).collect::<Vec<_>>().join(", ");
    (format!("tenant_id = $1 AND id IN ({places})"), values)
}

/// The rows of jobs, without their contents.
async fn read(tx: &mut Tx, jobs: impl Iterator<Item = &Resource>) -> Result<HashMap<Resource, Job>, StoreError> {
    let mut found = HashMap::new();
    for (tenant, ids) in by_tenant(jobs.map(|job| (&job.tenant, job.id.as_str()))) {
        let (only, values) = named(tenant, &ids);
        for row in &tx.rows(&format!("SELECT {} FROM jobs WHERE {only}", *rows::JOB), &values).await? {
            let job = rows::job(row)?;
            found.insert(Resource::job(job.tenant_id.clone(), job.id.clone()), job);
        }
    }
    Ok(found)
}

/// Holds the rows until the transaction ends, and returns which those are. Their campaigns before them, as everywhere, so that
/// a cancel of one comes before or after, not in the middle, and that no two wait for each other. SQLite has one writer: it
/// holds everything already.
async fn hold(tx: &mut Tx, before: &HashMap<Resource, Job>, skip_held: bool) -> Result<HashSet<Resource>, StoreError> {
    let mut held: HashSet<Resource> = before.keys().cloned().collect();
    if matches!(tx, Tx::Sqlite(_)) {
        return Ok(held);
    }
    let skip = if skip_held { " SKIP LOCKED" } else { "" };
    let campaigns = before.values().filter_map(|job| Some((&job.tenant_id, job.campaign_id.as_ref()?.as_str())));
    for (tenant, ids) in by_tenant(campaigns) {
        let (only, values) = named(tenant, &ids);
        let there = ids_of(tx, &format!("SELECT id FROM campaigns WHERE {only}"), &values).await?;
        let text = format!("SELECT id FROM campaigns WHERE {only} ORDER BY id FOR SHARE{skip}");
        let locked = ids_of(tx, &text, &values).await?;
        // A campaign that is not there, where plain SQL has named one, holds nobody up.
        let is_free = |id: &str| locked.iter().any(|locked| locked == id) || !there.iter().any(|there| there == id);
        held.retain(|job| {
            let campaign = before.get(job).and_then(|row| row.campaign_id.as_ref());
            job.tenant != *tenant || campaign.is_none_or(|campaign| is_free(campaign.as_str()))
        });
    }
    if skip_held {
        let mut free = HashSet::new();
        for (tenant, ids) in by_tenant(held.iter().map(|job| (&job.tenant, job.id.as_str()))) {
            let (only, values) = named(tenant, &ids);
            let text = format!("SELECT id FROM jobs WHERE {only} ORDER BY id FOR UPDATE SKIP LOCKED");
            for id in ids_of(tx, &text, &values).await? {
                if let Ok(id) = id.parse() {
                    free.insert(Resource::job(tenant.clone(), id));
                }
            }
        }
        held = free;
    }
    Ok(held)
}

async fn ids_of(tx: &mut Tx, text: &str, values: &[Value]) -> Result<Vec<String>, StoreError> {
    tx.rows(text, values).await?.iter().map(|row| row.required("id")).collect()
}

/// A failure that is no end: retries are left. The run has its row to itself, so what was read of that still holds.
fn may_be_tried_again(ending: &Ending, row: &Job) -> bool {
    matches!(ending.end, RunEnd::Failed { permanent: false, .. }) && row.retry_count < row.max_retries
}

/// Whether the end of this run is the newest that the row knows, and no other run has begun since.
async fn is_recorded(tx: &mut Tx, run: &Run) -> Result<bool, StoreError> {
    let text = "SELECT id FROM jobs WHERE tenant_id = $1 AND id = $2 AND run = $3 AND ended_run = $3";
    let values = [run.job.tenant.as_str().into(), run.job.id.as_str().into(), run.number.into()];
    Ok(tx.row(text, &values).await?.is_some())
}

/// Writes one end; `false`: the row is not this run's any more, or is not running.
async fn record(tx: &mut Tx, ending: &Ending, row: &Job) -> Result<bool, StoreError> {
    let Ending { run, progress, end, now } = ending;
    if matches!(end, RunEnd::Failed { .. }) {
        // A foreign process may die while its job is paused. Nobody can make it go on, and only a running job can fail.
        let text = format!(
            "UPDATE jobs SET status = 'running', paused_from = NULL
             WHERE {OWNED_BY_RUN} AND (status || '') = 'paused' AND remote_session IS NOT NULL"
        );
        tx.execute(&text, &owned_by_run(run)).await?;
    }
    let mut values = owned_by_run(run);
    progress_values(&mut values, progress);
    let again = may_be_tried_again(ending, row);
    let (status, result, error) = match end {
        RunEnd::Completed(result) => ("completed", Value::json(result), None),
        RunEnd::Failed { error, .. } if again => ("pending", Value::Text(None), Some(error)),
        RunEnd::Failed { error, .. } => ("failed", Value::Text(None), Some(error)),
        RunEnd::Cancelled { .. } => ("cancelled", Value::Text(None), None),
    };
    let cancelled_by = match end {
        RunEnd::Cancelled { by } => Some(by.clone()),
        _ => None,
    };
    let (message, detail) = error.map(message_and_detail).unzip();
    let run_after = again.then(|| now + retry_delay_ms(row.retry_count));
    values.extend([
        status.into(),
        result,
        message.into(),
        run_after.into(),
        i64::from(again).into(),
        detail.flatten().into(),
        cancelled_by.into(),
    ]);
    let text = format!(
        "UPDATE jobs SET {PROGRESS}, status = $11, result = {{json:$12}}, error_message = $13, run_after = $14,
           error_detail = $16, retry_count = retry_count + $15, host = NULL, ended_run = $4, contact_lost_at = NULL, updated_at = {{now}},
           remote_session = CASE WHEN $15 = 1 THEN NULL ELSE remote_session END,
           timeout_used_ms = CASE WHEN $15 = 1 THEN 0 ELSE timeout_used_ms END,
           cancelled_by = COALESCE($17, cancelled_by), cancelled_at = CASE WHEN $11 = 'cancelled' THEN {{now}} ELSE NULL END,
           completed_at = CASE WHEN $11 IN ('completed', 'failed') THEN {{now}} ELSE NULL END
         WHERE {OWNED_BY_RUN} AND ((status || '') = 'running' OR ((status || '') = 'paused' AND $11 = 'cancelled'))"
    );
    Ok(tx.execute(&text, &values).await? > 0)
}
