//! The master of a Redis with sentinels is cut off from them and from its replicas, and programs reach it as ever: healthy jobs
//! go on, once each, and every command is answered.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::Row;

use crate::operator;
use crate::support::fleet::Fleet;
use crate::support::sentinels::Replicated;
use crate::support::socket::{PATIENCE, Socket};

const TENANT: &str = "acme";
/// Jobs that a worker runs, and jobs that are a `wheelhouse run` each.
const QUEUED: [&str; 3] = ["queued0", "queued1", "queued2"];
const ATTACHED: [&str; 2] = ["run0", "run1"];
/// For so long the old master is cut off: the second within which another is named, and more than the time after which a host
/// counts as dead that is not heard (a heartbeat counts for 4 s, and is missed for 3.5 more).
const SPLIT: Duration = Duration::from_secs(12);
/// Between two rounds of commands: on a machine with nothing else to do they would be a flood of messages.
const ROUND: Duration = Duration::from_millis(250);

/// Sends a command until it is answered by more than that nothing is known, and waits for its result.
async fn carried_out(socket: &mut Socket, action: &str, request: &str) -> Value {
    let message = json!({"type": format!("{action}_job"), "request_id": request});
    let (mut results, mut command) = (HashMap::<String, Value>::new(), None);
    socket.send(message.clone()).await;
    loop {
        if let Some(result) = command.as_ref().and_then(|command: &String| results.remove(command)) {
            return result;
        }
        let heard = socket.next().await;
        assert!(heard["closed"].is_null(), "the socket was closed: {heard}");
        let (kind, id) = (heard["type"].as_str().unwrap_or_default(), heard["command_id"].as_str());
        if kind == "error" && heard["request_id"] == request {
            assert!(
                ["unavailable", "outcome_unknown"].contains(&heard["error"].as_str().unwrap_or_default()),
                "{heard}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
            socket.send(message.clone()).await;
        } else if kind.ends_with("_requested") && heard["request_id"] == request {
            command = id.map(str::to_owned);
        } else if let (true, Some(id)) = (kind.ends_with("_succeeded") || kind.ends_with("_failed"), id) {
            results.insert(id.to_owned(), heard.clone());
        }
    }
}

/// Every job: its status, and how often it has begun.
async fn jobs(fleet: &Fleet) -> HashMap<String, (String, i64)> {
    let rows = sqlx::query("SELECT id, status, run FROM jobs").fetch_all(&fleet.sql().await).await.expect("the jobs");
    rows.iter().map(|row| (row.get("id"), (row.get("status"), row.get("run")))).collect()
}

async fn until_all_run(fleet: &Fleet) {
    let begun = Instant::now();
    loop {
        let jobs = jobs(fleet).await;
        if jobs.len() == QUEUED.len() + ATTACHED.len() && jobs.values().all(|(status, _)| status == "running") {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{jobs:?}; the log:\n{}", fleet.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_split_brain_no_healthy_job_is_called_failed_or_runs_twice_and_every_command_is_answered() {
    let redis = Replicated::start().await;
    let mut fleet = Fleet::new();
    fleet.move_to(&redis.url());
    fleet.set("REDIS__REPLICAS_TO_WAIT", "1");
    fleet.set("LIMITS__COMMANDS_PER_MINUTE", "1000");
    let gateways = [fleet.gateway(), fleet.gateway()];
    fleet.demo_worker();
    operator(&fleet, "ann").await;
    std::fs::write(fleet.folder().join("rows.csv"), "one,two\n".repeat(50_000)).expect("write");
    let parameters = json!({"path": "rows.csv", "first_row": 1, "rows": 50_000, "rows_per_second": 20}).to_string();
    for id in QUEUED {
        sqlx::query(
            "INSERT INTO jobs (id, tenant_id, job_type, status, origin, parameters)
             VALUES ($1, $2, 'demo_step', 'pending', 'queued', $3)",
        )
        .bind(id)
        .bind(TENANT)
        .bind(&parameters)
        .execute(&fleet.sql().await)
        .await
        .expect("insert a job");
    }
    for id in ATTACHED {
        let work = format!("echo began >> {id}.began; while :; do sleep 0.2; done");
        fleet.start(&["run", "--tenant", TENANT, "--job-id", id, "--", "sh", "-c", &work]);
    }
    until_all_run(&fleet).await;
    let before = jobs(&fleet).await;

    let mut sockets = Vec::new();
    for (n, id) in QUEUED.iter().chain(&ATTACHED).enumerate() {
        sockets.push((*id, fleet.socket(gateways[n % 2], "ann", TENANT, &format!("jobs/{id}")).await));
    }
    redis.misses_servers_soon();
    redis.cut_off(0);
    let commanding = async {
        let (begun, mut round, mut pace) = (Instant::now(), 0, tokio::time::interval(ROUND));
        let mut commands = Vec::new();
        // From before there is another master until long after.
        while begun.elapsed() < SPLIT || round < 2 {
            pace.tick().await;
            round += 1;
            for action in ["pause", "resume"] {
                let asked = sockets.iter_mut().map(async |(id, socket)| {
                    let result = carried_out(socket, action, &format!("{id}-{action}-{round}")).await;
                    assert_eq!(result["type"], format!("{action}_succeeded"), "{result}");
                    result["command_id"].as_str().expect("an id").to_owned()
                });
                commands.extend(futures_util::future::join_all(asked).await);
            }
        }
        commands
    };
    let started = |fleet: &Fleet| fleet.log().matches("\"worker.started\"").count();
    let (commands, ()) = tokio::join!(commanding, async {
        redis.switched_from(0).await;
        // One that has never known the old master, and hears nothing there of a worker that has not left it.
        let root = fleet.folder().display().to_string();
        fleet.start(&["demo-worker", "--files-root", &root]);
    });
    assert_eq!(started(&fleet), 2, "the second worker was there; the log:\n{}", fleet.log());
    redis.join(0);

    let after = jobs(&fleet).await;
    for (id, (status, run)) in &before {
        assert_eq!(after.get(id), Some(&(status.clone(), *run)), "{id}; the log:\n{}", fleet.log());
    }
    for id in ATTACHED {
        let began = std::fs::read_to_string(fleet.folder().join(format!("{id}.began"))).expect("read");
        assert_eq!(began, "began\n", "{id}");
    }
    // Each command once, with its one end.
    let begun = Instant::now();
    loop {
        let text = "SELECT command_id, COUNT(*) AS lines, SUM(event = 'succeeded') AS ends FROM command_audit
            WHERE command_id IS NOT NULL GROUP BY command_id";
        let rows = sqlx::query(text).fetch_all(&fleet.sql().await).await.expect("the trail");
        let trail: HashMap<String, (i64, i64)> =
            rows.iter().map(|row| (row.get("command_id"), (row.get("lines"), row.get("ends")))).collect();
        if commands.iter().all(|command| trail.contains_key(command)) && trail.values().all(|lines| *lines == (2, 1)) {
            assert_eq!(trail.len(), commands.len(), "nothing else was accepted");
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{trail:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
