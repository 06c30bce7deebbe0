//! The users and roles of `deploy/`: with exactly these everything works, and what they do not need is refused.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, Executor};

use crate::support::api::until;
use crate::support::fleet::{Fleet, Handle, http, http_get};
use crate::support::redis::RedisServer;
use crate::support::roles::{self, Database, become_role};
use crate::support::socket::{PATIENCE, Socket};

/// A fleet whose programs are nobody but these users.
async fn fleet() -> (Fleet, Database) {
    let fleet = Fleet::on(roles::redis());
    let database = Database::new(&fleet).await;
    (fleet, database)
}

/// What a program prints; it must succeed.
fn said(fleet: &Fleet, args: &[&str]) -> String {
    let ran = fleet.command(args).output().expect("run");
    assert!(ran.status.success(), "{args:?}: {ran:?}; log:\n{}", fleet.log());
    String::from_utf8(ran.stdout).expect("text")
}

/// What Redis refused to somebody, if anything.
fn refused(redis: &RedisServer) -> String {
    let mut log = std::process::Command::new("redis-cli");
    let ran = log.args(["-p", &redis.port().to_string(), "ACL", "LOG"]).output().expect("run redis-cli");
    String::from_utf8(ran.stdout).expect("text").trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_least_rights_everything_is_done_and_nothing_that_anybody_asks_for_is_refused() {
    let (mut fleet, database) = fleet().await;
    become_role(&mut fleet, &database, "admin");
    said(&fleet, &["grant", "--user", "ann", "jobs.*", "campaigns.*", "audit.read"]);
    assert!(said(&fleet, &["grants"]).contains("campaigns.*"));
    become_role(&mut fleet, &database, "gateway");
    let gateway = fleet.gateway();
    become_role(&mut fleet, &database, "worker");
    let mut workers = vec![fleet.demo_worker(), fleet.demo_worker()];
    let rows: String = (0..100).map(|n| format!("{n},some words\n")).collect();
    std::fs::write(fleet.folder().join("rows.csv"), rows).expect("write");
    let step = |id: &str| {
        let parameters = json!({"path": "rows.csv", "first_row": 1, "rows": 99, "rows_per_second": 1});
        json!({"id": id, "job_type": "demo_step", "parameters": parameters})
    };
    let jobs: Vec<Value> = (0..4).map(|n| step(&format!("c{n}"))).collect();
    std::fs::write(fleet.folder().join("jobs.json"), json!(jobs).to_string()).expect("write");
    let (url, token) = (format!("http://{}", fleet.process(gateway).address), fleet.token("ann", "acme"));
    let ask = |fleet: &Fleet, args: &[&str]| said(fleet, &[args, &["--url", &url, "--token", &token]].concat());

    ask(&fleet, &["job", "submit", "csv_import", "--id", "j0", "--parameters", r#"{"path":"rows.csv"}"#, "--wait"]);
    ask(&fleet, &["job", "submit", "demo_step", "--id", "j1", "--parameters", &step("j1")["parameters"].to_string()]);
    for word in ["pause", "resume"] {
        ask(&fleet, &["job", word, "j1", "--wait"]);
    }
    ask(&fleet, &["campaign", "create", "Spring", "--id", "spring", "--jobs", "jobs.json"]);
    ask(&fleet, &["campaign", "create", "Empty", "--id", "empty"]);
    ask(&fleet, &["campaign", "close", "empty"]);
    for word in ["pause", "resume"] {
        ask(&fleet, &["campaign", word, "spring", "--wait"]);
    }
    ask(&fleet, &["batch", "pause", "--jobs", "c0,c1", "--wait"]);
    ask(&fleet, &["batch", "cancel", "--jobs", "c0,c1", "--wait"]);
    ask(&fleet, &["campaign", "cancel", "spring", "--wait"]);
    ask(&fleet, &["job", "pause", "j1", "--in", "1h"]);
    let schedules = ask(&fleet, &["schedule", "ls", "--json"]);
    let schedules: Value = serde_json::from_str(&schedules).expect("JSON");
    ask(&fleet, &["schedule", "rm", schedules["schedules"][0]["schedule_id"].as_str().expect("an id")]);
    ask(&fleet, &["job", "pause", "j1", "--in", "1s"]);
    let status = || {
        let job: Value = serde_json::from_str(&ask(&fleet, &["job", "show", "j1", "--json"])).expect("JSON");
        job["status"].clone()
    };
    until("what was scheduled is done", async || status() == "paused").await;
    ask(&fleet, &["job", "resume", "j1", "--wait"]);
    assert!(
        !fleet
            .command(&["job", "resume", "none", "--url", &url, "--token", &token])
            .output()
            .expect("run")
            .status
            .success()
    );
    assert_eq!(said(&fleet, &["run", "--tenant", "acme", "--job-id", "greeting", "--", "echo", "hello"]), "hello\n");
    assert!(said(&fleet, &["job", "prune", "--older-than", "1d", "--dry-run"]).contains('0'));

    // The worker inside which the job runs is killed: another one takes the job and the next command.
    let host = async || {
        let row: (Option<String>,) =
            sqlx::query_as("SELECT host FROM jobs WHERE id = 'j1'").fetch_one(&database.sql).await.expect("row");
        row.0.unwrap_or_default()
    };
    until("the job runs", async || host().await.starts_with("worker-")).await;
    let first = host().await;
    let hosting = |worker: &Handle| first.starts_with(&format!("worker-{}-", fleet.process(*worker).id()));
    let killed = workers.iter().position(hosting).expect("its host");
    fleet.kill(workers.remove(killed));
    until("another hosts it", async || {
        let now = host().await;
        !now.is_empty() && now != first
    })
    .await;
    ask(&fleet, &["job", "cancel", "j1", "--wait"]);

    // Leaving.
    let mut socket = Socket::open(&format!("ws{}/api/v1/realtime/ws?token={token}", &url[4..])).await;
    assert_eq!(socket.next().await["type"], "subscribed");
    for handle in [gateway, workers[0]] {
        fleet.signal(handle, Signal::TERM);
        assert_eq!(fleet.wait(handle), Some(0), "{}", fleet.log());
    }
    become_role(&mut fleet, &database, "worker");
    fleet.worker();
    become_role(&mut fleet, &database, "reader");
    let begun = Instant::now();
    while !said(&fleet, &["audit", "--resource", "j1"]).contains("succeeded     cancel job") {
        assert!(begun.elapsed() < PATIENCE, "the audit trail stays empty; log:\n{}", fleet.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(said(&fleet, &["audit", "verify"]).starts_with("intact"));
    assert!(said(&fleet, &["inspect", "workers"]).contains("worker-"));
    for more in [&["queue"][..], &["job", "j1", "--tenant", "acme"], &["user", "ann", "--tenant", "acme"]] {
        said(&fleet, &[&["inspect"], more].concat());
    }
    become_role(&mut fleet, &database, "admin");
    said(&fleet, &["revoke", "--user", "ann", "jobs.*"]);
    said(&fleet, &["revoke-user", "ann"]);
    assert_eq!(refused(&fleet.redis), "", "Redis refused something to somebody");
    assert!(!fleet.log().contains("permission denied"), "PostgreSQL refused something; log:\n{}", fleet.log());
}

/// A command, and who may give it: gateway, worker, admin, reader.
const REDIS_MATRIX: [(&str, [bool; 4]); 31] = [
    ("EVALSHA 0 0", [true, true, true, false]),
    ("HGETALL wh:{00}:acme:job:j1:state", [true, true, false, true]),
    ("HSET wh:{00}:acme:job:j1:state a 1", [true, true, false, false]),
    ("SET wh:{00}:@floor:ann 1", [true, true, true, false]),
    ("SET wh:types:w1 []", [false, true, false, false]),
    ("XADD wh:{00}:audit * a 1", [true, true, false, false]),
    ("XLEN wh:{00}:audit", [true, true, false, true]),
    ("XREVRANGE wh:{00}:audit + -", [false, false, false, true]),
    ("XRANGE wh:{00}:audit - +", [false, true, false, true]),
    ("XDEL wh:{00}:audit 1-1", [false, true, false, false]),
    ("DEL wh:{00}:audit", [false, false, false, false]),
    ("SET wh:{00}:audit 1", [false, false, false, false]),
    ("EXPIRE wh:{00}:audit 1", [false, false, false, false]),
    ("RENAME wh:{00}:audit wh:{00}:a:b", [false, false, false, false]),
    ("GET other:key", [false, false, false, false]),
    ("SET other:key 1", [false, false, false, false]),
    ("SCAN 0", [false, false, false, true]),
    ("KEYS *", [false, false, false, false]),
    ("SUBSCRIBE acme:job:j1", [true, true, false, true]),
    ("PSUBSCRIBE acme:job:*", [true, false, false, true]),
    ("PSUBSCRIBE *:job:control", [true, true, false, true]),
    ("PUBLISH acme:job:j1 x", [true, true, false, false]),
    ("PUBLISH wh:permissions ann", [true, false, true, false]),
    ("PUBLISH other x", [true, false, false, false]),
    ("INFO", [true, true, true, true]),
    ("FLUSHALL", [false, false, false, false]),
    ("CONFIG GET *", [false, false, false, false]),
    ("ACL LIST", [false, false, false, false]),
    ("SCRIPT FLUSH", [false, false, false, false]),
    ("MONITOR", [false, false, false, false]),
    ("SHUTDOWN", [false, false, false, false]),
];

#[tokio::test]
async fn redis_says_what_each_user_may_do_and_the_document_says_the_same() {
    let redis = roles::redis();
    let mut lines =
        vec!["| command | gateway | worker | admin | reader |".to_owned(), "|---|---|---|---|---|".to_owned()];
    for (command, expected) in REDIS_MATRIX {
        let may = |user: &&str| {
            let answer = redis.text_or_status(&format!("ACL DRYRUN {user} {command}"));
            assert!(answer == "OK" || answer.contains("no permissions"), "{user} {command}: {answer}");
            answer == "OK"
        };
        let found: Vec<bool> = roles::REDIS_USERS.iter().map(may).collect();
        assert_eq!(found, expected, "{command}");
        let cells: Vec<&str> = found.iter().map(|may| if *may { "yes" } else { "–" }).collect();
        lines.push(format!("| `{}` | {} |", command.replace('|', "\\|"), cells.join(" | ")));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = std::fs::read_to_string(root.join("docs/operations.md")).expect("read");
    for line in &lines {
        assert!(document.contains(line.as_str()), "docs/operations.md lacks:\n{}", lines.join("\n"));
    }
    let file = std::fs::read_to_string(root.join("deploy/redis/users.acl")).expect("read");
    assert!(document.contains(&file), "docs/operations.md does not quote deploy/redis/users.acl");
}

/// As the file is delivered it lets nobody in: a password that everybody knows must not be the one in use.
#[test]
fn redis_does_not_start_with_users_whose_passwords_nobody_has_chosen() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/redis/users.acl");
    let started = std::process::Command::new("redis-server")
        .args(["--port", &crate::support::free_port().to_string(), "--bind", "127.0.0.1", "--aclfile"])
        .arg(file)
        .output()
        .expect("run redis-server");
    let words = String::from_utf8_lossy(&started.stdout).into_owned() + &String::from_utf8_lossy(&started.stderr);
    assert!(!started.status.success() && words.contains("password"), "{words}");
}

/// A statement, and which of the roles may execute it.
const POSTGRES_MATRIX: [(&str, &[&str]); 16] = [
    ("SELECT count(*) FROM jobs", &["gateway", "worker", "reader"]),
    ("INSERT INTO jobs (id, tenant_id) VALUES ('x', 'x')", &["gateway", "worker"]),
    ("UPDATE jobs SET status = status WHERE FALSE", &["worker"]),
    ("DELETE FROM jobs WHERE FALSE", &["worker"]),
    ("UPDATE campaigns SET is_open = FALSE WHERE FALSE", &["gateway", "worker"]),
    ("UPDATE campaigns SET tenant_id = 'other' WHERE FALSE", &["worker"]),
    ("INSERT INTO user_permissions (user_id, permission) VALUES ('x', 'jobs.read')", &["admin"]),
    ("SELECT count(*) FROM user_permissions", &["gateway", "admin", "reader"]),
    ("SELECT count(*) FROM command_audit", &["gateway", "worker", "admin", "reader"]),
    ("UPDATE command_audit SET reason = '' WHERE FALSE", &[]),
    ("DELETE FROM command_audit WHERE FALSE", &[]),
    ("TRUNCATE command_audit", &[]),
    ("SELECT remove_old_audit_rows(0, 1000)", &["worker"]),
    ("ALTER TABLE command_audit DISABLE TRIGGER ALL", &[]),
    ("CREATE TABLE mine (a TEXT)", &[]),
    ("CREATE TEMPORARY TABLE command_audit (a TEXT)", &[]),
];

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_lets_each_role_do_what_it_needs_and_the_audit_trail_can_only_be_added_to() {
    let (_fleet, database) = fleet().await;
    for role in ["gateway", "worker", "admin", "reader"] {
        let mut connection = sqlx::PgConnection::connect(&database.url_of(role)).await.expect("connect");
        for (statement, may) in POSTGRES_MATRIX {
            let mut tx = connection.begin().await.expect("begin");
            let refused = tx.execute(AssertSqlSafe(statement)).await.err();
            let code = refused.as_ref().and_then(|error| error.as_database_error()).and_then(|error| error.code());
            let expected = (!may.contains(&role)).then_some("42501");
            assert_eq!(code.as_deref(), expected, "{role}: {statement}: {refused:?}");
            tx.rollback().await.expect("roll back");
        }
    }
    // A table of a later migration must not be forgotten: somebody looks after each.
    let tables: Vec<(String,)> = sqlx::query_as(
        "SELECT tablename::TEXT FROM pg_tables WHERE schemaname = 'public'
         UNION SELECT viewname::TEXT FROM pg_views WHERE schemaname = 'public'",
    )
    .fetch_all(&database.sql)
    .await
    .expect("tables");
    let readable: Vec<(String,)> = sqlx::query_as(
        "SELECT DISTINCT table_name::TEXT FROM information_schema.role_table_grants
         WHERE grantee = 'wheelhouse_reader' AND privilege_type = 'SELECT' AND table_catalog = current_database()",
    )
    .fetch_all(&database.sql)
    .await
    .expect("rights");
    let names = |rows: Vec<(String,)>| rows.into_iter().map(|(name,)| name).collect::<BTreeSet<_>>();
    assert_eq!(names(tables), names(readable), "deploy/postgres/roles.sql does not name every table");
}

async fn readiness(address: &str) -> u16 {
    http_get(address, "/readyz").map_or(0, |(status, _)| status)
}

/// The gateway's user, who may hear this tenant alone.
fn hear_only(redis: &RedisServer, tenant: &str) {
    let rights = format!("resetchannels &wh:* &@probe:job:* &{tenant}:job:* &{tenant}:campaign:*");
    assert_eq!(redis.inline(&format!("ACL SETUSER wheelhouse-gateway {rights}")), "+OK");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_lacking_for_one_tenant_is_that_tenants_trouble_and_not_the_gateways() {
    let (mut fleet, database) = fleet().await;
    for (user, permission) in [("ann", "jobs.*"), ("ann", "campaigns.*")] {
        let insert = sqlx::query("INSERT INTO user_permissions (user_id, permission) VALUES ($1, $2)");
        insert.bind(user).bind(permission).execute(&database.sql).await.expect("insert");
    }
    for tenant in ["acme", "globex"] {
        let insert = sqlx::query("INSERT INTO jobs (id, tenant_id, status) VALUES ('j1', $1, 'running')");
        insert.bind(tenant).execute(&database.sql).await.expect("insert");
    }
    hear_only(&fleet.redis, "acme");
    become_role(&mut fleet, &database, "gateway");
    let gateway = fleet.gateway();
    become_role(&mut fleet, &database, "worker");
    fleet.worker();
    let address = fleet.process(gateway).address.clone();
    let url = |tenant: &str, path: &str| {
        format!("ws://{address}/api/v1/realtime/ws{path}?token={}", fleet.token("ann", tenant))
    };
    let mut whole = Socket::open(&url("acme", "")).await;
    let mut one = Socket::open(&url("acme", "/jobs/j1")).await;
    for socket in [&mut whole, &mut one] {
        assert_eq!(socket.next().await["type"], "subscribed");
    }
    for path in ["", "/jobs/j1"] {
        let (status, body) = Socket::try_open(&url("globex", path), &[]).await.err().expect("refused");
        assert!(status == 503 && body.contains("NOPERM"), "{status} {body}");
    }
    assert_eq!(readiness(&address).await, 200);
    one.send(json!({"type": "pause_job"})).await;
    one.until(&["pause_succeeded"]).await;
    whole.until(&["pause_succeeded"]).await;
    // Whoever asks over HTTP needs no subscription: the command is recorded, a worker finds it, and nothing is done that
    // was answered as not done.
    let bearer = format!("Bearer {}", fleet.token("ann", "globex"));
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let (status, body) = http(&address, "POST", "/api/v1/jobs/j1/pause?wait=30", &headers, "{}").expect("an answer");
    assert!(status == 200 && body.contains("pause_succeeded"), "{status} {body}");

    // The right is moved from one to the other, while sockets are open.
    hear_only(&fleet.redis, "globex");
    for socket in [&mut whole, &mut one] {
        assert_eq!(socket.until_that(|v| v.get("closed").is_some()).await["closed"], 1012);
    }
    until("the gateway is ready", async || readiness(&address).await == 200).await;
    for path in ["", "/jobs/j1"] {
        let (status, body) = Socket::try_open(&url("acme", path), &[]).await.err().expect("refused");
        assert!(status == 503 && body.contains("NOPERM"), "{status} {body}");
    }
    let mut other = Socket::open(&url("globex", "/jobs/j1")).await;
    other.until(&["job_snapshot"]).await;
    other.send(json!({"type": "resume_job"})).await;
    other.until(&["resume_succeeded"]).await;
    assert_eq!(readiness(&address).await, 200);
}
