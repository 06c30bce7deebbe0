//! One job whose work belongs to this very program.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::json;
use wheelhouse::domain::{Action, JobStatus, Progress, Resource};
use wheelhouse::store::{ClaimedJob, NewJob, RunEnd};
use wheelhouse::worker::{AttachedEnd, AttachedHost, ControlOutcome, Controlled};

use crate::fixture::{Trace, WorkerFixture, blank, eventually, exact};

/// Work that only takes notes.
struct Notes {
    trace: Trace,
    cancel_finds: ControlOutcome,
}

impl Controlled for Notes {
    fn pause(&self) -> BoxFuture<'_, ControlOutcome> {
        self.trace.mark("pause");
        async { ControlOutcome::Done }.boxed()
    }

    fn resume(&self) -> BoxFuture<'_, ()> {
        self.trace.mark("resume");
        async {}.boxed()
    }

    fn cancel<'a>(&'a self, by: &'a str, _reason: Option<&'a str>) -> BoxFuture<'a, ControlOutcome> {
        self.trace.mark(format!("cancel by {by}"));
        async { self.cancel_finds.clone() }.boxed()
    }
}

async fn attach(
    fixture: &WorkerFixture,
    trace: &Trace,
    id: &str,
    cancel_finds: ControlOutcome,
) -> (AttachedHost, Resource) {
    let host = format!("run-{id}").parse().expect("id");
    let new = NewJob { job_type: "process".to_owned(), ..blank(id) };
    let hosted: ClaimedJob = fixture.store.create_attached_job(&new, &host).await.expect("create");
    let job = hosted.run.job.clone();
    let work = Arc::new(Notes { trace: trace.clone(), cancel_finds });
    let (store, broker) = (fixture.store.clone(), fixture.broker.clone());
    (AttachedHost::start(&fixture.settings, store, broker, hosted, work).await.expect("attach"), job)
}

fn exit(code: i32) -> RunEnd {
    match code {
        0 => RunEnd::Completed(exact(json!({ "exit_code": 0 }))),
        code => RunEnd::Failed { error: format!("exit code {code}"), permanent: false },
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attached_work_obeys_and_its_own_end_is_recorded() {
    let (fixture, trace) = (WorkerFixture::new().await, Trace::new());
    let (host, job) = attach(&fixture, &trace, "a", ControlOutcome::Done).await;
    assert_eq!(fixture.command(Action::Pause, &job).await, "pause_succeeded");
    assert_eq!(fixture.row(&job).await.status, JobStatus::Paused);
    assert_eq!(fixture.command(Action::Resume, &job).await, "resume_succeeded");
    assert_eq!((trace.count("pause"), trace.count("resume")), (1, 1));
    host.progress(Progress { progress_percent: 42, ..Progress::default() });
    fixture.until_heard(&job, |m| m["type"] == "job_progress" && m["progress_percent"] == 42).await;
    let AttachedEnd::Recorded(row) = host.finish(exit(0)).await else { panic!("not recorded") };
    assert_eq!((row.status, row.result.as_str()), (JobStatus::Completed, r#"{"exit_code":0}"#));
    fixture.until_heard(&job, |m| m["type"] == "job_status" && m["status"] == "completed").await;
    assert!(fixture.broker.live_workers(&job.tenant).await.expect("asked").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_decides_between_its_own_doing_and_an_end_that_was_first() {
    let (fixture, trace) = (WorkerFixture::new().await, Trace::new());
    let (host, job) = attach(&fixture, &trace, "killed", ControlOutcome::Done).await;
    let cancel = fixture.submit(Action::Cancel, &job).await;
    trace.until("cancel by ann", 1).await;
    assert!(matches!(host.finish(exit(-15)).await, AttachedEnd::Cancelled));
    assert_eq!(fixture.result(&job, cancel).await["type"], "cancel_succeeded");
    assert_eq!(fixture.row(&job).await.status, JobStatus::Cancelled);

    let (host, job) = attach(&fixture, &trace, "done", ControlOutcome::EndedItself).await;
    let cancel = fixture.submit(Action::Cancel, &job).await;
    trace.until("cancel by ann", 2).await;
    assert!(matches!(host.finish(exit(0)).await, AttachedEnd::Recorded(_)));
    // The host is gone with its work; any worker finds that the job is completed.
    let worker = fixture.worker("w1", |builder| builder).await;
    assert_eq!(fixture.result(&job, cancel).await["type"], "cancel_failed");
    assert_eq!(fixture.row(&job).await.status, JobStatus::Completed);
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_dies_while_paused_is_recorded_when_it_is_resumed() {
    let (fixture, trace) = (WorkerFixture::new().await, Trace::new());
    let (host, job) = attach(&fixture, &trace, "a", ControlOutcome::EndedItself).await;
    assert_eq!(fixture.command(Action::Pause, &job).await, "pause_succeeded");
    let finishing = tokio::spawn(host.finish(exit(9)));
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(fixture.row(&job).await.status, JobStatus::Paused, "nothing leads from paused to failed");
    assert_eq!(fixture.command(Action::Resume, &job).await, "resume_succeeded");
    let AttachedEnd::Recorded(row) = finishing.await.expect("finish") else { panic!("not recorded") };
    assert_eq!((row.status, row.error_message.as_deref()), (JobStatus::Failed, Some("exit code 9")));

    let (host, job) = attach(&fixture, &trace, "b", ControlOutcome::EndedItself).await;
    assert_eq!(fixture.command(Action::Pause, &job).await, "pause_succeeded");
    let finishing = tokio::spawn(host.finish(exit(9)));
    assert_eq!(fixture.command(Action::Cancel, &job).await, "cancel_succeeded");
    assert!(matches!(finishing.await.expect("finish"), AttachedEnd::Cancelled));
    assert_eq!(fixture.row(&job).await.status, JobStatus::Cancelled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attached_work_whose_program_died_has_failed() {
    let (fixture, trace) = (WorkerFixture::with(&[("worker.attached_lost_seconds", "10")]).await, Trace::new());
    let (host, job) = attach(&fixture, &trace, "a", ControlOutcome::Done).await;
    let worker = fixture.worker("w1", |builder| builder).await;
    drop(host);
    // First it is only not heard of, which may be due to its way to Redis.
    fixture.until_heard(&job, |m| m["type"] == "job_status" && m["contact_lost_at"].is_string()).await;
    let row = fixture.until_status(&job, JobStatus::Failed).await;
    assert_eq!(row.contact_lost_at, None);
    assert_eq!(row.error_message.as_deref(), Some("The worker that ran this job is gone"));
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attached_work_whose_row_another_system_ended_is_told() {
    let (fixture, trace) = (WorkerFixture::new().await, Trace::new());
    let (host, job) = attach(&fixture, &trace, "a", ControlOutcome::Done).await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(fixture.folder().join("wheelhouse.db"));
    let mut other = sqlx::ConnectOptions::connect(&options).await.expect("open the file");
    sqlx::query("UPDATE jobs SET status = 'cancelled' WHERE id = 'a'").execute(&mut other).await.expect("update");
    host.progress(Progress { progress_percent: 1, ..Progress::default() });
    host.lost().await;
    eventually("the work is ended", || async { trace.count("cancel by the worker") == 1 }).await;
    assert!(matches!(host.finish(exit(1)).await, AttachedEnd::Lost));
    assert_eq!(fixture.row(&job).await.status, JobStatus::Cancelled);
}
