//! Campaigns: dispatch that stops and goes on, completion, and a cancel that waits for what runs.

use std::time::Duration;

use serde_json::json;
use wheelhouse::domain::{Action, CampaignStatus, CommandId, JobStatus, Progress, Resource};
use wheelhouse::store::{CommandChange, JobFilter, NewJob, RunEnd};
use wheelhouse::worker::JobContext;

use crate::code::Outcome;
use crate::fixture::{Code, Trace, WorkerFixture, blank, eventually, exact, tenant};

/// Waits for the test, then is done.
fn step(trace: &Trace) -> Code<impl Fn(JobContext) -> Outcome + Send + Sync + 'static> {
    let trace = trace.clone();
    Code(move |ctx: JobContext| -> Outcome {
        let trace = trace.clone();
        Box::pin(async move {
            trace.mark("begun");
            ctx.critical(trace.wait("end")).await;
            ctx.checkpoint().await?;
            trace.mark("done");
            Ok(json!(null))
        })
    })
}

async fn counts(fixture: &WorkerFixture, campaign: &Resource, status: JobStatus) -> usize {
    let filter = JobFilter { status: vec![status], campaign: Some(campaign.id.clone()), ..JobFilter::of(tenant()) };
    fixture.store.jobs(&filter).await.expect("jobs").items.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_campaign_starts_no_job_and_a_resumed_one_runs_to_its_end() {
    let (fixture, trace) = (WorkerFixture::with(&[("worker.concurrency", "2")]).await, Trace::new());
    let worker = fixture.coder("w1", step(&trace)).await;
    let campaign = fixture.campaign(12).await;
    trace.until("begun", 2).await;
    trace.open("end");
    trace.until("begun", 3).await;
    assert_eq!(fixture.command(Action::Pause, &campaign).await, "pause_succeeded");
    let begun = trace.count("begun");
    let row = fixture.store.campaign(&campaign).await.expect("read").expect("row");
    assert!(!row.is_active && row.status == CampaignStatus::Paused);
    for _ in 0..12 {
        trace.open("end");
    }
    trace.until("done", 3).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(trace.count("begun"), begun, "a job was started after the pause");
    let paused = fixture.until_heard(&campaign, |m| m["type"] == "pause_succeeded").await;
    assert!(paused.iter().any(|m| m["type"] == "campaign_status" && m["is_active"] == false));

    assert_eq!(fixture.command(Action::Resume, &campaign).await, "resume_succeeded");
    trace.until("done", 12).await;
    let messages =
        fixture.until_heard(&campaign, |m| m["type"] == "campaign_status" && m["status"] == "completed").await;
    assert!(messages.iter().any(|m| m["type"] == "campaign_progress" && m["items_processed"] == 12), "{messages:#?}");
    assert_eq!(trace.count("begun"), 12, "each job ran once");
    assert_eq!(fixture.command(Action::Cancel, &campaign).await, "cancel_failed");
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_campaign_is_answered_when_none_of_its_jobs_runs_any_more() {
    let (fixture, trace) = (WorkerFixture::with(&[("worker.concurrency", "2")]).await, Trace::new());
    let first = fixture.coder("w1", step(&trace)).await;
    let second = fixture.coder("w2", step(&trace)).await;
    let campaign = fixture.campaign(20).await;
    trace.until("begun", 4).await;
    let cancel = fixture.submit(Action::Cancel, &campaign).await;
    fixture.until_heard(&campaign, |m| m["type"] == "campaign_status" && m["desired"] == "cancelled").await;
    eventually("what does not run is cancelled", || async {
        counts(&fixture, &campaign, JobStatus::Cancelled).await == 16
    })
    .await;
    for n in 0..4 {
        let running = Resource::parse(&format!("acme:job:c-{n}")).expect("resource");
        fixture.until_heard(&running, |m| m["desired"] == "cancelled").await;
    }
    for _ in 0..3 {
        trace.open("end");
    }
    eventually("three have ended", || async { counts(&fixture, &campaign, JobStatus::Running).await == 1 }).await;
    assert_eq!(fixture.broker.result_of(&campaign, cancel).await.expect("asked"), None, "one still runs");
    trace.open("end");
    let result = fixture.result(&campaign, cancel).await;
    assert_eq!((&result["type"], &result["status"]), (&json!("cancel_succeeded"), &json!("cancelled")));
    assert_eq!(counts(&fixture, &campaign, JobStatus::Cancelled).await, 20);
    assert_eq!((trace.count("begun"), trace.count("done")), (4, 0));
    let row = fixture.store.campaign(&campaign).await.expect("read").expect("row");
    assert_eq!((row.status, row.cancelled_by.as_deref()), (CampaignStatus::Cancelled, Some("ann")));
    let last = Resource::parse("acme:job:c-19").expect("resource");
    fixture.until_heard(&last, |m| m["type"] == "job_status" && m["status"] == "cancelled").await;
    assert_eq!(fixture.broker.live(&campaign).await.expect("live").desired, None);
    first.drain().await;
    second.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_whose_last_job_is_cancelled_is_completed() {
    let (fixture, trace) = (WorkerFixture::new().await, Trace::new());
    let campaign = fixture.campaign(2).await;
    let controller = fixture.worker("controller", |builder| builder).await;
    for n in 0..2 {
        let job = Resource::parse(&format!("acme:job:c-{n}")).expect("resource");
        assert_eq!(fixture.command(Action::Cancel, &job).await, "cancel_succeeded");
    }
    fixture.until_heard(&campaign, |m| m["type"] == "campaign_status" && m["status"] == "completed").await;
    assert_eq!(trace.count("begun"), 0);
    controller.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_whose_last_worker_died_before_it_could_complete_it_is_completed_by_another() {
    let fixture = WorkerFixture::new().await;
    let campaign = fixture.campaign(2).await;
    // As a worker leaves it that dies between the last job's end and the campaign's.
    fixture.sql("UPDATE jobs SET status = 'completed'").await;
    let other = fixture.worker("other", |builder| builder).await;
    fixture.until_heard(&campaign, |m| m["type"] == "campaign_status" && m["status"] == "completed").await;
    let row = fixture.store.campaign(&campaign).await.expect("read").expect("row");
    assert_eq!(row.status, CampaignStatus::Completed);
    other.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_job_of_a_cancelled_campaign_is_told_of_however_many_they_are() {
    let fixture = WorkerFixture::new().await;
    let campaign = fixture.campaign(5_600).await;
    let worker = fixture.worker("w1", |builder| builder).await;
    assert_eq!(fixture.command(Action::Cancel, &campaign).await, "cancel_succeeded");
    // It leaves at once: what it owes by then it says before it is gone, or another one does.
    worker.drain().await;
    let other = fixture.worker("other", |builder| builder).await;
    for n in [0, 1, 599, 600, 2_800, 5_598, 5_599] {
        let job = Resource::parse(&format!("acme:job:c-{n}")).expect("resource");
        fixture.until_heard(&job, |m| m["type"] == "job_status" && m["status"] == "cancelled").await;
    }
    eventually("nothing is owed any more", || async {
        fixture.store.announcements(10).await.is_ok_and(|owed| owed.is_empty())
    })
    .await;
    other.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_worker_did_not_say_another_one_says() {
    let fixture = WorkerFixture::new().await;
    let campaign = fixture.campaign(30).await;
    let ended = fixture.job("alone").await;
    // As workers leave it that die right after they have written: one had cancelled a campaign, one had completed a job.
    let change = CommandChange {
        command: CommandId::generate(),
        resource: campaign.clone(),
        action: Action::Cancel,
        user: "ann".parse().expect("user"),
        fence: 1,
        run: None,
        request_id: None,
        record: None,
    };
    fixture.store.apply(&change).await.expect("apply");
    let taken = fixture.store.claim_job(&"dead".parse().expect("id"), None, &["code".to_owned()]).await;
    let taken = taken.expect("asked").expect("the job");
    let done = RunEnd::Completed(exact(json!(null)));
    fixture.store.finish(&taken.run, &Progress::default(), &done).await.expect("finish");
    let other = fixture.worker("other", |builder| builder).await;
    fixture.until_heard(&ended, |m| m["type"] == "job_status" && m["status"] == "completed").await;
    for n in 0..30 {
        let job = Resource::parse(&format!("acme:job:c-{n}")).expect("resource");
        fixture.until_heard(&job, |m| m["type"] == "job_status" && m["status"] == "cancelled").await;
    }
    eventually("nothing is owed any more", || async {
        fixture.store.announcements(10).await.is_ok_and(|owed| owed.is_empty())
    })
    .await;
    other.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_campaign_outlasts_its_jobs_until_it_is_closed() {
    let (fixture, trace) = (WorkerFixture::new().await, Trace::new());
    let worker = fixture.coder("w1", step(&trace)).await;
    let campaign = fixture.campaign(0).await;
    for n in 0..3 {
        // One after another, each when the one before has ended.
        let job = NewJob { campaign: Some(campaign.id.clone()), ..blank(&format!("step-{n}")) };
        let job = fixture.make(job).await;
        trace.open("end");
        fixture.until_status(&job, JobStatus::Completed).await;
    }
    fixture.until_heard(&campaign, |m| m["type"] == "campaign_progress" && m["items_processed"] == 3).await;
    let row = fixture.store.campaign(&campaign).await.expect("read").expect("row");
    assert_eq!((row.status, row.is_open), (CampaignStatus::Active, true));
    let last = fixture.make(NewJob { campaign: Some(campaign.id.clone()), ..blank("step-3") }).await;
    trace.until("begun", 4).await;
    let closed = fixture.store.close_campaign(&campaign).await.expect("close").expect("it is there");
    assert!(!closed.has_completed);
    trace.open("end");
    fixture.until_status(&last, JobStatus::Completed).await;
    fixture.until_heard(&campaign, |m| m["type"] == "campaign_status" && m["status"] == "completed").await;
    worker.drain().await;
}
