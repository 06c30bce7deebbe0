//! Paused jobs are held by a worker for a while, and only so many: those with a resume point go back, the others are seen.

use serde_json::json;
use wheelhouse::domain::{Action, JobStatus, Resource};
use wheelhouse::worker::JobContext;

use crate::code::Outcome;
use crate::fixture::{Code, Trace, WorkerFixture, eventually, tenant};

/// Saves how often it has begun, where the job is called `saves-…`, and waits for its end.
fn waiting(trace: &Trace) -> Code<impl Fn(JobContext) -> Outcome + Send + Sync + 'static> {
    let trace = trace.clone();
    Code(move |ctx: JobContext| -> Outcome {
        let trace = trace.clone();
        Box::pin(async move {
            let begun: i64 = ctx.resume_point()?.unwrap_or(0);
            let id = ctx.job().id.to_string();
            if id.starts_with("saves") {
                ctx.save(&(begun + 1))?;
            }
            trace.mark(format!("{id} from {begun}"));
            ctx.guard(trace.wait(&format!("end of {id}"))).await?;
            Ok(json!(begun))
        })
    })
}

async fn started_and_paused(fixture: &WorkerFixture, trace: &Trace, id: &str) -> Resource {
    let job = fixture.job(id).await;
    trace.until(&format!("{id} from 0"), 1).await;
    assert_eq!(fixture.command(Action::Pause, &job).await, "pause_succeeded");
    job
}

async fn is_held(fixture: &WorkerFixture, job: &Resource) -> bool {
    fixture.store.hosted_runs().await.expect("runs").iter().any(|run| run.job == *job)
}

async fn knows_with_room(fixture: &WorkerFixture) -> bool {
    let known = fixture.broker.known_job_types(&tenant()).await.expect("asked").expect("all have said");
    assert!(known.all.contains("code"));
    known.with_room.contains("code")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_job_goes_back_after_a_while_and_goes_on_from_its_resume_point_when_it_is_resumed() {
    let fixture = WorkerFixture::with(&[("worker.paused_release_seconds", "1")]).await;
    let trace = Trace::new();
    let _worker = fixture.coder("w1", waiting(&trace)).await;
    let saves = started_and_paused(&fixture, &trace, "saves-1").await;
    let stays = started_and_paused(&fixture, &trace, "stays-1").await;
    eventually("nobody holds it any more", async || !is_held(&fixture, &saves).await).await;
    let row = fixture.row(&saves).await;
    assert_eq!((row.status, row.retry_count), (JobStatus::Paused, 0));
    assert!(is_held(&fixture, &stays).await, "it would begin anew");
    assert_eq!(fixture.command(Action::Resume, &saves).await, "resume_succeeded");
    trace.until("saves-1 from 1", 1).await;
    assert_eq!(fixture.command(Action::Resume, &stays).await, "resume_succeeded");
    for (job, id) in [(&saves, "saves-1"), (&stays, "stays-1")] {
        trace.open(&format!("end of {id}"));
        fixture.until_status(job, JobStatus::Completed).await;
    }
    assert_eq!(trace.count("stays-1 from 0"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_full_of_paused_jobs_makes_room_where_it_can_and_says_so_where_it_cannot() {
    let limits = [("worker.max_held_jobs", "2"), ("worker.paused_release_seconds", "0"), ("worker.concurrency", "1")];
    let (fixture, trace) = (WorkerFixture::with(&limits).await, Trace::new());
    let _worker = fixture.coder("w1", waiting(&trace)).await;
    let saves = started_and_paused(&fixture, &trace, "saves-1").await;
    assert!(is_held(&fixture, &saves).await, "there is room");
    let first = started_and_paused(&fixture, &trace, "stays-1").await;
    // The one that can has gone back, so that this one starts.
    let second = started_and_paused(&fixture, &trace, "stays-2").await;
    assert!(!is_held(&fixture, &saves).await);
    assert_eq!(fixture.row(&saves).await.status, JobStatus::Paused);

    let waits = fixture.job("stays-3").await;
    eventually("it says that it is full", async || !knows_with_room(&fixture).await).await;
    assert_eq!(fixture.row(&waits).await.status, JobStatus::Pending);
    assert!(is_held(&fixture, &first).await && is_held(&fixture, &second).await);
    assert_eq!(fixture.command(Action::Cancel, &first).await, "cancel_succeeded");
    trace.until("stays-3 from 0", 1).await;
    trace.open("end of stays-3");
    fixture.until_status(&waits, JobStatus::Completed).await;
    eventually("it says that it has room", async || knows_with_room(&fixture).await).await;
}
