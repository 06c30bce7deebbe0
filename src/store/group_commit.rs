//! Commands, many to a transaction: each commit waits for the disk, and SQLite has one writer.
//!
//! What commands need to know is read first, on SQLite beside whoever writes; what they write says what it has seen, and
//! where that is no longer so, they are applied again one by one.
//!
//! No command waits for company: a transaction takes what has gathered while the one before it was committed. Nor for
//! a row that somebody else holds: on PostgreSQL such a command is applied by itself, beside the others, and however
//! many there are, they leave connections to the others.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::applied::applied_before;
use super::command_rows::{RowWrites, apply_in, job_rows, plan_write};
use super::database::Database;
use super::sql::{Row, Tx};
use super::{ApplyOutcome, CommandChange, StoreError, batches};
use crate::domain::{CommandId, ResourceKind};

/// Most changes in one transaction: other writers get their turn after that.
const MAX_GROUP_SIZE: usize = 256;
/// Changes that may wait. When it is full, callers wait for a place: each of them is a claimed command whose
/// worker has nothing better to do, and the number of those is bounded by the workers' own limits.
const QUEUE_CAPACITY: usize = 1_024;
/// Transactions at once on PostgreSQL: one is put together while the other waits for the disk.
const MAX_GROUPS: usize = 2;
/// Longest that a job's command to be applied by itself waits for others like it; then it is worth trying again later.
const MAX_LOCK_WAIT: Duration = Duration::from_millis(1_000);

type Answer = Result<ApplyOutcome, StoreError>;

struct Waiting {
    change: CommandChange,
    answer: oneshot::Sender<Answer>,
}

/// The way to the task that applies them.
pub(super) struct GroupCommit {
    queue: mpsc::Sender<Waiting>,
    limiter: LockWaitLimiter,
    _tasks: TaskTracker,
    /// The last clone of the store stops the first of them; nobody can be waiting for it then.
    _stop: DropGuard,
}

impl GroupCommit {
    pub fn start(database: Database) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE_CAPACITY);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let limiter = LockWaitLimiter(Arc::new(Semaphore::new((database.connections() as usize / 2).max(1))));
        let lanes = match database {
            Database::Sqlite { .. } => 1,
            Database::Postgres { .. } => MAX_GROUPS,
        };
        let waits = limiter.clone();
        let apply = move |waiting, lane| answer(database.clone(), waiting, lane, waits.clone());
        tasks.spawn(batches::run(waiting, (lanes, MAX_GROUP_SIZE), tasks.clone(), stop.clone(), apply));
        tasks.close();
        Self { queue, limiter, _tasks: tasks, _stop: stop.drop_guard() }
    }

    /// For whoever else is to wait for the row of a command.
    pub fn limiter(&self) -> &LockWaitLimiter {
        &self.limiter
    }

    pub async fn apply(&self, change: &CommandChange) -> Answer {
        let gone = || StoreError::Unavailable("the writer has stopped".to_owned());
        let (answer, answered) = oneshot::channel();
        self.queue.send(Waiting { change: change.clone(), answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

/// Those that may wait for held rows at once: each does as long as the database lets it, on a connection of its own.
/// Half of the connections are for others.
#[derive(Clone)]
pub(super) struct LockWaitLimiter(Arc<Semaphore>);

impl LockWaitLimiter {
    /// A campaign is not counted: it is by itself because it is large.
    pub async fn acquire_for(&self, change: &CommandChange) -> Result<Option<SemaphorePermit<'_>>, StoreError> {
        if change.resource.kind == ResourceKind::Campaign {
            return Ok(None);
        }
        let late = |_| StoreError::Unavailable("too many rows are held by others".to_owned());
        Ok(tokio::time::timeout(MAX_LOCK_WAIT, self.0.acquire()).await.map_err(late)?.ok())
    }
}

async fn answer(database: Database, mut waiting: Vec<Waiting>, lane: OwnedSemaphorePermit, limiter: LockWaitLimiter) {
    // Whoever has stopped waiting will come again (a command is delivered until it is answered).
    waiting.retain(|w| !w.answer.is_closed());
    let answers = apply_group(&database, &waiting).await;
    drop(lane);
    let mut rest = Vec::new();
    for (n, w) in waiting.into_iter().enumerate() {
        // Somebody who no longer listens learns it when the command is delivered again: it is recorded.
        match &answers {
            Ok(each) => match &each[n] {
                Some(answer) => drop(w.answer.send(answer.clone())),
                None => rest.push(w),
            },
            Err(error) => drop(w.answer.send(Err(error.clone()))),
        }
    }
    join_all(rest.into_iter().map(async |Waiting { change, mut answer }| {
        tokio::select! {
            applied = apply_individually(&database, &limiter, &change) => drop(answer.send(applied)),
            // It waits for a row or a server; the connection is of more use to others.
            () = answer.closed() => {}
        }
    }))
    .await;
}

/// One answer for each, or one error for all: then nothing of it has been kept. `None`: it has to be applied by itself.
async fn apply_group(database: &Database, waiting: &[Waiting]) -> Result<Vec<Option<Answer>>, StoreError> {
    match database {
        _ if waiting.is_empty() => Ok(Vec::new()),
        Database::Sqlite { .. } => apply_group_on_sqlite(database, waiting).await,
        Database::Postgres { .. } => apply_group_on_postgres(database, waiting).await,
    }
}

async fn apply_group_on_sqlite(database: &Database, waiting: &[Waiting]) -> Result<Vec<Option<Answer>>, StoreError> {
    // Read beside the other writers: only who writes has to wait for them.
    let plan = Plan::of(waiting, &mut database.read().await?).await?;
    // A campaign has a transaction of its own: a savepoint would keep in memory all that its jobs held before.
    let is_campaign = |w: &Waiting| w.change.resource.kind == ResourceKind::Campaign;
    if plan.writes.is_empty() && waiting.iter().zip(&plan.answers).all(|(w, known)| known.is_some() || is_campaign(w)) {
        return Ok(plan.answers());
    }
    let mut tx = database.write().await?;
    let mut answers = match plan.execute(&mut tx).await {
        Ok(Some(answers)) => answers,
        Err(error) if waiting.len() == 1 || error.is_transient() => return Err(error),
        // One of them failed, or a row has changed since it was read: again, each for itself.
        Ok(None) | Err(_) => {
            tx.rollback().await?;
            tx = database.write().await?;
            waiting.iter().map(|_| None).collect()
        }
    };
    let others = waiting.iter().zip(&mut answers).filter(|(w, answer)| answer.is_none() && !is_campaign(w));
    for (w, answer) in others {
        match apply_in_savepoint(&mut tx, &w.change).await {
            Ok(applied) => *answer = Some(applied),
            Err(error) if error.is_transient() => return Err(error),
            // It took the whole transaction back (a trigger may say ROLLBACK), and theirs with it: each in one of its own.
            Err(_) => return Ok(waiting.iter().map(|_| None).collect()),
        }
    }
    tx.commit().await?;
    Ok(answers)
}

async fn apply_group_on_postgres(database: &Database, waiting: &[Waiting]) -> Result<Vec<Option<Answer>>, StoreError> {
    let mut tx = database.write().await?;
    match Plan::of(waiting, &mut tx).await?.execute(&mut tx).await {
        Ok(Some(answers)) => {
            tx.commit().await?;
            Ok(answers)
        }
        Err(error) if waiting.len() == 1 => Err(error),
        // One of them failed: again, so that it fails alone.
        Ok(None) | Err(_) => Ok(waiting.iter().map(|_| None).collect()),
    }
}

/// In a transaction of its own.
async fn apply_individually(database: &Database, limiter: &LockWaitLimiter, change: &CommandChange) -> Answer {
    let _one = limiter.acquire_for(change).await?;
    let mut tx = database.write().await?;
    let applied = apply_in(&mut tx, change).await?;
    tx.commit().await?;
    Ok(applied)
}

/// What is to be written, and then answered.
#[derive(Default)]
struct Plan {
    writes: RowWrites,
    /// `None`: not planned, it has to be applied by itself.
    answers: Vec<Option<ApplyOutcome>>,
}

impl Plan {
    /// Reads what all of them need to know, and decides. By itself goes whatever is no single row that is free and can
    /// be read: a campaign, a second command for a job, and on PostgreSQL a row that somebody else holds, or that is
    /// not there.
    async fn of(waiting: &[Waiting], tx: &mut Tx) -> Result<Self, StoreError> {
        // The rows first: where they are locked, nobody else can be applying these commands, and the look after it is
        // sure.
        let rows = job_rows(tx, waiting.iter().map(|w| &w.change.resource)).await?;
        let commands: Vec<CommandId> = waiting.iter().map(|w| w.change.command).collect();
        let known = applied_before(tx, &commands).await?;
        let may_be_held = matches!(tx, Tx::Postgres(_));
        let mut seen = HashSet::new();
        let mut plan = Self::default();
        for Waiting { change, .. } in waiting {
            let row = rows.get(&change.resource);
            let is_campaign = change.resource.kind == ResourceKind::Campaign;
            let alone = is_campaign || (may_be_held && row.is_none()) || !seen.insert(&change.resource);
            let answer = match known.get(&change.command) {
                _ if alone => None,
                Some(noted) => Some(noted.applied()),
                None => plan.add(change, row),
            };
            plan.answers.push(answer);
        }
        Ok(plan)
    }

    fn add(&mut self, change: &CommandChange, row: Option<&Row>) -> Option<ApplyOutcome> {
        let (answer, write) = plan_write(change, row).ok()?;
        self.writes.add(change, write);
        self.writes.record_applied(change, &answer);
        Some(answer)
    }

    fn answers(self) -> Vec<Option<Answer>> {
        self.answers.into_iter().map(|answer| answer.map(Ok)).collect()
    }

    /// `None`: something is not as it was read; what has been written so far is to be taken back.
    async fn execute(self, tx: &mut Tx) -> Result<Option<Vec<Option<Answer>>>, StoreError> {
        Ok(self.writes.write(tx).await?.then(|| self.answers()))
    }
}

/// Applies one change so that its failure takes back its own writes and nobody else's. The outer error is of the
/// transaction itself (SQLite ends it on a full disk, for one).
async fn apply_in_savepoint(tx: &mut Tx, change: &CommandChange) -> Result<Answer, StoreError> {
    tx.execute("SAVEPOINT one_change", &[]).await?;
    let answer = apply_in(tx, change).await;
    if answer.is_err() {
        tx.execute("ROLLBACK TO one_change", &[]).await?;
    }
    tx.execute("RELEASE one_change", &[]).await?;
    Ok(answer)
}
