//! Sentinels name another master while the old one still lives and answers: whoever is connected to it leaves at once.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wheelhouse::broker::scripts::submit::{Submission, SubmitLimits, SubmitOutcome};
use wheelhouse::broker::{Broker, BrokerError, Event, Subscriber};
use wheelhouse::config;
use wheelhouse::domain::{Action, Resource};

use super::faults::until;
use crate::support::cluster::RedisCluster;
use crate::support::sentinels::Replicated;
use crate::{LEASE, LIMITS, ROW, accept, claim, job, redis_at, submission, succeeded, worker};

/// As many commands as it takes until one is accepted by the right master: those before count as well.
const UNLIMITED: SubmitLimits = SubmitLimits { commands_per_minute: 1_000_000, ..LIMITS };

fn settings(redis: &Replicated) -> config::Redis {
    redis_at(redis.url())
}

/// Whether this node has the queue of this job.
fn has_command(redis: &Replicated, broker: &Broker, node: usize, id: &str) -> bool {
    redis.nodes[node].server.inline(&format!("EXISTS {}", broker.keys().queue(&job(id)))) == ":1"
}

/// Whether this program's connections lead to the node, and not to the one before.
async fn are_at(redis: &Replicated, broker: &Broker, node: usize, events: &mut tokio::sync::mpsc::Receiver<Event>) {
    until("a command is accepted by the new master", async || {
        let after = submission("j2", Action::Pause);
        matches!(broker.submit(&after, UNLIMITED).await, Ok(SubmitOutcome::Accepted { .. }))
            && has_command(redis, broker, node, "j2")
    })
    .await;
    until("the subscriber is told of the gap", async || matches!(events.recv().await, Some(Event::Gap))).await;
    let accepted = broker.submit(&submission("j3", Action::Pause), UNLIMITED).await.expect("submit");
    assert!(matches!(accepted, SubmitOutcome::Accepted { .. }), "{accepted:?}");
    until("and hears the new master", async || {
        matches!(events.recv().await, Some(Event::Message { payload, .. }) if payload.windows(2).any(|w| w == b"j3"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_the_sentinels_replace_is_left_by_every_connection_while_it_lives() {
    let redis = Replicated::start().await;
    let broker = Broker::connect(&settings(&redis)).await.expect("connect through the sentinels");
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let _end = stop.clone().drop_guard();
    let (subscriber, mut events) = Subscriber::start(&broker, &tracker, stop).await.expect("subscribe");
    subscriber.psubscribe(vec!["*:job:control".to_owned()]).await.expect("subscribe");
    accept(&broker, &submission("j1", Action::Pause)).await;
    // Split brain: nobody but this program reaches the master, which believes that it is one.
    redis.cut_off(0);
    redis.misses_servers_soon();
    let new = redis.switched_from(0).await;
    assert_eq!(redis.nodes[0].server.text("INFO replication").lines().nth(1), Some("role:master"));
    are_at(&redis, &broker, new, &mut events).await;
    assert!(!has_command(&redis, &broker, 0, "j3"), "nothing more is given to the old one");
    assert!(redis.nodes[0].server.text("INFO replication").contains("role:master"), "which still is a master");
    // Planned: both live, and the old one becomes a replica only later.
    redis.is_patient();
    redis.join(0);
    // Before, each sentinel that tells it to follow cuts its connections.
    redis.is_known_to_follow(0).await;
    until("the old master follows the new one", async || {
        redis.nodes[0].server.text("INFO replication").contains("master_link_status:up")
    })
    .await;
    while events.try_recv().is_ok() {}
    let newest = redis.fail_over(new).await;
    are_at(&redis, &broker, newest, &mut events).await;
}

/// Between the promotion of a replica and the moment at which it is named, the old master may be reached by the other replica
/// again, and a command that this one has is lost all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_is_about_to_be_replaced_is_left_before_another_is_named() {
    let redis = Replicated::start().await;
    let settings = config::Redis { replicas_to_wait: 1, ..settings(&redis) };
    let broker = Broker::connect(&settings).await.expect("connect through the sentinels");
    accept(&broker, &submission("j1", Action::Pause)).await;
    // Well enough to be chosen, and silent when told to become the master: the switch stays where it is for some seconds.
    let replicas = &redis.nodes[1..];
    replicas.iter().for_each(|replica| replica.server.signal(rustix::process::Signal::STOP));
    redis.order_switch();
    let (mut said, again) = (None, submission("j2", Action::Pause));
    until("it is left", async || {
        said = broker.submit(&again, LIMITS).await.err();
        matches!(&said, Some(BrokerError::Unavailable(_)))
    })
    .await;
    let said = said.expect("refused").to_string();
    assert!(said.contains("about to replace it"), "{said}");
    assert_eq!(redis.master(), 0, "and it is the one that is named");
    replicas.iter().for_each(|replica| replica.server.signal(rustix::process::Signal::CONT));
    until("commands are accepted again, by whichever master there is", async || {
        broker.submit(&again, LIMITS).await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_without_its_replicas_is_left_where_most_sentinels_are_silent_and_stays_where_they_are_not() {
    let mut redis = Replicated::start().await;
    let broker = Broker::connect(&settings(&redis)).await.expect("connect through the sentinels");
    accept(&broker, &submission("j1", Action::Pause)).await;
    redis.keep_sentinels(1);
    // It hears its replicas: none of them has taken its place.
    tokio::time::sleep(Duration::from_secs(3)).await;
    accept(&broker, &submission("j2", Action::Pause)).await;
    redis.cut_off(0);
    let (mut said, again) = (None, submission("j3", Action::Pause));
    until("it is left", async || {
        said = broker.submit(&again, LIMITS).await.err();
        matches!(&said, Some(BrokerError::Unavailable(_)))
    })
    .await;
    let said = said.expect("refused").to_string();
    assert!(said.contains("lost its replicas"), "{said}");
    redis.join(0);
    until("and used again when the replicas are back", async || broker.submit(&again, LIMITS).await.is_ok()).await;
}

/// What is accepted with `redis.replicas_to_wait = 1` is on a replica, and where it cannot be, nobody is told that it is.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_accepted_is_on_a_replica_already_where_the_settings_say_so() {
    let redis = Replicated::start().await;
    let settings = config::Redis { replicas_to_wait: 1, ..settings(&redis) };
    let broker = Broker::connect(&settings).await.expect("connect through the sentinels");
    for n in 0..20 {
        let id = format!("j{n}");
        accept(&broker, &submission(&id, Action::Pause)).await;
        assert!((1..3).any(|replica| has_command(&redis, &broker, replica, &id)), "accepted, and on no replica");
    }
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let _end = stop.clone().drop_guard();
    let (subscriber, _events) = Subscriber::start(&broker, &tracker, stop).await.expect("subscribe");
    assert!(subscriber.proof().problem().is_none());
    redis.cut_off(0);
    let alone = submission("alone", Action::Pause);
    let said = broker.submit(&alone, LIMITS).await.expect_err("no replica has it");
    assert!(matches!(&said, BrokerError::Unknown(_)), "{said:?}");
    until("it is not ready", async || subscriber.proof().problem().is_some()).await;
    redis.join(0);
    until("the same again finds out", async || broker.submit(&alone, LIMITS).await.is_ok()).await;
    until("it is ready", async || subscriber.proof().problem().is_none()).await;
    assert!((1..3).any(|replica| has_command(&redis, &broker, replica, "alone")));
    // How a command has ended is told once a replica has that; without the setting it is told before.
    let hasty = config::Redis { replicas_to_wait: 0, ..settings.clone() };
    let hasty = Broker::connect(&hasty).await.expect("connect through the sentinels");
    accept(&broker, &submission("ends", Action::Pause)).await;
    let held = claim(&broker, "ends", "w1").await;
    redis.cut_off(0);
    hasty.complete(&held, &worker("w1"), &succeeded("paused"), ROW, None).await.expect("complete");
    let told = hasty.command_result(&job("ends"), held.command).await.expect("it has ended");
    assert!(told.is_some_and(|result| result.has_succeeded()), "though it would be lost with this master");
    let told = broker.command_result(&job("ends"), held.command).await;
    assert!(matches!(told, Err(BrokerError::Unknown(_))), "{told:?}");
    redis.join(0);
    until("the result is told", async || {
        matches!(broker.command_result(&job("ends"), held.command).await, Ok(Some(_)))
    })
    .await;
    // A worker is given a command once a replica has that, too.
    redis.cut_off(0);
    let claimed = broker.claim(&job("alone"), &worker("w1"), LEASE).await;
    assert!(matches!(claimed, Err(BrokerError::Unknown(_))), "{claimed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_cluster_each_master_waits_for_its_own_replica() {
    let cluster = tokio::task::spawn_blocking(|| RedisCluster::start(&[])).await.expect("start a cluster");
    let settings = config::Redis { replicas_to_wait: 1, ..redis_at(cluster.url()) };
    let broker = Broker::connect(&settings).await.expect("connect to the cluster");
    let of = |master: usize| {
        let tenants = (0..1_000).filter_map(|n| Resource::parse(&format!("t{n}:job:j")));
        let mut there = tenants.filter(|job| cluster.holder(&broker.keys().backlog(&job.tenant)) == master);
        Submission { resource: there.next().expect("a tenant"), ..submission("j", Action::Pause) }
    };
    let [first, second] = [of(0), of(1)];
    cluster.nodes[3].signal(rustix::process::Signal::STOP);
    let said = broker.submit(&first, LIMITS).await;
    assert!(matches!(&said, Err(BrokerError::Unknown(_))), "{said:?}");
    accept(&broker, &second).await;
    cluster.nodes[3].signal(rustix::process::Signal::CONT);
    until("the same again finds out", async || broker.submit(&first, LIMITS).await.is_ok()).await;
}
