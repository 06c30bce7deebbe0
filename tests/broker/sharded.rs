//! Sharded channels in a real Redis Cluster: what is published there is heard as on the contract's channels, also while slots move and
//! servers are lost.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::cluster::{LIMITS, finish, pause, tenant_on};
use super::faults::until;
use crate::support::cluster::RedisCluster;
use crate::{redis_at, worker};
use wheelhouse::broker::channels_in_use::{ANNOUNCEMENT_TTL, ChannelsInUse};
use wheelhouse::broker::diagnosis::{channels_in_use, diagnose};
use wheelhouse::broker::keys::{
    control_channel, control_pattern, everything_pattern, reply_channel, tenant_pattern, updates_channel,
    worker_channel,
};
use wheelhouse::broker::scripts::submit::{Submission, SubmitOutcome};
use wheelhouse::broker::scripts::updates::Update;
use wheelhouse::broker::{Broker, Event, Subscriber};
use wheelhouse::config::{self, HeardChannels, PublishedChannels};
use wheelhouse::domain::{ResourceKind, TenantId};

/// Longest wait for something that has to be heard; it only ends a test that has failed.
const HEARD: Duration = Duration::from_secs(30);

async fn start() -> RedisCluster {
    // Masters that are well go on while another is missing.
    let cluster = tokio::task::spawn_blocking(|| RedisCluster::start(&["--cluster-require-full-coverage", "no"]));
    cluster.await.expect("start a cluster")
}

fn sharded(cluster: &RedisCluster, published_channels: PublishedChannels) -> config::Redis {
    config::Redis { published_channels, heard_channels: HeardChannels::Sharded, ..redis_at(cluster.url()) }
}

/// The same, everything sharded, for the user `wheel` of Redis with the password `p`.
fn as_wheel(cluster: &RedisCluster) -> config::Redis {
    let url = cluster.url().replacen("redis+cluster://", "redis+cluster://wheel:p@", 1);
    config::Redis { url: url.into(), ..sharded(cluster, PublishedChannels::Sharded) }
}

/// A cluster, and a program that publishes there and hears sharded channels.
async fn connected(published: PublishedChannels) -> (RedisCluster, Broker) {
    let cluster = start().await;
    let broker = Broker::connect(&sharded(&cluster, published)).await.expect("connect");
    (cluster, broker)
}

/// A program that hears: stopped when dropped.
struct Listener {
    subscriber: Subscriber,
    events: mpsc::Receiver<Event>,
    _stop: DropGuard,
}

impl Listener {
    async fn start(broker: &Broker) -> Self {
        let stop = CancellationToken::new();
        let (subscriber, events) =
            Subscriber::start(broker, &TaskTracker::new(), stop.clone()).await.expect("subscribe to the cluster");
        Self { subscriber, events, _stop: stop.drop_guard() }
    }

    /// The next message on this channel, as text, and whether it came by a pattern. What else comes before it is passed over.
    async fn message(&mut self, wanted: &str) -> (String, bool) {
        let heard = async {
            loop {
                let event = self.events.recv().await.expect("the subscriber has ended");
                if let Event::Message { channel, payload, by_pattern } = event
                    && channel == wanted
                {
                    return (String::from_utf8(payload.to_vec()).expect("text"), by_pattern);
                }
            }
        };
        tokio::time::timeout(HEARD, heard).await.unwrap_or_else(|_| panic!("nothing is heard on {wanted}"))
    }

    /// Waits until it is said that messages of this tenant may have been missed.
    async fn gap(&mut self, broker: &Broker, tenant: &TenantId) {
        let partition = broker.keys().partition(tenant);
        let told = async {
            loop {
                let event = self.events.recv().await.expect("the subscriber has ended");
                if matches!(event, Event::PartitionGap(of) if of.contains(&partition)) {
                    return;
                }
            }
        };
        tokio::time::timeout(HEARD, told).await.expect("no gap is told");
    }
}

async fn update(broker: &Broker, asked: &Submission, text: &str) -> i64 {
    let message = format!("{{\"type\":\"{text}\"");
    broker.publish_update(&asked.resource, &Update { message, desired: None }).await.expect("update")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_on_sharded_channels_is_heard_as_on_plain_ones() {
    let (cluster, broker) = connected(PublishedChannels::Both).await;
    let (mut one, mut all, mut plain) = (
        Listener::start(&broker).await,
        Listener::start(&broker).await,
        // A program as before.
        Listener::start(&Broker::connect(&redis_at(cluster.url())).await.expect("connect")).await,
    );
    let kind = ResourceKind::Job;
    all.subscriber.psubscribe(vec![everything_pattern(kind), control_pattern(kind)]).await.expect("patterns");
    plain.subscriber.psubscribe(vec![everything_pattern(kind)]).await.expect("pattern");
    let waker = worker("w7");
    all.subscriber.subscribe(vec![worker_channel(&waker)]).await.expect("own channel");
    for master in 0..3 {
        let tenant = tenant_on(&cluster, &broker, master);
        let asked = pause(&tenant, "j1");
        let (updates, replies) = (updates_channel(&asked.resource), reply_channel(&asked.resource));
        let control = control_channel(&tenant, kind);
        one.subscriber.subscribe(vec![updates.clone(), replies.clone(), control.clone()]).await.expect("channels");
        let outcome = broker.submit(&asked, LIMITS).await;
        assert!(matches!(outcome, Ok(SubmitOutcome::Accepted { .. })), "{outcome:?}");
        let (woken, by_pattern) = one.message(&control).await;
        assert!(woken.contains("\"pause\"") && !by_pattern, "{woken}");
        assert_eq!(all.message(&control).await, (woken.clone(), true));
        assert_eq!(update(&broker, &asked, "x").await, 1);
        let (told, by_pattern) = one.message(&updates).await;
        assert_eq!((told.as_str(), by_pattern), ("{\"type\":\"x\",\"seq\":1}", false));
        assert_eq!(all.message(&updates).await, (told.clone(), true));
        assert_eq!(plain.message(&updates).await, (told, true));
        finish(&broker, &asked).await;
        let (result, by_pattern) = one.message(&replies).await;
        assert!(result.contains("\"pause_succeeded\"") && !by_pattern, "{result}");
        assert_eq!(all.message(&replies).await, (result.clone(), true));
        assert_eq!(plain.message(&replies).await, (result, true));
        broker.wake_workers(&[(waker.clone(), asked.resource.clone())]).await.expect("wake");
        assert_eq!(all.message(&worker_channel(&waker)).await, (asked.resource.to_string(), false));
    }
    assert!(one.subscriber.unheard_partitions().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_heard_by_its_pattern_until_that_is_given_up_and_nothing_is_published_on_plain_channels() {
    let (cluster, broker) = connected(PublishedChannels::Sharded).await;
    let tenant = tenant_on(&cluster, &broker, 1);
    let asked = pause(&tenant, "j1");
    let updates = updates_channel(&asked.resource);
    let plain = Broker::connect(&redis_at(cluster.url())).await.expect("connect");
    let (mut listener, mut before) = (Listener::start(&broker).await, Listener::start(&plain).await);
    before.subscriber.subscribe(vec![updates.clone()]).await.expect("subscribe");
    let patterns = vec![tenant_pattern(&tenant, ResourceKind::Job)];
    listener.subscriber.psubscribe(patterns.clone()).await.expect("pattern");
    assert_eq!(update(&broker, &asked, "first").await, 1);
    assert_eq!(listener.message(&updates).await, ("{\"type\":\"first\",\"seq\":1}".to_owned(), true));
    assert!(listener.subscriber.punsubscribe(patterns));
    // Asked after that on the same connection, and so confirmed after it.
    listener.subscriber.subscribe(vec![updates.clone()]).await.expect("subscribe");
    assert_eq!(update(&broker, &asked, "second").await, 2);
    assert_eq!(listener.message(&updates).await, ("{\"type\":\"second\",\"seq\":2}".to_owned(), false));
    // The first message on a plain channel is one that a program as before has published.
    assert_eq!(update(&plain, &asked, "third").await, 3);
    assert_eq!(before.message(&updates).await.0, "{\"type\":\"third\",\"seq\":3}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_moves_is_heard_where_it_is_and_a_gap_is_told_as_long_as_it_is_on_its_way() {
    let (cluster, broker) = connected(PublishedChannels::Sharded).await;
    let tenant = tenant_on(&cluster, &broker, 0);
    let asked = pause(&tenant, "j1");
    let (updates, slot) = (updates_channel(&asked.resource), cluster.slot(&broker.keys().backlog(&tenant)));
    let mut listener = Listener::start(&broker).await;
    listener.subscriber.subscribe(vec![updates.clone()]).await.expect("subscribe");
    assert_eq!(update(&broker, &asked, "before").await, 1);
    assert_eq!(listener.message(&updates).await.0, "{\"type\":\"before\",\"seq\":1}");
    let id = |node: usize| cluster.nodes[node].text("CLUSTER MYID");
    let tell = |node: usize, what: &str| {
        assert_eq!(cluster.nodes[node].inline(&format!("CLUSTER SETSLOT {slot} {what}")), "+OK");
    };
    tell(1, &format!("IMPORTING {}", id(0)));
    tell(0, &format!("MIGRATING {}", id(1)));
    listener.gap(&broker, &tenant).await;
    // And again: what is published over there is heard by nobody.
    listener.gap(&broker, &tenant).await;
    cluster.move_slot(slot, 1).expect("moved");
    listener.gap(&broker, &tenant).await;
    until("it is heard where it is now", async || {
        let number = update(&broker, &asked, "after").await;
        let heard = async {
            while let Some(event) = listener.events.recv().await {
                let wanted = format!("{{\"type\":\"after\",\"seq\":{number}}}");
                if matches!(&event, Event::Message { payload, .. } if *payload == wanted) {
                    return true;
                }
            }
            false
        };
        tokio::time::timeout(Duration::from_millis(500), heard).await.unwrap_or(false)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_lost_costs_only_its_own_tenants_their_messages_until_its_replica_has_taken_over() {
    let (mut cluster, broker) = connected(PublishedChannels::Sharded).await;
    let (lost, other) = (tenant_on(&cluster, &broker, 2), tenant_on(&cluster, &broker, 1));
    let (of_lost, of_other) = (pause(&lost, "j1"), pause(&other, "j1"));
    let mut listener = Listener::start(&broker).await;
    for asked in [&of_lost, &of_other] {
        listener.subscriber.subscribe(vec![updates_channel(&asked.resource)]).await.expect("subscribe");
    }
    cluster.replicated(2);
    cluster.nodes[2].kill();
    let (partition, well) = (broker.keys().partition(&lost), broker.keys().partition(&other));
    until("it is known that nothing is heard", async || listener.subscriber.unheard_partitions().contains(&partition))
        .await;
    // Its connection for what is of no partition may have been to that server.
    until("the others are heard", async || {
        !listener.subscriber.unheard_partitions().contains(&well) && listener.subscriber.is_delivering()
    })
    .await;
    assert_eq!(update(&broker, &of_other, "meanwhile").await, 1);
    let (told, _) = listener.message(&updates_channel(&of_other.resource)).await;
    assert_eq!(told, "{\"type\":\"meanwhile\",\"seq\":1}");
    // Only now may its replica take over.
    for node in cluster.nodes.iter().filter(|node| node.is_running()) {
        assert_eq!(node.inline("CONFIG SET cluster-node-timeout 1500"), "+OK");
    }
    until("its replica is heard instead", async || {
        cluster.taken_over(2) && listener.subscriber.unheard_partitions().is_empty()
    })
    .await;
    listener.gap(&broker, &lost).await;
    assert_eq!(update(&broker, &of_lost, "again").await, 1);
    assert_eq!(listener.message(&updates_channel(&of_lost.resource)).await.0, "{\"type\":\"again\",\"seq\":1}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sharded_channel_that_is_denied_leaves_the_others_alone() {
    let cluster = start().await;
    for node in &cluster.nodes {
        let rules =
            "on >p ~wh:* resetchannels &wh:probe:* &@probe:* &wh:{*}:@channel:@probe:* &wh:{*}:@channel:tenant-* +@all";
        assert_eq!(node.inline(&format!("ACL SETUSER wheel {rules}")), "+OK");
    }
    let settings = as_wheel(&cluster);
    let broker = Broker::connect(&settings).await.expect("connect");
    let tenant = tenant_on(&cluster, &broker, 0);
    let mut listener = Listener::start(&broker).await;
    let asked = pause(&tenant, "j1");
    let updates = updates_channel(&asked.resource);
    listener.subscriber.subscribe(vec![updates.clone()]).await.expect("permitted");
    let denied = listener.subscriber.subscribe(vec!["globex:job:j1".to_owned()]).await.expect_err("not permitted");
    assert_eq!(denied.code(), Some("NOPERM"), "{denied}");
    let denied = listener.subscriber.psubscribe(vec![everything_pattern(ResourceKind::Job)]).await;
    assert_eq!(denied.expect_err("not permitted").code(), Some("NOPERM"));
    for (is_worker, pattern) in [(true, ":@channel:*:job:control"), (false, ":@channel:*:job:*")] {
        for report in diagnose(&settings, is_worker).await.expect("looked at") {
            let refused = report.expect("a node").refused;
            let is_named = |what: &str| what.starts_with("SSUBSCRIBE wh:{") && what.ends_with(pattern);
            assert!(refused.iter().any(|(what, words)| is_named(what) && words.contains("NOPERM")), "{refused:?}");
        }
    }
    update(&broker, &asked, "heard").await;
    assert_eq!(listener.message(&updates).await.0, "{\"type\":\"heard\",\"seq\":1}");
    for node in &cluster.nodes {
        assert_eq!(
            node.inline("ACL SETUSER wheel resetchannels &wh:probe:* &@probe:* &wh:{*}:@channel:@probe:*"),
            "+OK"
        );
    }
    // Redis closes the connection of a user who may no longer hear what is subscribed there.
    let told = async {
        loop {
            if let Event::Denied(names) = listener.events.recv().await.expect("the subscriber has ended") {
                return names;
            }
        }
    };
    assert_eq!(tokio::time::timeout(HEARD, told).await.expect("it is told"), [updates]);
}

/// What a worker is of no use without is asked for until it may be heard again.
#[tokio::test(flavor = "multi_thread")]
async fn a_control_pattern_that_is_denied_for_a_while_is_heard_again() {
    let cluster = start().await;
    let rules = "on >p ~wh:* resetchannels &wh:probe:* &@probe:* &wh:{*}:@channel:@probe:*";
    let tell = |more: &str| {
        for node in &cluster.nodes {
            assert_eq!(node.inline(&format!("ACL SETUSER wheel {rules} {more} +@all")), "+OK");
        }
    };
    tell("&wh:{*}:@channel:*");
    let settings = as_wheel(&cluster);
    let broker = Broker::connect(&settings).await.expect("connect");
    let mut listener = Listener::start(&broker).await;
    listener.subscriber.psubscribe(vec![control_pattern(ResourceKind::Job)]).await.expect("permitted");
    let tenant = tenant_on(&cluster, &broker, 0);
    // Redis closes the connection of a user who may no longer hear what is subscribed there.
    tell("");
    let all = broker.keys().partitions().count();
    until("it is known that nothing is heard", async || listener.subscriber.unheard_partitions().len() == all).await;
    assert!(!listener.subscriber.is_delivering());
    tell("&wh:{*}:@channel:*");
    until("it may be heard again", async || listener.subscriber.unheard_partitions().is_empty()).await;
    let outcome = broker.submit(&pause(&tenant, "j1"), LIMITS).await;
    assert!(matches!(outcome, Ok(SubmitOutcome::Accepted { .. })), "{outcome:?}");
    listener.message(&control_channel(&tenant, ResourceKind::Job)).await;
}

/// A cluster that is down takes subscriptions all the same.
#[tokio::test(flavor = "multi_thread")]
async fn while_a_cluster_is_down_nothing_is_taken_for_heard_and_what_wakes_a_worker_is_kept_for_later() {
    let cluster = tokio::task::spawn_blocking(|| RedisCluster::start(&[])).await.expect("start a cluster");
    let broker = Broker::connect(&sharded(&cluster, PublishedChannels::Sharded)).await.expect("connect");
    let mut listener = Listener::start(&broker).await;
    let tenant = tenant_on(&cluster, &broker, 1);
    cluster.misses_nodes_soon();
    for node in [2, 5] {
        cluster.nodes[node].signal(rustix::process::Signal::STOP);
    }
    let all = broker.keys().partitions().count();
    until("it is known that nothing is heard", async || listener.subscriber.unheard_partitions().len() == all).await;
    let control = control_channel(&tenant, ResourceKind::Job);
    listener.subscriber.subscribe(vec![control.clone()]).await.expect("kept");
    assert_eq!(listener.subscriber.unheard_partitions().len(), all, "the cluster is down");
    for node in [2, 5] {
        cluster.nodes[node].signal(rustix::process::Signal::CONT);
    }
    until("all is heard again", async || listener.subscriber.unheard_partitions().is_empty()).await;
    let mut tries = 0;
    until("the tenant is served again", async || {
        tries += 1;
        matches!(broker.submit(&pause(&tenant, &format!("j{tries}")), LIMITS).await, Ok(SubmitOutcome::Accepted { .. }))
    })
    .await;
    listener.message(&control).await;
}

/// Programs that are more than one step of a change of settings apart would hear nothing of each other, and nothing else shows it.
#[tokio::test(flavor = "multi_thread")]
async fn each_program_of_a_cluster_learns_which_channels_the_others_use_as_long_as_they_are_there() {
    let (cluster, broker) = connected(PublishedChannels::Both).await;
    let own = ChannelsInUse::of(&sharded(&cluster, PublishedChannels::Both));
    let before = ChannelsInUse::of(&redis_at(cluster.url()));
    let long = ANNOUNCEMENT_TTL;
    assert_eq!(broker.announce_channels(own, long).await.expect("announce"), [].into());
    let settings = redis_at(cluster.url());
    let other = Listener::start(&Broker::connect(&settings).await.expect("connect")).await;
    until("the other one's are known", async || {
        broker.announce_channels(own, long).await.ok() == Some([before].into())
    })
    .await;
    assert_eq!(channels_in_use(&settings).await.expect("look"), [own, before].into());
    drop(other);
    // What a program said ends by itself, also where the clock was set back since; a later version's words do no harm.
    let key = broker.keys().channels_in_use();
    let node = &cluster.nodes[cluster.holder(&key)];
    for (score, said) in [("1", before.to_string()), ("9e15", before.to_string()), ("9e15", "none|all".to_owned())] {
        assert!(node.inline(&format!("ZADD {key} {score} {said}")).starts_with(':'));
        assert_eq!(broker.announce_channels(own, long).await.expect("announce"), [].into(), "{score}");
    }
}
