//! Heartbeats in one partition, workers that are counted in all of them, and the worker that leads a partition.

use std::time::Duration;

use crate::support::clock::Clock;
use crate::support::redis::RedisServer;
use crate::{LIMITS, connect, job, submission, worker};
use wheelhouse::broker::scripts::heartbeats::{COUNTED_FOR, HEARTBEAT_TTL, Seat, SeatWish};
use wheelhouse::broker::scripts::leaders::HeartbeatLook;
use wheelhouse::broker::scripts::submit::SubmitOutcome;
use wheelhouse::broker::{Broker, Partition};
use wheelhouse::domain::{Action, TenantId, WorkerId};

/// Longer than a test is held up between two of its calls.
const LEASE: Duration = Duration::from_secs(60);
const WORKERS: [&str; 3] = ["w1", "w2", "w3"];

fn home(broker: &Broker, id: &str) -> Partition {
    broker.keys().homes(&worker(id)).next().expect("there are partitions")
}

fn tenant(id: &str) -> TenantId {
    id.parse().expect("tenant")
}

/// As a worker does: alive in its home, and counted everywhere.
async fn comes(broker: &Broker, id: &str) {
    broker.heartbeat_at(home(broker, id), &worker(id), SeatWish::Keep).await.expect("heartbeat");
    broker.heartbeat(&worker(id), None, COUNTED_FOR).await.expect("count");
}

async fn online(broker: &Broker) -> i64 {
    let Ok(SubmitOutcome::Accepted { workers_online, .. }) =
        broker.submit(&submission("j1", Action::Pause), LIMITS).await
    else {
        panic!("not accepted")
    };
    workers_online
}

async fn live(broker: &Broker) -> Vec<WorkerId> {
    let live = broker.live_workers(&tenant("acme")).await.expect("live");
    assert_eq!(broker.all_live_workers().await.expect("live"), live, "each partition says the same");
    assert_eq!(broker.workers_alive().await.expect("count"), live.len());
    live
}

#[tokio::test]
async fn a_worker_whose_heartbeats_end_is_taken_out_of_every_partition_by_the_leader_of_its_home() {
    let clock = Clock::new();
    let redis = RedisServer::start_on(&clock);
    let broker = connect(&redis).await;
    for id in WORKERS {
        comes(&broker, id).await;
    }
    assert_eq!(live(&broker).await.len(), 3);
    clock.set(i64::try_from(HEARTBEAT_TTL.as_secs()).expect("short") + 1);
    for id in ["w1", "w2"] {
        let answer = broker.heartbeat_at(home(&broker, id), &worker(id), SeatWish::Keep).await.expect("heartbeat");
        assert!(answer.is_counted, "{id} is counted for longer than a heartbeat lasts");
    }
    let mut dead = Vec::new();
    for partition in broker.keys().partitions() {
        let duties = broker
            .lead_partition(partition, &worker("w1"), LEASE, 10, HeartbeatLook::AndMend)
            .await
            .expect("lead")
            .expect("leads");
        for id in duties.dead {
            broker.remove_dead_worker(partition, &id).await.expect("remove");
            dead.push(id);
        }
    }
    assert_eq!(dead, ["w3"]);
    assert_eq!(live(&broker).await, [worker("w1"), worker("w2")]);
    assert_eq!(online(&broker).await, 2);

    // It was only held up: its next heartbeat tells it that it is counted no more.
    let answer = broker.heartbeat_at(home(&broker, "w3"), &worker("w3"), SeatWish::Keep).await.expect("heartbeat");
    assert!(!answer.is_counted);
    comes(&broker, "w3").await;
    assert_eq!(live(&broker).await.len(), 3);
}

#[tokio::test]
async fn a_worker_that_has_found_another_home_is_not_taken_out_because_of_the_one_before() {
    let clock = Clock::new();
    let redis = RedisServer::start_on(&clock);
    let broker = connect(&redis).await;
    comes(&broker, "w1").await;
    clock.set(i64::try_from(HEARTBEAT_TTL.as_secs()).expect("short") + 1);
    let mut homes = broker.keys().homes(&worker("w1"));
    let (before, now) = (homes.next().expect("one"), homes.next().expect("two"));
    broker.heartbeat_at(now, &worker("w1"), SeatWish::Keep).await.expect("heartbeat");
    let duties = broker
        .lead_partition(before, &worker("w2"), LEASE, 10, HeartbeatLook::AndMend)
        .await
        .expect("lead")
        .expect("leads");
    assert_eq!(duties.dead, ["w1"]);
    broker.remove_dead_worker(before, "w1").await.expect("remove");
    assert_eq!(live(&broker).await, [worker("w1")]);
    let duties = broker
        .lead_partition(before, &worker("w2"), LEASE, 10, HeartbeatLook::AndMend)
        .await
        .expect("lead")
        .expect("leads");
    assert!(duties.dead.is_empty(), "it is looked at once");
}

#[tokio::test]
async fn where_no_worker_is_left_a_gateway_takes_the_dead_out() {
    let clock = Clock::new();
    let redis = RedisServer::start_on(&clock);
    let broker = connect(&redis).await;
    for id in WORKERS {
        comes(&broker, id).await;
    }
    let first = broker.keys().partitions().next().expect("one");
    broker
        .lead_partition(first, &worker("w1"), Duration::from_secs(2), 10, HeartbeatLook::AndMend)
        .await
        .expect("lead");
    broker.remove_dead_workers_without_leader().await.expect("look");
    clock.set(i64::try_from(HEARTBEAT_TTL.as_secs()).expect("short") + 1);
    // A gateway knows Redis's clock by its answers.
    broker.learn_now().await.expect("clock");
    broker.remove_dead_workers_without_leader().await.expect("look");
    assert!(live(&broker).await.is_empty());
    assert_eq!(online(&broker).await, 0);
}

#[tokio::test]
async fn one_worker_leads_a_partition_until_it_gives_it_up_or_its_lease_ends() {
    let clock = Clock::new();
    let redis = RedisServer::start_on(&clock);
    let broker = connect(&redis).await;
    let partition = broker.keys().partition(&job("j1").tenant);
    let lead = async |id: &str| {
        broker.lead_partition(partition, &worker(id), LEASE, 10, HeartbeatLook::AndMend).await.expect("lead").is_some()
    };
    assert!(lead("w1").await && lead("w1").await);
    assert!(!lead("w2").await);
    broker.stop_leading(partition, &worker("w2")).await.expect("nothing");
    assert!(!lead("w2").await, "it gave up what was not its own");
    broker.stop_leading(partition, &worker("w1")).await.expect("give up");
    assert!(lead("w2").await && !lead("w1").await);
    clock.set(61);
    assert!(lead("w1").await && !lead("w2").await, "its lease has ended");
    // A lease of before the clock went back lasts one lease from then on.
    clock.set(0);
    assert!(!lead("w2").await);
    clock.set(62);
    assert!(lead("w2").await);
}

#[tokio::test]
async fn a_leader_learns_of_whom_something_waits() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let partition = broker.keys().partition(&job("j1").tenant);
    let duties = async || {
        broker
            .lead_partition(partition, &worker("w1"), LEASE, 10, HeartbeatLook::AndMend)
            .await
            .expect("lead")
            .expect("leads")
    };
    assert!(duties().await.tenants.is_empty());
    online(&broker).await;
    assert_eq!(duties().await.tenants, [tenant("acme")]);
}

/// A worker of the version before says in each partition that it lives, for four seconds, and cuts whatever stands there for
/// longer down to that, since it takes it for the work of a clock that was set back.
#[tokio::test]
async fn beside_a_worker_of_the_version_before_both_are_alive_to_each_other() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    comes(&broker, "new").await;
    for _ in 0..3 {
        broker.heartbeat(&worker("old"), None, HEARTBEAT_TTL).await.expect("heartbeat");
        let answer =
            broker.heartbeat_at(home(&broker, "new"), &worker("new"), SeatWish::Keep).await.expect("heartbeat");
        assert!(!answer.is_counted, "the worker is told that it is not counted for long any more");
        comes(&broker, "new").await;
        assert_eq!(live(&broker).await, [worker("new"), worker("old")]);
    }
    // The leader takes out only whom it has seen in a home.
    for partition in broker.keys().partitions() {
        let duties = broker
            .lead_partition(partition, &worker("new"), LEASE, 10, HeartbeatLook::AndMend)
            .await
            .expect("lead")
            .expect("leads");
        assert!(duties.dead.is_empty());
    }
}

#[tokio::test]
async fn a_heartbeat_that_does_not_ask_says_whether_the_worker_was_taken_out_meanwhile() {
    let clock = Clock::new();
    let redis = RedisServer::start_on(&clock);
    let broker = connect(&redis).await;
    comes(&broker, "w1").await;
    let (home, w1) = (home(&broker, "w1"), worker("w1"));
    let answer = broker.heartbeat_at(home, &w1, SeatWish::NotAsked).await.expect("heartbeat");
    assert!(answer.is_counted && answer.seat.is_none());
    clock.set(i64::try_from(HEARTBEAT_TTL.as_secs()).expect("short") - 1);
    broker.heartbeat_at(home, &w1, SeatWish::NotAsked).await.expect("heartbeat");
    clock.set(i64::try_from(HEARTBEAT_TTL.as_secs()).expect("short") + 1);
    let duties = async || {
        broker.lead_partition(home, &worker("w2"), LEASE, 10, HeartbeatLook::Ended).await.expect("lead").expect("leads")
    };
    assert!(duties().await.dead.is_empty(), "it lives as long as after any other");
    clock.set(2 * i64::try_from(HEARTBEAT_TTL.as_secs()).expect("short"));
    assert_eq!(duties().await.dead, ["w1"]);
    broker.remove_dead_worker(home, "w1").await.expect("remove");
    let answer = broker.heartbeat_at(home, &w1, SeatWish::NotAsked).await.expect("heartbeat");
    assert!(!answer.is_counted, "it has to be counted anew");
}

#[tokio::test]
async fn many_partitions_are_led_by_one_call_that_finds_in_each_what_there_is_to_do() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let submitted = submission("j1", Action::Pause);
    broker.submit(&submitted, LIMITS).await.expect("submit");
    let of_tenant = broker.keys().partition(&submitted.resource.tenant);
    let others = broker.keys().partitions().find(|partition| *partition != of_tenant).expect("another");
    assert!(!broker.are_led(&[others]).await.expect("read"));
    broker.lead_partition(others, &worker("w2"), LEASE, 10, HeartbeatLook::Ended).await.expect("lead").expect("leads");
    assert!(broker.are_led(&[others]).await.expect("read"));
    let all: Vec<_> = broker.keys().partitions().map(|partition| (partition, HeartbeatLook::AndMend)).collect();
    let found = broker.lead_partitions(&all, &worker("w1"), LEASE, 10).await.expect("lead");
    assert_eq!(found.len(), all.len());
    for ((partition, _), duties) in all.iter().zip(found) {
        match duties {
            None => assert_eq!(*partition, others, "the one that another worker leads"),
            Some(duties) if *partition == of_tenant => {
                assert_eq!(duties.tenants, std::slice::from_ref(&submitted.resource.tenant))
            }
            Some(duties) => assert!(duties.tenants.is_empty() && duties.dead.is_empty(), "{partition} {duties:?}"),
        }
    }
}

/// Whoever both hears for others and leads would miss a command and not find it, where it dies.
#[tokio::test]
async fn of_a_large_fleet_a_leader_hears_only_where_nobody_else_does() {
    let clock = Clock::new();
    let redis = RedisServer::start_on(&clock);
    let broker = connect(&redis).await;
    for n in 0..33 {
        broker.heartbeat(&worker(&format!("w{n}")), None, COUNTED_FOR).await.expect("count");
    }
    let home = home(&broker, "leader");
    let seat = async |id: &str, wish| broker.heartbeat_at(home, &worker(id), wish).await.expect("heartbeat").seat;
    assert_eq!(seat("leader", SeatWish::IfNobodyHasOne).await, Some(Seat::Taken), "somebody has to");
    assert_eq!(seat("leader", SeatWish::IfNobodyHasOne).await, Some(Seat::None));
    assert_eq!(seat("other", SeatWish::Keep).await, Some(Seat::None), "it has its seat until that ends");
    clock.set(i64::try_from(HEARTBEAT_TTL.as_secs()).expect("short") + 1);
    assert_eq!(seat("other", SeatWish::Keep).await, Some(Seat::Taken));
    assert_eq!(seat("other", SeatWish::Keep).await, Some(Seat::Taken), "it keeps it");
    assert_eq!(seat("leader", SeatWish::IfNobodyHasOne).await, Some(Seat::None));
}
