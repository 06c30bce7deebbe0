//! Failures: the wait for the next try, the time limit of a run, and what is kept of items that failed.

use std::future::Future;
use std::time::Duration;

use serde_json::{Value, json};
use wheelhouse::domain::{Action, JobStatus, Resource};
use wheelhouse::store::{FailedItemFilter, NewJob};
use wheelhouse::worker::process::Program;
use wheelhouse::worker::{JobContext, JobError};

use crate::fixture::{Code, Running, Trace, WorkerFixture, blank, eventually};

/// Job code that writes on this tape.
fn on_tape<R>(
    trace: &Trace,
    code: impl Fn(JobContext, Trace) -> R + Send + Sync + 'static,
) -> Code<impl Fn(JobContext) -> R + Send + Sync + 'static> {
    let trace = trace.clone();
    Code(move |ctx| code(ctx, trace.clone()))
}

/// A world with one worker, whose jobs of the kind `code` run this.
async fn world_of<R>(
    settings: &[(&str, &str)],
    code: impl Fn(JobContext, Trace) -> R + Send + Sync + 'static,
) -> (WorkerFixture, Trace, Running)
where
    R: Future<Output = Result<Value, JobError>> + Send + 'static,
{
    let (fixture, trace) = (WorkerFixture::with(settings).await, Trace::new());
    let worker = fixture.coder("w1", on_tape(&trace, code)).await;
    (fixture, trace, worker)
}

/// Fails each time, having said so.
async fn failing(ctx: JobContext, trace: Trace) -> Result<Value, JobError> {
    trace.mark(format!("try of {}", ctx.job().id));
    Err(JobError::failed("no luck"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_waits_for_its_next_try_obeys_and_once_cancelled_is_never_tried_again() {
    let (fixture, trace, worker) = world_of(&[], failing).await;
    // Every wait is a minute, the longest there is: no try comes between the commands.
    let ahead = jiff::Timestamp::now().as_millisecond() + 60_000;
    fixture
        .sql(&format!(
            "CREATE TRIGGER wait AFTER UPDATE OF run_after ON jobs WHEN NEW.run_after > 1
             BEGIN UPDATE jobs SET run_after = {ahead} WHERE rowid = NEW.rowid; END"
        ))
        .await;
    let job = fixture.make(NewJob { max_retries: 9, ..blank("j") }).await;
    fixture.until_heard(&job, |m| m["type"] == "job_status" && m["status"] == "pending").await;
    let row = fixture.row(&job).await;
    assert_eq!((row.status, row.retry_count), (JobStatus::Pending, 1));
    assert_eq!(row.error_message.as_deref(), Some("no luck"), "why it waits");
    let until: jiff::Timestamp = row.run_after.expect("until when it waits").parse().expect("a time");
    assert_eq!(until.as_millisecond(), ahead);

    assert_eq!(fixture.command(Action::Pause, &job).await, "pause_succeeded");
    assert_eq!(fixture.row(&job).await.status, JobStatus::Paused);
    assert_eq!(fixture.command(Action::Resume, &job).await, "resume_succeeded");
    assert_eq!(fixture.row(&job).await.status, JobStatus::Pending, "back to where it was");
    assert_eq!(fixture.command(Action::Cancel, &job).await, "cancel_succeeded");
    fixture.sql("UPDATE jobs SET run_after = 1").await;
    // Another job shows that the worker has looked.
    let other = fixture.job("other").await;
    fixture.until_status(&other, JobStatus::Failed).await;
    assert_eq!((fixture.row(&job).await.status, trace.count("try of j")), (JobStatus::Cancelled, 1));
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_takes_too_long_is_ended_tried_again_and_has_failed_in_the_end() {
    let code = |ctx: JobContext, trace: Trace| async move {
        trace.mark("try");
        let cancelled = ctx.guard(std::future::pending::<()>()).await.expect_err("it is ended");
        trace.mark(format!("{} by {}", cancelled.reason.clone().unwrap_or_default(), cancelled.by));
        Err(cancelled.into())
    };
    let (fixture, trace, worker) = world_of(&[], code).await;
    let job = fixture.make(NewJob { max_retries: 1, timeout_seconds: Some(1), ..blank("j") }).await;
    let row = fixture.until_status(&job, JobStatus::Failed).await;
    assert_eq!((row.error_message.as_deref(), row.retry_count), (Some("timed out after 1 s"), 1));
    assert_eq!((trace.count("try"), trace.count("timed out after 1 s by the worker")), (2, 2));
    let messages = fixture.until_heard(&job, |m| m["type"] == "job_status" && m["status"] == "failed").await;
    let statuses: Vec<_> = messages.iter().filter(|m| m["type"] == "job_status").map(|m| m["status"].clone()).collect();
    assert_eq!(json!(statuses), json!(["running", "pending", "running", "failed"]));
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_that_a_job_stands_paused_is_not_running_time() {
    let code = |ctx: JobContext, trace: Trace| async move {
        trace.mark(format!("try of {}", ctx.job().id));
        ctx.guard(trace.wait(ctx.job().id.as_str())).await?;
        Ok(json!(null))
    };
    let (fixture, trace, worker) = world_of(&[], code).await;
    // A machine that takes longer than the limit for the commands themselves shows nothing: then once more with more.
    for limit in [4, 16, 64] {
        let job = fixture.make(NewJob { timeout_seconds: Some(limit), ..blank(&format!("limit-{limit}")) }).await;
        trace.until(&format!("try of {}", job.id), 1).await;
        let paused = fixture.command(Action::Pause, &job).await;
        if paused == "pause_succeeded" {
            tokio::time::sleep(Duration::from_secs(u64::from(limit) + 1)).await;
            assert_eq!(fixture.row(&job).await.status, JobStatus::Paused);
            trace.open(job.id.as_str());
            assert_eq!(fixture.command(Action::Resume, &job).await, "resume_succeeded");
        }
        eventually("it has ended", || async { fixture.row(&job).await.completed_at.is_some() }).await;
        if fixture.row(&job).await.status == JobStatus::Completed {
            return worker.drain().await;
        }
    }
    panic!("the time that it stood paused was counted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn code_that_does_not_listen_is_dropped_after_the_grace_and_its_programs_are_ended() {
    let code = |ctx: JobContext, trace: Trace| async move {
        let supervisor = env!("CARGO_BIN_EXE_wheelhouse").into();
        let program = Program::with_supervisor(supervisor, "sleep", ["1000"]).map_err(JobError::failed)?;
        let child = ctx.child(program).await?;
        trace.mark("child");
        child.ended().await;
        trace.mark("child ended");
        std::future::pending::<()>().await;
        Ok(json!(null))
    };
    let (fixture, trace, worker) = world_of(&[("worker.grace_seconds", "1")], code).await;
    // On a machine that takes longer to start the program there is none to be ended: then once more with more time.
    for limit in [2, 8, 32] {
        let job = fixture.make(NewJob { timeout_seconds: Some(limit), ..blank(&format!("limit-{limit}")) }).await;
        let row = fixture.until_status(&job, JobStatus::Failed).await;
        assert_eq!(row.error_message, Some(format!("timed out after {limit} s")));
        if trace.count("child") == 1 {
            assert_eq!(trace.count("child ended"), 1);
            return worker.drain().await;
        }
    }
    panic!("the program was never started");
}

/// Goes through 1,000 items of which every third fails; each waits for the test.
async fn sieve(ctx: JobContext, trace: Trace) -> Result<Value, JobError> {
    for n in ctx.resume_point::<u32>()?.unwrap_or(0)..1_000 {
        ctx.guard(trace.wait("item")).await?;
        if n % 3 == 0 {
            ctx.failed_item(format!("item {n}"), "divisible");
        }
        ctx.save(&(n + 1))?;
        trace.mark("items");
    }
    Ok(json!(null))
}

async fn failed_items(fixture: &WorkerFixture, job: &Resource) -> Vec<String> {
    let filter = FailedItemFilter { job: job.clone(), after: None, limit: 1_000 };
    let page = fixture.store.failed_items(&filter).await.expect("read");
    page.items.into_iter().map(|row| row.failed.item).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_items_are_kept_however_a_job_moves_and_none_is_there_twice() {
    let (fixture, trace, first) = world_of(&[], sieve).await;
    let expected = |to: u32| (0..to).filter(|n| n % 3 == 0).map(|n| format!("item {n}")).collect::<Vec<_>>();
    let go = async |done: usize, more: usize| {
        (0..more).for_each(|_| trace.open("item"));
        trace.until("items", done + more).await;
    };
    let job = fixture.job("j").await;
    go(0, 10).await;
    assert_eq!(fixture.command(Action::Pause, &job).await, "pause_succeeded");
    assert_eq!(failed_items(&fixture, &job).await, expected(10), "a pause leaves nothing unwritten");
    assert_eq!(fixture.command(Action::Resume, &job).await, "resume_succeeded");
    go(10, 5).await;
    first.drain().await;
    assert_eq!(failed_items(&fixture, &job).await, expected(15), "nor does a worker that leaves");

    let second = fixture.coder("w2", on_tape(&trace, sieve)).await;
    go(15, 15).await;
    // Killed at once: what it did since its last write is done again.
    second.crash().await;
    let third = fixture.coder("w3", on_tape(&trace, sieve)).await;
    // Enough for what it does again and more, and not for all: a job that is through could not be cancelled.
    (0..60).for_each(|_| trace.open("item"));
    eventually("the third has done what was left", || async { failed_items(&fixture, &job).await.len() >= 12 }).await;
    assert_eq!(fixture.command(Action::Cancel, &job).await, "cancel_succeeded");
    let all = failed_items(&fixture, &job).await;
    assert_eq!(all, expected(all.len() as u32 * 3), "each once, in order, none left out");
    third.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_job_says_last_is_kept_although_sql_is_away_when_it_ends() {
    let code = |ctx: JobContext, trace: Trace| async move {
        trace.mark("begun");
        ctx.critical(trace.wait("end")).await;
        ctx.failed_item("the last", "bad luck");
        ctx.save(&7)?;
        trace.mark("said");
        Err(JobError::failed("no luck"))
    };
    let (fixture, trace, worker) = world_of(&[], code).await;
    let job = fixture.job("j").await;
    trace.until("begun", 1).await;
    let mut other = fixture.connection().await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.expect("lock");
    trace.open("end");
    trace.until("said", 1).await;
    // Longer than SQLite itself waits for another writer.
    tokio::time::sleep(Duration::from_secs(7)).await;
    sqlx::query("ROLLBACK").execute(&mut other).await.expect("unlock");
    fixture.until_status(&job, JobStatus::Failed).await;
    assert_eq!(failed_items(&fixture, &job).await, ["the last"]);
    worker.drain().await;
}
