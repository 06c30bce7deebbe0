//! Campaigns: dispatch that stops and goes on, completion, and a cancel that waits for what runs.

use std::time::Duration;

use serde_json::json;
use wheelhouse::domain::{Action, CampaignStatus, CommandId, JobStatus, Progress, Resource};
use wheelhouse::store::{Change, JobFilter, NewJob, RunEnd};
use wheelhouse::worker::JobContext;

use crate::code::Outcome;
use crate::world::{Code, Tape, World, blank, eventually, exact, tenant};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_job_of_a_cancelled_campaign_is_told_of_however_many_they_are() {
    let world = World::new().await;
    let campaign = world.campaign(5_600).await;
    let worker = world.worker("w1", |builder| builder).await;
    assert_eq!(world.command(Action::Cancel, &campaign).await, "cancel_succeeded");
    // It leaves at once: what it owes by then it says before it is gone, or another one does.
    worker.drain().await;
    let other = world.worker("other", |builder| builder).await;
    for n in [0, 1, 599, 600, 2_800, 5_598, 5_599] {
        let job = Resource::parse(&format!("acme:job:c-{n}")).expect("resource");
        world.until_heard(&job, |m| m["type"] == "job_status" && m["status"] == "cancelled").await;
    }
    eventually("nothing is owed any more", || async {
        world.store.announcements(10).await.is_ok_and(|owed| owed.is_empty())
    })
    .await;
    other.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_worker_did_not_say_another_one_says() {
    let world = World::new().await;
    let campaign = world.campaign(30).await;
    let ended = world.job("alone").await;
    // As workers leave it that die right after they have written: one had cancelled a campaign, one had completed a job.
    let change = Change {
        command: CommandId::generate(),
        resource: campaign.clone(),
        action: Action::Cancel,
        user: "ann".parse().expect("user"),
        fence: 1,
        run: None,
    };
    world.store.apply(&change).await.expect("apply");
    let taken = world.store.claim_job(&"dead".parse().expect("id"), None, &["code".to_owned()]).await;
    let taken = taken.expect("asked").expect("the job");
    let done = RunEnd::Completed(exact(json!(null)));
    world.store.finish(&taken.run, &Progress::default(), &done).await.expect("finish");
    let other = world.worker("other", |builder| builder).await;
    world.until_heard(&ended, |m| m["type"] == "job_status" && m["status"] == "completed").await;
    for n in 0..30 {
        let job = Resource::parse(&format!("acme:job:c-{n}")).expect("resource");
        world.until_heard(&job, |m| m["type"] == "job_status" && m["status"] == "cancelled").await;
    }
    eventually("nothing is owed any more", || async {
        world.store.announcements(10).await.is_ok_and(|owed| owed.is_empty())
    })
    .await;
    other.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_campaign_outlasts_its_jobs_until_it_is_closed() {
    let (world, tape) = (World::new().await, Tape::new());
    let worker = world.coder("w1", step(&tape)).await;
    let campaign = world.campaign(0).await;
    for n in 0..3 {
        // One after another, each when the one before has ended.
        let job = NewJob { campaign: Some(campaign.id.clone()), ..blank(&format!("step-{n}")) };
        let job = world.make(job).await;
        tape.open("end");
        world.until_status(&job, JobStatus::Completed).await;
    }
    world.until_heard(&campaign, |m| m["type"] == "campaign_progress" && m["items_processed"] == 3).await;
    let row = world.store.campaign(&campaign).await.expect("read").expect("row");
    assert_eq!((row.status, row.is_open), (CampaignStatus::Active, true));
    let last = world.make(NewJob { campaign: Some(campaign.id.clone()), ..blank("step-3") }).await;
    tape.until("begun", 4).await;
    let closed = world.store.close_campaign(&campaign).await.expect("close").expect("it is there");
    assert!(!closed.has_completed);
    tape.open("end");
    world.until_status(&last, JobStatus::Completed).await;
    world.until_heard(&campaign, |m| m["type"] == "campaign_status" && m["status"] == "completed").await;
    worker.drain().await;
}
