//! A `wheelhouse run` inside the task of a queue: the same job again, jobs that are there already, and the end of the task.

use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::support::fleet::Fleet;
use super::{code_of, error_of, send, until};

fn run(fleet: &Fleet, id: &str, more: &[&str], script: &str) -> Command {
    let words = [&["run", "--tenant", "acme", "--job-id", id][..], more, &["--", "sh", "-c", script]].concat();
    let mut command = fleet.command(&words);
    command.env("D", fleet.folder()).stdin(Stdio::null());
    command
}

async fn insert(fleet: &Fleet, id: &str, status: &str) {
    let text = "INSERT INTO jobs (id, tenant_id, title, status) VALUES ($1, 'acme', 'Its own title', $2)";
    sqlx::query(text).bind(id).bind(status).execute(&fleet.sql().await).await.expect("insert");
}

#[tokio::test]
async fn a_row_that_nobody_has_is_taken_over_and_an_ended_one_is_not() {
    let fleet = Fleet::new();
    for (id, status, code) in [("a", "pending", 0), ("b", "running", 0), ("c", "completed", 1), ("d", "cancelled", 143)]
    {
        insert(&fleet, id, status).await;
        let done = run(&fleet, id, &[], "echo x >> $D/ran").output().expect("run");
        let told = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(code), "{id}: {told}");
        assert_eq!(told.contains(&format!("there is a job {id} already")), code > 0, "{told}");
    }
    assert_eq!(std::fs::read_to_string(fleet.folder().join("ran")).expect("ran"), "x\nx\n");
    let title: String = sqlx::query_scalar("SELECT title FROM jobs WHERE id = 'a' AND status = 'completed'")
        .fetch_one(&fleet.sql().await)
        .await
        .expect("the row");
    assert_eq!(title, "Its own title");
}

#[tokio::test]
async fn a_job_that_failed_waits_to_be_tried_again_as_often_as_it_may() {
    let fleet = Fleet::new();
    for (status, code) in [("pending", 3), ("failed", 3)] {
        let failed = run(&fleet, "a", &["--max-retries", "1"], "exit 3").output().expect("run");
        assert_eq!(failed.status.code(), Some(code));
        assert_eq!(fleet.status("acme", "a").await, status);
    }
    assert_eq!(run(&fleet, "b", &["--max-retries", "1"], "exit 3").output().expect("run").status.code(), Some(3));
    assert_eq!(run(&fleet, "b", &[], "true").output().expect("run").status.code(), Some(0));
    assert_eq!(fleet.status("acme", "b").await, "completed");
}

#[tokio::test]
async fn a_paused_job_begins_when_it_is_resumed() {
    let fleet = Fleet::new();
    insert(&fleet, "a", "paused").await;
    let waiting = run(&fleet, "a", &[], "touch $D/ran").stderr(Stdio::piped()).spawn().expect("run");
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    assert!(!fleet.folder().join("ran").exists());
    sqlx::query("UPDATE jobs SET status = 'pending' WHERE id = 'a'").execute(&fleet.sql().await).await.expect("resume");
    assert_eq!(code_of(waiting).await, Some(0));
    assert!(fleet.folder().join("ran").exists());
}

#[tokio::test]
async fn a_job_that_runs_elsewhere_is_refused_and_one_whose_host_is_dead_is_taken_over() {
    let fleet = Fleet::new();
    let first = run(&fleet, "a", &[], "touch $D/begun; sleep 600").stderr(Stdio::null()).spawn().expect("run");
    let begun = fleet.folder().join("begun");
    until("the first to begin", || begun.exists()).await;
    let second = run(&fleet, "a", &[], "touch $D/twice").output().expect("run");
    let told = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(75), "{told}");
    assert!(told.contains("job a runs elsewhere (worker "), "{told}");
    send(first.id() as i32, Signal::KILL);
    let third = run(&fleet, "a", &[], "true").output().expect("run");
    assert_eq!(third.status.code(), Some(0), "{}", String::from_utf8_lossy(&third.stderr));
    assert_eq!(fleet.status("acme", "a").await, "completed");
    assert!(!fleet.folder().join("twice").exists());
    code_of(first).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_work_ends_with_the_program_that_started_it() {
    for signal in [Signal::TERM, Signal::KILL] {
        let fleet = Fleet::new();
        let own = run(&fleet, "a", &[], "touch $D/begun; exec sleep 600");
        // It starts the program and waits for it, as a task of a queue does; it is no shell.
        // Whoever ignores SIGHUP, as all do that `nohup` started, would be meant to outlive it.
        let mut task = Command::new("env");
        task.args(["--default-signal=HUP", "xargs", "-a"])
            .arg("/dev/null")
            .arg(own.get_program())
            .args(own.get_args())
            .current_dir(fleet.folder());
        task.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let task = task.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("xargs");
        let begun = fleet.folder().join("begun");
        until("the work to begin", || begun.exists()).await;
        send(task.id() as i32, signal);
        let ended = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while fleet.status("acme", "a").await == "running" {
            assert!(std::time::Instant::now() < ended, "the row is still running");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let error = error_of(&fleet, "a").await;
        assert!(error.contains("ended by the end of the program that started it"), "{signal:?}: {error}");
        code_of(task).await;
    }
}

#[tokio::test]
async fn without_settings_the_message_names_the_one_that_is_missing() {
    let folder = tempfile::tempdir().expect("folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_wheelhouse"));
    command.args(["run", "--tenant", "acme", "--", "true"]).current_dir(folder.path());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WHEELHOUSE")) {
        command.env_remove(name);
    }
    let output = command.output().expect("run");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("setting database.url") && told.contains("WHEELHOUSE__DATABASE__URL"), "{told}");
}
