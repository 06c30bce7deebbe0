//! What commands do to jobs: running here, running nowhere, over already.

use std::time::Duration;

use serde_json::{Value, json};
use wheelhouse::domain::{Action, JobStatus, Resource};

use crate::fixture::{Code, Trace, WorkerFixture, blank, eventually};

/// Where in the messages something is.
fn place(messages: &[Value], what: impl Fn(&Value) -> bool) -> usize {
    messages.iter().position(what).unwrap_or_else(|| panic!("not among {messages:#?}"))
}

fn is_status<'a>(status: &'a str) -> impl Fn(&Value) -> bool + 'a {
    move |m| m["type"] == "job_status" && m["status"] == status && m.get("desired").is_none()
}

fn is_type<'a>(kind: &'a str) -> impl Fn(&Value) -> bool + 'a {
    move |m| m["type"] == kind
}

/// Steps until cancelled, each at a checkpoint.
fn stepping(
    trace: &Trace,
) -> Code<impl Fn(wheelhouse::worker::JobContext) -> crate::code::Outcome + Send + Sync + 'static> {
    let trace = trace.clone();
    Code(move |ctx: wheelhouse::worker::JobContext| -> crate::code::Outcome {
        let trace = trace.clone();
        Box::pin(async move {
            loop {
                if let Err(cancelled) = ctx.checkpoint().await {
                    trace.mark(format!("cancelled by {} {:?}", cancelled.by, cancelled.reason));
                    return Err(cancelled.into());
                }
                trace.mark("step");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_stops_the_work_a_resume_lets_it_go_on_a_cancel_ends_it() {
    let (fixture, trace) = (WorkerFixture::new().await, Trace::new());
    let worker = fixture.coder("w1", stepping(&trace)).await;
    let job = fixture.job("j").await;
    trace.until("step", 3).await;

    assert_eq!(fixture.command(Action::Pause, &job).await, "pause_succeeded");
    let steps = trace.count("step");
    assert_eq!(fixture.row(&job).await.status, JobStatus::Paused);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(trace.count("step"), steps, "a paused job did something");
    assert_eq!(fixture.command(Action::Pause, &job).await, "pause_succeeded", "pausing what is paused succeeds");

    assert_eq!(fixture.command(Action::Resume, &job).await, "resume_succeeded");
    assert_eq!(fixture.row(&job).await.status, JobStatus::Running);
    trace.until("step", steps + 3).await;
    assert_eq!(fixture.command(Action::Resume, &job).await, "resume_succeeded", "resuming what runs succeeds");

    assert_eq!(fixture.command(Action::Cancel, &job).await, "cancel_succeeded");
    trace.until("cancelled by ann Some(\"because\")", 1).await;
    let row = fixture.row(&job).await;
    assert_eq!((row.status, row.cancelled_by.as_deref()), (JobStatus::Cancelled, Some("ann")));
    let steps = trace.count("step");
    assert_eq!(fixture.command(Action::Resume, &job).await, "resume_failed", "nothing leaves cancelled");

    let messages = fixture.until_heard(&job, is_type("resume_failed")).await;
    for (status, result) in
        [("running", "pause_succeeded"), ("paused", "pause_succeeded"), ("cancelled", "cancel_succeeded")]
    {
        assert!(place(&messages, is_status(status)) < place(&messages, is_type(result)), "{messages:#?}");
    }
    let seqs: Vec<i64> = messages.iter().filter_map(|m| m["seq"].as_i64()).collect();
    assert!(seqs.is_sorted_by(|a, b| a < b), "{seqs:?}");
    assert_eq!(trace.count("step"), steps);
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_outranks_a_pause_that_waits_for_the_work() {
    let (fixture, trace) = (WorkerFixture::new().await, Trace::new());
    let inside = trace.clone();
    let worker = fixture
        .coder(
            "w1",
            Code(move |ctx: wheelhouse::worker::JobContext| {
                let trace = inside.clone();
                async move {
                    ctx.critical(async {
                        trace.mark("critical begun");
                        trace.wait("critical").await;
                        trace.mark("critical done");
                    })
                    .await;
                    ctx.checkpoint().await?;
                    trace.mark("past the checkpoint");
                    Ok(json!(null))
                }
            }),
        )
        .await;
    let job = fixture.job("j").await;
    trace.until("critical begun", 1).await;
    let pause = fixture.submit(Action::Pause, &job).await;
    fixture.until_heard(&job, |m| m["type"] == "job_status" && m["desired"] == "paused").await;
    assert_eq!(fixture.broker.live(&job).await.expect("live").desired.as_deref(), Some("paused"));

    let cancel = fixture.submit(Action::Cancel, &job).await;
    let superseded = fixture.result(&job, pause).await;
    assert_eq!((&superseded["type"], &superseded["error"]), (&json!("pause_failed"), &json!("Superseded by cancel")));
    fixture.until_heard(&job, |m| m["type"] == "job_status" && m["desired"] == "cancelled").await;
    assert_eq!(fixture.row(&job).await.status, JobStatus::Running, "it has not ended yet");
    trace.open("critical");
    assert_eq!(fixture.result(&job, cancel).await["type"], "cancel_succeeded");
    assert_eq!((trace.count("critical done"), trace.count("past the checkpoint")), (1, 0));
    assert_eq!(fixture.broker.live(&job).await.expect("live").desired, None);
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_completes_before_the_cancel_reaches_it_stays_completed() {
    let (fixture, trace) = (WorkerFixture::new().await, Trace::new());
    let inside = trace.clone();
    let worker = fixture
        .coder(
            "w1",
            Code(move |ctx: wheelhouse::worker::JobContext| {
                let trace = inside.clone();
                async move {
                    trace.mark("begun");
                    ctx.critical(trace.wait("end")).await;
                    Ok(json!({"done": true}))
                }
            }),
        )
        .await;
    let job = fixture.job("j").await;
    trace.until("begun", 1).await;
    let cancel = fixture.submit(Action::Cancel, &job).await;
    fixture.until_heard(&job, |m| m["desired"] == "cancelled").await;
    trace.open("end");
    let result = fixture.result(&job, cancel).await;
    assert_eq!(result["type"], "cancel_failed");
    assert_eq!(result["error"], "Job not found or already completed");
    let row = fixture.row(&job).await;
    assert_eq!((row.status, row.result.as_str()), (JobStatus::Completed, r#"{"done":true}"#));
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_that_run_nowhere_obey_in_sql_alone() {
    let (fixture, trace) = (WorkerFixture::new().await, Trace::new());
    // This worker knows no kind of job: it carries out commands only.
    let controller = fixture.worker("controller", |builder| builder).await;
    let job = fixture.job("j").await;
    for (action, result, status) in [
        (Action::Pause, "pause_succeeded", JobStatus::Paused),
        (Action::Resume, "resume_succeeded", JobStatus::Pending),
        (Action::Resume, "resume_succeeded", JobStatus::Pending),
        (Action::Pause, "pause_succeeded", JobStatus::Paused),
    ] {
        assert_eq!(fixture.command(action, &job).await, result);
        assert_eq!(fixture.row(&job).await.status, status);
    }
    let worker = fixture.coder("w1", stepping(&trace)).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(trace.count("step"), 0, "a paused job was started");
    assert_eq!(fixture.command(Action::Resume, &job).await, "resume_succeeded");
    trace.until("step", 1).await;
    assert_eq!(fixture.command(Action::Cancel, &job).await, "cancel_succeeded");

    let waiting = fixture.make(wheelhouse::store::NewJob { job_type: "unknown".to_owned(), ..blank("waiting") }).await;
    assert_eq!(fixture.command(Action::Cancel, &waiting).await, "cancel_succeeded");
    assert_eq!(fixture.row(&waiting).await.status, JobStatus::Cancelled);
    let nobody = Resource::parse("acme:job:nobody").expect("resource");
    let refused = fixture.submit(Action::Pause, &nobody).await;
    assert_eq!(fixture.result(&nobody, refused).await["error"], "Job not found or already completed");
    let other = Resource::parse("globex:job:j").expect("resource");
    assert_eq!(fixture.command(Action::Cancel, &other).await, "cancel_failed", "another tenant's job of that id");
    controller.drain().await;
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_job_keeps_its_worker_but_no_slot() {
    let (fixture, trace) = (WorkerFixture::with(&[("worker.concurrency", "1")]).await, Trace::new());
    let worker = fixture.coder("w1", stepping(&trace)).await;
    let (first, second) = (fixture.job("first").await, fixture.job("second").await);
    fixture.until_status(&first, JobStatus::Running).await;
    assert_eq!(fixture.row(&second).await.status, JobStatus::Pending);
    assert_eq!(fixture.command(Action::Pause, &first).await, "pause_succeeded");
    fixture.until_status(&second, JobStatus::Running).await;
    assert_eq!(fixture.command(Action::Resume, &first).await, "resume_succeeded");
    assert_eq!(fixture.row(&first).await.status, JobStatus::Running);
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_nobody_took_in_time_expires_and_changes_nothing() {
    let fixture = WorkerFixture::with(&[("command.ttl", "1")]).await;
    let job = fixture.job("j").await;
    let command = fixture.submit(Action::Cancel, &job).await;
    tokio::time::sleep(Duration::from_millis(1_300)).await;
    let worker = fixture.worker("w1", |builder| builder).await;
    let result = fixture.result(&job, command).await;
    assert_eq!(result["type"], "cancel_failed");
    assert_eq!(result["error"], "Command expired before a worker could run it");
    assert_eq!(fixture.row(&job).await.status, JobStatus::Pending);
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_commands_at_once_are_each_answered_once_and_in_order() {
    let (fixture, trace) = (WorkerFixture::new().await, Trace::new());
    let mut workers = Vec::new();
    for n in 0..3 {
        workers.push(fixture.coder(&format!("w{n}"), stepping(&trace)).await);
    }
    let mut jobs = Vec::new();
    for n in 0..10 {
        jobs.push(fixture.job(&format!("j{n}")).await);
    }
    for job in &jobs {
        fixture.until_status(job, JobStatus::Running).await;
    }
    let mut commands = Vec::new();
    for round in 0..10 {
        for job in &jobs {
            let action = if round % 2 == 0 { Action::Pause } else { Action::Resume };
            commands.push((job.clone(), fixture.submit(action, job).await));
        }
    }
    for (job, command) in &commands {
        let result = fixture.result(job, *command).await;
        assert!(result["type"].as_str().is_some_and(|t| t.ends_with("_succeeded")), "{result}");
    }
    for job in &jobs {
        let expected: Vec<String> =
            commands.iter().filter(|(of, _)| of == job).map(|(_, command)| command.to_string()).collect();
        eventually("all results are heard", || async {
            fixture.messages(job).iter().filter(|m| m.get("command_id").is_some()).count() >= expected.len()
        })
        .await;
        let heard: Vec<String> = fixture
            .messages(job)
            .iter()
            .filter_map(|m| m["command_id"].as_str().filter(|_| m["type"] != "").map(str::to_owned))
            .collect();
        assert_eq!(heard, expected, "{job}");
        assert_eq!(fixture.row(job).await.status, JobStatus::Running);
    }
    for worker in workers {
        worker.drain().await;
    }
}
