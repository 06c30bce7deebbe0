//! One action on many resources: each once, paid for as a whole, refused as a whole.

use std::time::Duration;

use crate::support::redis::RedisServer;
use crate::{LIMITS, ROW, accept, batch, claim, connect, job, submission, succeeded, success, worker};
use wheelhouse::broker::scripts::batch::{Batch, BatchSubmitted, ItemSubmitted, StoredBatch};
use wheelhouse::broker::scripts::claim::ClaimOutcome;
use wheelhouse::broker::scripts::permissions::PermissionSet;
use wheelhouse::broker::scripts::submit::{Grant, SubmitLimits, SubmitOutcome};
use wheelhouse::broker::{Broker, Event, Subscriber};
use wheelhouse::domain::{Action, CommandId, Control, IdDerivation};

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("j{n}")).collect()
}

fn many(count: usize, action: Action, request: Option<&str>) -> Batch {
    let names = names(count);
    batch(&names.iter().map(String::as_str).collect::<Vec<_>>(), action, request)
}

async fn done(broker: &Broker, batch: &Batch) -> Vec<ItemSubmitted> {
    match broker.submit_batch(batch, LIMITS).await.expect("submit") {
        BatchSubmitted::Done { items, .. } => items,
        other => panic!("{other:?}"),
    }
}

fn budget_used(redis: &RedisServer, broker: &Broker, batch: &Batch) -> String {
    redis.inline(&format!("LLEN {}", broker.keys().rate(&batch.tenant, &batch.user)))
}

/// Commands without a result.
fn waiting(redis: &RedisServer, broker: &Broker, batch: &Batch) -> String {
    redis.inline(&format!("INCRBY {} 0", broker.keys().backlog(&batch.tenant)))
}

#[tokio::test]
async fn a_batch_is_a_command_for_each_resource_and_costs_one_of_the_budget_for_each_hundred() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let asked = many(250, Action::Pause, None);
    assert_eq!(done(&broker, &asked).await, vec![ItemSubmitted::Accepted { control: Some(Control::Row) }; 250]);
    assert_eq!(budget_used(&redis, &broker, &asked), ":3");
    for id in &asked.ids {
        let held = claim(&broker, id.as_str(), "w1").await;
        assert_eq!((held.command, held.action), (asked.command(id), Action::Pause));
    }
    assert_eq!(waiting(&redis, &broker, &asked), ":250");
}

#[tokio::test]
async fn a_batch_asked_for_again_does_nothing_twice_and_tells_what_became_of_it() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let asked = many(120, Action::Pause, Some("b1"));
    done(&broker, &asked).await;
    let held = claim(&broker, "j7", "w1").await;
    let message = success(&held, "paused");
    broker.complete(&held, &worker("w1"), &succeeded("paused"), ROW, None).await.expect("complete");
    let again = done(&broker, &asked).await;
    for (n, item) in again.iter().enumerate() {
        let ItemSubmitted::Repeated { result, .. } = item else { panic!("{item:?}") };
        assert_eq!(result.as_ref().map(|result| &result.message), (n == 7).then_some(&message));
    }
    // Another gateway, which does not know the id of the first time.
    let other = Batch { id: CommandId::generate(), ..asked.clone() };
    let known = broker.submit_batch(&other, LIMITS).await.expect("submit");
    assert_eq!(known, BatchSubmitted::KnownAs(asked.id));
    let known = broker.known_batch(&asked.tenant, &asked.user, asked.request.as_ref().expect("given")).await;
    assert_eq!(
        known.expect("read"),
        Some(StoredBatch { id: asked.id, derivation: IdDerivation::Uuid5, ids: asked.ids.clone(), more: false })
    );
    let different = Batch { body: "something else".to_owned(), ..asked.clone() };
    assert_eq!(broker.submit_batch(&different, LIMITS).await.expect("submit"), BatchSubmitted::Conflict);
    assert_eq!(budget_used(&redis, &broker, &asked), ":2");
}

#[tokio::test]
async fn a_batch_over_the_budget_is_refused_as_a_whole() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    for n in 0..28 {
        accept(&broker, &submission(&format!("j{n}"), Action::Resume)).await;
    }
    let asked = many(201, Action::Pause, None);
    let refused = broker.submit_batch(&asked, LIMITS).await.expect("submit");
    assert!(matches!(refused, BatchSubmitted::RateLimited { retry_after: 1..=60 }), "{refused:?}");
    assert_eq!(budget_used(&redis, &broker, &asked), ":28");
    assert_eq!(waiting(&redis, &broker, &asked), ":28");
    done(&broker, &many(200, Action::Pause, None)).await;
    assert_eq!(budget_used(&redis, &broker, &asked), ":30");
    let single = broker.submit(&submission("j1", Action::Pause), LIMITS).await.expect("submit");
    assert!(matches!(single, SubmitOutcome::RateLimited { .. }), "{single:?}");
}

#[tokio::test]
async fn a_batch_is_permitted_or_denied_as_a_whole_and_a_denied_one_uses_budget() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let mut asked = many(101, Action::Pause, None);
    asked.grant = Grant::Database;
    assert_eq!(broker.submit_batch(&asked, LIMITS).await.expect("submit"), BatchSubmitted::PermissionsUnknown);
    let none = PermissionSet { version: 1, held: vec!["campaigns.*".to_owned()] };
    broker.fill_permissions(&asked.tenant, &asked.user, &none, Duration::from_secs(60)).await.expect("fill");
    for _ in 0..2 {
        assert_eq!(broker.submit_batch(&asked, LIMITS).await.expect("submit"), BatchSubmitted::Denied);
    }
    assert_eq!(budget_used(&redis, &broker, &asked), ":2");
    assert!(matches!(broker.claim(&job("j1"), &worker("w1"), crate::LEASE).await, Ok(ClaimOutcome::Nothing)));
    let partition = broker.keys().partition(&asked.tenant);
    let entries = broker.audit_after(partition, "0", 10).await.expect("audit");
    assert_eq!(entries.iter().map(|e| e.event.as_str()).collect::<Vec<_>>(), ["denied"]);
}

#[tokio::test]
async fn what_finds_no_room_in_the_backlog_says_so_and_the_rest_is_accepted() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let limits = SubmitLimits { backlog_per_tenant: 5, ..LIMITS };
    let submitted = broker.submit_batch(&many(8, Action::Pause, None), limits).await.expect("submit");
    let BatchSubmitted::Done { items, .. } = submitted else { panic!("{submitted:?}") };
    let accepted = items.iter().filter(|item| matches!(item, ItemSubmitted::Accepted { .. })).count();
    assert_eq!((accepted, items.iter().filter(|item| **item == ItemSubmitted::QueueFull).count()), (5, 3));
}

#[tokio::test]
async fn a_cancel_in_a_batch_outranks_what_waits_and_wakes_the_workers() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let pause = submission("j1", Action::Pause);
    accept(&broker, &pause).await;
    let (tracker, stop) = (tokio_util::task::TaskTracker::new(), tokio_util::sync::CancellationToken::new());
    let (subscriber, mut events) = Subscriber::start(&broker, &tracker, stop.clone()).await.expect("start");
    subscriber.psubscribe(vec!["*:job:control".into()]).await.expect("subscribe");
    done(&broker, &many(3, Action::Cancel, None)).await;
    for _ in 0..3 {
        let Some(Event::Message { channel, .. }) = events.recv().await else { panic!("no wake-up") };
        assert_eq!(channel, "acme:job:control");
    }
    let ended = broker.result_of(&job("j1"), pause.command).await.expect("result").expect("it has ended");
    assert!(ended.contains("Superseded by cancel"), "{ended}");
    stop.cancel();
}
