//! Campaigns: dispatch that stops and goes on, completion, and a cancel that waits for what runs.

use std::time::Duration;

use serde_json::json;
use wheelhouse::domain::{Action, CampaignStatus, JobStatus, Resource};
use wheelhouse::store::JobFilter;
use wheelhouse::worker::JobContext;

use crate::code::Outcome;
use crate::world::{Code, Tape, World, eventually, tenant};

/// Waits for the test, then is done.
fn step(tape: &Tape) -> Code<impl Fn(JobContext) -> Outcome + Send + Sync + 'static> {
    let tape = tape.clone();
    Code(move |ctx: JobContext| -> Outcome {
        let tape = tape.clone();
        Box::pin(async move {
            tape.mark("begun");
            ctx.critical(tape.wait("end")).await;
            ctx.checkpoint().await?;
            tape.mark("done");
            Ok(json!(null))
        })
    })
}

async fn counts(world: &World, campaign: &Resource, status: JobStatus) -> usize {
    let filter = JobFilter {
        tenant: tenant(),
        status: Some(status),
        campaign: Some(campaign.id.clone()),
        job_type: None,
        after: None,
        limit: 1_000,
    };
    world.store.jobs(&filter).await.expect("jobs").items.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_campaign_starts_no_job_and_a_resumed_one_runs_to_its_end() {
    let (world, tape) = (World::with(&[("worker.concurrency", "2")]).await, Tape::new());
    let worker = world.coder("w1", step(&tape)).await;
    let campaign = world.campaign(12).await;
    tape.until("begun", 2).await;
    tape.open("end");
    tape.until("begun", 3).await;
    assert_eq!(world.command(Action::Pause, &campaign).await, "pause_succeeded");
    let begun = tape.count("begun");
    let row = world.store.campaign(&campaign).await.expect("read").expect("row");
    assert!(!row.is_active && row.status == CampaignStatus::Paused);
    for _ in 0..12 {
        tape.open("end");
    }
    tape.until("done", 3).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(tape.count("begun"), begun, "a job was started after the pause");
    let paused = world.until_heard(&campaign, |m| m["type"] == "pause_succeeded").await;
    assert!(paused.iter().any(|m| m["type"] == "campaign_status" && m["is_active"] == false));

    assert_eq!(world.command(Action::Resume, &campaign).await, "resume_succeeded");
    tape.until("done", 12).await;
    let messages = world.until_heard(&campaign, |m| m["type"] == "campaign_status" && m["status"] == "completed").await;
    assert!(messages.iter().any(|m| m["type"] == "campaign_progress" && m["items_processed"] == 12), "{messages:#?}");
    assert_eq!(tape.count("begun"), 12, "each job ran once");
    assert_eq!(world.command(Action::Cancel, &campaign).await, "cancel_failed");
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_campaign_is_answered_when_none_of_its_jobs_runs_any_more() {
    let (world, tape) = (World::with(&[("worker.concurrency", "2")]).await, Tape::new());
    let first = world.coder("w1", step(&tape)).await;
    let second = world.coder("w2", step(&tape)).await;
    let campaign = world.campaign(20).await;
    tape.until("begun", 4).await;
    let cancel = world.submit(Action::Cancel, &campaign).await;
    world.until_heard(&campaign, |m| m["type"] == "campaign_status" && m["desired"] == "cancelled").await;
    eventually("what does not run is cancelled", || async {
        counts(&world, &campaign, JobStatus::Cancelled).await == 16
    })
    .await;
    for n in 0..4 {
        let running = Resource::parse(&format!("acme:job:c-{n}")).expect("resource");
        world.until_heard(&running, |m| m["desired"] == "cancelled").await;
    }
    for _ in 0..3 {
        tape.open("end");
    }
    eventually("three have ended", || async { counts(&world, &campaign, JobStatus::Running).await == 1 }).await;
    assert_eq!(world.broker.result_of(&campaign, cancel).await.expect("asked"), None, "one still runs");
    tape.open("end");
    let result = world.result(&campaign, cancel).await;
    assert_eq!((&result["type"], &result["status"]), (&json!("cancel_succeeded"), &json!("cancelled")));
    assert_eq!(counts(&world, &campaign, JobStatus::Cancelled).await, 20);
    assert_eq!((tape.count("begun"), tape.count("done")), (4, 0));
    let row = world.store.campaign(&campaign).await.expect("read").expect("row");
    assert_eq!((row.status, row.cancelled_by.as_deref()), (CampaignStatus::Cancelled, Some("ann")));
    let last = Resource::parse("acme:job:c-19").expect("resource");
    world.until_heard(&last, |m| m["type"] == "job_status" && m["status"] == "cancelled").await;
    assert_eq!(world.broker.live(&campaign).await.expect("live").desired, None);
    first.drain().await;
    second.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_whose_last_job_is_cancelled_is_completed() {
    let (world, tape) = (World::new().await, Tape::new());
    let campaign = world.campaign(2).await;
    let controller = world.worker("controller", |builder| builder).await;
    for n in 0..2 {
        let job = Resource::parse(&format!("acme:job:c-{n}")).expect("resource");
        assert_eq!(world.command(Action::Cancel, &job).await, "cancel_succeeded");
    }
    world.until_heard(&campaign, |m| m["type"] == "campaign_status" && m["status"] == "completed").await;
    assert_eq!(tape.count("begun"), 0);
    controller.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_whose_last_worker_died_before_it_could_complete_it_is_completed_by_another() {
    let world = World::new().await;
    let campaign = world.campaign(2).await;
    // As a worker leaves it that dies between the last job's end and the campaign's.
    world.sql("UPDATE jobs SET status = 'completed'").await;
    let other = world.worker("other", |builder| builder).await;
    world.until_heard(&campaign, |m| m["type"] == "campaign_status" && m["status"] == "completed").await;
    let row = world.store.campaign(&campaign).await.expect("read").expect("row");
    assert_eq!(row.status, CampaignStatus::Completed);
    other.drain().await;
}
