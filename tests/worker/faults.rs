//! What breaks around workers: pub/sub, Redis, SQL.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use wheelhouse::domain::{Action, JobStatus, Resource};
use wheelhouse::store::AuditFilter;
use wheelhouse::worker::JobContext;

use crate::code::Outcome;
use crate::fixture::{Code, Trace, WorkerFixture, eventually, tenant};

fn stepping(trace: &Trace) -> Code<impl Fn(JobContext) -> Outcome + Send + Sync + 'static> {
    let trace = trace.clone();
    Code(move |ctx: JobContext| -> Outcome {
        let trace = trace.clone();
        Box::pin(async move {
            trace.mark("run");
            loop {
                ctx.checkpoint().await?;
                trace.mark("step");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    })
}

/// The audit rows of a resource: event, action, outcome, attempts.
async fn trail(fixture: &WorkerFixture, resource: &Resource) -> Vec<(String, String, Option<String>, Option<i64>)> {
    let filter = AuditFilter {
        tenant: Some(tenant()),
        resource: Some(resource.id.clone()),
        limit: 1_000,
        ..AuditFilter::default()
    };
    let page = fixture.store.audit(&filter).await.expect("audit");
    page.items
        .into_iter()
        .map(|row| (row.entry.event, row.entry.action, row.entry.outcome, row.entry.attempts))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_take_effect_while_pub_sub_is_cut_again_and_again() {
    let (fixture, trace) = (WorkerFixture::new().await, Trace::new());
    let worker = fixture.coder("w1", stepping(&trace)).await;
    let (hosted, pending) = (fixture.job("j").await, Resource::parse("acme:job:external").expect("resource"));
    trace.until("step", 1).await;
    for action in [Action::Pause, Action::Resume, Action::Cancel] {
        fixture.redis.inline("CLIENT KILL TYPE pubsub");
        let command = fixture.submit(action, &hosted).await;
        let nothing = fixture.submit(action, &pending).await;
        fixture.redis.inline("CLIENT KILL TYPE pubsub");
        assert!(fixture.result(&hosted, command).await["type"].as_str().is_some_and(|t| t.ends_with("_succeeded")));
        assert_eq!(fixture.result(&pending, nothing).await["error"], "Job not found or already completed");
    }
    assert_eq!(fixture.row(&hosted).await.status, JobStatus::Cancelled);
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_comes_back_empty_is_no_sign_of_death() {
    let (fixture, trace) = (WorkerFixture::new().await, Trace::new());
    let worker = fixture.coder("w1", stepping(&trace)).await;
    let watcher = fixture.worker("watcher", |builder| builder).await;
    let job = fixture.job("j").await;
    trace.until("step", 1).await;
    for _ in 0..3 {
        fixture.redis.inline("FLUSHALL");
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    assert_eq!(fixture.command(Action::Pause, &job).await, "pause_succeeded");
    assert_eq!(fixture.command(Action::Resume, &job).await, "resume_succeeded");
    let steps = trace.count("step");
    trace.until("step", steps + 2).await;
    assert_eq!(trace.count("run"), 1, "the job was taken from its living host");
    worker.drain().await;
    watcher.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_outlives_a_restart_of_redis_and_every_command_is_answered() {
    let (mut fixture, trace) = (WorkerFixture::new().await, Trace::new());
    let worker = fixture.coder("w1", stepping(&trace)).await;
    let watcher = fixture.worker("watcher", |builder| builder).await;
    let (job, external) = (fixture.job("j").await, fixture.job("k").await);
    trace.until("run", 2).await;
    let before = fixture.submit(Action::Pause, &external).await;
    fixture.redis.kill();
    tokio::time::sleep(Duration::from_secs(5)).await;
    fixture.redis.restart();
    eventually("Redis is back", || async { fixture.broker.ping(Duration::from_secs(1)).await.is_ok() }).await;
    assert_eq!(fixture.result(&external, before).await["type"], "pause_succeeded");
    assert_eq!(fixture.command(Action::Pause, &job).await, "pause_succeeded");
    assert_eq!(fixture.command(Action::Cancel, &job).await, "cancel_succeeded");
    assert_eq!(trace.count("run"), 2, "a job was taken from its living host");
    worker.drain().await;
    watcher.drain().await;
}

/// What Redis keeps for a host that lives is taken by nobody else, so the host must say that it has left the job, however late.
/// No command waits for the job here: the host would end the run when it takes such a command, and nothing would be shown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_ends_while_redis_is_away_is_left_by_its_host_when_redis_is_back() {
    let (mut fixture, trace) = (WorkerFixture::new().await, Trace::new());
    let (steps, may_end) = (trace.clone(), Arc::new(tokio::sync::Notify::new()));
    let ends = may_end.clone();
    let ending = Code(move |_: JobContext| -> Outcome {
        let (trace, ends) = (steps.clone(), ends.clone());
        Box::pin(async move {
            trace.mark("step");
            ends.notified().await;
            Ok(Value::Null)
        })
    });
    let worker = fixture.coder("w1", ending).await;
    let job = fixture.job("j").await;
    trace.until("step", 1).await;
    let host = ["HGET".to_owned(), fixture.broker.keys().state(&job), "host".to_owned()];
    let has_host = || async {
        fixture.broker.query_any(&host).await.ok().map(|shown| shown.first().is_some_and(|id| !id.is_empty()))
    };
    eventually("Redis knows the host", || async { has_host().await == Some(true) }).await;
    fixture.redis.kill();
    may_end.notify_one();
    eventually("it has completed", || async { fixture.row(&job).await.status == JobStatus::Completed }).await;
    // Longer than a call to a Redis that is away is repeated.
    tokio::time::sleep(Duration::from_secs(6)).await;
    fixture.redis.restart();
    eventually("the host has left the job", || async { has_host().await == Some(false) }).await;
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_database_delays_commands_and_the_audit_trail_tells_of_it() {
    let (fixture, trace) = (WorkerFixture::new().await, Trace::new());
    let worker = fixture.coder("w1", stepping(&trace)).await;
    let job = fixture.job("j").await;
    trace.until("step", 1).await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(fixture.folder().join("wheelhouse.db"));
    let mut other = sqlx::ConnectOptions::connect(&options).await.expect("open the file");
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.expect("lock");
    let command = fixture.submit(Action::Pause, &job).await;
    // Longer than SQLite itself waits for another writer: until the command has been taken up once more.
    let attempts = ["HGET".to_owned(), fixture.broker.keys().state(&job), "attempts".to_owned()];
    eventually("it is tried again", || async {
        let shown = fixture.broker.query_any(&attempts).await.expect("attempts");
        shown.first().and_then(|tries| tries.parse::<u32>().ok()).is_some_and(|tries| tries >= 2)
    })
    .await;
    assert_eq!(fixture.broker.result_of(&job, command).await.expect("asked"), None);
    sqlx::query("ROLLBACK").execute(&mut other).await.expect("unlock");
    let result = fixture.result(&job, command).await;
    assert_eq!((&result["type"], &result["status"]), (&json!("pause_succeeded"), &json!("paused")));
    eventually("the trail is in SQL", || async { trail(&fixture, &job).await.len() == 2 }).await;
    let trail = trail(&fixture, &job).await;
    assert_eq!((trail[0].0.as_str(), trail[1].0.as_str()), ("accepted", "succeeded"));
    assert!(trail[1].3.is_some_and(|attempts| attempts >= 2), "{trail:?}");
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_command_leaves_its_rows_in_the_audit_trail_once() {
    let (fixture, trace) = (WorkerFixture::new().await, Trace::new());
    let mut workers = Vec::new();
    for n in 0..3 {
        workers.push(fixture.coder(&format!("w{n}"), stepping(&trace)).await);
    }
    let job = fixture.job("j").await;
    trace.until("step", 1).await;
    for action in [Action::Pause, Action::Resume, Action::Cancel, Action::Cancel] {
        fixture.command(action, &job).await;
    }
    eventually("the trail is in SQL", || async { trail(&fixture, &job).await.len() >= 8 }).await;
    let ends: Vec<(String, Value)> = trail(&fixture, &job)
        .await
        .into_iter()
        .filter(|(event, ..)| event != "accepted")
        .map(|(event, _, outcome, _)| (event, json!(outcome)))
        .collect();
    let expected = [
        ("succeeded", "paused"),
        ("succeeded", "running"),
        ("succeeded", "cancelled"),
        ("failed", "Job not found or already completed"),
    ];
    let expected: Vec<(String, Value)> = expected.map(|(event, outcome)| (event.to_owned(), json!(outcome))).to_vec();
    assert_eq!(ends, expected);
    for worker in workers {
        worker.drain().await;
    }
    assert_eq!(trail(&fixture, &job).await.len(), 8, "nothing twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_can_never_be_stored_fails_in_words_and_the_work_goes_on() {
    let (fixture, trace) = (WorkerFixture::with(&[("command.max_attempts", "2")]).await, Trace::new());
    let worker = fixture.coder("w1", stepping(&trace)).await;
    let job = fixture.job("j").await;
    trace.until("step", 1).await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(fixture.folder().join("wheelhouse.db"));
    let other = Arc::new(tokio::sync::Mutex::new(sqlx::ConnectOptions::connect(&options).await.expect("open")));
    sqlx::query("BEGIN IMMEDIATE").execute(&mut *other.lock().await).await.expect("lock");
    let command = fixture.submit(Action::Pause, &job).await;
    let result = fixture.result(&job, command).await;
    assert_eq!(result["type"], "pause_failed");
    assert!(result["error"].as_str().is_some_and(|words| words.starts_with("The database did not answer")), "{result}");
    let steps = trace.count("step");
    trace.until("step", steps + 2).await;
    sqlx::query("ROLLBACK").execute(&mut *other.lock().await).await.expect("unlock");
    assert_eq!(fixture.row(&job).await.status, JobStatus::Running);
    assert_eq!(fixture.command(Action::Cancel, &job).await, "cancel_succeeded");
    worker.drain().await;
}
