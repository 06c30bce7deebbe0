//! The audit trail from outside: whole after every death, and what `wheelhouse audit` says about it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::Row;
use sqlx::sqlite::SqlitePool;

use crate::support::fleet::{Fleet, Handle, http};
use crate::support::socket::PATIENCE;

/// What a program printed, and its exit code.
async fn printed(mut command: Command) -> (String, Option<i32>) {
    let ran = tokio::task::spawn_blocking(move || command.output().expect("run wheelhouse")).await.expect("task");
    (String::from_utf8(ran.stdout).expect("text"), ran.status.code())
}

async fn audit(fleet: &Fleet, args: &[&str]) -> (String, Option<i32>) {
    printed(fleet.command(&[&["audit"], args].concat())).await
}

async fn number(sql: &SqlitePool, text: &'static str) -> i64 {
    // The database may be busy for a moment.
    loop {
        if let Ok(row) = sqlx::query(text).fetch_one(sql).await {
            return row.get(0);
        }
    }
}

fn entries_in_redis(fleet: &Fleet) -> i64 {
    let length = |n: i64| fleet.redis.inline(&format!("XLEN wh:{{{n:02}}}:audit"));
    (0..16).map(|n| length(n).trim_start_matches(':').parse::<i64>().expect("a number")).sum()
}

async fn until(what: &str, fleet: &Fleet, mut so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !so().await {
        assert!(begun.elapsed() < PATIENCE * 3, "never: {what}; log:\n{}", fleet.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Someone who pauses and resumes one job over and over until told to stop, and asks again (under the same
/// `request_id`) where Redis did not answer in time. Gives what was accepted (ids) and how many were refused.
fn flow(
    address: String,
    token: String,
    job: String,
    stop: Arc<AtomicBool>,
) -> std::thread::JoinHandle<(Vec<String>, usize)> {
    std::thread::spawn(move || {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let (mut accepted, mut denied, mut n) = (Vec::new(), 0, 0);
        while !stop.load(Ordering::SeqCst) {
            let path = format!("/api/v1/jobs/{job}/{}", if n % 2 == 0 { "pause" } else { "resume" });
            let body = json!({"request_id": format!("{job}-{n}")}).to_string();
            let begun = Instant::now();
            loop {
                match http(&address, "POST", &path, &headers, &body).expect("the gateway answers") {
                    (202, ack) => {
                        let ack: Value = serde_json::from_str(&ack).expect("JSON");
                        accepted.push(ack["command_id"].as_str().expect("an id").to_owned());
                        break;
                    }
                    // Done already: the answer to what was asked before.
                    (200, result) => {
                        let result: Value = serde_json::from_str(&result).expect("JSON");
                        accepted.push(result["command_id"].as_str().expect("an id").to_owned());
                        break;
                    }
                    (403, _) => {
                        denied += 1;
                        break;
                    }
                    (503 | 504, _) if begun.elapsed() < PATIENCE => {}
                    (other, said) => panic!("{other}: {said}"),
                }
            }
            n += 1;
            std::thread::sleep(Duration::from_millis(fastrand::u64(5..40)));
        }
        (accepted, denied)
    })
}

/// Waits until rows show in SQL that were not there before, at most so long.
async fn grew(sql: &SqlitePool, by: i64, within: Duration) -> bool {
    const NEWEST: &str = "SELECT last_id FROM audit_head";
    let before = number(sql, NEWEST).await;
    let begun = Instant::now();
    while number(sql, NEWEST).await < before + by {
        if begun.elapsed() > within {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    true
}

/// How long a right is taken away at once.
const LACKS_A_RIGHT: Duration = Duration::from_secs(5);

/// Kills them when they have written rows to SQL and could not forget the entries: Redis did not let them.
async fn kill_between_sql_and_redis(fleet: &mut Fleet, workers: Vec<Handle>, sql: &SqlitePool) {
    // A worker that lacks a right at its start does not start at all.
    for worker in &workers {
        fleet.until_started(*worker);
    }
    // A program that looks just now whether it may write what it needs finds that it may not, and stops serving until it
    // may again: then nothing new is written, and the right is given back for a while.
    let begun = Instant::now();
    loop {
        fleet.redis.inline("ACL SETUSER default -xdel");
        if grew(sql, 1, LACKS_A_RIGHT).await {
            break;
        }
        fleet.redis.inline("ACL SETUSER default +xdel");
        assert!(begun.elapsed() < PATIENCE * 3, "nothing was written; log:\n{}", fleet.log());
        grew(sql, 1, PATIENCE).await;
    }
    for worker in workers {
        fleet.kill(worker);
    }
    assert!(entries_in_redis(fleet) > 0, "what they wrote is still there");
    fleet.redis.inline("ACL SETUSER default +xdel");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_attempt_is_in_the_trail_once_although_workers_are_killed_all_the_time() {
    const DEATHS: usize = 10;
    let mut fleet = Fleet::new();
    fleet.set("LIMITS__COMMANDS_PER_MINUTE", "1000000");
    fleet.set("COMMAND__LEASE_SECONDS", "1");
    let gateway = fleet.gateway();
    crate::operator(&fleet, "ann").await;
    fleet.permit("bob", "jobs.read").await;
    let address = fleet.process(gateway).address.clone();
    let stop = Arc::new(AtomicBool::new(false));
    let mut flows = Vec::new();
    for (n, (user, tenant)) in
        [("ann", "acme"), ("ann", "acme"), ("ann", "globex"), ("bob", "acme"), ("ann", "initech")]
            .into_iter()
            .enumerate()
    {
        let job = format!("j{n}");
        fleet.external_job(tenant, &job).await;
        flows.push(flow(address.clone(), fleet.token(user, tenant), job, stop.clone()));
    }
    let sql = fleet.sql().await;
    let mut workers = vec![fleet.worker_soon(), fleet.worker_soon()];
    for death in 0..DEATHS {
        let doomed = std::mem::take(&mut workers);
        if death % 2 == 0 {
            kill_between_sql_and_redis(&mut fleet, doomed, &sql).await;
        } else {
            assert!(grew(&sql, fastrand::i64(1..30), PATIENCE * 2).await, "nothing was written; log:\n{}", fleet.log());
            doomed.into_iter().for_each(|worker| fleet.kill(worker));
        }
        workers = vec![fleet.worker_soon(), fleet.worker_soon()];
    }
    stop.store(true, Ordering::SeqCst);
    let (mut accepted, mut denied) = (Vec::new(), 0);
    for flow in flows {
        let (ids, refused) = tokio::task::spawn_blocking(|| flow.join().expect("a flow")).await.expect("task");
        accepted.extend(ids);
        denied += refused;
    }
    let ended = "SELECT COUNT(*) FROM command_audit WHERE event IN ('succeeded', 'failed', 'expired')";
    until("every command has its end in SQL", &fleet, async || number(&sql, ended).await >= accepted.len() as i64)
        .await;
    // Most refusals are counted: a few rows tell of all of them.
    let told = "SELECT CAST(SUM(COALESCE(refusals, 1)) AS INTEGER) FROM command_audit WHERE event = 'denied'";
    until("every refusal is told of", &fleet, async || number(&sql, told).await >= denied as i64).await;
    until("no entry is left in Redis", &fleet, async || entries_in_redis(&fleet) == 0).await;
    let mut trail: HashMap<String, Vec<String>> = HashMap::new();
    let rows = sqlx::query("SELECT COALESCE(command_id, '') AS command, event FROM command_audit ORDER BY id");
    for row in rows.fetch_all(&sql).await.expect("read") {
        trail.entry(row.get("command")).or_default().push(row.get("event"));
    }
    let refusals = trail.remove("").unwrap_or_default();
    assert!(denied > 0 && refusals.iter().all(|event| event == "denied"));
    assert_eq!(number(&sql, told).await, denied as i64, "each refusal once");
    assert!(refusals.len() <= denied, "{} rows for {denied} refusals", refusals.len());
    assert_eq!(trail.len(), accepted.len(), "each accepted command, and no other");
    for command in &accepted {
        let events = &trail[command];
        assert!(events.len() == 2 && events[0] == "accepted" && events[1] != "accepted", "{command}: {events:?}");
    }
    let (said, code) = audit(&fleet, &["verify"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with(&format!("intact: {} rows", accepted.len() * 2 + refusals.len())), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_sql_is_away_entries_wait_and_are_warned_of_and_none_is_lost() {
    const WAITING: usize = 10_500;
    let mut fleet = Fleet::new();
    let sql = fleet.sql().await;
    let mut lock = sql.acquire().await.expect("connection");
    sqlx::query("BEGIN IMMEDIATE").execute(&mut *lock).await.expect("lock the database");
    let worker = fleet.worker();
    let entry = r#"{"tenant_id":"acme","user_id":"ann","resource_kind":"job","resource_id":"j","action":"pause"}"#;
    let mut redis = std::net::TcpStream::connect(("127.0.0.1", fleet.redis.port())).expect("connect to Redis");
    let lines = format!("XADD wh:{{05}}:audit * event denied entry '{entry}'\r\n").repeat(WAITING);
    redis.write_all(lines.as_bytes()).expect("send");
    // Each answer is the length of an id, and the id.
    assert_eq!(BufReader::new(redis).lines().take(2 * WAITING).count(), 2 * WAITING);
    until("the worker warns", &fleet, async || fleet.log().contains("worker.audit_backlog")).await;
    assert!(fleet.log().contains(r#""partition":"{05}""#), "{}", fleet.log());
    assert_eq!(entries_in_redis(&fleet), WAITING as i64, "nothing is trimmed");
    sqlx::query("ROLLBACK").execute(&mut *lock).await.expect("unlock the database");
    drop(lock);
    until("all are in SQL", &fleet, async || entries_in_redis(&fleet) == 0).await;
    assert_eq!(number(&sql, "SELECT COUNT(*) FROM command_audit").await, WAITING as i64);
    assert_eq!(audit(&fleet, &["verify"]).await.1, Some(0));
    fleet.signal(worker, rustix::process::Signal::TERM);
    assert_eq!(fleet.wait(worker), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_follows_searches_exports_and_verifies() {
    let mut fleet = Fleet::new();
    let gateway = fleet.gateway();
    fleet.worker();
    crate::operator(&fleet, "ann").await;
    fleet.permit("bob", "jobs.read").await;
    fleet.external_job("acme", "j1").await;
    let mut follower = fleet
        .command(&["audit", "--follow", "--format", "jsonl", "--user", "ann"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("start");
    let mut ann = fleet.socket(gateway, "ann", "acme", "jobs/j1").await;
    let mut bob = fleet.socket(gateway, "bob", "acme", "jobs/j1").await;
    ann.send(json!({"type": "pause_job", "reason": "=SUM(A1)"})).await;
    let done = ann.until(&["pause_succeeded", "pause_failed"]).await;
    bob.send(json!({"type": "cancel_job"})).await;
    bob.until(&["error"]).await;

    let output = follower.stdout.take().expect("piped");
    let read = tokio::task::spawn_blocking(move || {
        let lines = BufReader::new(output).lines().take(2);
        lines.map(|line| serde_json::from_str(&line.expect("a line")).expect("JSON")).collect::<Vec<Value>>()
    });
    let followed = tokio::time::timeout(PATIENCE, read).await;
    let _ = follower.kill();
    let _ = follower.wait();
    let followed = followed.expect("both rows in time").expect("task");
    assert_eq!((&followed[0]["event"], &followed[1]["event"]), (&json!("accepted"), &json!("succeeded")));
    assert!(followed.iter().all(|row| row["command_id"] == done["command_id"] && row["address"] == "127.0.0.1"));
    assert!(followed[1]["worker_id"].is_string() && followed[1]["latency_ms"].is_i64());
    assert_eq!((&followed[1]["attempts"], &followed[1]["outcome"]), (&json!(1), &json!("paused")));

    until("bob's attempt is in SQL", &fleet, async || entries_in_redis(&fleet) == 0).await;
    let (csv, code) = audit(&fleet, &["--format", "csv", "--tenant", "acme", "--event", "accepted"]).await;
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!((code, lines.len()), (Some(0), 2), "{csv}");
    assert!(lines[0].starts_with("id,at,event,") && lines[1].contains(",'=SUM(A1),"), "{csv}");
    let (denied, _) = audit(&fleet, &["--json", "--user", "bob", "--action", "cancel", "--since", "1h"]).await;
    let denied: Value = serde_json::from_str(&denied).expect("one object");
    assert_eq!((&denied["event"], &denied["command_id"]), (&json!("denied"), &json!(null)));
    assert_eq!(audit(&fleet, &["--until", "1h"]).await, (String::new(), Some(0)));
    let (table, _) = audit(&fleet, &["--tenant", "acme"]).await;
    assert!(table.lines().count() == 3 && table.contains("denied        cancel job j1 by bob in acme"), "{table}");
    for wrong in [["--event", "done"], ["--action", "stop"], ["--since", "yesterday"]] {
        assert_eq!(audit(&fleet, &wrong).await.1, Some(2), "{wrong:?}");
    }

    let (said, code) = audit(&fleet, &["verify"]).await;
    assert_eq!(code, Some(0));
    let kept = said.lines().find_map(|line| line.strip_prefix("last row ")).expect("the last row").to_owned();
    assert_eq!(audit(&fleet, &["verify", "--expect", &kept]).await.1, Some(0));
    let other = format!("3:{}", "0".repeat(64));
    let (said, code) = audit(&fleet, &["verify", "--expect", &other]).await;
    assert!(code == Some(1) && said.contains("row 3 has not the hash that was kept"), "{said}");
    assert_eq!(audit(&fleet, &["verify", "--expect", "3"]).await.1, Some(2));

    let sql = fleet.sql().await;
    sqlx::query("DROP TRIGGER command_audit_u").execute(&sql).await.expect("drop");
    sqlx::query("UPDATE command_audit SET user_id = 'eve' WHERE id = 2").execute(&sql).await.expect("update");
    let (said, code) = audit(&fleet, &["verify"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.starts_with("row 2 is not as it was written") && said.contains("\"eve\""), "{said}");
    let (said, code) = audit(&fleet, &["verify", "--json"]).await;
    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((code, lines.len()), (Some(1), 2), "{said}");
    assert_eq!((&lines[0]["kind"], &lines[0]["first"]), (&json!("changed"), &json!(2)));
    assert_eq!((&lines[1]["intact"], &lines[1]["rows"]), (&json!(false), &json!(3)));
    let mut elsewhere = fleet.command(&["audit", "verify"]);
    elsewhere.env("WHEELHOUSE__DATABASE__URL", "postgres://nobody@127.0.0.1:1/none");
    assert_eq!(printed(elsewhere).await.1, Some(3), "neither intact nor broken");
}
