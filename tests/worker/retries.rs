//! Failures: the wait for the next try, the time limit of a run, and what is kept of items that failed.

use std::future::Future;
use std::time::Duration;

use serde_json::{Value, json};
use wheelhouse::domain::{Action, JobStatus, Resource};
use wheelhouse::store::{FailedItemFilter, NewJob};
use wheelhouse::worker::process::Program;
use wheelhouse::worker::{JobContext, JobError};

use crate::world::{Code, Running, Tape, World, blank, eventually};

/// Job code that writes on this tape.
fn on_tape<R>(
    tape: &Tape,
    code: impl Fn(JobContext, Tape) -> R + Send + Sync + 'static,
) -> Code<impl Fn(JobContext) -> R + Send + Sync + 'static> {
    let tape = tape.clone();
    Code(move |ctx| code(ctx, tape.clone()))
}

/// A world with one worker, whose jobs of the kind `code` run this.
async fn world_of<R>(
    settings: &[(&str, &str)],
    code: impl Fn(JobContext, Tape) -> R + Send + Sync + 'static,
) -> (World, Tape, Running)
where
    R: Future<Output = Result<Value, JobError>> + Send + 'static,
{
    let (world, tape) = (World::with(settings).await, Tape::new());
    let worker = world.coder("w1", on_tape(&tape, code)).await;
    (world, tape, worker)
}

/// Fails each time, having said so.
async fn failing(ctx: JobContext, tape: Tape) -> Result<Value, JobError> {
    tape.mark(format!("try of {}", ctx.job().id));
    Err(JobError::failed("no luck"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_waits_for_its_next_try_obeys_and_once_cancelled_is_never_tried_again() {
    let (world, tape, worker) = world_of(&[], failing).await;
    // Every wait is a minute, the longest there is: no try comes between the commands.
    let ahead = jiff::Timestamp::now().as_millisecond() + 60_000;
    world
        .sql(&format!(
            "CREATE TRIGGER wait AFTER UPDATE OF run_after ON jobs WHEN NEW.run_after > 1
             BEGIN UPDATE jobs SET run_after = {ahead} WHERE rowid = NEW.rowid; END"
        ))
        .await;
    let job = world.make(NewJob { max_retries: 9, ..blank("j") }).await;
    world.until_heard(&job, |m| m["type"] == "job_status" && m["status"] == "pending").await;
    let row = world.row(&job).await;
    assert_eq!((row.status, row.retry_count), (JobStatus::Pending, 1));
    assert_eq!(row.error_message.as_deref(), Some("no luck"), "why it waits");
    let until: jiff::Timestamp = row.run_after.expect("until when it waits").parse().expect("a time");
    assert_eq!(until.as_millisecond(), ahead);

    assert_eq!(world.command(Action::Pause, &job).await, "pause_succeeded");
    assert_eq!(world.row(&job).await.status, JobStatus::Paused);
    assert_eq!(world.command(Action::Resume, &job).await, "resume_succeeded");
    assert_eq!(world.row(&job).await.status, JobStatus::Pending, "back to where it was");
    assert_eq!(world.command(Action::Cancel, &job).await, "cancel_succeeded");
    world.sql("UPDATE jobs SET run_after = 1").await;
    // Another job shows that the worker has looked.
    let other = world.job("other").await;
    world.until_status(&other, JobStatus::Failed).await;
    assert_eq!((world.row(&job).await.status, tape.count("try of j")), (JobStatus::Cancelled, 1));
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_takes_too_long_is_ended_tried_again_and_has_failed_in_the_end() {
    let code = |ctx: JobContext, tape: Tape| async move {
        tape.mark("try");
        let cancelled = ctx.guard(std::future::pending::<()>()).await.expect_err("it is ended");
        tape.mark(format!("{} by {}", cancelled.reason.clone().unwrap_or_default(), cancelled.by));
        Err(cancelled.into())
    };
    let (world, tape, worker) = world_of(&[], code).await;
    let job = world.make(NewJob { max_retries: 1, timeout_seconds: Some(1), ..blank("j") }).await;
    let row = world.until_status(&job, JobStatus::Failed).await;
    assert_eq!((row.error_message.as_deref(), row.retry_count), (Some("timed out after 1 s"), 1));
    assert_eq!((tape.count("try"), tape.count("timed out after 1 s by the worker")), (2, 2));
    let messages = world.until_heard(&job, |m| m["type"] == "job_status" && m["status"] == "failed").await;
    let statuses: Vec<_> = messages.iter().filter(|m| m["type"] == "job_status").map(|m| m["status"].clone()).collect();
    assert_eq!(json!(statuses), json!(["running", "pending", "running", "failed"]));
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_that_a_job_stands_paused_is_not_running_time() {
    let code = |ctx: JobContext, tape: Tape| async move {
        tape.mark(format!("try of {}", ctx.job().id));
        ctx.guard(tape.wait(ctx.job().id.as_str())).await?;
        Ok(json!(null))
    };
    let (world, tape, worker) = world_of(&[], code).await;
    // A machine that takes longer than the limit for the commands themselves shows nothing: then once more with more.
    for limit in [4, 16, 64] {
        let job = world.make(NewJob { timeout_seconds: Some(limit), ..blank(&format!("limit-{limit}")) }).await;
        tape.until(&format!("try of {}", job.id), 1).await;
        let paused = world.command(Action::Pause, &job).await;
        if paused == "pause_succeeded" {
            tokio::time::sleep(Duration::from_secs(u64::from(limit) + 1)).await;
            assert_eq!(world.row(&job).await.status, JobStatus::Paused);
            tape.open(job.id.as_str());
            assert_eq!(world.command(Action::Resume, &job).await, "resume_succeeded");
        }
        eventually("it has ended", || async { world.row(&job).await.completed_at.is_some() }).await;
        if world.row(&job).await.status == JobStatus::Completed {
            return worker.drain().await;
        }
    }
    panic!("the time that it stood paused was counted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn code_that_does_not_listen_is_dropped_after_the_grace_and_its_programs_are_ended() {
    let code = |ctx: JobContext, tape: Tape| async move {
        let supervisor = env!("CARGO_BIN_EXE_wheelhouse").into();
        let program = Program::with_supervisor(supervisor, "sleep", ["1000"]).map_err(JobError::failed)?;
        let child = ctx.child(program).await?;
        tape.mark("child");
        child.ended().await;
        tape.mark("child ended");
        std::future::pending::<()>().await;
        Ok(json!(null))
    };
    let (world, tape, worker) = world_of(&[("worker.grace_seconds", "1")], code).await;
    // On a machine that takes longer to start the program there is none to be ended: then once more with more time.
    for limit in [2, 8, 32] {
        let job = world.make(NewJob { timeout_seconds: Some(limit), ..blank(&format!("limit-{limit}")) }).await;
        let row = world.until_status(&job, JobStatus::Failed).await;
        assert_eq!(row.error_message, Some(format!("timed out after {limit} s")));
        if tape.count("child") == 1 {
            assert_eq!(tape.count("child ended"), 1);
            return worker.drain().await;
        }
    }
    panic!("the program was never started");
}

/// Goes through 1,000 items of which every third fails; each waits for the test.
async fn sieve(ctx: JobContext, tape: Tape) -> Result<Value, JobError> {
    for n in ctx.resume_point::<u32>()?.unwrap_or(0)..1_000 {
        ctx.guard(tape.wait("item")).await?;
        if n % 3 == 0 {
            ctx.failed_item(format!("item {n}"), "divisible");
        }
        ctx.save(&(n + 1))?;
        tape.mark("items");
    }
    Ok(json!(null))
}

async fn failed_items(world: &World, job: &Resource) -> Vec<String> {
    let filter = FailedItemFilter { job: job.clone(), after: None, limit: 1_000 };
    let page = world.store.failed_items(&filter).await.expect("read");
    page.items.into_iter().map(|row| row.failed.item).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_items_are_kept_however_a_job_moves_and_none_is_there_twice() {
    let (world, tape, first) = world_of(&[], sieve).await;
    let expected = |to: u32| (0..to).filter(|n| n % 3 == 0).map(|n| format!("item {n}")).collect::<Vec<_>>();
    let go = async |done: usize, more: usize| {
        (0..more).for_each(|_| tape.open("item"));
        tape.until("items", done + more).await;
    };
    let job = world.job("j").await;
    go(0, 10).await;
    assert_eq!(world.command(Action::Pause, &job).await, "pause_succeeded");
    assert_eq!(failed_items(&world, &job).await, expected(10), "a pause leaves nothing unwritten");
    assert_eq!(world.command(Action::Resume, &job).await, "resume_succeeded");
    go(10, 5).await;
    first.drain().await;
    assert_eq!(failed_items(&world, &job).await, expected(15), "nor does a worker that leaves");

    let second = world.coder("w2", on_tape(&tape, sieve)).await;
    go(15, 15).await;
    // Killed at once: what it did since its last write is done again.
    second.crash().await;
    let third = world.coder("w3", on_tape(&tape, sieve)).await;
    eventually("the third has done what was left", || async {
        tape.open("item");
        failed_items(&world, &job).await.len() >= 12
    })
    .await;
    assert_eq!(world.command(Action::Cancel, &job).await, "cancel_succeeded");
    let all = failed_items(&world, &job).await;
    assert_eq!(all, expected(all.len() as u32 * 3), "each once, in order, none left out");
    third.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_job_says_last_is_kept_although_sql_is_away_when_it_ends() {
    let code = |ctx: JobContext, tape: Tape| async move {
        tape.mark("begun");
        ctx.critical(tape.wait("end")).await;
        ctx.failed_item("the last", "bad luck");
        ctx.save(&7)?;
        tape.mark("said");
        Err(JobError::failed("no luck"))
    };
    let (world, tape, worker) = world_of(&[], code).await;
    let job = world.job("j").await;
    tape.until("begun", 1).await;
    let mut other = world.connection().await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.expect("lock");
    tape.open("end");
    tape.until("said", 1).await;
    // Longer than SQLite itself waits for another writer.
    tokio::time::sleep(Duration::from_secs(7)).await;
    sqlx::query("ROLLBACK").execute(&mut other).await.expect("unlock");
    world.until_status(&job, JobStatus::Failed).await;
    assert_eq!(failed_items(&world, &job).await, ["the last"]);
    worker.drain().await;
}
