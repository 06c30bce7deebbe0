//! What many running jobs of one worker report: together, in order, and whatever becomes of one of them or of Redis.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use wheelhouse::domain::{Action, JobStatus, Progress, Resource};
use wheelhouse::worker::JobContext;

use crate::fixture::{Code, WorkerFixture, eventually, tenant};

const JOBS: usize = 60;

/// Says how far it is all the time, until the test lets it end or it is cancelled.
fn reports(end: Arc<AtomicI64>) -> Code<impl Fn(JobContext) -> futures_util::future::BoxFuture<'static, Ended>> {
    Code(move |ctx: JobContext| {
        let end = end.clone();
        let work: futures_util::future::BoxFuture<'static, Ended> = Box::pin(async move {
            let mut n = 0;
            while end.load(Ordering::SeqCst) == 0 {
                ctx.checkpoint().await?;
                n += 1;
                ctx.progress(Progress { items_processed: n, ..Progress::default() });
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            ctx.progress(Progress { items_processed: n + 1, ..Progress::default() });
            Ok(json!(n + 1))
        });
        work
    })
}

type Ended = Result<Value, wheelhouse::worker::JobError>;

async fn calls(fixture: &WorkerFixture, command: &str) -> usize {
    let info = fixture.broker.query_any(&["INFO".to_owned(), "commandstats".to_owned()]).await.expect("INFO");
    let start = format!("cmdstat_{command}:calls=");
    let found =
        info.join("\n").lines().find_map(|line| line.trim().strip_prefix(&start)?.split(',').next()?.parse().ok());
    found.unwrap_or(0)
}

fn progress_of(fixture: &WorkerFixture, job: &Resource) -> Vec<(i64, i64)> {
    let messages = fixture.messages(job);
    let progress = messages.iter().filter(|message| message["type"] == "job_progress");
    progress.map(|m| (m["seq"].as_i64().expect("seq"), m["items_processed"].as_i64().expect("items"))).collect()
}

async fn start_all(fixture: &WorkerFixture) -> Vec<Resource> {
    let mut jobs = Vec::new();
    for n in 0..JOBS {
        jobs.push(fixture.job(&format!("j{n}")).await);
    }
    for job in &jobs {
        fixture.until_heard(job, |message| message["type"] == "job_progress").await;
    }
    jobs
}

fn room() -> String {
    (JOBS + 1).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_many_jobs_report_goes_together_in_the_order_of_each_and_up_to_its_end() {
    let fixture = WorkerFixture::with(&[("worker.concurrency", &room())]).await;
    let end = Arc::new(AtomicI64::new(0));
    let worker = fixture.coder("w1", reports(end.clone())).await;
    let jobs = start_all(&fixture).await;
    let heard = || jobs.iter().map(|job| progress_of(&fixture, job).len()).sum::<usize>();
    // Each call asks once whether commands wait.
    let (calls_before, heard_before) = (calls(&fixture, "exists").await, heard());
    eventually("they have reported a few times", || async { heard() >= heard_before + 6 * JOBS }).await;
    let (together, updates) = (calls(&fixture, "exists").await - calls_before, heard() - heard_before);
    assert!(together * 2 < updates, "{updates} updates in {together} calls");

    // One of them is cancelled meanwhile, by another program's word alone: its result comes after all that it has said.
    assert_eq!(fixture.command(Action::Cancel, &jobs[0]).await, "cancel_succeeded");
    end.store(1, Ordering::SeqCst);
    for job in &jobs[1..] {
        let row = fixture.until_status(job, JobStatus::Completed).await;
        fixture.until_heard(job, |message| message["status"] == "completed").await;
        let told = progress_of(&fixture, job);
        assert!(told.windows(2).all(|pair| pair[0] < pair[1] && pair[0].1 < pair[1].1), "{job}: {told:?}");
        let last = told.last().expect("progress").1;
        assert_eq!((Some(last), row.progress.items_processed), (crate::fixture::value(&row).as_i64(), last), "{job}");
        let messages = fixture.messages(job);
        assert_eq!(messages.last().expect("messages")["type"], "job_status", "nothing of it comes after its end");
    }
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_another_run_has_taken_stops_and_the_others_report_on() {
    let fixture = WorkerFixture::with(&[("worker.concurrency", &room())]).await;
    let end = Arc::new(AtomicI64::new(0));
    let worker = fixture.coder("w1", reports(end.clone())).await;
    let jobs = start_all(&fixture).await;
    // Another run takes one of them over, in Redis and in SQL.
    let taken = &jobs[7];
    let other = "w2".parse().expect("id");
    fixture.broker.heartbeat(&other, None, Duration::from_secs(60)).await.expect("heartbeat");
    fixture.broker.renew_run(taken, &other, 2).await.expect("run");
    fixture.sql(&format!("UPDATE jobs SET host = 'w2', run = 2 WHERE id = '{}'", taken.id)).await;
    let seq = fixture.broker.live(taken).await.expect("live").seq;
    let before: HashMap<&Resource, usize> = jobs.iter().map(|job| (job, progress_of(&fixture, job).len())).collect();
    for job in jobs.iter().filter(|job| *job != taken) {
        eventually("it reports on", || async { progress_of(&fixture, job).len() >= before[job] + 3 }).await;
    }
    let live = fixture.broker.live(taken).await.expect("live");
    assert_eq!((live.seq, live.progress), (seq, None), "nothing of the run that was taken over is told");
    end.store(1, Ordering::SeqCst);
    for job in jobs.iter().filter(|job| *job != taken) {
        fixture.until_status(job, JobStatus::Completed).await;
    }
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_go_on_when_redis_is_back_and_a_host_that_only_reports_keeps_its_jobs() {
    let mut fixture = WorkerFixture::with(&[("worker.concurrency", &room())]).await;
    let end = Arc::new(AtomicI64::new(0));
    let worker = fixture.coder("w1", reports(end.clone())).await;
    let jobs = start_all(&fixture).await;
    fixture.redis.restart();
    let before: HashMap<&Resource, i64> =
        jobs.iter().map(|job| (job, progress_of(&fixture, job).last().map_or(0, |last| last.0))).collect();
    for job in &jobs {
        eventually("it is heard of again, with a higher number", || async {
            progress_of(&fixture, job).last().is_some_and(|last| last.0 > before[job])
        })
        .await;
        let asked = ["HGET".to_owned(), fixture.broker.keys().state(job), "host".to_owned()];
        assert_eq!(fixture.broker.query_any(&asked).await.expect("read"), ["w1"]);
    }
    assert_eq!(fixture.command(Action::Cancel, &jobs[3]).await, "cancel_succeeded");
    end.store(1, Ordering::SeqCst);
    let counts = || async { fixture.store.job_totals(&tenant(), None).await.expect("totals") };
    eventually("all have ended", || async { counts().await.completed as usize == JOBS - 1 }).await;
    worker.drain().await;
}

/// As [`reports`], and says how far it is also while it is paused: a thread of a program may.
fn restless(end: Arc<AtomicI64>) -> Code<impl Fn(JobContext) -> futures_util::future::BoxFuture<'static, Ended>> {
    Code(move |ctx: JobContext| {
        let (teller, ends) = (ctx.clone(), end.clone());
        tokio::spawn(async move {
            for n in 1.. {
                if ends.load(Ordering::SeqCst) != 0 {
                    return;
                }
                teller.progress(Progress { items_processed: n, ..Progress::default() });
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let end = end.clone();
        let work: futures_util::future::BoxFuture<'static, Ended> = Box::pin(async move {
            while end.load(Ordering::SeqCst) == 0 {
                ctx.checkpoint().await?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(Value::Null)
        });
        work
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_progress_that_waits_for_others_does_not_call_a_job_running_that_was_paused_meanwhile() {
    let fixture = WorkerFixture::with(&[("worker.concurrency", &room())]).await;
    let end = Arc::new(AtomicI64::new(0));
    let worker = fixture.coder("w1", restless(end.clone())).await;
    let jobs = start_all(&fixture).await;
    for job in &jobs {
        fixture.submit(Action::Pause, job).await;
    }
    for job in &jobs {
        fixture.until_heard(job, |message| message["type"] == "job_status" && message["status"] == "paused").await;
        let after = || {
            let messages = fixture.messages(job);
            let is_paused = |m: &Value| m["type"] == "job_status" && m["status"] == "paused";
            let paused = messages.iter().position(is_paused).expect("heard");
            let told: Vec<Value> = messages[paused..].iter().filter(|m| m["type"] == "job_progress").cloned().collect();
            told
        };
        eventually("it is heard of twice more", || async { after().len() >= 2 }).await;
        let told = after();
        assert!(told.iter().all(|message| message["status"] == "paused"), "{job}: {told:?}");
    }
    end.store(1, Ordering::SeqCst);
    for job in &jobs {
        fixture.command(Action::Cancel, job).await;
    }
    worker.drain().await;
}
