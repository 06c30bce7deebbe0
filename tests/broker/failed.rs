//! What failed for good, or was never taken up: answered, and kept for whoever wants to look.

use std::time::{Duration, Instant};

use crate::support::redis::RedisServer;
use crate::{ROW, accept, claim, connect, job, refused, submission, succeeded, worker};
use wheelhouse::broker::Broker;
use wheelhouse::broker::scripts::claim::ClaimOutcome;
use wheelhouse::domain::{Action, CommandId};

/// Until the commands of a resource have expired that were accepted a moment ago.
async fn expire(broker: &Broker, id: &str) -> Vec<CommandId> {
    let begun = Instant::now();
    loop {
        let ended = broker.expire(&job(id), Duration::from_millis(1)).await.expect("expire");
        if !ended.is_empty() {
            return ended;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "nothing expired");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_command_that_nobody_takes_up_ends_with_a_result_and_makes_room() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let asked = submission("j1", Action::Cancel);
    accept(&broker, &asked).await;
    assert_eq!(broker.expire(&job("j1"), Duration::from_secs(600)).await.expect("expire"), []);
    assert_eq!(expire(&broker, "j1").await, [asked.command]);
    let result = broker.result_of(&job("j1"), asked.command).await.expect("result").expect("it has ended");
    assert!(result.contains("\"cancel_failed\"") && result.contains("Command expired before a worker could run it"));
    assert!(matches!(broker.claim(&job("j1"), &worker("w1"), crate::LEASE).await, Ok(ClaimOutcome::Nothing)));
    assert_eq!(redis.inline(&format!("EXISTS {}", broker.keys().backlog(&job("j1").tenant))), ":0");
    let failed = broker.failed(&job("j1").tenant, 0, 10).await.expect("failed");
    let found: Vec<_> = failed.iter().map(|one| (one.command, one.event.as_str(), one.action)).collect();
    assert_eq!(found, [(asked.command, "expired", Action::Cancel)]);
}

#[tokio::test]
async fn a_command_that_was_ever_taken_up_is_left_to_the_workers() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    accept(&broker, &submission("j1", Action::Pause)).await;
    let held = claim(&broker, "j1", "w1").await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(broker.expire(&job("j1"), Duration::from_millis(1)).await.expect("expire"), []);
    assert!(broker.retry_later(&held, Duration::ZERO).await.expect("retry"));
    assert_eq!(broker.expire(&job("j1"), Duration::from_millis(1)).await.expect("expire"), []);
}

#[tokio::test]
async fn what_cannot_expire_yet_does_not_stand_before_what_can() {
    // A machine that is held up for longer than the younger command is younger shows nothing: then once more, with more
    // time between them.
    for between in [300, 3_000, 30_000].map(Duration::from_millis) {
        if what_can_expire_comes_first(between).await {
            return;
        }
    }
    panic!("this machine is too slow");
}

/// Whether it was done before the younger command was as old as the older one must be.
async fn what_can_expire_comes_first(between: Duration) -> bool {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let tenant = job("j1").tenant;
    let old = between * 2 / 3;
    let longest = async || broker.ready_resources(&tenant, 1, old).await.expect("due");
    // Taken up once, put back, and then there was no worker any more.
    accept(&broker, &submission("taken", Action::Pause)).await;
    let held = claim(&broker, "taken", "w1").await;
    assert!(broker.retry_later(&held, Duration::ZERO).await.expect("retry"));
    tokio::time::sleep(Duration::from_millis(20)).await;
    // An older command of this resource has ended, a younger one has not waited for so long.
    let older = submission("young", Action::Pause);
    accept(&broker, &older).await;
    tokio::time::sleep(between).await;
    let begun = Instant::now();
    accept(&broker, &submission("young", Action::Resume)).await;
    accept(&broker, &submission("last", Action::Pause)).await;

    let first = longest().await;
    let of_first = broker.expire(&job("taken"), old).await.expect("expire");
    let second = longest().await;
    let of_second = broker.expire(&job("young"), old).await.expect("expire");
    if begun.elapsed() >= old {
        return false;
    }
    assert_eq!((first, of_first), (vec![job("taken")], vec![]));
    assert_eq!((second, of_second), (vec![job("young")], vec![older.command]));
    let waiting = async || broker.ready_resources(&tenant, 10, Duration::ZERO).await.expect("due");
    assert_eq!(waiting().await.last(), Some(&job("taken")), "it waits, behind the others");
    assert_eq!(waiting().await.len(), 3);

    // A lease keeps its time.
    let held = claim(&broker, "taken", "w2").await;
    let leased = redis.inline(&format!("ZSCORE {} acme:job:taken", broker.keys().ready(&tenant)));
    assert_eq!(broker.expire(&held.resource, Duration::from_millis(1)).await.expect("expire"), []);
    assert_eq!(redis.inline(&format!("ZSCORE {} acme:job:taken", broker.keys().ready(&tenant))), leased);
    true
}

#[tokio::test]
async fn failures_are_kept_newest_first_and_successes_and_the_outranked_are_not() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let mut failed = Vec::new();
    for n in 0..3 {
        let id = format!("j{n}");
        accept(&broker, &submission(&id, Action::Pause)).await;
        let held = claim(&broker, &id, "w1").await;
        let outcome = refused("It \"broke\" | once\nmore");
        broker.complete(&held, &worker("w1"), &outcome, ROW, None).await.expect("complete");
        failed.insert(0, held.command);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    accept(&broker, &submission("j9", Action::Pause)).await;
    let held = claim(&broker, "j9", "w1").await;
    broker.complete(&held, &worker("w1"), &succeeded("paused"), ROW, None).await.expect("complete");
    accept(&broker, &submission("j9", Action::Resume)).await;
    accept(&broker, &submission("j9", Action::Cancel)).await;
    let tenant = job("j").tenant;
    let kept = broker.failed(&tenant, 0, 10).await.expect("failed");
    assert_eq!(kept.iter().map(|one| one.command).collect::<Vec<_>>(), failed);
    assert_eq!(kept[0].error, "It \"broke\" | once\nmore");
    assert_eq!(kept[0].resource, job("j2"));
    assert_eq!(broker.failed(&tenant, 1, 1).await.expect("failed")[0].command, failed[1]);
    assert!(broker.drop_failed(&tenant, failed[1]).await.expect("drop"));
    assert!(!broker.drop_failed(&tenant, failed[1]).await.expect("drop"));
    assert_eq!(broker.failed_command(&tenant, failed[1]).await.expect("read"), None);
    assert_eq!(broker.failed(&tenant, 0, 10).await.expect("failed").len(), 2);
}
