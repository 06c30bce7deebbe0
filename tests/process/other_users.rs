//! Programs with a process of another user among theirs, as `sudo` makes them: no signal may be sent to it.
//!
//! To have two users these tests must be run as root.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use wheelhouse::worker::{ControlOutcome, Controlled};

use super::support::fleet::Fleet;
use super::{ExitKind, ProcessFixture, code_of, error_of, lives, program, send, size, state, until};

/// The user `nobody`.
const NOBODY: u32 = 65_534;

/// A program of `nobody` with a child of root: both work until the folder is gone.
const MIXED: &str = "
    $D/as-root --reuid 0 --regid 0 --clear-groups sh -c 'echo $$ > $D/theirs; while [ -e $D/as-root ]; do echo x >> $D/turns; sleep 0.02; done' &
    echo $$ > $D/own; while [ -e $D/as-root ]; do sleep 0.02; done";

/// Makes it a folder that `nobody` may use, with a program in it that makes whoever calls it root: what `sudo` is.
fn open_to_nobody(folder: &Path) {
    assert!(rustix::process::geteuid().is_root(), "run the tests as root: these need processes of two users");
    let mode = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("chmod");
    mode(folder, 0o777);
    for item in std::fs::read_dir(folder).expect("list") {
        mode(&item.expect("item").path(), 0o666);
    }
    let helper = folder.join("as-root");
    std::fs::copy("/usr/bin/setpriv", &helper).expect("setpriv: install util-linux");
    mode(&helper, 0o4755);
}

/// As [`ProcessFixture::script`], with a supervisor that is `nobody`.
async fn kept_by_nobody(script: &str) -> ProcessFixture {
    let folder = tempfile::tempdir().expect("folder");
    open_to_nobody(folder.path());
    let supervisor = folder.path().join("supervisor");
    let binary = env!("CARGO_BIN_EXE_wheelhouse");
    let call = format!("#!/bin/sh\nexec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups {binary} \"$@\"\n");
    std::fs::write(&supervisor, call).expect("write");
    std::fs::set_permissions(&supervisor, PermissionsExt::from_mode(0o755)).expect("chmod");
    let mut program = program("sh", &["-c", script], Duration::from_millis(300));
    program.set.push(("D".into(), folder.path().into()));
    program.supervisor = supervisor;
    ProcessFixture::start(program, folder).await
}

fn words(reached: ControlOutcome) -> String {
    match reached {
        ControlOutcome::Refused(words) => words,
        other => panic!("it was not refused: {other:?}"),
    }
}

#[tokio::test]
async fn what_may_not_be_signalled_is_named_and_nothing_is_stopped_or_ended() {
    let fixture = kept_by_nobody(MIXED).await;
    let (own, theirs) = (fixture.numbers("own", 1).await[0], fixture.numbers("theirs", 1).await[0]);
    let named = format!("process {theirs} (sh) of user root");
    for _ in 0..2 {
        let refused = words(fixture.process.pause().await);
        assert!(refused.starts_with("Not paused: ") && refused.contains(&named), "{refused}");
        assert_ne!(state(own), Some('T'), "all of it runs on");
        let refused = words(fixture.process.cancel("ann", None).await);
        assert!(refused.starts_with("Not cancelled: ") && refused.contains(&named), "{refused}");
        assert!(lives(own) && lives(theirs));
    }
    // Told to end all the same, it says what could not be ended.
    fixture.process.kill();
    let ended = fixture.process.ended().await;
    assert_eq!((ended.how, ended.left_running.first()), (ExitKind::Signalled(9), Some(&named)));
    assert!(lives(theirs) && !lives(own));
    send(theirs, Signal::KILL);
}

#[tokio::test]
async fn it_can_be_paused_and_cancelled_when_that_process_has_ended() {
    let fixture = kept_by_nobody(MIXED).await;
    let (own, theirs) = (fixture.numbers("own", 1).await[0], fixture.numbers("theirs", 1).await[0]);
    words(fixture.process.pause().await);
    send(theirs, Signal::KILL);
    assert_eq!(fixture.process.pause().await, ControlOutcome::Done);
    until("it to be stopped", || state(own) == Some('T')).await;
    fixture.process.resume().await;
    assert_eq!(fixture.process.cancel("ann", None).await, ControlOutcome::Done);
}

#[tokio::test]
async fn a_short_command_of_another_user_is_waited_for() {
    let fixture = kept_by_nobody(
        "while :; do $D/as-root --reuid 0 --regid 0 --clear-groups sleep 0.1; echo 1 >> $D/turns; sleep 0.1; done",
    )
    .await;
    for turns in [1, 3, 5] {
        fixture.numbers("turns", turns).await;
        assert_eq!(fixture.process.pause().await, ControlOutcome::Done);
        let before = size(&fixture.file("turns"));
        until("it to be stopped", || state(fixture.process.pid()) == Some('T')).await;
        assert_eq!(size(&fixture.file("turns")), before);
        fixture.process.resume().await;
    }
    fixture.process.kill();
}

/// `wheelhouse run` as `nobody`; gives it, and the ids of its program and of that one's child, which is root's.
async fn run_mixed(fleet: &Fleet, id: &str, flags: &[&str]) -> (std::process::Child, i32, i32) {
    open_to_nobody(fleet.folder());
    let mut arguments = vec!["run", "--tenant", "acme", "--job-id", id, "--grace", "1s"];
    arguments.extend_from_slice(flags);
    arguments.extend_from_slice(&["--", "sh", "-c", MIXED]);
    let mut command = fleet.command(&arguments);
    command.env("D", fleet.folder()).uid(NOBODY).gid(NOBODY).stderr(std::process::Stdio::null());
    let run = command.spawn().expect("wheelhouse run");
    let read = |name: &str| std::fs::read_to_string(fleet.folder().join(name)).ok()?.trim().parse::<i32>().ok();
    until("the two", || read("own").is_some() && read("theirs").is_some()).await;
    (run, read("own").expect("own"), read("theirs").expect("theirs"))
}

#[tokio::test]
async fn an_operator_is_told_what_cannot_be_paused_or_cancelled() {
    let mut fleet = Fleet::new();
    fleet.permit("ann", "*").await;
    let gateway = fleet.gateway();
    let (run, own, theirs) = run_mixed(&fleet, "mixed", &[]).await;
    let named = format!("process {theirs} (sh) of user root");
    let mut socket = fleet.socket(gateway, "ann", "acme", "jobs/mixed").await;
    for action in ["pause", "cancel"] {
        socket.send(json!({ "type": format!("{action}_job") })).await;
        let answer = socket.until(&[&format!("{action}_failed"), &format!("{action}_succeeded")]).await;
        assert_eq!(answer["type"], format!("{action}_failed"));
        assert!(answer["error"].as_str().is_some_and(|error| error.contains(&named)), "{answer}");
        assert_eq!(fleet.status("acme", "mixed").await, "running");
        assert_ne!(state(own), Some('T'));
    }
    let turns = fleet.folder().join("turns");
    let before = size(&turns);
    until("it to write again", || size(&turns) > before).await;
    // Once that process is gone, the job can be cancelled.
    send(theirs, Signal::KILL);
    socket.send(json!({"type": "cancel_job"})).await;
    socket.until(&["cancel_succeeded"]).await;
    assert_eq!(code_of(run).await, Some(143));
}

#[tokio::test]
async fn a_time_limit_ends_a_run_and_says_what_runs_on() {
    let fleet = Fleet::new();
    let (run, own, theirs) = run_mixed(&fleet, "late", &["--timeout", "2s"]).await;
    assert_eq!(code_of(run).await, Some(124));
    assert_eq!(fleet.status("acme", "late").await, "failed");
    let error = error_of(&fleet, "late").await;
    let named = format!("process {theirs} (sh) of user root");
    assert!(error.starts_with("timed out after 2 s; ") && error.contains(&named), "{error}");
    assert!(lives(theirs) && !lives(own));
    send(theirs, Signal::KILL);
}
