//! One shard of a Redis Cluster, a master with its replica, hangs and then is gone: its own tenants wait, and nobody else
//! notices anything.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wheelhouse::broker::Keys;

use super::redis_kinds::{carried_out, run};
use crate::operator;
use crate::support::cluster::RedisCluster;
use crate::support::fleet::{Fleet, Handle, http_get};
use crate::support::socket::{PATIENCE, Socket};

const PARTITIONS: u16 = 16;

fn partition(tenant: &str) -> String {
    let tenant = tenant.parse().expect("tenant");
    Keys::new(PARTITIONS).partition(&tenant).to_string()
}

/// A socket that is told when news may not come: the tenant's, or that of a resource (`/jobs/ID`).
async fn feed(fleet: &Fleet, gateway: Handle, tenant: &str, path: &str) -> Socket {
    let (token, address) = (fleet.token("ann", tenant), &fleet.process(gateway).address);
    let mut feed =
        Socket::open(&format!("ws://{address}/api/v1/realtime/ws{path}?token={token}&interruptions=true")).await;
    feed.until(&["subscribed"]).await;
    feed
}

/// A job of the queue that nobody ends but a command.
async fn endless_job(fleet: &Fleet, tenant: &str, id: &str) {
    let parameters = json!({"path": "rows.csv", "first_row": 1, "rows": 50_000, "rows_per_second": 20});
    sqlx::query(
        "INSERT INTO jobs (id, tenant_id, job_type, status, origin, parameters)
         VALUES ($1, $2, 'demo_step', 'pending', 'queued', $3)",
    )
    .bind(id)
    .bind(tenant)
    .bind(parameters.to_string())
    .execute(&fleet.sql().await)
    .await
    .expect("insert a job");
}

async fn host(fleet: &Fleet, tenant: &str, id: &str) -> Option<String> {
    sqlx::query_scalar("SELECT host FROM jobs WHERE tenant_id = $1 AND id = $2 AND status = 'running'")
        .bind(tenant)
        .bind(id)
        .fetch_optional(&fleet.sql().await)
        .await
        .expect("the job's row")
        .flatten()
}

async fn until_hosted(fleet: &Fleet, tenant: &str, id: &str, not_by: Option<&str>) -> String {
    let begun = Instant::now();
    loop {
        match host(fleet, tenant, id).await {
            Some(host) if Some(host.as_str()) != not_by => return host,
            _ => assert!(begun.elapsed() < PATIENCE, "{id} of {tenant} was never taken; the log:\n{}", fleet.log()),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn goes_on_reporting(feed: &mut Socket, id: &str) {
    let mut last = None;
    for _ in 0..4 {
        let heard = feed.until_that(|message| message["type"] == "job_progress" && message["job_id"] == id).await;
        let seq = heard["seq"].as_i64();
        assert!(seq > last, "{heard}");
        last = seq;
    }
}

/// What the whole of this is about.
struct Scene {
    fleet: Fleet,
    gateways: [Handle; 2],
    /// A tenant of the shard that goes, and two of the others.
    lost: String,
    others: [String; 2],
    round: usize,
}

impl Scene {
    /// Commands, results on every gateway, feeds, schedules and new jobs of the others' tenants.
    async fn others_notice_nothing(&mut self, feeds: &mut [Socket]) {
        self.round += 1;
        for (n, tenant) in self.others.iter().enumerate() {
            let id = format!("j{}-{n}", self.round);
            self.fleet.external_job(tenant, &id).await;
            let [a, b] = self.gateways;
            let mut ann = self.fleet.socket(a, "ann", tenant, &format!("jobs/{id}")).await;
            let mut bob = self.fleet.socket(b, "bob", tenant, &format!("jobs/{id}")).await;
            carried_out(&mut ann, "pause", "paused").await;
            bob.until(&["pause_succeeded"]).await;
            carried_out(&mut bob, "resume", "running").await;
            ann.until(&["resume_succeeded"]).await;
            // What comes later is brought in by gateways, for all partitions.
            let later = if n == 0 { json!({"delay_seconds": 1}) } else { json!({}) };
            let mut cancel = json!({"type": "cancel_job"});
            cancel.as_object_mut().expect("object").extend(later.as_object().expect("object").clone());
            ann.send(cancel).await;
            ann.until(&["cancel_scheduled", "cancel_requested"]).await;
            bob.until(&["cancel_succeeded"]).await;
            let fed = |message: &Value| {
                assert_ne!(message["reason"], "redis", "their own server is well");
                message["type"] == "cancel_succeeded" && message["job_id"] == id
            };
            feeds[n].until_that(fed).await;
        }
    }

    fn ready(&self, gateway: Handle) -> (u16, Value) {
        let (status, body) = http_get(&self.fleet.process(gateway).address, "/readyz").expect("an answer");
        (status, serde_json::from_str(&body).expect("JSON"))
    }

    /// Both gateways go on, and name the partition that is gone. One that heard by a node of the lost shard is not ready for
    /// the moment that it takes to hear by another.
    async fn the_lost_partition_is_named(&self) {
        for gateway in self.gateways {
            let begun = Instant::now();
            loop {
                let (status, body) = self.ready(gateway);
                if status == 200 && body["partitions_not_served"].get(partition(&self.lost)).is_some() {
                    assert!(
                        self.others.iter().all(|other| body["partitions_not_served"].get(partition(other)).is_none())
                    );
                    break;
                }
                assert!(begun.elapsed() < PATIENCE, "{status}, though it serves most tenants: {body}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let (_, metrics) = http_get(&self.fleet.process(gateway).address, "/metrics").expect("metrics");
            let gauge = metrics.lines().find(|line| line.starts_with("wheelhouse_redis_partitions_not_served "));
            assert!(gauge.is_some_and(|line| !line.ends_with(" 0")), "{gauge:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_hangs_and_then_is_gone_costs_its_own_tenants_and_nobody_else() {
    let started = tokio::task::spawn_blocking(|| RedisCluster::start(&["--cluster-require-full-coverage", "no"]));
    let mut cluster = started.await.expect("start a cluster");
    let keys = Keys::new(PARTITIONS);
    let holder = |tenant: &str| cluster.holder(&keys.backlog(&tenant.parse().expect("tenant")));
    // The one that also has what is kept once for the whole fleet.
    let gone = cluster.holder(&keys.fleet());
    let tenant_on = |master: usize| (0..1000).map(|n| format!("tenant-{n}")).find(|t| holder(t) == master);
    let tenants: Vec<String> = (0..3).map(|n| tenant_on((gone + n) % 3).expect("a tenant")).collect();
    let mut fleet = Fleet::new();
    fleet.move_to(&cluster.url());
    fleet.set("WORKER__CONCURRENCY", "3");
    std::fs::write(fleet.folder().join("rows.csv"), "one,two\n".repeat(50_000)).expect("rows");
    let gateways = [fleet.gateway(), fleet.gateway()];
    let worker = fleet.demo_worker();
    for user in ["ann", "bob"] {
        operator(&fleet, user).await;
    }
    let [lost, one, two] = <[String; 3]>::try_from(tenants).expect("three");
    let mut scene = Scene { fleet, gateways, lost: lost.clone(), others: [one.clone(), two], round: 0 };
    // Jobs of the lost shard's tenant take every place of the worker before the shard goes.
    for n in 0..3 {
        endless_job(&scene.fleet, &lost, &format!("endless-{n}")).await;
        until_hosted(&scene.fleet, &lost, &format!("endless-{n}"), None).await;
    }
    let mut feeds = Vec::new();
    for tenant in &scene.others {
        feeds.push(feed(&scene.fleet, gateways[1], tenant, "").await);
    }
    let mut lost_feeds = Vec::new();
    scene.fleet.external_job(&lost, "watched").await;
    for gateway in gateways {
        for path in ["", "/jobs/watched"] {
            lost_feeds.push(feed(&scene.fleet, gateway, &lost, path).await);
        }
    }
    scene.others_notice_nothing(&mut feeds).await;

    cluster.misses_nodes_soon();
    for node in [gone, gone + 3] {
        cluster.nodes[node].signal(rustix::process::Signal::STOP);
    }
    // Every gateway hears of a result that it cannot look up, now and for as long as the shard is away.
    let word = format!("{{\"command_id\":\"{}\"}}", uuid::Uuid::now_v7());
    let other = &cluster.nodes[(gone + 1) % 3];
    assert!(other.inline(&format!("PUBLISH {lost}:job:watched:reply '{word}'")).starts_with(':'));
    scene.others_notice_nothing(&mut feeds).await;
    scene.the_lost_partition_is_named().await;
    // Those who watch its tenants are told that what they see may be old: for whichever reason is found first, since a gateway may
    // have heard by a node of this shard.
    for watching in &mut lost_feeds {
        watching.until(&["feed_interrupted"]).await;
    }
    for node in [gone, gone + 3] {
        cluster.nodes[node].kill();
    }
    scene.others_notice_nothing(&mut feeds).await;
    scene.the_lost_partition_is_named().await;

    // Jobs that nobody can control take no place from others, and another worker can start, and take over what it had.
    endless_job(&scene.fleet, &one, "goes-on").await;
    let first = until_hosted(&scene.fleet, &one, "goes-on", None).await;
    // And what the others' jobs say of themselves is heard, though the same worker has jobs of the lost shard to tell of.
    goes_on_reporting(&mut feeds[0], "goes-on").await;
    let second = scene.fleet.demo_worker();
    scene.fleet.kill(worker);
    until_hosted(&scene.fleet, &one, "goes-on", Some(&first)).await;
    goes_on_reporting(&mut feeds[0], "goes-on").await;
    // A program can start, and rights are given and taken.
    scene.gateways[0] = scene.fleet.gateway();
    for (verb, refused) in [("grant", false), ("revoke", true)] {
        let done = run(&scene.fleet, &[verb, "--user", "eve", "jobs.*"]).await;
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success() && said.contains(&partition(&lost)), "{said}");
        let bearer = format!("Bearer {}", scene.fleet.token("eve", &one));
        let address = scene.fleet.process(scene.gateways[1]).address.clone();
        let headers = [("authorization", bearer.as_str())];
        let asked = crate::support::fleet::http(&address, "GET", "/api/v1/jobs/goes-on", &headers, "").expect("answer");
        assert_eq!(asked.0 == 403, refused, "{asked:?}");
    }
    scene.others_notice_nothing(&mut feeds).await;

    // And when the shard is back its tenants go on as well.
    for node in [gone, gone + 3] {
        cluster.nodes[node].restart();
    }
    let begun = Instant::now();
    while scene.ready(scene.gateways[1]).1.get("partitions_not_served").is_some() {
        assert!(begun.elapsed() < PATIENCE, "{}", scene.ready(scene.gateways[1]).1);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The first gateway is another one by now.
    for watching in &mut lost_feeds[2..] {
        watching.until(&["feed_resumed"]).await;
    }
    scene.fleet.external_job(&lost, "again").await;
    let mut ann = scene.fleet.socket(scene.gateways[1], "ann", &lost, "jobs/again").await;
    carried_out(&mut ann, "cancel", "cancelled").await;
    until_hosted(&scene.fleet, &lost, "endless-0", Some(&first)).await;
    scene.fleet.kill(second);
}
