//! The same service on a Redis Cluster, and on a Redis behind TLS with an authority of its own.

use std::process::Output;

use serde_json::{Value, json};
use wheelhouse::broker::Keys;

use crate::operator;
use crate::support::api::until;
use crate::support::cluster::RedisCluster;
use crate::support::fleet::{Fleet, Handle, http_get};
use crate::support::socket::{PATIENCE, Socket};
use crate::support::tls::Authority;

pub async fn run(fleet: &Fleet, args: &[&str]) -> Output {
    let mut command = fleet.command(args);
    tokio::task::spawn_blocking(move || command.output()).await.expect("run").expect("run wheelhouse")
}

/// A command and its result, on one socket.
pub async fn carried_out(socket: &mut Socket, action: &str, status: &str) {
    socket.send(json!({"type": format!("{action}_job")})).await;
    let ack = socket.until(&[&format!("{action}_requested"), "error"]).await;
    assert_eq!(ack["type"], format!("{action}_requested"), "{ack}");
    let result = socket.until(&[&format!("{action}_succeeded"), &format!("{action}_failed")]).await;
    assert_eq!((&result["command_id"], &result["status"]), (&ack["command_id"], &json!(status)), "{result}");
}

async fn paused_and_cancelled(fleet: &Fleet, gateway: Handle, tenant: &str) {
    fleet.external_job(tenant, "j1").await;
    let mut socket = fleet.socket(gateway, "ann", tenant, "jobs/j1").await;
    carried_out(&mut socket, "pause", "paused").await;
    carried_out(&mut socket, "cancel", "cancelled").await;
    assert_eq!(fleet.status(tenant, "j1").await, "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_redis_cluster_jobs_are_controlled_and_a_killed_master_costs_no_command() {
    let mut cluster = tokio::task::spawn_blocking(|| RedisCluster::start(&[])).await.expect("start a cluster");
    let holder = |tenant: &str| cluster.holder(&Keys::new(16).backlog(&tenant.parse().expect("tenant")));
    // Tenants whose keys are on different masters.
    let tenants: Vec<String> = (0..3)
        .map(|master| (0..1000).map(|n| format!("tenant-{n}")).find(|t| holder(t) == master).expect("a tenant"))
        .collect();
    let mut fleet = Fleet::new();
    fleet.move_to(&cluster.url());
    let gateway = fleet.gateway();
    let worker = fleet.worker();
    operator(&fleet, "ann").await;
    for tenant in &tenants {
        paused_and_cancelled(&fleet, gateway, tenant).await;
    }
    let shown = run(&fleet, &["inspect", "job", "j1", "--tenant", &tenants[0]]).await;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("redis-cli -c LRANGE") && shown.contains("cancel_succeeded"), "{shown}");
    fleet.external_job(&tenants[0], "named").await;
    let mut socket = fleet.socket(gateway, "ann", &tenants[0], "jobs/named").await;
    socket.send(json!({"type": "pause_job", "request_id": "why"})).await;
    let ack = socket.until(&["pause_requested"]).await;
    let asked = ["inspect", "request", "why", "--user", "ann", "--job", "named", "--tenant", &tenants[0]];
    let shown = String::from_utf8_lossy(&run(&fleet, &asked).await.stdout).into_owned();
    let command = ack["command_id"].as_str().expect("an id").replace('-', "");
    assert!(shown.contains("redis-cli -c HGET") && shown.contains(&command), "{shown}");
    let shown = run(&fleet, &["inspect", "workers"]).await;
    assert!(String::from_utf8_lossy(&shown.stdout).contains("redis-cli -c ZRANGE"), "{shown:?}");

    // The limit is the same: two were used.
    fleet.external_job(&tenants[1], "busy").await;
    let mut socket = fleet.socket(gateway, "ann", &tenants[1], "jobs/busy").await;
    for n in 0..28 {
        let (action, status) = if n % 2 == 0 { ("pause", "paused") } else { ("resume", "running") };
        carried_out(&mut socket, action, status).await;
    }
    socket.send(json!({"type": "cancel_job"})).await;
    let refused = socket.until(&["error", "cancel_requested"]).await;
    assert_eq!(refused["message"], "Rate limit exceeded: 30/30 commands per minute", "{refused}");

    // Accepted while no worker is there, on a master that dies before one comes.
    fleet.kill(worker);
    fleet.external_job(&tenants[0], "j2").await;
    let mut waiting = fleet.socket(gateway, "ann", &tenants[0], "jobs/j2").await;
    waiting.send(json!({"type": "cancel_job"})).await;
    let ack = waiting.until(&["cancel_requested", "error"]).await;
    assert_eq!(ack["type"], "cancel_requested", "{ack}");
    // Replication is asynchronous: what the replica does not have yet would be lost.
    cluster.replicated(0);
    cluster.misses_nodes_soon();
    cluster.nodes[0].kill();
    // The gateway and its sockets stay as they are.
    let begun = std::time::Instant::now();
    fleet.external_job(&tenants[0], "j3").await;
    waiting.send(json!({"type": "pause_job", "request_id": "after"})).await;
    loop {
        let answer: Value = waiting.until(&["pause_requested", "error"]).await;
        if answer["type"] == "pause_requested" {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "no command is accepted after the failover: {answer}");
        assert!(["unavailable", "outcome_unknown"].contains(&answer["error"].as_str().unwrap_or_default()), "{answer}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        waiting.send(json!({"type": "pause_job", "request_id": "after"})).await;
    }
    assert!(cluster.taken_over(0));
    fleet.worker();
    let result = waiting.until(&["cancel_succeeded", "cancel_failed"]).await;
    assert_eq!((&result["type"], &result["command_id"]), (&json!("cancel_succeeded"), &ack["command_id"]));
    assert_eq!(fleet.status(&tenants[0], "j2").await, "cancelled");
    fleet.permit("bob", "jobs.*").await;
    fleet.external_job(&tenants[2], "j4").await;
    let mut bob = fleet.socket(gateway, "bob", &tenants[2], "jobs/j4").await;
    carried_out(&mut bob, "pause", "paused").await;
}

/// They would hear nothing of each other, and seem well.
#[tokio::test(flavor = "multi_thread")]
async fn programs_whose_channels_are_two_steps_apart_are_told_at_the_start_and_by_the_doctor() {
    let cluster = tokio::task::spawn_blocking(|| RedisCluster::start(&[])).await.expect("start a cluster");
    let mut fleet = Fleet::new();
    fleet.move_to(&cluster.url());
    fleet.gateway();
    for (published, heard, is_apart) in [("both", "plain", false), ("both", "sharded", true)] {
        fleet.set("REDIS__PUBLISHED_CHANNELS", published);
        fleet.set("REDIS__HEARD_CHANNELS", heard);
        let doctor = run(&fleet, &["doctor", "--as", "gateway"]).await;
        let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
        assert_eq!(said.contains("redis.channels "), is_apart, "{said}");
        assert_eq!(said.contains("this one hears nothing of what they publish"), is_apart, "{said}");
    }
    assert!(!fleet.log().contains("redis.channels_apart"), "{}", fleet.log());
    fleet.gateway();
    let is_warning = |line: &str| {
        line.contains("redis.channels_apart: programs with redis.published_channels = ")
            && line.contains("this one hears nothing of what they publish")
            && line.contains("docs/operations.md")
    };
    until("the second gateway warns", async || fleet.log().lines().any(is_warning)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_with_an_authority_of_its_own_jobs_are_controlled_and_another_is_refused_in_one_line() {
    let (authority, other) = (Authority::new(), Authority::new());
    authority.sign("IP:127.0.0.1");
    let (_redis, port) = authority.server(&[]);
    let mut fleet = Fleet::new();
    fleet.move_to(&format!("rediss://127.0.0.1:{port}"));
    for ca in ["", other.file().to_str().expect("path")] {
        fleet.set("REDIS__CA_FILE", ca);
        for role in ["gateway", "worker"] {
            let refused = run(&fleet, &[role]).await;
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert_eq!(refused.status.code(), Some(1), "{said}");
            assert!(said.contains(&format!("127.0.0.1:{port}")) && said.contains("redis.ca_file"), "{said}");
            assert_eq!(said.trim_end().lines().count(), 1, "{said}");
        }
    }
    fleet.set("REDIS__CA_FILE", authority.file().to_str().expect("path"));
    let gateway = fleet.gateway();
    fleet.worker();
    operator(&fleet, "ann").await;
    paused_and_cancelled(&fleet, gateway, "acme").await;
}

/// The levels at which an event was logged, one after the other.
fn levels_of(fleet: &Fleet, event: &str) -> Vec<String> {
    let log = fleet.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let lines = lines.filter(|line| line["message"] == event);
    lines.filter_map(|line| line["level"].as_str().map(str::to_owned)).collect()
}

/// Publishes a reply about a command that has no record.
fn reply(fleet: &Fleet) {
    let message = json!({"command_id": wheelhouse::domain::CommandId::generate().to_string()}).to_string();
    let heard: u64 = fleet.redis.query(&["PUBLISH", "acme:job:j1:reply", &message]).expect("publish");
    assert_eq!(heard, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_without_a_record_is_called_forged_unless_another_redis_may_have_had_the_record() {
    let mut fleet = Fleet::new();
    let gateway = fleet.gateway();
    fleet.permit("ann", "*").await;
    fleet.external_job("acme", "j1").await;
    let _socket = fleet.socket(gateway, "ann", "acme", "jobs/j1").await;
    reply(&fleet);
    until("called forged", async || levels_of(&fleet, "gateway.forged_reply") == ["WARN"]).await;
    fleet.redis.restart();
    let is_ready = async || http_get(&fleet.process(gateway).address, "/readyz").is_some_and(|(code, _)| code == 200);
    until("it hears again", is_ready).await;
    reply(&fleet);
    until("not called forged", async || levels_of(&fleet, "gateway.reply_without_record") == ["INFO"]).await;
    assert_eq!(levels_of(&fleet, "gateway.forged_reply").len(), 1);
}
