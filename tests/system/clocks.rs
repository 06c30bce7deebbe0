//! Clocks that are wrong: Redis's is set back under running work, a worker's is a year ahead.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::Row;

use crate::support::clock::Clock;
use crate::support::fleet::Fleet;
use crate::support::redis::RedisServer;
use crate::support::socket::PATIENCE;

const HOUR: i64 = 3_600;

async fn until(what: &str, fleet: &Fleet, mut so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !so().await {
        assert!(begun.elapsed() < PATIENCE * 3, "never: {what}; log:\n{}", fleet.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn rows_of_the_trail(fleet: &Fleet) -> i64 {
    let row = sqlx::query("SELECT COUNT(*) FROM command_audit").fetch_one(&fleet.sql().await).await;
    row.expect("count").get(0)
}

async fn verified(fleet: &Fleet) -> (Value, Option<i32>) {
    let mut command = fleet.command(&["audit", "verify", "--json"]);
    let ran = tokio::task::spawn_blocking(move || command.output().expect("run wheelhouse")).await.expect("task");
    let said = String::from_utf8(ran.stdout).expect("text");
    (serde_json::from_str(said.lines().last().unwrap_or_default()).expect("JSON"), ran.status.code())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_is_answered_although_the_jobs_worker_died_an_hour_ahead_of_the_clock_of_now() {
    let clock = Clock::new();
    clock.set(HOUR);
    let mut fleet = Fleet::on(RedisServer::start_on(&clock));
    fleet.set("WORKER__ATTACHED_LOST_SECONDS", "10");
    let gateway = fleet.gateway();
    fleet.worker();
    crate::operator(&fleet, "ann").await;
    let mut run = fleet.command(&["run", "--tenant", "acme", "--job-id", "j1", "--", "sleep", "600"]);
    let mut run = run.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("start");
    let sql = fleet.sql().await;
    until("the job runs", &fleet, async || {
        let row = sqlx::query("SELECT status FROM jobs WHERE id = 'j1'").fetch_optional(&sql).await.expect("read");
        row.is_some_and(|row| row.get::<String, _>(0) == "running")
    })
    .await;
    let mut socket = fleet.socket(gateway, "ann", "acme", "jobs/j1").await;
    run.kill().expect("kill");
    run.wait().expect("wait");
    clock.set(0);
    socket.send(json!({"type": "cancel_job"})).await;
    socket.until(&["cancel_requested"]).await;
    // The job of a `run` that died has failed: that is the answer, and it comes within seconds.
    let result = socket.until(&["cancel_succeeded", "cancel_failed"]).await;
    assert_eq!(result["type"], "cancel_failed", "{result}");
    assert_eq!(fleet.status("acme", "j1").await, "failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_clock_is_a_year_ahead_removes_nothing_from_the_audit_trail_and_says_why() {
    let mut fleet = Fleet::new();
    let gateway = fleet.gateway();
    let right = fleet.worker();
    crate::operator(&fleet, "ann").await;
    fleet.external_job("acme", "j1").await;
    let mut socket = fleet.socket(gateway, "ann", "acme", "jobs/j1").await;
    socket.send(json!({"type": "pause_job"})).await;
    socket.until(&["pause_succeeded", "pause_failed"]).await;
    until("the trail is in SQL", &fleet, async || rows_of_the_trail(&fleet).await == 2).await;
    let done = "SELECT COUNT(*) FROM applied_commands";
    assert_eq!(sqlx::query(done).fetch_one(&fleet.sql().await).await.expect("count").get::<i64, _>(0), 1);
    fleet.kill(right);

    // Everything is younger than the 365 days for which it is to be kept, by all clocks but this one.
    let clock = Clock::new();
    clock.set(400 * 24 * HOUR);
    fleet.worker_on(&clock);
    until("the worker says why", &fleet, async || fleet.log().contains("worker.audit_not_pruned")).await;
    let said = fleet.log();
    let warning = said.lines().find(|line| line.contains("worker.audit_not_pruned")).expect("a line");
    assert!(warning.contains("that of Redis") && warning.contains("set the wrong one right"), "{warning}");
    until("it forgets no command", &fleet, async || fleet.log().contains("worker.commands_not_forgotten")).await;
    assert_eq!(rows_of_the_trail(&fleet).await, 2);
    assert_eq!(sqlx::query(done).fetch_one(&fleet.sql().await).await.expect("count").get::<i64, _>(0), 1);
    let (whole, code) = verified(&fleet).await;
    assert_eq!((code, &whole["intact"], &whole["rows"]), (Some(0), &json!(true), &json!(2)));
    assert_eq!((&whole["pruned_rows"], &whole["last_pruning"]), (&json!(0), &json!(null)));

    // Redis too, and so every clock that a worker can ask: the trail itself says that a year cannot have passed.
    fleet.redis = RedisServer::start_on(&clock);
    fleet.worker_on(&clock);
    until("the worker says why", &fleet, async || fleet.log().contains("the audit trail's newest row is of")).await;
    assert_eq!(rows_of_the_trail(&fleet).await, 2);
}
