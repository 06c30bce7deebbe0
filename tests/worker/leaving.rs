//! Workers that leave on purpose, as real processes that are told so by signals; and jobs that must run alone.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use wheelhouse::config;
use wheelhouse::domain::{JobStatus, Resource};
use wheelhouse::worker::{JobContext, JobError, WorkerBuilder};

use crate::code::Outcome;
use crate::fixture::{Code, Trace, WorkerFixture, eventually};

/// Set in the processes that these tests start: this binary is then a worker, as an author of job code writes it.
const ROLE: &str = "WHEELHOUSE_TEST_IS_A_WORKER";

/// Never comes to its end. A stubborn one never comes to a checkpoint either.
async fn endless(ctx: JobContext) -> Result<Value, JobError> {
    if ctx.job().id.as_str() == "stubborn" {
        ctx.blocking(|_| {
            loop {
                std::thread::sleep(Duration::from_millis(50))
            }
        })
        .await
    } else {
        ctx.guard(std::future::pending::<()>()).await?;
        Ok(json!(null))
    }
}

/// Not a test of its own: the process that [`Deployed::start`] makes of this binary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn is_a_worker() {
    if std::env::var_os(ROLE).is_some() {
        let settings = config::load(None, Vec::new()).expect("settings from the environment");
        WorkerBuilder::new(settings).job(Code(endless)).build().run().await.expect("the worker runs");
    }
}

/// A worker as a process.
struct Deployed(Child);

impl Deployed {
    fn start(fixture: &WorkerFixture, ignored: &str) -> Self {
        let mut command = Command::new("sh");
        // Its own group: a signal to it is none to this test.
        command
            .args(["-c", &format!("{ignored} exec \"$@\""), "sh"])
            .arg(std::env::current_exe().expect("this test"))
            .args(["--exact", "leaving::is_a_worker", "--nocapture"])
            .env(ROLE, "1")
            .env("WHEELHOUSE__REDIS__URL", fixture.redis.url())
            .env("WHEELHOUSE__DATABASE__URL", format!("sqlite://{}", fixture.folder().join("wheelhouse.db").display()))
            .env("WHEELHOUSE__WORKER__DEATHS_PER_JOB", "1")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self(command.spawn().expect("start a worker"))
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).expect("pid")).expect("pid");
        kill_process(pid, signal).expect("signal");
    }

    async fn ended(mut self) -> std::process::ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().expect("wait") {
                return status;
            }
            assert!(begun.elapsed() < Duration::from_secs(40), "the worker does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Deployed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn number(fixture: &WorkerFixture, column: &str, job: &Resource) -> Option<i64> {
    use sqlx::Row;
    let text = sqlx::AssertSqlSafe(format!("SELECT {column} FROM jobs WHERE id = '{}'", job.id));
    sqlx::query(text).fetch_one(&mut fixture.connection().await).await.expect("the row").get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deployments_do_not_count_as_deaths_of_a_job_without_resume_points() {
    let fixture = WorkerFixture::new().await;
    let job = fixture.job("healthy").await;
    for signal in [Signal::TERM, Signal::TERM, Signal::INT, Signal::HUP, Signal::TERM] {
        let worker = Deployed::start(&fixture, "");
        fixture.until_status(&job, JobStatus::Running).await;
        worker.signal(signal);
        let ended = worker.ended().await;
        assert!(ended.success(), "{signal:?}: {ended}");
        // Handed back before it ended, so that any other worker may take it at once.
        assert_eq!(fixture.row(&job).await.status, JobStatus::Pending, "{signal:?}");
        assert_eq!(number(&fixture, "deaths", &job).await, Some(0), "{signal:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_killed_while_it_leaves_has_not_died_in_its_jobs() {
    let fixture = WorkerFixture::new().await;
    let job = fixture.job("stubborn").await;
    // Killed by its process manager, whose patience was over; then by an operator's second signal.
    for run in [1, 2] {
        let worker = Deployed::start(&fixture, "");
        eventually("it runs", || async { number(&fixture, "run", &job).await == Some(run) }).await;
        worker.signal(Signal::TERM);
        eventually("it says that it leaves", || async { number(&fixture, "left_run", &job).await == Some(run) }).await;
        worker.signal(if run == 1 { Signal::KILL } else { Signal::TERM });
        let ended = worker.ended().await;
        assert_eq!(ended.code(), if run == 1 { None } else { Some(143) }, "at once, and not in good order: {ended}");
        assert_eq!(fixture.row(&job).await.status, JobStatus::Running, "nobody has handed it back");
    }
    // One death would be enough.
    let worker = Deployed::start(&fixture, "");
    eventually("it runs again", || async { number(&fixture, "run", &job).await == Some(3) }).await;
    assert_eq!(number(&fixture, "deaths", &job).await, Some(0));
    worker.signal(Signal::KILL);
    worker.ended().await;
    let heir = Deployed::start(&fixture, "");
    fixture.until_status(&job, JobStatus::Failed).await;
    drop(heir);
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_does_not_leave_for_signals_that_it_was_started_to_ignore() {
    let fixture = WorkerFixture::new().await;
    let job = fixture.job("healthy").await;
    let worker = Deployed::start(&fixture, "trap '' HUP INT;");
    fixture.until_status(&job, JobStatus::Running).await;
    for signal in [Signal::HUP, Signal::INT, Signal::INT] {
        worker.signal(signal);
    }
    // Had one of them been heard, this one would be the second, which ends it at once.
    worker.signal(Signal::TERM);
    let ended = worker.ended().await;
    assert!(ended.success(), "{ended}");
    assert_eq!(fixture.row(&job).await.status, JobStatus::Pending);
}

/// Says that it has begun, and waits until the test lets it end.
fn held(trace: &Trace) -> Code<impl Fn(JobContext) -> Outcome + Send + Sync + 'static> {
    let trace = trace.clone();
    Code(move |ctx: JobContext| -> Outcome {
        let trace = trace.clone();
        Box::pin(async move {
            let id = ctx.job().id.to_string();
            trace.mark(format!("begin {id}"));
            trace.mark("begin");
            ctx.guard(trace.wait(&id)).await?;
            if id == "saves" {
                ctx.save(&1)?;
                trace.mark("saved");
                ctx.guard(trace.wait("saved")).await?;
            }
            Ok(json!(null))
        })
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_in_which_two_workers_died_runs_alone_also_where_workers_are_always_busy() {
    let (fixture, trace) = (WorkerFixture::new().await, Trace::new());
    let worker = fixture.coder("w", held(&trace)).await;
    let (first, second) = (fixture.job("first").await, fixture.job("second").await);
    trace.until("begin", 2).await;
    fixture.sql("CREATE TRIGGER suspect AFTER INSERT ON jobs WHEN NEW.id = 'suspect' BEGIN UPDATE jobs SET deaths = 2 WHERE rowid = NEW.rowid; END").await;
    let suspect = fixture.job("suspect").await;
    eventually("room is made for it", || async { number(&fixture, "alone_in = 'w'", &suspect).await == Some(1) }).await;
    let third = fixture.job("third").await;
    trace.open("first");
    fixture.until_status(&first, JobStatus::Completed).await;
    // There is room for another, but not for this one, and it is kept for this one.
    assert_eq!((trace.count("begin suspect"), trace.count("begin third")), (0, 0));
    trace.open("second");
    trace.until("begin suspect", 1).await;
    assert_eq!(fixture.row(&second).await.status, JobStatus::Completed);
    // Two looks of the dispatcher at least: it has room for three more, and takes none.
    tokio::time::sleep(Duration::from_millis(2_700)).await;
    assert_eq!(trace.count("begin third"), 0, "nothing runs beside it");
    trace.open("suspect");
    fixture.until_status(&suspect, JobStatus::Completed).await;
    trace.until("begin third", 1).await;
    trace.open("third");
    fixture.until_status(&third, JobStatus::Completed).await;
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspect_that_gets_further_gets_company_again() {
    let (fixture, trace) = (WorkerFixture::new().await, Trace::new());
    fixture.sql("CREATE TRIGGER suspect AFTER INSERT ON jobs WHEN NEW.id = 'saves' BEGIN UPDATE jobs SET deaths = 3 WHERE rowid = NEW.rowid; END").await;
    let suspect = fixture.job("saves").await;
    let other = fixture.job("other").await;
    let worker = fixture.coder("w", held(&trace)).await;
    trace.until("begin saves", 1).await;
    assert_eq!(trace.count("begin other"), 0);
    trace.open("saves");
    trace.until("begin other", 1).await;
    assert_eq!(number(&fixture, "deaths", &suspect).await, Some(0));
    trace.open("saved");
    trace.open("other");
    fixture.until_status(&suspect, JobStatus::Completed).await;
    fixture.until_status(&other, JobStatus::Completed).await;
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_resume_point_is_written_at_once() {
    let (fixture, trace) = (WorkerFixture::new().await, Trace::new());
    let worker = fixture.coder("w", held(&trace)).await;
    // A worker that dies within the first second must not take it along. On a busy machine one may be late, but not each.
    for n in 0..5 {
        fixture.sql("DELETE FROM jobs").await;
        let job = fixture.job("saves").await;
        trace.until("begin", n + 1).await;
        trace.open("saves");
        trace.until("saved", n + 1).await;
        let begun = Instant::now();
        eventually("it is written", || async { number(&fixture, "resume_point IS NOT NULL", &job).await == Some(1) })
            .await;
        let in_time = begun.elapsed() < Duration::from_millis(500);
        trace.open("saved");
        fixture.until_status(&job, JobStatus::Completed).await;
        if in_time {
            return worker.drain().await;
        }
    }
    panic!("it is never written at once");
}
