//! What job code can rely on: guards, critical sections, threads, progress, failures.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use wheelhouse::domain::{Action, JobStatus, Progress};
use wheelhouse::store::NewJob;
use wheelhouse::worker::process::Program;
use wheelhouse::worker::{JobContext, JobError};

use crate::fixture::{Code, Trace, WorkerFixture, blank, eventually, exact};

/// What job code gives back, boxed.
pub type Outcome = Pin<Box<dyn Future<Output = Result<Value, JobError>> + Send>>;

/// Tells when it is dropped.
struct Dropped(Trace);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.mark("dropped");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guarded_future_is_held_while_paused_and_dropped_when_cancelled() {
    let (fixture, trace) = (WorkerFixture::new().await, Trace::new());
    let inside = trace.clone();
    let code = Code(move |ctx: JobContext| {
        let trace = inside.clone();
        async move {
            let endless = async {
                let _dropped = Dropped(trace.clone());
                loop {
                    trace.mark("tick");
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            // A second branch with no gate in it: it must stand still as well.
            let beside = async {
                loop {
                    trace.mark("beside");
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            tokio::select! {
                guarded = ctx.guard(endless) => {
                    let _: std::convert::Infallible = guarded?;
                    Ok(json!(null))
                }
                () = beside => Ok(json!(null)),
            }
        }
    });
    let worker = fixture.coder("w1", code).await;
    let job = fixture.job("j").await;
    trace.until("tick", 3).await;
    assert_eq!(fixture.command(Action::Pause, &job).await, "pause_succeeded");
    let (ticks, beside) = (trace.count("tick"), trace.count("beside"));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!((trace.count("tick"), trace.count("beside")), (ticks, beside));
    assert_eq!(fixture.command(Action::Resume, &job).await, "resume_succeeded");
    trace.until("tick", ticks + 3).await;
    trace.until("beside", beside + 3).await;
    assert_eq!(trace.count("dropped"), 0);
    assert_eq!(fixture.command(Action::Cancel, &job).await, "cancel_succeeded");
    assert_eq!(trace.count("dropped"), 1);
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_counts_as_stopped_inside_a_critical_section() {
    let (fixture, trace) = (WorkerFixture::new().await, Trace::new());
    let inside = trace.clone();
    let code = Code(move |ctx: JobContext| {
        let trace = inside.clone();
        async move {
            loop {
                ctx.checkpoint().await?;
                trace.mark("round");
                ctx.critical(async {
                    trace.wait("first half").await;
                    trace.mark("first half");
                    // Inside, a checkpoint lets pass, and a guard runs on.
                    ctx.checkpoint().await?;
                    ctx.guard(trace.wait("second half")).await?;
                    trace.mark("second half");
                    Ok::<_, JobError>(())
                })
                .await?;
            }
        }
    });
    let worker = fixture.coder("w1", code).await;
    let job = fixture.job("j").await;
    trace.until("round", 1).await;
    let pause = fixture.submit(Action::Pause, &job).await;
    fixture.until_heard(&job, |m| m["desired"] == "paused").await;
    trace.open("first half");
    trace.until("first half", 1).await;
    assert_eq!(fixture.broker.result_of(&job, pause).await.expect("asked"), None);
    assert_eq!(fixture.row(&job).await.status, JobStatus::Running);
    trace.open("second half");
    assert_eq!(fixture.result(&job, pause).await["type"], "pause_succeeded");
    assert_eq!((trace.count("second half"), trace.count("round")), (1, 1));
    fixture.command(Action::Cancel, &job).await;
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_with_a_blocking_thread_is_paused_when_the_thread_is() {
    let (fixture, trace) = (WorkerFixture::new().await, Trace::new());
    let inside = trace.clone();
    let busy = Arc::new(AtomicBool::new(true));
    let held = busy.clone();
    let code = Code(move |ctx: JobContext| {
        let (trace, busy) = (inside.clone(), held.clone());
        async move {
            let thread = ctx.blocking(move |ctx| {
                loop {
                    trace.mark("turn");
                    while busy.load(Ordering::SeqCst) {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    ctx.checkpoint_blocking()?;
                    std::thread::sleep(Duration::from_millis(2));
                }
            });
            // The future itself waits at the gate at once.
            let gate = async {
                loop {
                    ctx.checkpoint().await?;
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            let (thread, gate): (Result<(), JobError>, Result<(), JobError>) = tokio::join!(thread, gate);
            thread.and(gate).map(|()| json!(null))
        }
    });
    let worker = fixture.coder("w1", code).await;
    let job = fixture.job("j").await;
    trace.until("turn", 1).await;
    let pause = fixture.submit(Action::Pause, &job).await;
    fixture.until_heard(&job, |m| m["desired"] == "paused").await;
    assert_eq!(fixture.broker.result_of(&job, pause).await.expect("asked"), None, "the thread is still busy");
    busy.store(false, Ordering::SeqCst);
    assert_eq!(fixture.result(&job, pause).await["type"], "pause_succeeded");
    let turns = trace.count("turn");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(trace.count("turn"), turns);
    assert_eq!(fixture.command(Action::Resume, &job).await, "resume_succeeded");
    trace.until("turn", turns + 2).await;
    assert_eq!(fixture.command(Action::Cancel, &job).await, "cancel_succeeded");
    let turns = trace.count("turn");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(trace.count("turn"), turns);
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_of_the_job_stops_goes_on_and_ends_with_it() {
    let (fixture, trace) = (WorkerFixture::new().await, Trace::new());
    let inside = trace.clone();
    let code = Code(move |ctx: JobContext| {
        let trace = inside.clone();
        async move {
            let script = "while :; do echo turn; sleep 0.02; done";
            let supervisor = env!("CARGO_BIN_EXE_wheelhouse").into();
            let program = Program::with_supervisor(supervisor, "sh", ["-c", script]).map_err(JobError::failed)?;
            let mut child = ctx.child(program).await?;
            trace.mark(format!("pid {}", child.pid()));
            let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
            while ctx.guard(lines.next_line()).await?.map_err(JobError::failed)?.is_some() {
                trace.mark("turn");
            }
            Ok(json!(child.ended().await.how.to_string()))
        }
    });
    let worker = fixture.coder("w1", code).await;
    let job = fixture.job("j").await;
    trace.until("turn", 3).await;
    let pid: i32 = trace.named("pid ").parse().expect("a number");
    let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert_eq!(fixture.command(Action::Pause, &job).await, "pause_succeeded");
    assert!(state().contains(" T "), "not stopped: {}", state());
    let turns = trace.count("turn");
    assert_eq!(fixture.command(Action::Resume, &job).await, "resume_succeeded");
    trace.until("turn", turns + 3).await;
    assert_eq!(fixture.command(Action::Cancel, &job).await, "cancel_succeeded");
    assert_eq!(state(), "", "the program is still there");
    assert_eq!(fixture.row(&job).await.status, JobStatus::Cancelled);
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_code_says_and_its_programs_print_is_kept_whether_it_is_read_or_not() {
    let (fixture, trace) = (WorkerFixture::new().await, Trace::new());
    let inside = trace.clone();
    let code = Code(move |ctx: JobContext| {
        let trace = inside.clone();
        async move {
            ctx.log("code begins");
            let script = "echo to be read; echo not to be read >&2; exit 0";
            let supervisor = env!("CARGO_BIN_EXE_wheelhouse").into();
            let program = Program::with_supervisor(supervisor, "sh", ["-c", script]).map_err(JobError::failed)?;
            let mut child = ctx.child(program).await?;
            drop(child.stderr.take());
            let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
            while let Some(line) = lines.next_line().await.map_err(JobError::failed)? {
                trace.mark(line);
            }
            child.ended().await;
            Ok(json!(null))
        }
    });
    let worker = fixture.coder("w1", code).await;
    let job = fixture.job("j").await;
    fixture.until_status(&job, JobStatus::Completed).await;
    assert_eq!(trace.count("to be read"), 1);
    let lines = async || fixture.store.job_output(&job, 0, 10).await.expect("read");
    eventually("all lines are written", || async { lines().await.len() == 3 }).await;
    let mut said: Vec<_> = lines().await.into_iter().map(|line| (line.stream.as_str(), line.text)).collect();
    said.sort();
    let line = |stream: &'static str, text: &str| (stream, text.to_owned());
    assert_eq!(said, [line("log", "code begins"), line("stderr", "not to be read"), line("stdout", "to be read")]);
    worker.drain().await;
}

/// A program that calls the supervisor as `nobody`, and one that makes whoever calls it root: what `sudo` is.
fn two_users(folder: &std::path::Path) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    assert!(rustix::process::geteuid().is_root(), "run the tests as root: these need processes of two users");
    let mode = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("chmod");
    };
    let (supervisor, helper) = (folder.join("supervisor"), folder.join("as-root"));
    let binary = env!("CARGO_BIN_EXE_wheelhouse");
    let call = format!("#!/bin/sh\nexec setpriv --reuid 65534 --regid 65534 --clear-groups {binary} \"$@\"\n");
    std::fs::write(&supervisor, call).expect("write");
    std::fs::copy("/usr/bin/setpriv", &helper).expect("setpriv: install util-linux");
    for (path, bits) in [(folder, 0o777), (&supervisor, 0o755), (&helper, 0o4755)] {
        mode(path, bits);
    }
    supervisor
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_program_has_another_users_process_is_neither_paused_nor_cancelled_and_says_which() {
    let (fixture, trace, folder) = (WorkerFixture::new().await, Trace::new(), tempfile::tempdir().expect("folder"));
    let (supervisor, place, inside) = (two_users(folder.path()), folder.path().to_path_buf(), trace.clone());
    let code = Code(move |ctx: JobContext| {
        let (trace, supervisor, place) = (inside.clone(), supervisor.clone(), place.clone());
        async move {
            let script = "$0/as-root --reuid 0 --regid 0 --clear-groups sh -c 'echo theirs $$; while :; do sleep 0.05; done' & while :; do echo turn; sleep 0.02; done";
            let place = place.to_string_lossy().into_owned();
            let program =
                Program::with_supervisor(supervisor, "sh", ["-c", script, &place]).map_err(JobError::failed)?;
            let mut child = ctx.child(program).await?;
            // Of the same job, and its own user's: it must not stay stopped when the other refuses.
            let binary = env!("CARGO_BIN_EXE_wheelhouse").into();
            let other = Program::with_supervisor(binary, "sleep", ["600"]).map_err(JobError::failed)?;
            let other = ctx.child(other).await?;
            trace.mark(format!("other {}", other.pid()));
            let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
            while let Some(line) = ctx.guard(lines.next_line()).await?.map_err(JobError::failed)? {
                let is_theirs = line.starts_with("theirs");
                trace.mark(line);
                if is_theirs {
                    trace.mark("both");
                }
            }
            Ok(json!(child.ended().await.how.to_string()))
        }
    });
    let worker = fixture.coder("w1", code).await;
    let job = fixture.job("j").await;
    trace.until("both", 1).await;
    trace.until("turn", 3).await;
    let (theirs, other) = (trace.named("theirs "), trace.named("other "));
    let state = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    for action in [Action::Pause, Action::Cancel] {
        let command = fixture.submit(action, &job).await;
        let answer = fixture.result(&job, command).await;
        assert_eq!(answer["type"], format!("{}_failed", action.as_str()), "{answer}");
        let words = answer["error"].as_str().unwrap_or_default();
        assert!(words.contains(&format!("process {theirs} (sh) of user root")), "{answer}");
        assert_eq!(fixture.row(&job).await.status, JobStatus::Running);
        assert!(state(&other).contains(") S "), "it stands or is gone: {}", state(&other));
        let turns = trace.count("turn");
        trace.until("turn", turns + 3).await;
    }
    let theirs = rustix::process::Pid::from_raw(theirs.parse().expect("a number")).expect("pid");
    rustix::process::kill_process(theirs, rustix::process::Signal::KILL).expect("kill");
    assert_eq!(fixture.command(Action::Cancel, &job).await, "cancel_succeeded");
    assert_eq!(state(&other), "", "the program is still there");
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn code_that_never_comes_to_a_checkpoint_is_dropped_after_the_grace() {
    let (fixture, trace) = (WorkerFixture::with(&[("worker.grace_seconds", "1")]).await, Trace::new());
    let inside = trace.clone();
    let code = Code(move |_ctx: JobContext| {
        let trace = inside.clone();
        async move {
            let _dropped = Dropped(trace.clone());
            trace.mark("begun");
            std::future::pending::<()>().await;
            Ok(json!(null))
        }
    });
    let worker = fixture.coder("w1", code).await;
    let job = fixture.job("j").await;
    trace.until("begun", 1).await;
    assert_eq!(fixture.command(Action::Cancel, &job).await, "cancel_succeeded");
    assert_eq!(trace.count("dropped"), 1);
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_is_folded_to_four_a_second_and_the_last_one_always_arrives() {
    let (fixture, trace) = (WorkerFixture::new().await, Trace::new());
    let inside = trace.clone();
    let code = Code(move |ctx: JobContext| {
        let trace = inside.clone();
        async move {
            let begun = Instant::now();
            let mut n = 0;
            while begun.elapsed() < Duration::from_millis(1_500) || trace.count("heard") == 0 {
                n += 1;
                ctx.progress(Progress { progress_percent: 50, items_processed: n, ..Progress::default() });
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            ctx.progress(Progress { progress_percent: 200, items_processed: 999_999, ..Progress::default() });
            Ok(json!(begun.elapsed().as_millis() as u64))
        }
    });
    let worker = fixture.coder("w1", code).await;
    let job = fixture.job("j").await;
    eventually("some progress is heard", || async {
        fixture.messages(&job).iter().filter(|m| m["type"] == "job_progress").count() >= 3
    })
    .await;
    trace.mark("heard");
    let messages = fixture.until_heard(&job, |m| m["status"] == "completed").await;
    let progress: Vec<&Value> = messages.iter().filter(|m| m["type"] == "job_progress").collect();
    let row = fixture.row(&job).await;
    let took = row.result.read::<u64>().expect("milliseconds");
    // Four a second, and one at either end.
    assert!(progress.len() as u64 <= took / 250 + 2, "{} messages in {took} ms", progress.len());
    let last = progress.last().expect("one");
    assert_eq!((&last["items_processed"], &last["progress_percent"]), (&json!(999_999), &json!(100)));
    assert_eq!((row.progress.items_processed, row.progress.progress_percent), (999_999, 100));
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_fails_its_job_in_words_and_nothing_else() {
    let fixture = WorkerFixture::new().await;
    let code = Code(|ctx: JobContext| async move {
        match ctx.parameters_as::<Value>()?["do"].as_str() {
            Some("panic") => panic!("boom {}", 7),
            Some("panic on a thread") => ctx.blocking(|_| -> Result<Value, JobError> { panic!("thread boom") }).await,
            Some("say cancelled") => Err(wheelhouse::worker::Cancelled::new("me", None).into()),
            Some("fail for good") => Err(JobError::permanent("never")),
            Some("count") => ctx.parameters_as::<u64>().map(|n| json!(n)),
            _ => Ok(json!("fine")),
        }
    });
    let worker = fixture.coder("w1", code).await;
    for (what, status, words) in [
        ("panic", JobStatus::Failed, "The job's code panicked: boom 7"),
        ("panic on a thread", JobStatus::Failed, "The job's code panicked: thread boom"),
        ("say cancelled", JobStatus::Failed, "nobody cancelled it"),
        ("fail for good", JobStatus::Failed, "never"),
        ("count", JobStatus::Failed, "The parameters are wrong: invalid type"),
        ("succeed", JobStatus::Completed, ""),
    ] {
        let parameters = json!({"do": what});
        let job = fixture.make(NewJob { parameters: exact(parameters), ..blank(&what.replace(' ', "-")) }).await;
        let row = fixture.until_status(&job, status).await;
        assert!(row.error_message.unwrap_or_default().contains(words), "{what}");
    }
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_job_is_tried_again_from_its_resume_point_while_retries_are_left() {
    let (fixture, trace) = (WorkerFixture::new().await, Trace::new());
    let inside = trace.clone();
    let code = Code(move |ctx: JobContext| {
        let trace = inside.clone();
        async move {
            let tries = ctx.resume_point::<u64>()?.unwrap_or(0) + 1;
            trace.mark(format!("try {tries}"));
            ctx.save(&tries)?;
            if ctx.parameters_as::<Value>()?["permanent"] == true {
                return Err(JobError::permanent("no use"));
            }
            if tries < 3 { Err(JobError::failed(format!("try {tries}"))) } else { Ok(json!(tries)) }
        }
    });
    let worker = fixture.coder("w1", code).await;
    let job = fixture.make(NewJob { max_retries: 5, ..blank("j") }).await;
    let row = fixture.until_status(&job, JobStatus::Completed).await;
    assert_eq!((row.result.as_str(), row.retry_count), ("3", 2));
    assert_eq!((trace.count("try 1"), trace.count("try 2"), trace.count("try 3")), (1, 1, 1));
    let hopeless = NewJob { max_retries: 5, parameters: exact(json!({"permanent": true})), ..blank("hopeless") };
    let hopeless = fixture.make(hopeless).await;
    assert_eq!(fixture.until_status(&hopeless, JobStatus::Failed).await.retry_count, 0);
    worker.drain().await;
}
