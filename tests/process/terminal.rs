//! The program has no terminal, wherever `wheelhouse run` itself was started.

use std::process::Stdio;

use rustix::process::Signal;
use serde_json::json;

use super::support::fleet::Fleet;
use super::{ExitKind, ProcessFixture, code_of, lives, run_family, send, state, until};

#[tokio::test]
async fn a_program_that_asks_on_the_terminal_is_told_at_once_that_there_is_none() {
    let fleet = Fleet::new();
    // `script` gives `wheelhouse run` a terminal of its own.
    let asks = "(read answer </dev/tty); echo asked; exit 3";
    let run = fleet.command(&["run", "--tenant", "acme", "--job-id", "asks", "--", "sh", "-c", asks]);
    let mut line = vec![run.get_program().to_owned()];
    line.extend(run.get_args().map(ToOwned::to_owned));
    let quoted: Vec<String> = line.iter().map(|word| format!("'{}'", word.to_string_lossy())).collect();
    let mut script = std::process::Command::new("script");
    script.args(["-qec", &quoted.join(" "), "/dev/null"]).stdin(Stdio::null());
    for (name, value) in run.get_envs() {
        if let Some(value) = value {
            script.env(name, value);
        }
    }
    let done = script.output().expect("script: install bsdutils");
    let told = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(told.contains("asked"), "{told}");
    assert_eq!(done.status.code(), Some(3), "{told}");
    assert_eq!(fleet.status("acme", "asks").await, "failed");
}

/// The id of a process's session; 0 where the leader of the session is not seen from here.
fn session_of(pid: u32) -> i32 {
    let asked = std::process::Command::new("ps").args(["-o", "sid=", "-p", &pid.to_string()]).output();
    let text = String::from_utf8(asked.expect("ps: install procps").stdout).expect("text");
    text.trim().parse().expect("a session's id")
}

#[tokio::test]
async fn a_program_is_not_in_the_session_of_its_host_and_its_group_is_its_own() {
    let fixture = ProcessFixture::script(
        "echo $$ >> $D/pids; ps -o sid= -o pgid= -p $$ | tr -s ' ' '\\n' | grep . >> $D/pids; exec sleep 1000",
    )
    .await;
    let ids = fixture.numbers("pids", 3).await;
    let (pid, session, group) = (ids[0], ids[1], ids[2]);
    assert_eq!((pid, group), (fixture.process.pid(), fixture.process.pid()));
    // Read as text: in a container the session may be led by a process outside of it, and its id is then 0.
    let own = session_of(std::process::id());
    assert_ne!(session, own);
    assert_ne!(session, pid, "one that leads its session would get a terminal by opening one");
    fixture.process.kill();
    assert_eq!(fixture.process.ended().await.how, ExitKind::Signalled(9));
    until("it to be gone", || !lives(pid)).await;
}

#[tokio::test]
async fn a_job_whose_program_somebody_has_stopped_says_so_until_it_is_resumed() {
    let mut fleet = Fleet::new();
    fleet.permit("ann", "*").await;
    let gateway = fleet.gateway();
    let (run, pids) = run_family(&fleet).await;
    let mut socket = fleet.socket(gateway, "ann", "acme", "jobs/family").await;
    send(pids[0], Signal::STOP);
    let shown = socket.until(&["job_progress"]).await;
    assert_eq!(shown["status"], "running");
    let item = shown["current_item"].as_str().expect("what hinders it");
    assert!(item.contains(&format!("process {} (sh)", pids[0])), "{item}");
    socket.send(json!({"type": "resume_job"})).await;
    socket.until(&["resume_succeeded"]).await;
    assert_ne!(state(pids[0]), Some('T'));
    send(i32::try_from(run.id()).expect("pid"), Signal::TERM);
    assert_eq!(code_of(run).await, Some(143));
}
