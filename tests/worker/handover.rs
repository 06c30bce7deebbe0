//! Jobs that move from one worker to another: on purpose, and after a death.

use std::time::{Duration, Instant};

use serde_json::json;
use wheelhouse::domain::{Action, JobStatus, Progress, Resource, WorkerId};
use wheelhouse::worker::JobContext;

use wheelhouse::broker::scripts::claim::{Claim, ClaimOutcome};
use wheelhouse::store::{ApplyOutcome, CommandChange};

use crate::code::Outcome;
use crate::fixture::{Code, Trace, WorkerFixture, eventually};

/// Counts to 1,000 in steps that it remembers; each step waits for a permit of the test.
fn counting(trace: &Trace) -> Code<impl Fn(JobContext) -> Outcome + Send + Sync + 'static> {
    let trace = trace.clone();
    Code(move |ctx: JobContext| -> Outcome {
        let trace = trace.clone();
        Box::pin(async move {
            let from: i64 = ctx.resume_point()?.unwrap_or(0);
            trace.mark(format!("run from {from}"));
            trace.mark("run");
            for step in from..1_000 {
                ctx.checkpoint().await?;
                ctx.guard(trace.wait("step")).await?;
                trace.mark(format!("step {step}"));
                ctx.save(&(step + 1))?;
                ctx.progress(Progress { items_processed: step + 1, ..Progress::default() });
                trace.mark("steps");
            }
            Ok(json!(null))
        })
    })
}

async fn open_steps(trace: &Trace, steps: usize) {
    let before = trace.count("steps");
    for _ in 0..steps {
        trace.open("step");
    }
    trace.until("steps", before + steps).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_leaves_hands_its_jobs_back_and_another_goes_on_from_there() {
    let (fixture, trace) = (WorkerFixture::new().await, Trace::new());
    let first = fixture.coder("w1", counting(&trace)).await;
    let job = fixture.job("j").await;
    open_steps(&trace, 5).await;
    first.drain().await;
    let row = fixture.row(&job).await;
    assert_eq!((row.status, row.progress.items_processed), (JobStatus::Pending, 5));
    assert!(fixture.broker.all_live_workers().await.expect("asked").is_empty(), "it said goodbye");
    fixture.until_heard(&job, |m| m["type"] == "job_status" && m["status"] == "pending").await;

    let second = fixture.coder("w2", counting(&trace)).await;
    trace.until("run from 5", 1).await;
    open_steps(&trace, 3).await;
    for step in 0..8 {
        assert_eq!(trace.count(&format!("step {step}")), 1, "step {step}");
    }
    assert_eq!(fixture.command(Action::Cancel, &job).await, "cancel_succeeded");
    second.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_job_stays_paused_when_its_worker_leaves_and_goes_on_elsewhere_when_resumed() {
    let (fixture, trace) = (WorkerFixture::new().await, Trace::new());
    let first = fixture.coder("w1", counting(&trace)).await;
    let job = fixture.job("j").await;
    open_steps(&trace, 2).await;
    assert_eq!(fixture.command(Action::Pause, &job).await, "pause_succeeded");
    first.drain().await;
    assert_eq!(fixture.row(&job).await.status, JobStatus::Paused);
    let second = fixture.coder("w2", counting(&trace)).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(trace.count("run"), 1);
    assert_eq!(fixture.command(Action::Resume, &job).await, "resume_succeeded");
    trace.until("run from 2", 1).await;
    fixture.until_status(&job, JobStatus::Running).await;
    assert_eq!(fixture.command(Action::Cancel, &job).await, "cancel_succeeded");
    second.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_dead_workers_job_is_taken_over_once_and_its_command_carried_out() {
    let (fixture, trace) = (WorkerFixture::new().await, Trace::new());
    let doomed = fixture.coder("doomed", counting(&trace)).await;
    let (job, commanded) = (fixture.job("j").await, fixture.job("commanded").await);
    for job in [&job, &commanded] {
        fixture.until_status(job, JobStatus::Running).await;
    }
    trace.until("run", 2).await;
    doomed.crash().await;
    // Nobody is there to hear it.
    let cancel = fixture.submit(Action::Cancel, &commanded).await;
    let mut heirs = Vec::new();
    for n in 0..3 {
        heirs.push(fixture.coder(&format!("heir{n}"), counting(&trace)).await);
    }
    assert_eq!(fixture.result(&commanded, cancel).await["type"], "cancel_succeeded");
    trace.until("run", 3).await;
    fixture.until_status(&job, JobStatus::Running).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(trace.count("run"), 3, "taken over once, and what a cancel waited for not at all");
    assert_eq!(fixture.row(&commanded).await.status, JobStatus::Cancelled);
    assert_eq!(fixture.command(Action::Cancel, &job).await, "cancel_succeeded");
    for heir in heirs {
        heir.drain().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_job_for_which_a_cancel_waits_does_not_begin_and_one_with_a_pause_begins_when_resumed() {
    let (fixture, trace) = (WorkerFixture::new().await, Trace::new());
    let mut waiting = Vec::new();
    for n in 0..12 {
        let action = if n % 3 == 0 { Action::Pause } else { Action::Cancel };
        let job = fixture.job(&format!("j{n}")).await;
        waiting.push((action, fixture.submit(action, &job).await, job));
    }
    let worker = fixture.coder("w", counting(&trace)).await;
    for (action, command, job) in &waiting {
        let ended = fixture.result(job, *command).await["type"].clone();
        assert_eq!(ended, if *action == Action::Pause { "pause_succeeded" } else { "cancel_succeeded" });
    }
    assert_eq!(trace.count("run"), 0, "begun before its command");
    assert_eq!(fixture.command(Action::Resume, &waiting[0].2).await, "resume_succeeded");
    trace.until("run", 1).await;
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_lost_its_job_stops_and_changes_nothing() {
    let (fixture, trace) = (WorkerFixture::new().await, Trace::new());
    let stale = fixture.coder("stale", counting(&trace)).await;
    let job = fixture.job("j").await;
    open_steps(&trace, 2).await;
    eventually("the resume point is saved", || async { fixture.row(&job).await.progress.items_processed == 2 }).await;
    // As if it had slept while another worker declared it dead; it wakes and knows nothing of it.
    let run = fixture.store.hosted_runs().await.expect("runs").remove(0);
    let released = fixture.store.release_dead_run(&run, "gone", 5).await.expect("release").expect("it was hosted");
    assert_eq!(released.job.status, JobStatus::Pending);
    let paused = fixture.command(Action::Pause, &job).await;
    assert_eq!(paused, "pause_succeeded");
    assert_eq!(fixture.row(&job).await.status, JobStatus::Paused);
    // Steps of the old run, should it still go on, are lost on the row.
    for _ in 0..50 {
        trace.open("step");
    }
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let row = fixture.row(&job).await;
    assert_eq!((row.status, row.progress.items_processed), (JobStatus::Paused, 2));
    stale.drain().await;
    assert_eq!(fixture.row(&job).await.status, JobStatus::Paused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_serves_its_own_tenants_only() {
    let (fixture, trace) = (WorkerFixture::with(&[("worker.tenants", "globex,initech")]).await, Trace::new());
    let worker = {
        let running = fixture.worker_of_tenants("w1", counting(&trace), "globex").await;
        fixture.job("j").await;
        running
    };
    let ours = Resource::parse("acme:job:j").expect("resource");
    let command = fixture.submit(Action::Pause, &ours).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(fixture.broker.result_of(&ours, command).await.expect("asked"), None);
    assert_eq!((fixture.row(&ours).await.status, trace.count("run")), (JobStatus::Pending, 0));
    worker.drain().await;
}

/// A pause, taken up by a worker that dies with it, and a cancel that comes before or after its lease ends.
async fn broken_off(
    fixture: &WorkerFixture,
    job: &Resource,
    in_time: bool,
    die: impl AsyncFnOnce(&Claim),
) -> (serde_json::Value, serde_json::Value) {
    let pause = fixture.submit(Action::Pause, job).await;
    let doomed = "doomed".parse().expect("id");
    let lease = if in_time { Duration::from_secs(5) } else { Duration::from_millis(1) };
    let claimed = fixture.broker.claim(job, &doomed, lease).await.expect("claim");
    let ClaimOutcome::Command(claim) = claimed else { panic!("{claimed:?}") };
    die(&claim).await;
    tokio::time::sleep(Duration::from_millis(2)).await;
    let cancel = fixture.submit(Action::Cancel, job).await;
    let heir = fixture.worker("heir", |builder| builder).await;
    let results = (fixture.result(job, pause).await, fixture.result(job, cancel).await);
    heir.drain().await;
    results
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_whose_worker_died_gives_way_to_a_cancel_that_came_after_it() {
    for in_time in [true, false] {
        let fixture = WorkerFixture::new().await;
        let job = fixture.job("j").await;
        let (pause, cancel) = broken_off(&fixture, &job, in_time, async |_| {}).await;
        assert_eq!((&pause["type"], &pause["error"]), (&json!("pause_failed"), &json!("Superseded by cancel")));
        assert_eq!(cancel["type"], "cancel_succeeded");
        let messages = fixture.messages(&job);
        assert!(!messages.iter().any(|m| m["status"] == "paused"), "it never stood paused: {messages:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_that_was_applied_before_its_worker_died_has_succeeded_whatever_came_after_it() {
    for in_time in [true, false] {
        let fixture = WorkerFixture::new().await;
        let job = fixture.job("j").await;
        let (pause, cancel) = broken_off(&fixture, &job, in_time, async |claim| {
            let applied = fixture.store.apply(&change_of(claim)).await.expect("apply");
            assert!(matches!(applied, ApplyOutcome::Succeeded { changed: true, .. }), "{applied:?}");
        })
        .await;
        assert_eq!((&pause["type"], &pause["status"]), (&json!("pause_succeeded"), &json!("paused")));
        assert_eq!(cancel["type"], "cancel_succeeded");
    }
}

/// The write of a worker that is not dead but late: it waited for the database while its lease ran out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_that_gave_way_is_not_applied_by_the_worker_that_had_it_before() {
    let fixture = WorkerFixture::new().await;
    let job = fixture.job("j").await;
    // The cancel must not be what makes the older claim void.
    fixture
        .sql(
            "CREATE TRIGGER no_cancel BEFORE UPDATE ON jobs WHEN NEW.status = 'cancelled'
               BEGIN SELECT RAISE(ABORT, 'not in this test'); END",
        )
        .await;
    let mut late = None;
    let (pause, cancel) = broken_off(&fixture, &job, false, async |claim| late = Some(change_of(claim))).await;
    assert_eq!((&pause["type"], &pause["error"]), (&json!("pause_failed"), &json!("Superseded by cancel")));
    assert_eq!(cancel["type"], "cancel_failed");
    let applied = fixture.store.apply(&late.expect("claimed")).await.expect("apply");
    assert_eq!((applied, fixture.row(&job).await.status), (ApplyOutcome::Stale, JobStatus::Pending));
}

/// As before; here the cancel comes while its heir waits for the worker that ran the job.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_that_gave_way_while_it_waited_is_not_applied_by_the_worker_that_had_it_before() {
    for _ in 0..10 {
        if a_pause_gives_way_while_it_waits().await {
            return;
        }
    }
    panic!("this machine is too slow");
}

/// Whether the cancel came before the heir had waited for long enough: where it comes too late there is nothing to see.
async fn a_pause_gives_way_while_it_waits() -> bool {
    let fixture = WorkerFixture::new().await;
    let job = fixture.job("j").await;
    fixture
        .sql(
            "CREATE TRIGGER no_cancel BEFORE UPDATE ON jobs WHEN NEW.status = 'cancelled'
               BEGIN SELECT RAISE(ABORT, 'not in this test'); END",
        )
        .await;
    let silent: WorkerId = "silent".parse().expect("id");
    let row = fixture.row(&job).await;
    let hosted = fixture.store.claim_job(&silent, None, &[row.job_type]).await.expect("claim").expect("a job");
    let pause = fixture.submit(Action::Pause, &job).await;
    let moment = Duration::from_millis(1);
    let claimed = fixture.broker.claim(&job, &silent, moment).await.expect("claim");
    let ClaimOutcome::Command(claim) = claimed else { panic!("{claimed:?}") };
    let late = CommandChange { run: Some(hosted.run), ..change_of(&claim) };
    tokio::time::sleep(2 * moment).await;
    let begun = Instant::now();
    let heir = fixture.worker("heir", |builder| builder).await;
    // Until the heir has it.
    while !matches!(fixture.broker.claim(&job, &silent, moment).await.expect("claim"), ClaimOutcome::Later) {
        tokio::time::sleep(20 * moment).await;
    }
    let cancel = fixture.submit(Action::Cancel, &job).await;
    // Less than it takes to be sure that a worker is dead.
    if begun.elapsed() > Duration::from_secs(3) {
        heir.drain().await;
        return false;
    }
    let result = fixture.result(&job, pause).await;
    assert_eq!((&result["type"], &result["error"]), (&json!("pause_failed"), &json!("Superseded by cancel")));
    assert_eq!(fixture.store.apply(&late).await.expect("apply"), ApplyOutcome::Stale);
    assert_eq!(fixture.result(&job, cancel).await["type"], "cancel_failed");
    heir.drain().await;
    true
}

fn change_of(claim: &Claim) -> CommandChange {
    let (user, action) = (claim.user.clone(), claim.action);
    let (command, resource, fence) = (claim.command, claim.resource.clone(), claim.fence);
    CommandChange { command, resource, action, user, fence, run: None, request_id: None, record: None }
}
