//! Whoever is killed of those who look after a program: nothing of it is left.

use std::time::Duration;

use rustix::process::Signal;

use super::support::fleet::Fleet;
use super::{ExitKind, ProcessFixture, lives, parent, run_three, send, until};

/// A program with a child that has a session of its own and does not listen, and one that was left by its parent.
const AWAY: &str = "
    setsid sh -c 'trap \"\" TERM HUP; echo $$ >> $D/pids; while :; do sleep 0.05; done' &
    setsid sh -c '(trap \"\" TERM HUP; echo $(exec sh -c \"echo \\$PPID\") >> $D/pids; while :; do sleep 0.05; done) & exit'
    echo $$ >> $D/pids
    while :; do sleep 1; done";

#[tokio::test]
async fn a_supervisor_that_is_killed_takes_along_what_has_left_the_session() {
    let fixture = ProcessFixture::script(AWAY).await;
    let pids = fixture.numbers("pids", 3).await;
    send(parent(fixture.process.pid()), Signal::KILL);
    let ended = fixture.process.ended().await;
    assert_eq!((ended.how, ended.by_order), (ExitKind::Unsupervised, false));
    assert!(!pids.iter().any(|pid| lives(*pid)), "nothing is left: {pids:?}");
}

#[tokio::test]
async fn a_guard_that_is_killed_lets_the_supervisor_end_the_program() {
    let fixture = ProcessFixture::with_grace(AWAY, Duration::from_millis(300)).await;
    let pids = fixture.numbers("pids", 3).await;
    send(parent(parent(fixture.process.pid())), Signal::KILL);
    let ended = fixture.process.ended().await;
    assert_eq!(ended.left_running, Vec::<String>::new());
    assert!(!pids.iter().any(|pid| lives(*pid)), "nothing is left: {pids:?}");
}

#[tokio::test]
async fn each_kill_of_one_of_them_ends_a_job_with_all_its_processes() {
    for victim in ["run", "guard", "supervisor"] {
        let fleet = Fleet::new();
        let script = ["--job-id", "away", "--grace", "1s", "--", "sh", "-c", AWAY];
        let (mut run, pids) = run_three(&fleet, &script).await;
        // Only the leader's parent has a parent whose parent is `wheelhouse run`.
        let host = i32::try_from(run.id()).expect("pid");
        let supervisor = pids.iter().copied().map(parent).find(|pid| *pid > 1 && parent(parent(*pid)) == host);
        let supervisor = supervisor.expect("a supervisor");
        let killed = match victim {
            "run" => host,
            "guard" => parent(supervisor),
            _ => supervisor,
        };
        send(killed, Signal::KILL);
        until("all to be gone", || !pids.iter().any(|pid| lives(*pid))).await;
        let code = run.wait().expect("wait").code();
        if victim != "run" {
            assert!(code.is_some_and(|code| code != 0), "{victim}: {code:?}");
            assert_eq!(fleet.status("acme", "away").await, "failed", "{victim}");
        }
    }
}

/// Kills supervisor and guard in such a way that neither can do anything about the other's end.
fn kill_both(supervisor: i32) {
    let guard = parent(supervisor);
    send(guard, Signal::STOP);
    send(supervisor, Signal::KILL);
    send(guard, Signal::KILL);
}

/// Whether a control group could be made for it: as root, mostly, and not in every container.
fn has_cgroup(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its groups").contains("/wheelhouse-")
}

#[tokio::test]
async fn when_supervisor_and_guard_are_killed_the_host_ends_what_it_can_reach() {
    let fixture = ProcessFixture::script(AWAY).await;
    let (pids, own) = (fixture.numbers("pids", 3).await, fixture.process.pid());
    let all = has_cgroup(own);
    kill_both(parent(own));
    assert_eq!(fixture.process.ended().await.how, ExitKind::Unsupervised);
    for pid in pids {
        if all || pid == own {
            assert!(!lives(pid), "{pid}, of control group: {all}");
        } else {
            send(pid, Signal::KILL); // What has left the session is out of reach without a control group.
        }
    }
}

#[tokio::test]
async fn what_belongs_to_nobody_ends_when_the_next_program_starts() {
    let fleet = Fleet::new();
    let (mut run, pids) = run_three(&fleet, &["--job-id", "lost", "--", "sh", "-c", AWAY]).await;
    let host = i32::try_from(run.id()).expect("pid");
    let supervisor = pids.iter().copied().map(parent).find(|pid| *pid > 1 && parent(parent(*pid)) == host);
    let all = has_cgroup(pids[0]);
    let supervisor = supervisor.expect("a supervisor");
    send(supervisor, Signal::STOP); // Else it would end the program as soon as its host is gone.
    run.kill().expect("kill");
    run.wait().expect("wait");
    kill_both(supervisor);
    let next = fleet.command(&["run", "--tenant", "acme", "--", "true"]).output().expect("wheelhouse run");
    assert_eq!(next.status.code(), Some(0));
    if all {
        until("all to be gone", || !pids.iter().any(|pid| lives(*pid))).await;
    }
    pids.into_iter().filter(|pid| lives(*pid)).for_each(|pid| send(pid, Signal::KILL));
}
