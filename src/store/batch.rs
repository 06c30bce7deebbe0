//! Commands for SQLite, many to a transaction: each commit waits for the disk, and there is one writer.
//!
//! No command waits for company: a transaction takes what has gathered while the one before it was committed.

use std::collections::HashSet;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::commands::{NOTE, NOTED, applied_before, apply_in, change_in, job_rows, note, outcome_of, recorded};
use super::database::Database;
use super::sql::Tx;
use super::{Applied, Change, StoreError};
use crate::domain::CommandId;

/// Most changes in one transaction: other writers get their turn after that.
const MOST: usize = 256;
/// Changes that may wait. When it is full, callers wait for a place: each of them is a claimed command whose
/// worker has nothing better to do, and the number of those is bounded by the workers' own limits.
const QUEUE: usize = 1_024;

type Answer = Result<Applied, StoreError>;

struct Waiting {
    change: Change,
    answer: oneshot::Sender<Answer>,
}

/// The way to the one task that applies them.
pub(super) struct Batch {
    queue: mpsc::Sender<Waiting>,
    _task: TaskTracker,
    /// The last clone of the store stops the task; nobody can be waiting for it then.
    _stop: DropGuard,
}

impl Batch {
    pub fn start(database: Database) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let (task, stop) = (TaskTracker::new(), CancellationToken::new());
        task.spawn(work(database, waiting, stop.clone()));
        task.close();
        Self { queue, _task: task, _stop: stop.drop_guard() }
    }

    pub async fn apply(&self, change: &Change) -> Answer {
        let gone = || StoreError::Unavailable("the writer has stopped".to_owned());
        let (answer, answered) = oneshot::channel();
        self.queue.send(Waiting { change: change.clone(), answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

async fn work(database: Database, mut queue: mpsc::Receiver<Waiting>, stop: CancellationToken) {
    let mut waiting = Vec::new();
    loop {
        let taken = tokio::select! {
            () = stop.cancelled() => return,
            taken = queue.recv_many(&mut waiting, MOST) => taken,
        };
        if taken == 0 {
            return;
        }
        // Whoever has stopped waiting will come again (a command is delivered until it is answered).
        waiting.retain(|w| !w.answer.is_closed());
        let answers = together(&database, &waiting).await;

        for (n, w) in waiting.drain(..).enumerate() {
            // Somebody who no longer listens learns it when the command is delivered again: it is recorded.
            let _ = w.answer.send(match &answers {
                Ok(each) => each[n].clone(),
                Err(error) => Err(error.clone()),
            });
        }
    }
}

/// One answer for each, or one error for all: then nothing of it has been kept.
async fn together(database: &Database, waiting: &[Waiting]) -> Result<Vec<Answer>, StoreError> {
    if waiting.is_empty() {
        return Ok(Vec::new());
    }
    let mut tx = database.write().await?;
    match at_once(&mut tx, waiting).await {
        Ok(answers) => {
            tx.commit().await?;
            return Ok(answers.into_iter().map(Ok).collect());
        }
        Err(error) if waiting.len() == 1 => return Err(error),
        Err(_) => tx.rollback().await?,
    }
    // One of them failed: again, so that it fails alone.
    let mut tx = database.write().await?;
    let mut answers = Vec::with_capacity(waiting.len());
    for w in waiting {
        answers.push(apart(&mut tx, &w.change).await?);
    }
    tx.commit().await?;
    Ok(answers)
}

/// All of them, or an error. What was applied before is looked up, and what is applied now noted, in one statement for
/// all: each statement is a trip to SQLite's thread and back.
async fn at_once(tx: &mut Tx, waiting: &[Waiting]) -> Result<Vec<Applied>, StoreError> {
    let commands: Vec<CommandId> = waiting.iter().map(|w| w.change.command).collect();
    let mut known = applied_before(tx, &commands).await?;
    let rows = job_rows(tx, waiting.iter().map(|w| &w.change.resource)).await?;
    let mut changed = HashSet::new();
    let mut answers = Vec::with_capacity(waiting.len());
    let mut notes = Vec::with_capacity(waiting.len());
    for w in waiting {
        let command = w.change.command;
        let answer = match known.get(&command) {
            Some(outcome) => recorded(outcome),
            // A row that was changed just now is read again.
            None => change_in(tx, &w.change, changed.insert(&w.change.resource).then_some(&rows)).await?,
        };
        // The writer's lock is held, so nobody else can have applied it meanwhile; the same one may stand here twice.
        if let Some(outcome) = outcome_of(&answer)
            && known.insert(command, outcome.to_owned()).is_none()
        {
            notes.push(note(command, outcome));
        }
        answers.push(answer);
    }
    tx.insert_many(NOTE, NOTED, &notes).await?;
    Ok(answers)
}

/// Applies one change so that its failure takes back its own writes and nobody else's. The outer error is of the
/// transaction itself (SQLite ends it on a full disk, for one).
async fn apart(tx: &mut Tx, change: &Change) -> Result<Answer, StoreError> {
    tx.execute("SAVEPOINT one_change", &[]).await?;
    let answer = apply_in(tx, change).await;
    if answer.is_err() {
        tx.execute("ROLLBACK TO one_change", &[]).await?;
    }
    tx.execute("RELEASE one_change", &[]).await?;
    Ok(answer)
}
