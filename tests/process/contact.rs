//! A `wheelhouse run` of which nothing is heard for a while.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use sqlx::Row;

use super::support::fleet::{Fleet, Handle, http, http_get};
use super::{code_of, lives, run_family, send, until};

/// Since when the row says that nothing has been heard of it.
async fn lost_since(fleet: &Fleet) -> Option<String> {
    let asked = sqlx::query("SELECT contact_lost_at FROM jobs WHERE id = 'family'");
    asked.fetch_one(&fleet.sql().await).await.expect("the row").get(0)
}

async fn until_lost(fleet: &Fleet, lost: bool) {
    let begun = std::time::Instant::now();
    while lost_since(fleet).await.is_some() != lost {
        assert!(begun.elapsed() < Duration::from_secs(60), "in vain; the log:\n{}", fleet.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The job over HTTP.
fn show(fleet: &Fleet, gateway: Handle) -> (u16, String) {
    let bearer = format!("Bearer {}", fleet.token("ann", "acme"));
    let address = &fleet.process(gateway).address;
    http(address, "GET", "/api/v1/jobs/family", &[("authorization", &bearer)], "").expect("an answer")
}

#[tokio::test]
async fn a_run_that_stood_still_for_a_while_is_lost_and_comes_back_with_its_program() {
    let mut fleet = Fleet::new();
    fleet.permit("ann", "*").await;
    let (gateway, _worker) = (fleet.gateway(), fleet.worker());
    let (run, pids) = run_family(&fleet).await;
    let mut socket = fleet.socket(gateway, "ann", "acme", "jobs/family").await;
    let own = i32::try_from(run.id()).expect("pid");
    send(own, Signal::STOP);
    until_lost(&fleet, true).await;
    // The run's beginning may be told only now.
    let mut told = socket.until(&["job_status"]).await;
    if told["contact_lost_at"].is_null() {
        told = socket.until(&["job_status"]).await;
    }
    assert!(told["contact_lost_at"].is_string() && told["status"] == "running", "{told}");
    let (status, body) = show(&fleet, gateway);
    assert!(status == 200 && body.contains("\"contact_lost_at\":\"2"), "{body}");
    assert!(body.contains("\"control\":\"row\""), "nobody carries out a command just now: {body}");
    // Nobody else can carry this out, and nobody says that it has been.
    socket.send(json!({"type": "pause_job"})).await;
    assert_eq!(socket.until(&["pause_requested"]).await["control"], "row", "as the row says");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(fleet.status("acme", "family").await, "running");
    assert!(pids.iter().all(|pid| lives(*pid)), "its program runs on");
    send(own, Signal::CONT);
    assert_eq!(socket.until(&["pause_succeeded"]).await["control"], "live", "its work was reached after all");
    until_lost(&fleet, false).await;
    assert!(show(&fleet, gateway).1.contains("\"control\":\"live\""));
    socket.send(json!({"type": "cancel_job"})).await;
    socket.until(&["cancel_succeeded"]).await;
    assert_eq!(code_of(run).await, Some(143));
    until("all to be gone", || !pids.iter().any(|pid| lives(*pid))).await;
}

#[tokio::test]
async fn a_run_goes_on_while_redis_is_away_and_is_controlled_again_when_it_is_back() {
    let mut fleet = Fleet::new();
    fleet.permit("ann", "*").await;
    let (gateway, _worker) = (fleet.gateway(), fleet.worker());
    let mut run = fleet.command(&["run", "--tenant", "acme", "--job-id", "family", "--", "sh", "-c"]);
    run.arg("while [ ! -e $D/enough ]; do sleep 0.1; done; echo the end");
    let said = fleet.folder().join("said");
    let file = std::fs::File::create(&said).expect("a file");
    let run = run.env("D", fleet.folder()).stdout(Stdio::piped()).stderr(file).spawn().expect("run");
    let told = || std::fs::read_to_string(&said).expect("what it says");
    until("it to be under control", || told().contains("from another shell")).await;
    fleet.redis.kill();
    // Longer than a heartbeat lasts and a dead host is waited for: eight seconds have ended it before.
    tokio::time::sleep(Duration::from_secs(12)).await;
    fleet.redis.restart();
    let ready = || http_get(&fleet.process(gateway).address, "/readyz").is_some_and(|(status, _)| status == 200);
    until("the gateway", ready).await;
    let mut socket = fleet.socket(gateway, "ann", "acme", "jobs/family").await;
    for (command, answer) in [("pause_job", "pause_succeeded"), ("resume_job", "resume_succeeded")] {
        socket.send(json!({"type": command})).await;
        socket.until(&[answer]).await;
    }
    std::fs::write(fleet.folder().join("enough"), "").expect("the word to end");
    let done = run.wait_with_output().expect("wait");
    let told = told();
    assert_eq!((done.status.code(), &done.stdout[..]), (Some(0), &b"the end\n"[..]), "{told}");
    assert!(
        told.contains("no contact with Redis; the program goes on") && told.contains("contact with Redis is back"),
        "{told}"
    );
    assert_eq!(fleet.status("acme", "family").await, "completed");
}

#[tokio::test]
async fn a_run_that_ends_gives_back_at_once_a_command_that_waits_for_another_one_of_which_nothing_is_heard() {
    let mut fleet = Fleet::new();
    fleet.permit("ann", "*").await;
    let gateway = fleet.gateway();
    let (mut lost, _) = run_family(&fleet).await;
    let enough = fleet.folder().join("enough");
    let script = "while [ ! -e $D/enough ]; do sleep 0.1; done";
    let mut run = fleet.command(&["--set", "log.level=wheelhouse=info", "run", "--tenant", "acme", "--", "sh", "-c"]);
    let said = fleet.folder().join("said");
    let file = std::fs::File::create(&said).expect("a file");
    let run = run.arg(script).env("D", fleet.folder()).stdout(Stdio::null()).stderr(file).spawn().expect("run");
    let told = || std::fs::read_to_string(&said).expect("what it says");
    until("it to be under control", || told().contains("from another shell")).await;
    // There is no worker: the other run is the only one that can see to the command.
    lost.kill().expect("kill");
    lost.wait().expect("wait");
    let mut socket = fleet.socket(gateway, "ann", "acme", "jobs/family").await;
    socket.send(json!({"type": "cancel_job"})).await;
    socket.until(&["cancel_requested"]).await;
    until("it to take up the command", || told().contains("worker.command_claimed")).await;
    std::fs::write(enough, "").expect("the word to end");
    assert_eq!(code_of(run).await, Some(0));
    let told = told();
    assert!(told.contains("worker.command_put_back") && !told.contains("worker.commands_left_behind"), "{told}");
}
