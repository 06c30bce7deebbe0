//! A real Redis Cluster: everything works on it, and goes on when slots move, a master hangs or dies.

use std::time::{Duration, Instant};

use super::faults::until;
use crate::support::cluster::RedisCluster;
use crate::support::redis::RedisServer;
use crate::{LEASE, ROW, redis_at, settings, submission, succeeded, worker};
use wheelhouse::broker::scripts::claim::{ClaimOutcome, CompleteOutcome};
use wheelhouse::broker::scripts::connections::{ConnectionLease, OpenOutcome};
use wheelhouse::broker::scripts::permissions::PermissionSet;
use wheelhouse::broker::scripts::runs::{EndedRun, RunMessage, RunState, RunUpdate};
use wheelhouse::broker::scripts::submit::{Submission, SubmitLimits, SubmitOutcome};
use wheelhouse::broker::scripts::updates::Update;
use wheelhouse::broker::{Broker, BrokerError, Event, Partition, Subscriber};
use wheelhouse::config;
use wheelhouse::domain::{Action, JobStatus, Permission, Progress, Resource, ResourceKind, TenantId, UserId};
use wheelhouse::protocol::server;

/// Many commands may be sent while a node is missing, however long that takes.
pub const LIMITS: SubmitLimits = SubmitLimits { commands_per_minute: 100_000, ..crate::LIMITS };

/// A tenant whose keys the n-th master has at the start.
pub fn tenant_on(cluster: &RedisCluster, broker: &Broker, master: usize) -> TenantId {
    let tenants = (0..1000).map(|n| format!("tenant-{n}").parse::<TenantId>().expect("tenant"));
    let mut fits = tenants.filter(|tenant| cluster.holder(&broker.keys().backlog(tenant)) == master);
    fits.next().expect("a tenant")
}

pub fn pause(tenant: &TenantId, id: &str) -> Submission {
    Submission { resource: job(tenant, id), ..submission(id, Action::Pause) }
}

fn job(tenant: &TenantId, id: &str) -> Resource {
    Resource::parse(&format!("{tenant}:job:{id}")).expect("resource")
}

/// From acceptance to the result.
async fn run_one(broker: &Broker, tenant: &TenantId, id: &str) {
    let asked = pause(tenant, id);
    let outcome = broker.submit(&asked, LIMITS).await;
    assert!(matches!(outcome, Ok(SubmitOutcome::Accepted { .. })), "{outcome:?}");
    finish(broker, &asked).await;
}

pub async fn finish(broker: &Broker, asked: &Submission) {
    let claimed = broker.claim(&asked.resource, &worker("w1"), LEASE).await;
    let Ok(ClaimOutcome::Command(held)) = claimed else { panic!("{claimed:?}") };
    assert_eq!(held.command, asked.command);
    let done = broker.complete(&held, &worker("w1"), &succeeded("paused"), ROW, None).await;
    assert_eq!(done.expect("complete"), CompleteOutcome::Done { more: false });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_does_all_that_one_server_does_and_heals_from_what_happens_to_clusters() {
    // Masters that are well go on while another is missing.
    let cluster = tokio::task::spawn_blocking(|| RedisCluster::start(&["--cluster-require-full-coverage", "no"]));
    let mut cluster = cluster.await.expect("start a cluster");
    let redis = redis_at(cluster.url());
    let broker = Broker::connect(&redis).await.expect("connect to the cluster");
    let tenants: Vec<TenantId> = (0..3).map(|n| tenant_on(&cluster, &broker, n)).collect();

    everything_works(&broker, &tenants).await;
    scripts_are_loaded_where_they_are_missing(&cluster, &broker, &tenants).await;
    a_slot_that_moves_is_followed(&cluster, &broker, &tenants).await;
    a_master_that_hangs_holds_up_nobody_else(&cluster, &broker, &tenants).await;
    the_subscribers_node_dies(&mut cluster, &broker, &tenants).await;
    whoever_is_not_counted_everywhere_learns_it(&mut cluster, &broker, &tenants[1]).await;
}

async fn everything_works(broker: &Broker, tenants: &[TenantId]) {
    broker.ping(Duration::from_secs(5)).await.expect("ping");
    let counted = broker.heartbeat(&worker("w1"), None, Duration::from_secs(60)).await;
    assert!(counted.expect("heartbeat").is_complete, "in every partition");
    for tenant in tenants {
        assert_eq!(broker.live_workers(tenant).await.expect("live"), [worker("w1")]);
        run_one(broker, tenant, "j0").await;
        let shown = broker.query_any(&["XLEN".into(), broker.keys().audit(broker.keys().partition(tenant))]).await;
        assert_eq!(shown.expect("show"), ["2"]);
        let entries = broker.audit_after(broker.keys().partition(tenant), "0", 10).await.expect("audit");
        broker.audit_forget(broker.keys().partition(tenant), &entries).await.expect("forget");
        assert!(broker.audit_after(broker.keys().partition(tenant), "0", 10).await.expect("audit").is_empty());
    }
    // In one go, on three nodes.
    let lease = |tenant: &TenantId| ConnectionLease {
        tenant: tenant.clone(),
        user: "ann".parse().expect("user"),
        id: "lease".to_owned(),
    };
    let leases: Vec<_> = tenants.iter().map(lease).collect();
    for lease in &leases {
        assert_eq!(broker.open_connection(lease, 1, 1, LEASE).await.expect("open"), OpenOutcome::Open);
    }
    broker.close_connections(&leases).await.expect("close");
    let user: UserId = "ann".parse().expect("user");
    let read = Permission::read(ResourceKind::Job);
    for (lease, tenant) in leases.iter().zip(tenants) {
        let again = ConnectionLease { id: "another".to_owned(), ..lease.clone() };
        assert_eq!(broker.open_connection(&again, 1, 1, LEASE).await.expect("open"), OpenOutcome::Open);
        let set = PermissionSet { version: 1, held: vec!["jobs.*".to_owned()] };
        broker.fill_permissions(tenant, &user, &set, LEASE).await.expect("fill");
        assert_eq!(broker.check_permission(tenant, &user, &read).await.expect("check"), Some(true));
    }
    broker.invalidate_permissions(&user, 2).await.expect("floors in every partition");
    for tenant in tenants {
        assert_eq!(broker.check_permission(tenant, &user, &read).await.expect("check"), None);
    }
    broker.leave(&worker("w1"), None).await.expect("leave every partition");
    assert!(broker.all_live_workers().await.expect("live").is_empty());
}

async fn scripts_are_loaded_where_they_are_missing(cluster: &RedisCluster, broker: &Broker, tenants: &[TenantId]) {
    assert_eq!(cluster.nodes[1].inline("SCRIPT FLUSH"), "+OK");
    for tenant in tenants {
        run_one(broker, tenant, "after-flush").await;
    }
}

/// The tenant of the first master moves to the second.
async fn a_slot_that_moves_is_followed(cluster: &RedisCluster, broker: &Broker, tenants: &[TenantId]) {
    let (from, to, tenant) = (&cluster.nodes[0], &cluster.nodes[1], &tenants[0]);
    let key = broker.keys().backlog(tenant);
    let slot = from.inline(&format!("CLUSTER KEYSLOT {key}"))[1..].to_owned();
    let (from_id, to_id) = (from.text("CLUSTER MYID"), to.text("CLUSTER MYID"));
    let asked = pause(tenant, "moves");
    assert!(matches!(broker.submit(&asked, LIMITS).await, Ok(SubmitOutcome::Accepted { .. })));
    let update = Update { message: "{\"type\":\"job_status\"".into(), desired: None };
    assert_eq!(broker.publish_update(&asked.resource, &update).await.expect("update"), 1);
    let stays = job(tenant, "stays");
    broker.renew_run(&stays, &worker("host"), 1).await.expect("run");
    assert_eq!(broker.publish_update(&stays, &update).await.expect("update"), 1);
    assert_eq!(to.inline(&format!("CLUSTER SETSLOT {slot} IMPORTING {from_id}")), "+OK");
    assert_eq!(from.inline(&format!("CLUSTER SETSLOT {slot} MIGRATING {to_id}")), "+OK");
    let state = broker.keys().state(&asked.resource);
    let migrate = |key: &str| format!("MIGRATE 127.0.0.1 {} {key} 0 5000", to.port());
    assert_eq!(from.inline(&migrate(&state)), "+OK");
    // One key of the slot is here, another there: read where it is (ASK), and what needs both is refused.
    assert_eq!(broker.live(&asked.resource).await.expect("read").seq, 1);
    let outcome = broker.submit(&pause(tenant, "on-the-way"), LIMITS).await;
    assert!(matches!(outcome, Err(BrokerError::NotServing(_))), "{outcome:?}");
    // What a host says of its runs goes on: of one whose state is here, of one whose state is there, and of one that is new.
    assert_eq!(told_together(broker, tenant, 2).await, [(1, 2), (0, 2), (0, 1)]);
    for key in keys_in(from, &slot) {
        assert_eq!(from.inline(&migrate(&key)), "+OK");
    }
    for node in [to, from] {
        assert_eq!(node.inline(&format!("CLUSTER SETSLOT {slot} NODE {to_id}")), "+OK");
    }
    // Nobody has told the program: MOVED does.
    assert_eq!(told_together(broker, tenant, 3).await, [(1, 3), (0, 3), (0, 2)]);
    let ended =
        ["moves", "stays", "new"].map(|id| EndedRun { job: job(tenant, id), run: 1, message: None, fence: None });
    let answers = broker.end_runs(&ended).await.expect("answers");
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    finish(broker, &asked).await;
    run_one(broker, tenant, "moved").await;
}

/// Progress of three runs in one call: of each, how many commands wait for it, and the number of what was told.
async fn told_together(broker: &Broker, tenant: &TenantId, items: i64) -> Vec<(i64, i64)> {
    let update = |id: &str| {
        let progress = Progress { items_processed: items, ..Progress::default() };
        let message = server::job_progress(&job(tenant, id), JobStatus::Running, &progress);
        RunUpdate {
            job: job(tenant, id),
            run: 1,
            keep: true,
            message: Some(RunMessage { text: message, progress: Some(progress), fence: None }),
        }
    };
    let updates = ["moves", "stays", "new"].map(update);
    let answers = broker.update_runs(&worker("host"), &updates).await.expect("answers");
    let mut told = Vec::new();
    for (answer, RunUpdate { job, .. }) in answers.into_iter().zip(&updates) {
        let Ok(RunState::Held { waiting }) = answer else { panic!("{job}: {answer:?}") };
        let live = broker.live(job).await.expect("live");
        assert_eq!(live.progress.map(|progress| progress.items_processed), Some(items), "{job}");
        told.push((waiting, live.seq));
    }
    told
}

fn keys_in(server: &RedisServer, slot: &str) -> Vec<String> {
    server.query(&["CLUSTER", "GETKEYSINSLOT", slot, "1000"]).expect("keys")
}

/// The third master is stopped; its replica takes over.
async fn a_master_that_hangs_holds_up_nobody_else(cluster: &RedisCluster, broker: &Broker, tenants: &[TenantId]) {
    let before = pause(&tenants[2], "before");
    assert!(matches!(broker.submit(&before, LIMITS).await, Ok(SubmitOutcome::Accepted { .. })));
    cluster.replicated(2);
    cluster.misses_nodes_soon();
    cluster.nodes[2].signal(rustix::process::Signal::STOP);
    let lost = broker.submit(&pause(&tenants[2], "lost"), LIMITS).await;
    assert!(matches!(lost, Err(BrokerError::Unknown(_))), "{lost:?}");
    let mut rounds = 0;
    let begun = Instant::now();
    loop {
        // The others' tenants notice nothing of it.
        run_one(broker, &tenants[1], &format!("meanwhile-{rounds}")).await;
        broker.ping(Duration::from_secs(5)).await.expect("ping");
        // Each of its own: what became of one without an answer nobody knows.
        let other = pause(&tenants[2], &format!("after-{rounds}"));
        match broker.submit(&other, LIMITS).await {
            Ok(SubmitOutcome::Accepted { .. }) => break finish(broker, &other).await,
            Err(BrokerError::Unavailable(_) | BrokerError::NotServing(_) | BrokerError::Unknown(_)) => {}
            outcome => panic!("{outcome:?}"),
        }
        rounds += 1;
        assert!(begun.elapsed() < Duration::from_secs(60), "the replica was never found");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(cluster.taken_over(2));
    finish(broker, &before).await;
    cluster.nodes[2].signal(rustix::process::Signal::CONT);
    until("the old master follows the new one", async || {
        cluster.nodes[2].text("INFO replication").contains("master_link_status:up")
    })
    .await;
    cluster.is_patient();
}

/// The node that a subscriber listens to is killed, whichever it is.
async fn the_subscribers_node_dies(cluster: &mut RedisCluster, broker: &Broker, tenants: &[TenantId]) {
    let (tracker, stop) = (tokio_util::task::TaskTracker::new(), tokio_util::sync::CancellationToken::new());
    let (subscriber, mut events) =
        Subscriber::start(broker, &tracker, stop.clone()).await.expect("subscribe to the cluster");
    subscriber.psubscribe(vec!["*:job:control".to_owned()]).await.expect("subscribe");
    // Whatever node the tenant is on.
    for tenant in tenants {
        run_one(broker, tenant, "heard").await;
        let wanted = format!("{tenant}:job:control");
        until(
            "a message from every node is heard",
            async || matches!(events.recv().await, Some(Event::Message { channel, .. }) if channel == wanted),
        )
        .await;
    }
    let listens = |node: &RedisServer| node.inline("PUBSUB NUMPAT") == ":1";
    let at = cluster.nodes.iter().position(listens).expect("it listens somewhere");
    cluster.misses_nodes_soon();
    cluster.nodes[at].kill();
    until("the gap is told", async || matches!(events.recv().await, Some(Event::Gap))).await;
    until("it delivers again", async || subscriber.is_delivering()).await;
    for tenant in tenants {
        let (mut tries, mut asked) = (0, pause(tenant, "again"));
        until("every tenant is served again", async || {
            tries += 1;
            asked = pause(tenant, &format!("again-{tries}"));
            matches!(broker.submit(&asked, LIMITS).await, Ok(SubmitOutcome::Accepted { .. }))
        })
        .await;
        finish(broker, &asked).await;
        let wanted = format!("{tenant}:job:control");
        until(
            "and heard",
            async || matches!(events.recv().await, Some(Event::Message { channel, .. }) if channel == wanted),
        )
        .await;
    }
    stop.cancel();
    tracker.close();
    tracker.wait().await;
}

#[tokio::test]
async fn a_server_that_is_no_cluster_and_a_node_that_forgets_are_refused_with_what_to_do() {
    let alone = RedisServer::start();
    let url = alone.url().replacen("redis://", "redis+cluster://:hunter2@", 1);
    let plain = url.replace(":hunter2@", "");
    let error = Broker::connect(&config::Redis { url: plain.into(), ..settings(&alone) }).await.err().expect("refused");
    assert!(matches!(&error, BrokerError::Refused(text) if text.contains("redis://")), "{error:?}");
    let port = crate::support::free_port();
    let nowhere = format!("redis+cluster://:hunter2@127.0.0.1:{port}");
    let error =
        Broker::connect(&config::Redis { url: nowhere.into(), ..settings(&alone) }).await.err().expect("refused");
    let text = format!("{error} {error:?}");
    assert!(text.contains(&port.to_string()) && !text.contains("hunter2"), "{text}");
    let bus = crate::support::free_port().to_string();
    let node =
        RedisServer::start_with(|| ["--cluster-enabled", "yes", "--cluster-port", &bus].map(str::to_owned).to_vec());
    assert_eq!(node.inline("CLUSTER ADDSLOTSRANGE 0 16383"), "+OK");
    assert_eq!(node.inline("CONFIG SET maxmemory-policy allkeys-lru"), "+OK");
    let url = node.url().replacen("redis://", "redis+cluster://", 1);
    let error = Broker::connect(&config::Redis { url: url.into(), ..settings(&alone) }).await.err().expect("refused");
    assert!(matches!(&error, BrokerError::Refused(text) if text.contains("noeviction")), "{error:?}");
}

/// A shard is lost, and comes back with the files that it has.
async fn whoever_is_not_counted_everywhere_learns_it(cluster: &mut RedisCluster, broker: &Broker, tenant: &TenantId) {
    let master_of = |key: &str| cluster.master_of(cluster.slot(key)).expect("a master");
    let gone = master_of(&broker.keys().backlog(tenant));
    let elsewhere = |partition: &Partition| master_of(&broker.keys().workers(*partition)) != gone;
    let home = broker.keys().partitions().find(elsewhere).expect("a partition of another shard");
    let both = async || {
        let all = broker.heartbeat(&worker("w2"), None, LEASE).await.expect("others answer");
        let plain = broker.count_on(home, &worker("w2"), true).await.expect("others answer");
        [all, plain].map(|counted| counted.is_complete)
    };
    until("everybody is well", async || both().await == [true, true]).await;
    for node in cluster.replicas_of(gone).into_iter().chain([gone]) {
        cluster.nodes[node].kill();
    }
    assert_eq!(both().await, [false, false]);
    for node in cluster.nodes.iter_mut().filter(|node| !node.is_running()) {
        node.restart();
    }
    until("it is counted everywhere again", async || both().await == [true, true]).await;
}
