//! Commands that wait: for a worker, for their time, for somebody to ask again; and workers that come back too late.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::fleet::{Fleet, Handle};
use crate::support::socket::PATIENCE;

/// `wheelhouse ARGS --json` as a user of the tenant acme; the exit code and what it printed.
async fn wheelhouse(fleet: &Fleet, gateway: Handle, user: &str, args: &[&str]) -> (Option<i32>, Value) {
    let mut command = fleet.command(args);
    command
        .arg("--json")
        .env("WHEELHOUSE_URL", format!("http://{}", fleet.process(gateway).address))
        .env("WHEELHOUSE_TOKEN", fleet.token(user, "acme"));
    let ran = tokio::task::spawn_blocking(move || command.output()).await.expect("join").expect("run wheelhouse");
    let printed = String::from_utf8_lossy(&ran.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&ran.stderr).into_owned();
    (ran.status.code(), serde_json::from_str(printed.trim()).unwrap_or(Value::String(printed + &complaint)))
}

async fn until(what: &str, fleet: &Fleet, so: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !so().await {
        assert!(begun.elapsed() < PATIENCE, "never: {what}; log:\n{}", fleet.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_no_worker_takes_up_expires_is_kept_and_can_be_asked_for_again() {
    let mut fleet = Fleet::new();
    fleet.set("COMMAND__TTL", "1");
    let gateway = fleet.gateway();
    fleet.permit("ann", "*").await;
    fleet.external_job("acme", "j1").await;
    let mut socket = fleet.socket(gateway, "ann", "acme", "jobs/j1").await;
    socket.send(json!({"type": "pause_job", "reason": "checking"})).await;
    let ack = socket.until(&["pause_requested"]).await;
    assert_eq!(ack["workers_online"], 0);
    let expected = json!({
        "type": "pause_failed", "job_id": "j1", "tenant_id": "acme", "command_id": ack["command_id"],
        "control": "row", "error": "Command expired before a worker could run it",
    });
    assert_eq!(socket.until(&["pause_failed", "pause_succeeded"]).await, expected);

    let (code, listed) = wheelhouse(&fleet, gateway, "ann", &["queue", "failed"]).await;
    let failed = &listed["failed"][0];
    assert_eq!((code, &failed["command_id"], &failed["event"]), (Some(0), &ack["command_id"], &json!("expired")));
    assert_eq!((&failed["job_id"], &failed["action"]), (&json!("j1"), &json!("pause")));
    let id = ack["command_id"].as_str().expect("id");

    // Whoever is there from now on gives commands all the time they need.
    fleet.kill(gateway);
    fleet.set("COMMAND__TTL", "3600");
    let gateway = fleet.gateway();
    let mut socket = fleet.socket(gateway, "ann", "acme", "jobs/j1").await;
    socket.send(json!({"type": "resume_job", "reason": "go on"})).await;
    let resume = socket.until(&["resume_requested"]).await;
    for args in [&["queue", "waiting"][..], &["queue", "waiting", "j1"]] {
        let (code, listed) = wheelhouse(&fleet, gateway, "ann", args).await;
        let waits = &listed["waiting"][0];
        assert_eq!((code, &waits["command_id"], &waits["reason"]), (Some(0), &resume["command_id"], &json!("go on")));
    }
    fleet.worker();
    let (code, again) = wheelhouse(&fleet, gateway, "ann", &["queue", "requeue", id]).await;
    assert_eq!((code, &again["type"]), (Some(0), &json!("pause_requested")), "{again}");
    let done = socket.until(&["pause_failed", "pause_succeeded"]).await;
    assert_eq!((&done["type"], &done["command_id"]), (&json!("pause_succeeded"), &again["command_id"]));
    assert_eq!(fleet.status("acme", "j1").await, "paused");
    let (_, listed) = wheelhouse(&fleet, gateway, "ann", &["queue", "failed"]).await;
    assert_eq!(listed["failed"], json!([]));

    // What fails at once is kept as well, until somebody drops it.
    sqlx::query("UPDATE jobs SET status = 'completed'").execute(&fleet.sql().await).await.expect("update");
    socket.send(json!({"type": "cancel_job"})).await;
    let refused = socket.until(&["cancel_failed"]).await;
    let id = refused["command_id"].as_str().expect("id");
    let (_, shown) = wheelhouse(&fleet, gateway, "ann", &["queue", "failed", id]).await;
    assert_eq!(shown["error"], "Job not found or already completed");
    fleet.permit("bob", "jobs.read").await;
    let (code, complaint) = wheelhouse(&fleet, gateway, "bob", &["queue", "drop", id]).await;
    assert!(code == Some(1) && complaint.to_string().contains("Insufficient permissions"), "{complaint}");
    assert_eq!(wheelhouse(&fleet, gateway, "ann", &["queue", "drop", id]).await.0, Some(0));
    let (code, complaint) = wheelhouse(&fleet, gateway, "ann", &["queue", "requeue", id]).await;
    assert!(code == Some(1) && complaint.to_string().contains("no such failed command"), "{complaint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_cancel_runs_although_everything_was_restarted_meanwhile() {
    let mut fleet = Fleet::new();
    let gateway = fleet.gateway();
    fleet.permit("ann", "*").await;
    fleet.external_job("acme", "j1").await;
    let mut socket = fleet.socket(gateway, "ann", "acme", "jobs/j1").await;
    socket.send(json!({"type": "cancel_job", "delay_seconds": 3, "request_id": "r1"})).await;
    let kept = socket.until(&["cancel_scheduled", "cancel_requested", "error"]).await;
    assert_eq!((&kept["type"], &kept["request_id"]), (&json!("cancel_scheduled"), &json!("r1")), "{kept}");
    assert_eq!(kept["schedule_id"], kept["command_id"]);
    fleet.kill(gateway);
    fleet.redis.restart();
    assert_eq!(fleet.status("acme", "j1").await, "running");
    fleet.worker();
    let gateway = fleet.gateway();
    until("it is cancelled", &fleet, async || fleet.status("acme", "j1").await == "cancelled").await;
    // The same request is answered as it was the first time, and then with what became of it.
    let mut socket = fleet.socket(gateway, "ann", "acme", "jobs/j1").await;
    socket.send(json!({"type": "cancel_job", "delay_seconds": 3, "request_id": "r1"})).await;
    assert_eq!(socket.until(&["cancel_scheduled", "cancel_requested", "error"]).await, kept);
    let done = socket.until(&["cancel_succeeded", "cancel_failed"]).await;
    assert_eq!((&done["type"], &done["command_id"]), (&json!("cancel_succeeded"), &kept["command_id"]));
    let audit = async || {
        let (_, rows) = wheelhouse(&fleet, gateway, "ann", &["schedule", "ls"]).await;
        assert_eq!(rows["schedules"], json!([]));
        let events = sqlx::query_scalar::<_, String>("SELECT event FROM command_audit ORDER BY id");
        events.fetch_all(&fleet.sql().await).await.expect("audit")
    };
    until("the audit trail is whole", &fleet, async || audit().await == ["scheduled", "accepted", "succeeded"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_command_can_be_taken_back_from_a_socket_a_shell_and_over_http() {
    let mut fleet = Fleet::new();
    let (a, b) = (fleet.gateway(), fleet.gateway());
    fleet.permit("ann", "*").await;
    fleet.permit("bob", "jobs.read").await;
    fleet.external_job("acme", "j1").await;
    fleet.external_job("acme", "j2").await;
    let mut ann = fleet.socket(a, "ann", "acme", "jobs/j1").await;
    let mut bob = fleet.socket(b, "bob", "acme", "jobs/j1").await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        ann.send(json!({"type": "pause_job", "delay_seconds": 600})).await;
        ids.push(ann.until(&["pause_scheduled"]).await["schedule_id"].clone());
    }
    let (code, kept) =
        wheelhouse(&fleet, b, "ann", &["job", "cancel", "j2", "--at", "2026-12-31T22:00:00+01:00", "--reason", "late"])
            .await;
    let far = jiff::Timestamp::now() < "2026-12-31T21:00:00Z".parse().expect("time");
    if far {
        assert_eq!((code, &kept["run_at"]), (Some(0), &json!("2026-12-31T21:00:00Z")), "{kept}");
    }
    let (_, listed) = wheelhouse(&fleet, b, "bob", &["schedule", "ls"]).await;
    let listed: Vec<&Value> = listed["schedules"].as_array().expect("a list").iter().collect();
    assert_eq!(listed[..2].iter().map(|one| one["schedule_id"].clone()).collect::<Vec<_>>(), ids);

    bob.send(json!({"type": "cancel_scheduled", "schedule_id": ids[0]})).await;
    assert_eq!(bob.until(&["error", "schedule_withdrawn"]).await["error"], "permission_denied");
    ann.send(json!({"type": "cancel_scheduled", "schedule_id": ids[0], "request_id": "w1"})).await;
    let taken = ann.until(&["error", "schedule_withdrawn"]).await;
    let expected = json!({
        "type": "schedule_withdrawn", "job_id": "j1", "tenant_id": "acme", "action": "pause",
        "schedule_id": ids[0], "request_id": "w1",
    });
    assert_eq!(taken, expected);
    ann.send(json!({"type": "cancel_scheduled", "schedule_id": ids[0]})).await;
    assert_eq!(ann.until(&["error", "schedule_withdrawn"]).await["error"], "not_found");
    let id = ids[1].as_str().expect("id");
    let (code, taken) = wheelhouse(&fleet, b, "ann", &["schedule", "rm", id]).await;
    assert_eq!((code, &taken["type"]), (Some(0), &json!("schedule_withdrawn")));
    let (code, complaint) = wheelhouse(&fleet, b, "ann", &["schedule", "rm", id]).await;
    assert!(code == Some(1) && complaint.to_string().contains("no such scheduled command"), "{complaint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_slept_past_its_lease_can_neither_apply_nor_answer() {
    for _ in 0..10 {
        if a_worker_sleeps_past_its_lease().await {
            return;
        }
    }
    panic!("this machine is too slow");
}

/// Whether it was stopped in the middle of its first try: between two of them it has no claim that it could lose.
async fn a_worker_sleeps_past_its_lease() -> bool {
    let mut fleet = Fleet::new();
    fleet.set("COMMAND__LEASE_SECONDS", "1");
    let gateway = fleet.gateway();
    let sleeper = fleet.worker();
    fleet.permit("ann", "*").await;
    fleet.external_job("acme", "j1").await;
    let mut socket = fleet.socket(gateway, "ann", "acme", "jobs/j1").await;

    // It has claimed the pause and waits for the database when it is stopped.
    let sql = fleet.sql().await;
    let mut lock = sql.acquire().await.expect("connection");
    sqlx::query("BEGIN IMMEDIATE").execute(&mut *lock).await.expect("lock the database");
    let begun = Instant::now();
    socket.send(json!({"type": "pause_job"})).await;
    let pause = socket.until(&["pause_requested"]).await;
    until("the pause is claimed", &fleet, async || fleet.log().contains("worker.command_claimed")).await;
    fleet.signal(sleeper, rustix::process::Signal::STOP);
    // Less than SQLite waits for another writer.
    if begun.elapsed() > Duration::from_secs(4) {
        return false;
    }
    sqlx::query("ROLLBACK").execute(&mut *lock).await.expect("unlock the database");
    drop(lock);

    fleet.worker();
    let paused = socket.until(&["pause_succeeded", "pause_failed"]).await;
    assert_eq!((&paused["type"], &paused["command_id"]), (&json!("pause_succeeded"), &pause["command_id"]));
    socket.send(json!({"type": "resume_job"})).await;
    socket.until(&["resume_succeeded"]).await;
    assert_eq!(fleet.status("acme", "j1").await, "running");

    fleet.signal(sleeper, rustix::process::Signal::CONT);
    until("it learns that its claim is lost", &fleet, async || fleet.log().contains("worker.claim_lost")).await;
    assert_eq!(fleet.status("acme", "j1").await, "running", "the late pause was applied");
    socket.send(json!({"type": "ping"})).await;
    let next = socket.until_that(|v| v["type"] != "job_status" && v["type"] != "workers_online").await;
    assert_eq!(next["type"], "pong", "the late pause was answered");
    true
}
