//! The whole system from outside: real gateways and workers, real Redis and SQL, operators on sockets, and faults.

mod support;

mod system {
    mod audit;
    mod clocks;
    mod control;
    mod crowd;
    mod doctor;
    mod issuer;
    mod jobs;
    mod least_privilege;
    mod lost_shard;
    mod memory;
    mod no_gateway;
    mod queue;
    mod redis_kinds;
    mod revocation;
    mod scripts;
    mod shell;
    mod split_brain;
    mod start;
    mod terminal;
    mod tls;
    mod trust;
}

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::fleet::{Fleet, http_get};
use support::socket::PATIENCE;
use tokio::io::AsyncReadExt;

/// What an operator needs to do everything with jobs.
async fn operator(fleet: &Fleet, user: &str) {
    fleet.permit(user, "jobs.*").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_on_one_gateway_is_applied_once_and_answered_on_every_gateway() {
    let mut fleet = Fleet::new();
    let (a, b) = (fleet.gateway(), fleet.gateway());
    for _ in 0..3 {
        fleet.worker();
    }
    operator(&fleet, "ann").await;
    operator(&fleet, "bob").await;
    fleet.external_job("acme", "j1").await;
    let mut ann = fleet.socket(a, "ann", "acme", "jobs/j1").await;
    let mut bob = fleet.socket(b, "bob", "acme", "jobs/j1").await;

    ann.send(json!({"type": "pause_job", "reason": "checking"})).await;
    let ack = ann.until(&["pause_requested", "pause_succeeded", "error"]).await;
    assert_eq!(ack["type"], "pause_requested", "{ack}");
    assert_eq!(ack["workers_online"], 3);
    let expected = json!({
        "type": "pause_succeeded", "job_id": "j1", "tenant_id": "acme",
        "command_id": ack["command_id"], "status": "paused", "control": "row",
    });
    assert_eq!(ann.until(&["pause_succeeded", "pause_failed"]).await, expected);
    assert_eq!(bob.until(&["pause_succeeded", "pause_failed"]).await, expected);
    assert_eq!(fleet.status("acme", "j1").await, "paused");

    bob.send(json!({"type": "cancel_job"})).await;
    assert_eq!(ann.until(&["cancel_succeeded", "cancel_failed"]).await["status"], "cancelled");
    bob.until(&["cancel_succeeded"]).await;
    bob.send(json!({"type": "resume_job"})).await;
    let refused = bob.until(&["resume_succeeded", "resume_failed"]).await;
    assert_eq!(refused["error"], "Job not found or already completed");
    assert_eq!(fleet.status("acme", "j1").await, "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_commands_through_two_gateways_and_the_next_is_refused_by_either() {
    let mut fleet = Fleet::new();
    let (a, b) = (fleet.gateway(), fleet.gateway());
    fleet.worker();
    operator(&fleet, "ann").await;
    let mut sockets = Vec::new();
    for (n, gateway) in [a, b].into_iter().enumerate() {
        fleet.external_job("acme", &format!("j{n}")).await;
        sockets.push(fleet.socket(gateway, "ann", "acme", &format!("jobs/j{n}")).await);
    }
    let work = sockets.into_iter().map(|mut socket| async move {
        for n in 0..15 {
            let word = if n % 2 == 0 { "pause" } else { "resume" };
            socket.send(json!({"type": format!("{word}_job")})).await;
            socket.until(&[&format!("{word}_requested")]).await;
            socket.until(&[&format!("{word}_succeeded")]).await;
        }
        socket
    });
    for mut socket in futures_util::future::join_all(work).await {
        socket.send(json!({"type": "resume_job", "request_id": "r31"})).await;
        let refused = socket.until(&["error", "resume_requested"]).await;
        assert_eq!(refused["error"], "rate_limit_exceeded");
        assert_eq!(refused["message"], "Rate limit exceeded: 30/30 commands per minute");
        assert_eq!(refused["request_id"], "r31");
        assert!((1..=60).contains(&refused["retry_after"].as_i64().expect("seconds")), "{refused}");
    }
    assert_eq!(fleet.status("acme", "j0").await, "paused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_whose_worker_is_killed_half_way_is_carried_out_by_another_once() {
    let mut fleet = Fleet::new();
    let gateway = fleet.gateway();
    let doomed = fleet.worker();
    operator(&fleet, "ann").await;
    fleet.external_job("acme", "j1").await;
    let mut socket = fleet.socket(gateway, "ann", "acme", "jobs/j1").await;

    // The row cannot be written: the worker has claimed the command and waits.
    let sql = fleet.sql().await;
    let mut lock = sql.acquire().await.expect("connection");
    sqlx::query("BEGIN IMMEDIATE").execute(&mut *lock).await.expect("lock the database");
    socket.send(json!({"type": "cancel_job"})).await;
    let ack = socket.until(&["cancel_requested"]).await;
    let begun = Instant::now();
    while !fleet.log().contains("worker.command_claimed") {
        assert!(begun.elapsed() < PATIENCE, "the command was never claimed; log:\n{}", fleet.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    fleet.kill(doomed);
    sqlx::query("ROLLBACK").execute(&mut *lock).await.expect("unlock the database");
    drop(lock);
    fleet.worker();
    let result = socket.until(&["cancel_succeeded", "cancel_failed"]).await;
    assert_eq!(result["type"], "cancel_succeeded");
    assert_eq!(result["command_id"], ack["command_id"]);
    assert_eq!(fleet.status("acme", "j1").await, "cancelled");
    // Nothing else comes of it: the next message is the pong.
    socket.send(json!({"type": "ping"})).await;
    let beside = ["job_status", "job_progress", "workers_online"];
    let next = socket.until_that(|v| beside.iter().all(|kind| v["type"] != *kind)).await;
    assert_eq!(next["type"], "pong");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_accepted_command_gets_its_one_result_although_redis_is_killed_and_restarted() {
    let mut fleet = Fleet::new();
    let gateway = fleet.gateway();
    operator(&fleet, "ann").await;
    let mut sockets = Vec::new();
    for n in 0..10 {
        fleet.external_job("acme", &format!("j{n}")).await;
        let mut socket = fleet.socket(gateway, "ann", "acme", &format!("jobs/j{n}")).await;
        socket.send(json!({"type": "pause_job"})).await;
        let ack = socket.until(&["pause_requested", "error"]).await;
        assert_eq!(ack["workers_online"], 0, "{ack}");
        sockets.push((socket, ack["command_id"].clone()));
    }
    fleet.redis.restart();
    fleet.worker();
    for (n, (socket, command)) in sockets.iter_mut().enumerate() {
        let result = socket.until(&["pause_succeeded", "pause_failed"]).await;
        assert_eq!((&result["type"], &result["command_id"]), (&json!("pause_succeeded"), &*command));
        assert_eq!(fleet.status("acme", &format!("j{n}")).await, "paused");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_away_commands_are_unavailable_and_none_of_them_runs_later() {
    let mut fleet = Fleet::new();
    let gateway = fleet.gateway();
    fleet.worker();
    operator(&fleet, "ann").await;
    fleet.external_job("acme", "j1").await;
    let mut socket = fleet.socket(gateway, "ann", "acme", "jobs/j1").await;
    let address = fleet.process(gateway).address.clone();
    fleet.redis.kill();
    // Not just 503: the line that the gateway hears by may break before the one that it sends by.
    until_ready(&address, |_, says| !says["redis"].as_bool().expect("redis")).await;
    for n in 0..3 {
        socket.send(json!({"type": "cancel_job", "request_id": format!("r{n}")})).await;
        let answer = socket.until(&["error", "cancel_requested"]).await;
        assert_eq!((&answer["error"], &answer["request_id"]), (&json!("unavailable"), &json!(format!("r{n}"))));
    }
    fleet.redis.restart();
    until_ready(&address, |status, _| status == 200).await;
    // The same socket goes on, and the first command that is carried out is this one.
    socket.send(json!({"type": "pause_job"})).await;
    let result = socket.until_that(|v| v["type"].as_str().is_some_and(|t| t.ends_with("ed") && t.contains('_'))).await;
    assert_eq!(result["type"], "pause_requested");
    socket.until(&["pause_succeeded"]).await;
    assert_eq!(fleet.status("acme", "j1").await, "paused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permission_given_and_taken_by_plain_sql_takes_effect_and_no_token_reaches_the_log() {
    let mut fleet = Fleet::new();
    let gateway = fleet.gateway();
    fleet.permit("ann", "jobs.read").await;
    fleet.external_job("acme", "j1").await;
    let mut socket = fleet.socket(gateway, "ann", "acme", "jobs/j1").await;
    socket.send(json!({"type": "pause_job"})).await;
    assert_eq!(
        socket.until(&["error", "pause_requested"]).await,
        json!({"type": "error", "error": "permission_denied", "message": "Insufficient permissions to pause job"})
    );
    fleet.permit("ann", "jobs.pause").await;
    let begun = Instant::now();
    loop {
        socket.send(json!({"type": "pause_job"})).await;
        if socket.until(&["error", "pause_requested"]).await["type"] == "pause_requested" {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "the permission never took effect");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    sqlx::query("DELETE FROM user_permissions").execute(&fleet.sql().await).await.expect("delete");
    let closed = socket.until_that(|v| v.get("closed").is_some()).await;
    assert_eq!(closed["closed"], 4403);
    assert!(!fleet.log().contains("eyJ"), "a token stands in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_told_to_stop_end_by_themselves_and_sockets_hear_of_it() {
    let mut fleet = Fleet::new();
    let gateway = fleet.gateway();
    let worker = fleet.worker();
    operator(&fleet, "ann").await;
    fleet.external_job("acme", "j1").await;
    let mut socket = fleet.socket(gateway, "ann", "acme", "jobs/j1").await;
    fleet.signal(worker, rustix::process::Signal::TERM);
    assert_eq!(fleet.wait(worker), Some(0));
    fleet.signal(gateway, rustix::process::Signal::TERM);
    let closed = socket.until_that(|v| v.get("closed").is_some()).await;
    assert_eq!(closed["closed"], 1012);
    assert!(closed["reason"].as_str().is_some_and(|r| r.contains(" ms")), "{closed}");
    drop(socket);
    assert_eq!(fleet.wait(gateway), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_and_fifty_jobs_under_way_are_cancelled_in_one_batch_with_every_result_and_one_summary() {
    let mut fleet = Fleet::new();
    let (a, b) = (fleet.gateway(), fleet.gateway());
    for _ in 0..2 {
        fleet.demo_worker();
    }
    operator(&fleet, "ann").await;
    fleet.permit("ann", "campaigns.*").await;
    let rows: String = (0..100).map(|n| format!("{n},some words\n")).collect();
    std::fs::write(fleet.folder().join("rows.csv"), rows).expect("write");
    // Each would take minutes: some run when the batch comes, and the others wait for a place.
    let parameters = json!({"path": "rows.csv", "first_row": 1, "rows": 99, "rows_per_second": 1});
    let jobs: Vec<_> =
        (0..250).map(|n| json!({"id": format!("j{n}"), "job_type": "demo_step", "parameters": parameters})).collect();
    std::fs::write(fleet.folder().join("jobs.json"), json!(jobs).to_string()).expect("write");
    let token = fleet.token("ann", "acme");
    let cli = |gateway, args: &[&str]| {
        let url = format!("http://{}", fleet.process(gateway).address);
        let ran = fleet.command(args).args(["--url", &url, "--token", &token, "--json"]).output().expect("run");
        let (out, err) =
            (String::from_utf8_lossy(&ran.stdout).into_owned(), String::from_utf8_lossy(&ran.stderr).into_owned());
        (ran.status.code(), serde_json::from_str::<serde_json::Value>(&out).unwrap_or_default(), err)
    };
    let (code, _, err) = cli(a, &["campaign", "create", "Spring", "--id", "c1", "--jobs", "jobs.json"]);
    assert_eq!(code, Some(0), "{err}");
    let sql = fleet.sql().await;
    let begun = Instant::now();
    loop {
        let running: i64 = sqlx::query_scalar("SELECT count(*) FROM jobs WHERE status = 'running'")
            .fetch_one(&sql)
            .await
            .expect("count");
        if running == 8 {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{running} jobs run; log:\n{}", fleet.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let open = async |gateway| {
        let url = format!("ws://{}/api/v1/realtime/ws?token={token}", fleet.process(gateway).address);
        let mut socket = support::socket::Socket::open(&url).await;
        assert_eq!(socket.next().await["type"], "subscribed");
        socket
    };
    let (mut asking, mut beside) = (open(a).await, open(b).await);
    asking
        .send(
            json!({"type": "cancel_jobs", "filter": {"campaign_id": "c1"}, "request_id": "r1", "reason": "wrong file"}),
        )
        .await;
    let (mut results, mut ack) = (std::collections::HashSet::new(), serde_json::Value::Null);
    let summary = loop {
        let message = asking.next().await;
        match message["type"].as_str().expect("type") {
            "batch_requested" => ack = message,
            "cancel_succeeded" => {
                assert_eq!(ack["accepted"], 250, "a result before the ack: {message}");
                assert!(results.insert(message["command_id"].to_string()), "twice: {message}");
            }
            "batch_completed" => break message,
            "job_status" | "job_progress" | "campaign_status" | "campaign_progress" => {}
            _ => panic!("{message}"),
        }
    };
    assert_eq!((&summary["succeeded"], &summary["failed"], &summary["refused"]), (&json!(250), &json!(0), &json!(0)));
    assert_eq!(summary["batch_id"], ack["batch_id"]);
    let expected = ack["items"].as_array().expect("items").iter().map(|item| item["command_id"].to_string());
    assert_eq!(results, expected.collect());
    let cancelled: i64 = sqlx::query_scalar("SELECT count(*) FROM jobs WHERE status = 'cancelled'")
        .fetch_one(&sql)
        .await
        .expect("count");
    assert_eq!(cancelled, 250);
    // On the other gateway everyone hears of each, once; the summary is for who asked.
    let mut heard = std::collections::HashSet::new();
    while heard.len() < 250 {
        let message = beside.until(&["cancel_succeeded", "batch_completed"]).await;
        assert_eq!(message["type"], "cancel_succeeded", "{message}");
        assert!(heard.insert(message["command_id"].to_string()), "twice: {message}");
    }
    assert_eq!(heard, results);

    // From a shell, through the other gateway: the same request is the same batch.
    let (code, answer, err) =
        cli(b, &["batch", "cancel", "--campaign", "c1", "--request-id", "r1", "--reason", "wrong file", "--wait"]);
    assert_eq!(
        (code, &answer["type"], &answer["succeeded"]),
        (Some(0), &json!("batch_completed"), &json!(250)),
        "{err}"
    );
    let (code, answer, _) = cli(b, &["batch", "pause", "--jobs", "j1,j2,none", "--wait"]);
    assert_eq!((code, &answer["failed"], &answer["refused"]), (Some(1), &json!(2), &json!(1)), "{answer}");
    let (code, answer, _) = cli(b, &["batch", "cancel", "--status", "running,pending", "--dry-run"]);
    assert_eq!((code, &answer["total"]), (Some(0), &json!(0)), "{answer}");
    let listed = fleet.folder().join("ids.txt");
    std::fs::write(&listed, "j1\nj2, j3\n\nj1\n").expect("write");
    let mut from_input = fleet.command(&["batch", "resume", "--jobs", "-", "--dry-run", "--token", &token]);
    from_input.args(["--url", &format!("http://{}", fleet.process(b).address)]);
    from_input.stdin(std::fs::File::open(&listed).expect("open"));
    let ran = from_input.output().expect("run");
    let out = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert_eq!(out, "job j1\njob j2\njob j3\nresume would hit 3 of 3, for 1 of your budget\n", "{ran:?}");
    for (args, part) in [
        (vec!["batch", "cancel"], "which ones?"),
        (vec!["batch", "cancel", "--jobs", "a:b"], "an id must be"),
        (vec!["batch", "cancel", "--jobs", "a", "--status", "running"], "cannot be used with"),
    ] {
        let (code, _, err) = cli(b, &args);
        assert_eq!(code, Some(2), "{args:?}: {err}");
        assert!(err.contains(part), "{args:?}: {err}");
    }
}

/// Waits until `/readyz` answers so.
async fn until_ready(address: &str, so: impl Fn(u16, &Value) -> bool) {
    let begun = Instant::now();
    loop {
        let address = address.to_owned();
        let answer = tokio::task::spawn_blocking(move || http_get(&address, "/readyz")).await.expect("ask");
        if let Some((status, body)) = &answer
            && so(*status, &serde_json::from_str(body).expect("JSON"))
        {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "/readyz never answered so; last: {answer:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A client that shares no code with this project: what it prints, up to this text or for a minute.
async fn wscat(url: &str, send: &str, up_to: &str) -> String {
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/target/test-tools/node_modules/.bin/wscat");
    let started = tokio::process::Command::new(program)
        .args(["--no-color", "-c", url, "-x", send, "-w", "60"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut started = started.unwrap_or_else(|error| panic!("cannot run wscat ({error}): install it with `make deps`"));
    // It leaves when its standard input ends.
    let keyboard = started.stdin.take();
    let mut screen = started.stdout.take().expect("piped");
    let (mut printed, mut some) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&printed).contains(up_to) {
        match screen.read(&mut some).await.expect("read what wscat prints") {
            0 => break,
            length => printed.extend_from_slice(&some[..length]),
        }
    }
    drop(keyboard);
    String::from_utf8_lossy(&printed).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_specifications_wscat_session_pauses_a_job() {
    let mut fleet = Fleet::new();
    let gateway = fleet.gateway();
    fleet.worker();
    operator(&fleet, "user-456").await;
    fleet.external_job("tenant-123", "550e8400").await;
    let token = fleet.token("user-456", "tenant-123");
    let address = &fleet.process(gateway).address;
    let url = format!("ws://{address}/api/v1/realtime/ws/jobs/550e8400?token={token}");
    let done = r#"{"type":"pause_succeeded","job_id":"550e8400","tenant_id":"tenant-123","command_id":""#;
    let output = wscat(&url, r#"{"type": "pause_job"}"#, done).await;
    let at = |text: &str| output.find(text).unwrap_or_else(|| panic!("{text} is not in what wscat printed:\n{output}"));
    let subscribed =
        at(r#"{"type":"subscribed","channel":"tenant-123:job:550e8400","tenant_id":"tenant-123","job_id":"550e8400"}"#);
    let ack = at(r#"{"type":"pause_requested","job_id":"550e8400","tenant_id":"tenant-123","command_id":""#);
    let result = at(done);
    assert!(subscribed < ack && ack < result, "{output}");
    assert_eq!(fleet.status("tenant-123", "550e8400").await, "paused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_fails_twice_completes_at_its_third_try_and_says_what_it_could_not_do() {
    let mut fleet = Fleet::new();
    fleet.permit("ann", "*").await;
    let gateway = fleet.gateway();
    fleet.demo_worker();
    let (url, token) = (format!("http://{}", fleet.process(gateway).address), fleet.token("ann", "acme"));
    let cli = |args: &[&str]| {
        let mut command = fleet.command(args);
        let done = command.env("WHEELHOUSE_URL", &url).env("WHEELHOUSE_TOKEN", &token).output().expect("run the CLI");
        (done.status.code(), String::from_utf8(done.stdout).expect("text"))
    };
    // A link that leads to itself stands where the file should be: that may pass.
    let file = fleet.folder().join("orders.csv");
    std::os::unix::fs::symlink("orders.csv", &file).expect("link");
    let parameters = json!({ "path": "orders.csv" }).to_string();
    let submit = ["job", "submit", "csv_import", "--id", "j1", "--parameters", &parameters];
    let (code, _) = cli(&[&submit[..], &["--max-retries", "50", "--timeout", "10m"]].concat());
    assert_eq!(code, Some(0));
    let show =
        || -> serde_json::Value { serde_json::from_str(&cli(&["job", "show", "j1", "--json"]).1).expect("JSON") };
    let begun = Instant::now();
    let waiting = loop {
        let row = show();
        if row["retry_count"].as_i64() >= Some(2) && row["status"] == "pending" {
            break row;
        }
        assert!(begun.elapsed() < PATIENCE, "it does not fail: {row}");
    };
    assert!(waiting["run_after"].as_str().is_some_and(|at| at.ends_with('Z')), "until when it waits: {waiting}");
    assert!(waiting["error_message"].as_str().is_some_and(|e| e.starts_with("Cannot read")), "{waiting}");
    assert_eq!(waiting["timeout_seconds"], 600);
    // Put in its place in one step: a missing file would be for good.
    let whole = fleet.folder().join("whole.csv");
    std::fs::write(&whole, "id,name\n1,Ada\n2\n3,Ben\n").expect("write the file");
    std::fs::rename(&whole, &file).expect("put it there");

    let (code, said) = cli(&["job", "show", "j1", "--follow"]);
    assert_eq!((code, said.as_str()), (Some(0), "job j1 completed\n"));
    let row = show();
    assert!(row["retry_count"].as_i64() >= Some(2), "{row}");
    assert_eq!((&row["run_after"], &row["items_failed"]), (&json!(null), &json!(1)));
    let (code, said) = cli(&["job", "failed-items", "j1"]);
    assert_eq!(code, Some(0));
    assert!(said.starts_with("row 2  ") && said.lines().count() == 1, "{said}");
    let (_, said) = cli(&["job", "failed-items", "j1", "--json"]);
    let page: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((&page["failed_items"][0]["item"], &page["next"]), (&json!("row 2"), &json!(null)));
    assert_eq!(cli(&["job", "failed-items", "none"]).0, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bench_puts_load_on_a_running_gateway_and_takes_its_rows_away() {
    let mut fleet = Fleet::new();
    let gateway = fleet.gateway();
    fleet.worker();
    let address = fleet.process(gateway).address.clone();
    let words =
        ["bench", "load", "--gateway", &address, "--sockets", "8", "--seconds", "1", "--rate", "40", "--results"];
    let output = fleet.command(&words).output().expect("run the bench");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let count = |name: &str| -> Option<u64> {
        text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
    };
    assert_eq!((count("acks"), count("results")), (Some(40), Some(40)), "{text}");
    assert!(!text.contains("error"), "{text}");
    let left: (i64, i64) =
        sqlx::query_as("SELECT (SELECT COUNT(*) FROM jobs), (SELECT COUNT(*) FROM user_permissions)")
            .fetch_one(&fleet.sql().await)
            .await
            .expect("count");
    assert_eq!(left, (0, 0));
}

/// Whoever may create jobs must find no kind in production that nobody meant to offer.
#[tokio::test(flavor = "multi_thread")]
async fn a_production_worker_knows_none_of_the_demos_kinds_and_leaves_such_jobs_alone() {
    let mut fleet = Fleet::new();
    fleet.permit("ann", "*").await;
    let gateway = fleet.gateway();
    // Also where it is given a folder of files, for job code of somebody's own.
    fleet.set("WORKER__FILES_ROOT", &fleet.folder().display().to_string());
    let plain = fleet.worker();
    std::fs::write(fleet.folder().join("rows.csv"), "id\n1\n").expect("write the file");
    let (url, token) = (format!("http://{}", fleet.process(gateway).address), fleet.token("ann", "acme"));
    let cli = |fleet: &Fleet, args: &[&str]| {
        let mut command = fleet.command(args);
        let done = command.env("WHEELHOUSE_URL", &url).env("WHEELHOUSE_TOKEN", &token).output().expect("run the CLI");
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    };
    cli(&fleet, &["job", "submit", "csv_import", "--id", "i1", "--parameters", r#"{"path":"rows.csv"}"#]);
    cli(
        &fleet,
        &["job", "submit", "demo_step", "--id", "s1", "--parameters", r#"{"path":"rows.csv","first_row":1,"rows":1}"#],
    );
    // By the time that another worker has started, the first has looked for jobs more than once.
    let demo = fleet.demo_worker();
    for id in ["i1", "s1"] {
        cli(&fleet, &["job", "show", id, "--follow"]);
        assert_eq!(fleet.status("acme", id).await, "completed");
    }
    let log = fleet.log();
    let started: Vec<&str> = log.lines().filter(|line| line.contains("\"worker.job_started\"")).collect();
    let of = |handle| format!("\"worker_id\":\"worker-{}-", fleet.process(handle).id());
    assert_eq!(started.len(), 2, "{started:#?}");
    assert!(started.iter().all(|line| line.contains(&of(demo)) && !line.contains(&of(plain))), "{started:#?}");
}
