//! Refusals in the audit trail: some have an entry each, the others are counted, and none is lost or counted twice.

use futures_util::StreamExt;

use crate::support::clock::Clock;
use crate::support::redis::RedisServer;
use crate::{LIMITS, batch, connect, job, submission};
use wheelhouse::broker::Broker;
use wheelhouse::broker::scripts::audit::AuditEntry;
use wheelhouse::broker::scripts::batch::BatchSubmitted;
use wheelhouse::broker::scripts::submit::{Grant, SubmitLimits, SubmitOutcome};
use wheelhouse::domain::Action;

/// Entries of a kind that a user has for himself in one minute.
const SINGLE: usize = 30;

async fn on_a_clock() -> (Clock, RedisServer, Broker) {
    let clock = Clock::new();
    let redis = RedisServer::start_on(&clock);
    let broker = connect(&redis).await;
    (clock, redis, broker)
}

async fn entries(broker: &Broker) -> Vec<AuditEntry> {
    let partition = broker.keys().partition(&job("j1").tenant);
    broker.audit_after(partition, "0", 100_000).await.expect("entries")
}

async fn of(broker: &Broker, event: &str) -> Vec<AuditEntry> {
    entries(broker).await.into_iter().filter(|entry| entry.event == event).collect()
}

/// How many refusals entries tell of.
fn told(entries: &[AuditEntry]) -> i64 {
    entries.iter().map(|entry| entry.refusals.unwrap_or(1)).sum()
}

/// As every gateway does, all of them at the same time.
async fn write(broker: &Broker) {
    let partition = broker.keys().partition(&job("j1").tenant);
    let writing = (0..4).map(|_| broker.write_refusals(partition));
    for written in futures_util::future::join_all(writing).await {
        written.expect("written");
    }
}

async fn ask(broker: &Broker, user: &str, times: usize) -> Vec<SubmitOutcome> {
    let asked = (0..times).map(async |_| {
        let submission = crate::Submission { user: user.parse().expect("user"), ..submission("j1", Action::Pause) };
        broker.submit(&submission, LIMITS).await.expect("submit")
    });
    futures_util::stream::iter(asked).buffered(8).collect().await
}

#[tokio::test]
async fn a_flood_of_refused_commands_leaves_few_entries_and_they_tell_of_all() {
    let (clock, _redis, broker) = on_a_clock().await;
    let outcomes = ask(&broker, "ann@example.com", 130).await;
    let accepted = outcomes.iter().filter(|outcome| matches!(outcome, SubmitOutcome::Accepted { .. })).count();
    assert_eq!(accepted, 30);
    let limited = of(&broker, "rate_limited").await;
    assert_eq!((limited.len(), told(&limited)), (SINGLE, SINGLE as i64));
    write(&broker).await;
    assert_eq!(of(&broker, "rate_limited").await.len(), SINGLE, "nothing is due yet");
    // Another user's are another's, and what is accepted has an entry each.
    ask(&broker, "bob", 31).await;
    clock.set(11);
    write(&broker).await;
    let limited = of(&broker, "rate_limited").await;
    let ann: Vec<_> = limited.iter().filter(|entry| entry.user_id == "ann@example.com").cloned().collect();
    assert_eq!((ann.len(), told(&ann)), (SINGLE + 1, 100));
    let counted = ann.last().expect("an entry");
    let (first, last) = (counted.first_at.expect("first"), counted.last_at.expect("last"));
    assert!(ann[0].at <= first && first <= last && last <= counted.at, "{counted:?}");
    assert_eq!((counted.action.as_str(), counted.resource_id.as_str(), &counted.command_id), ("pause", "j1", &None));
    assert_eq!(told(&limited), 101);
    assert_eq!(of(&broker, "accepted").await.len(), 60);

    // The minute goes on, and ends while some have no entry yet; the next refusal begins another.
    ask(&broker, "ann@example.com", 7).await;
    clock.set(40);
    ask(&broker, "ann@example.com", 5).await;
    clock.set(75);
    let outcomes = ask(&broker, "ann@example.com", 40).await;
    assert_eq!(outcomes.iter().filter(|outcome| matches!(outcome, SubmitOutcome::RateLimited { .. })).count(), 10);
    let limited = of(&broker, "rate_limited").await;
    assert_eq!(told(&limited), 101 + 12 + 10);
    assert_eq!(limited.len(), SINGLE + 1 + 1 + 1 + 10, "bob's one, ann's counted twice, and the new minute's");
    // Nothing is kept of users who ask no more.
    clock.set(200);
    write(&broker).await;
    assert_eq!(told(&of(&broker, "rate_limited").await), 101 + 12 + 10);
    let (names, partition) = (broker.keys(), broker.keys().partition(&job("j1").tenant));
    for key in [names.refusals(partition), names.refusals_due(partition)] {
        assert_eq!(_redis.inline(&format!("EXISTS {key}")), ":0", "{key}");
    }
}

#[tokio::test]
async fn each_reason_is_counted_for_itself_and_batches_with_the_commands() {
    let (clock, _redis, broker) = on_a_clock().await;
    let limits = SubmitLimits { commands_per_minute: 100, ..LIMITS };
    for _ in 0..50 {
        let denied = crate::Submission { grant: Grant::Token(false), ..submission("j1", Action::Pause) };
        assert_eq!(broker.submit(&denied, limits).await.expect("submit"), SubmitOutcome::Denied);
    }
    for _ in 0..50 {
        let mut denied = batch(&["j1", "j2"], Action::Cancel, None);
        denied.grant = Grant::Token(false);
        assert_eq!(broker.submit_batch(&denied, limits).await.expect("submit"), BatchSubmitted::Denied);
    }
    for _ in 0..40 {
        let limited = broker.submit_batch(&batch(&["j1"], Action::Cancel, None), limits).await.expect("submit");
        assert!(matches!(limited, BatchSubmitted::RateLimited { .. }), "{limited:?}");
    }
    clock.set(11);
    write(&broker).await;
    for (event, all) in [("denied", 100), ("rate_limited", 40)] {
        let entries = of(&broker, event).await;
        assert_eq!((entries.len(), told(&entries)), (SINGLE + 1, all), "{event}");
    }
}

#[tokio::test]
async fn a_clock_that_goes_back_loses_no_refusal_and_counts_none_twice() {
    let (clock, _redis, broker) = on_a_clock().await;
    clock.set(86_400);
    ask(&broker, "ann@example.com", 80).await;
    clock.set(0);
    write(&broker).await;
    assert_eq!(told(&of(&broker, "rate_limited").await), 50);
    ask(&broker, "ann@example.com", 35).await;
    clock.set(11);
    write(&broker).await;
    let limited = of(&broker, "rate_limited").await;
    assert_eq!(told(&limited), 85);
    assert_eq!(limited.len(), SINGLE + 1 + SINGLE + 1);
}
