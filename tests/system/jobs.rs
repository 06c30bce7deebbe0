//! What gateways and the command line say of jobs: in bounded memory, of jobs that nobody can run, of old ones.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::operator;
use crate::support::fleet::{Fleet, Handle, http};
use crate::support::socket::PATIENCE;

/// The most memory that a process has had so far, in MiB.
fn peak(fleet: &Fleet, process: Handle) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", fleet.process(process).id())).expect("its status");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a peak");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).expect("a number") / 1_024
}

fn ask(fleet: &Fleet, gateway: Handle, method: &str, path: &str, body: &str) -> (u16, Value) {
    let bearer = format!("Bearer {}", fleet.token("ann", "acme"));
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let (status, body) = http(&fleet.process(gateway).address, method, path, &headers, body).expect("an answer");
    (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_bulk_cancel_do_not_hold_what_jobs_hold() {
    let mut fleet = Fleet::new();
    let (gateway, worker) = (fleet.gateway(), fleet.worker());
    operator(&fleet, "ann").await;
    fleet.permit("ann", "campaigns.*").await;
    let sql = fleet.sql().await;
    for text in [
        "INSERT INTO campaigns (id, tenant_id) VALUES ('c', 'acme')",
        "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 200)
         INSERT INTO jobs (id, tenant_id, campaign_id, job_type, origin, parameters)
           SELECT 'j' || n, 'acme', 'c', 'unknown', 'queued', '{\"a\":\"' || hex(zeroblob(500000)) || '\"}' FROM n",
    ] {
        sqlx::query(text).execute(&sql).await.expect("plain SQL");
    }
    // 200 jobs of a megabyte each: whoever holds them all is above this.
    let most = 150;
    let fleet = std::sync::Arc::new(fleet);
    let lists = (0..4).map(|_| {
        let fleet = fleet.clone();
        tokio::task::spawn_blocking(move || {
            // A machine that is slow may not have read them all in time: then once more.
            let begun = std::time::Instant::now();
            loop {
                let (status, page) = ask(&fleet, gateway, "GET", "/api/v1/jobs?limit=1000", "");
                if status != 503 || begun.elapsed() > PATIENCE {
                    assert_eq!((status, page["jobs"].as_array().map(Vec::len)), (200, Some(200)));
                    return;
                }
            }
        })
    });
    for list in lists.collect::<Vec<_>>() {
        list.await.expect("a list");
    }
    let (_, page) = ask(&fleet, gateway, "GET", "/api/v1/jobs?limit=1000&fields=parameters", "");
    let jobs = page["jobs"].as_array().expect("jobs");
    assert!((1..10).contains(&jobs.len()) && page["next"].is_string(), "a page ends early: {}", jobs.len());
    assert_eq!(jobs[0]["parameters"]["a"].as_str().map(str::len), Some(1_000_000));
    let (_, shown) = ask(&fleet, gateway, "GET", "/api/v1/jobs/j1", "");
    assert_eq!(shown["parameters"]["a"].as_str().map(str::len), Some(1_000_000), "one job has them");
    let (status, done) = ask(&fleet, gateway, "POST", "/api/v1/campaigns/c/cancel?wait=60", "{}");
    assert_eq!((status, &done["type"]), (200, &json!("cancel_succeeded")), "{done}");
    assert_eq!(fleet.status("acme", "j200").await, "cancelled");
    let peaks = (peak(&fleet, gateway), peak(&fleet, worker));
    assert!(peaks.0 < most && peaks.1 < most, "gateway and worker took {peaks:?} MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_keep_every_digit_on_the_command_line() {
    let mut fleet = Fleet::new();
    let gateway = fleet.gateway();
    operator(&fleet, "ann").await;
    let (url, token) = (format!("http://{}", fleet.process(gateway).address), fleet.token("ann", "acme"));
    let said = |args: &[&str]| {
        let mut command = fleet.command(args);
        let done = command.args(["--url", &url, "--token", &token]).output().expect("run wheelhouse");
        assert!(done.status.success(), "{args:?}: {done:?}");
        String::from_utf8(done.stdout).expect("text")
    };
    let parameters = r#"{"whole":9007199254740993,"decimal":0.1234567890123456789012345678}"#;
    let result = "[0.1234567890123456789012345678,9007199254740993]";
    said(&["job", "submit", "code", "--id", "j1", "--parameters", parameters]);
    let end = sqlx::query("UPDATE jobs SET result = $1 WHERE id = 'j1'").bind(result);
    end.execute(&fleet.sql().await).await.expect("give it a result");
    let shown = said(&["job", "show", "j1", "--json"]);
    // Its first row is the socket's snapshot. It goes on until it is ended: nobody runs the job.
    let mut follow = fleet.command(&["job", "show", "j1", "--json", "--follow", "--url", &url, "--token", &token]);
    let mut follow = follow.stdout(Stdio::piped()).spawn().expect("run wheelhouse");
    let mut followed = String::new();
    let read = BufReader::new(follow.stdout.take().expect("its output")).read_line(&mut followed);
    follow.kill().expect("end it");
    follow.wait().expect("wait");
    read.expect("a row");
    for text in [shown, followed] {
        for written in [format!("\"parameters\":{parameters}"), format!("\"result\":{result}")] {
            assert!(text.contains(&written), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_no_live_worker_can_run_says_so() {
    let mut fleet = Fleet::new();
    let gateway = fleet.gateway();
    operator(&fleet, "ann").await;
    let (status, _) = ask(&fleet, gateway, "POST", "/api/v1/jobs", r#"{"id":"j1","job_type":"no_such_type"}"#);
    assert_eq!(status, 201);
    fleet.external_job("acme", "theirs").await;
    let row = |fleet: &Fleet, path: &str| ask(fleet, gateway, "GET", path, "").1;
    let words = json!("a worker for no_such_type");
    assert_eq!(row(&fleet, "/api/v1/jobs/j1")["waiting_for"], words, "there is no worker at all");
    assert_eq!(row(&fleet, "/api/v1/jobs/theirs").get("waiting_for"), None, "another system's job");
    fleet.worker();
    assert_eq!(row(&fleet, "/api/v1/jobs?status=pending")["jobs"][0]["waiting_for"], words, "none knows it");
    let token = fleet.token("ann", "acme");
    let url = format!("ws://{}/api/v1/realtime/ws/jobs/j1?token={token}", fleet.process(gateway).address);
    let mut socket = crate::support::socket::Socket::open(&url).await;
    assert_eq!(socket.next().await["type"], "subscribed");
    assert_eq!(socket.next().await["waiting_for"], words);
    let address = format!("http://{}", fleet.process(gateway).address);
    let shown = fleet.command(&["job", "ls", "--url", &address, "--token", &token]).output().expect("job ls");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("pending, waits for a worker for no_such_type"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn old_jobs_are_pruned_from_the_shell_and_by_workers_where_that_is_set() {
    let mut fleet = Fleet::new();
    let sql = fleet.sql().await;
    let put = async |id: &str, at: &str| {
        sqlx::query("INSERT INTO jobs (id, tenant_id, status, completed_at) VALUES ($1, 'acme', 'completed', $2)")
            .bind(id.to_owned())
            .bind(at.to_owned())
            .execute(&sql)
            .await
            .expect("insert");
    };
    let left = async || -> Vec<String> {
        sqlx::query_scalar("SELECT id FROM jobs ORDER BY id").fetch_all(&sql).await.expect("read")
    };
    put("old", "2026-01-01T00:00:00.000Z").await;
    put("young", &jiff::Timestamp::now().to_string()).await;
    let prune = |args: &[&str]| {
        let output = fleet.command(&[&["job", "prune"], args].concat()).output().expect("job prune");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    let (code, said) = prune(&[]);
    assert!(code == Some(2) && said.contains("--older-than"), "{code:?} {said}");
    let (code, said) = prune(&["--older-than", "30d", "--dry-run"]);
    assert!(code == Some(0) && said.starts_with("1 jobs and 0 campaigns") && said.contains("would be"), "{said}");
    assert_eq!(left().await, ["old", "young"]);
    let (code, said) = prune(&["--older-than", "30d", "--json"]);
    assert!(code == Some(0) && said.contains("\"jobs\":1"), "{said}");
    assert_eq!(left().await, ["young"]);
    put("older", "2026-02-01T00:00:00.000Z").await;
    fleet.set("JOBS__KEEP_DAYS", "30");
    fleet.worker();
    let begun = std::time::Instant::now();
    while left().await != ["young"] {
        assert!(begun.elapsed() < crate::support::socket::PATIENCE, "never pruned; the log:\n{}", fleet.log());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_a_year_ahead_prunes_no_job_neither_in_a_worker_nor_from_the_shell() {
    let mut fleet = Fleet::new();
    let (sql, clock) = (fleet.sql().await, crate::support::clock::Clock::new());
    let ended = jiff::Timestamp::now().to_string();
    sqlx::query("INSERT INTO jobs (id, tenant_id, status, completed_at) VALUES ('young', 'acme', 'completed', $1)")
        .bind(ended)
        .execute(&sql)
        .await
        .expect("insert");
    let left = async || sqlx::query("SELECT id FROM jobs").fetch_all(&sql).await.expect("read").len();
    clock.set(400 * 24 * 3_600);
    fleet.set("JOBS__KEEP_DAYS", "30");
    fleet.worker_on(&clock);
    let begun = std::time::Instant::now();
    while !fleet.log().contains("worker.jobs_not_pruned") {
        assert!(begun.elapsed() < crate::support::socket::PATIENCE, "it does not say why; the log:\n{}", fleet.log());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let said = fleet.log();
    let warning = said.lines().find(|line| line.contains("worker.jobs_not_pruned")).expect("a line");
    assert!(warning.contains("that of Redis") && warning.contains("set the wrong one right"), "{warning}");
    assert_eq!(left().await, 1);

    for more in [&["--dry-run"][..], &[]] {
        let mut command = fleet.command(&[&["job", "prune", "--older-than", "30d"], more].concat());
        let ran = command.envs(clock.env()).output().expect("job prune");
        let words = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(ran.status.code() == Some(1) && words.contains("that of Redis"), "{words}");
        assert_eq!(left().await, 1);
    }
    fleet.redis = crate::support::redis::RedisServer::start_on(&clock);
    let ran = fleet.command(&["job", "prune", "--older-than", "30d"]).output().expect("job prune");
    assert_eq!(ran.status.code(), Some(1), "its own clock is right, that of Redis is not");
    assert_eq!(left().await, 1);
}
