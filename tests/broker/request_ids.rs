//! What is remembered of a `request_id`: in little room, and so that programs of the version before find it, too.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wheelhouse::broker::keys::request_name;
use wheelhouse::broker::scripts::submit::{Grant, Submission, SubmitOutcome};
use wheelhouse::broker::{Broker, Subscriber};
use wheelhouse::domain::{Action, CommandId, Control, Resource, When, sha256_hex};

use crate::support::redis::RedisServer;
use crate::{LEASE, LIMITS, accept, connect, job, submission, worker};

/// Those of this version, so that only what the version before has kept is left.
pub(super) async fn forget_short_answers(connection: &mut redis::aio::MultiplexedConnection) {
    let kept: Vec<String> = redis::cmd("KEYS").arg("wh:*:@request_ids:*").query_async(connection).await.expect("keys");
    for key in kept {
        redis::cmd("DEL").arg(key).query_async::<()>(connection).await.expect("take out");
    }
}

/// What a gateway of the version before finds of a request, by its own script.
async fn found_by_the_version_before(redis: &RedisServer, broker: &Broker, asked: &Submission) -> Option<Value> {
    let client = redis::Client::open(redis.url()).expect("client");
    let mut connection = client.get_multiplexed_async_connection().await.expect("connection");
    let request = asked.request.as_ref().expect("it has one");
    let name = request_name(&asked.resource, &asked.user, request.as_str());
    let partition = broker.keys().partition(&asked.resource.tenant);
    let keys = broker.keys().former_requests(partition, &name);
    let mut call = redis::cmd("EVAL");
    call.arg(include_str!("former/requests.lua")).arg(3).arg(&keys).arg(&name);
    let found: Option<String> = call.query_async(&mut connection).await.expect("the script of that version");
    found.map(|text| serde_json::from_str(&text).expect("a record"))
}

fn named(id: &str, request: &str) -> Submission {
    Submission { request: Some(request.parse().expect("id")), ..submission(id, Action::Pause) }
}

#[tokio::test]
async fn the_version_before_finds_what_this_one_has_told_and_the_other_way_round() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    broker.heartbeat(&worker("w1"), None, LEASE).await.expect("heartbeat");
    broker.renew_run(&job("live"), &worker("w1"), 1).await.expect("run");
    let because = Some("the disk is full".to_owned());
    let campaign = Resource::parse("acme:campaign:c1").expect("a campaign");
    let asked = [
        (named("row", "r1"), "pause.-".to_owned()),
        (named("live", "r1"), "pause.-".to_owned()),
        (
            Submission { reason: because.clone(), ..named("row", "r2") },
            format!("pause.{}", sha256_hex("the disk is full")),
        ),
        (Submission { resource: campaign, ..named("c1", "r1") }, "pause.-".to_owned()),
        (Submission { when: When::At(1), ..named("row", "r3") }, "pause.-.at1".to_owned()),
    ];
    let mut told = Vec::new();
    for (one, body) in &asked {
        let SubmitOutcome::Accepted { workers_online, control } = broker.submit(one, LIMITS).await.expect("submit")
        else {
            panic!("{one:?}")
        };
        let found = found_by_the_version_before(&redis, &broker, one).await.expect("found");
        let expected = serde_json::json!({
            "v": 1, "body": body, "outcome": "accepted", "command_id": one.command.to_string(),
            "workers_online": workers_online, "control": control, "ends": found["ends"],
        });
        let found_control = found.get("control").cloned().unwrap_or_default();
        for (name, value) in expected.as_object().expect("an object") {
            let is = if name == "control" { &found_control } else { &found[name] };
            assert_eq!(is, value, "{name} of {found}");
        }
        let result = None;
        told.push(SubmitOutcome::Repeated { command: one.command, workers_online, control, result });
    }
    assert!(told.iter().any(|one| matches!(one, SubmitOutcome::Repeated { control: Some(Control::Live), .. })));
    let denied = Submission { grant: Grant::Token(false), ..named("row", "r4") };
    assert_eq!(broker.submit(&denied, LIMITS).await.expect("submit"), SubmitOutcome::Denied);
    let found = found_by_the_version_before(&redis, &broker, &denied).await.expect("found");
    assert_eq!((found["outcome"].as_str(), found["body"].as_str()), (Some("denied"), Some("pause.-")));
    assert!(found.get("command_id").is_none());

    // First by what this version keeps, then by what the version before has kept alone.
    let mut connection =
        redis::Client::open(redis.url()).expect("client").get_multiplexed_async_connection().await.expect("connection");
    for _ in 0..2 {
        for ((one, _), told) in asked.iter().zip(&told) {
            let again = Submission { command: CommandId::generate(), ..one.clone() };
            assert_eq!(broker.submit(&again, LIMITS).await.expect("submit"), *told);
            for other in [
                Submission { reason: Some("another one".to_owned()), ..again.clone() },
                Submission { action: Action::Resume, ..again.clone() },
                Submission { when: When::At(2), ..again.clone() },
            ] {
                assert_eq!(broker.submit(&other, LIMITS).await.expect("submit"), SubmitOutcome::Conflict, "{other:?}");
            }
        }
        let again = Submission { command: CommandId::generate(), grant: Grant::Token(true), ..denied.clone() };
        assert_eq!(broker.submit(&again, LIMITS).await.expect("submit"), SubmitOutcome::Denied);
        forget_short_answers(&mut connection).await;
    }
}

/// Whether a request that is sent now can be found by the version before.
async fn is_told_to_the_version_before(redis: &RedisServer, broker: &Broker) -> bool {
    let id = CommandId::generate().to_string();
    let asked = Submission { user: id.parse().expect("a user"), ..named(&id, &id) };
    accept(broker, &asked).await;
    found_by_the_version_before(redis, broker, &asked).await.is_some()
}

#[tokio::test]
async fn what_is_kept_of_requests_is_small_and_kept_twice_only_while_programs_of_the_version_before_run() {
    let redis = RedisServer::start();
    let (broker, other) = (connect(&redis).await, connect(&redis).await);
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let mut subscribers = Vec::new();
    for of in [&broker, &other] {
        let (subscriber, events) = Subscriber::start(of, &tracker, stop.clone()).await.expect("start");
        subscriber.probe_by_pattern().await.expect("hear the others");
        subscribers.push((subscriber, events));
    }
    assert!(is_told_to_the_version_before(&redis, &broker).await, "nobody can know yet whether there is any");
    let begun = Instant::now();
    while is_told_to_the_version_before(&redis, &broker).await {
        assert!(begun.elapsed() < Duration::from_secs(60), "it never learns that there is none");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut connection = redis::Client::open(redis.url()).expect("client").get_connection().expect("connection");
    let kept: Vec<String> = redis::cmd("KEYS").arg("wh:*:@request_ids:*").query(&mut connection).expect("keys");
    for key in &kept {
        let encoding: String = redis::cmd("OBJECT").arg("ENCODING").arg(key).query(&mut connection).expect("encoding");
        assert_eq!(encoding, "listpack", "moved as one piece");
    }
    // As a gateway of that version does each second.
    let name = "@probe:job:0193700000007000800000000000000a";
    let heard: i64 = redis::cmd("PUBLISH").arg(name).arg("").query(&mut connection).expect("publish");
    assert_eq!(heard, 2);
    let begun = Instant::now();
    while !is_told_to_the_version_before(&redis, &broker).await {
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not hear that there is one");
    }
    stop.cancel();
    tracker.close();
    tracker.wait().await;
}

#[tokio::test]
async fn the_answer_to_a_request_has_room_in_a_small_hash_also_in_a_large_fleet() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let partition = broker.keys().partition(&job("j1").tenant);
    let mut connection = redis::Client::open(redis.url()).expect("client").get_connection().expect("connection");
    for n in 0..1_000 {
        let mut beat = redis::cmd("ZADD");
        let until = jiff::Timestamp::now().as_millisecond() + 30_000;
        beat.arg(broker.keys().workers(partition)).arg(until).arg(format!("w{n}"));
        beat.exec(&mut connection).expect("ZADD");
    }
    let asked = Submission { reason: Some("r".repeat(500)), ..named("j1", "r1") };
    let outcome = broker.submit(&asked, LIMITS).await.expect("submit");
    assert!(matches!(outcome, SubmitOutcome::Accepted { workers_online: 1_000, .. }), "{outcome:?}");
    let kept: Vec<String> = redis::cmd("KEYS").arg("wh:*:@request_ids:*").query(&mut connection).expect("keys");
    let encoding: String = redis::cmd("OBJECT").arg("ENCODING").arg(&kept[0]).query(&mut connection).expect("encoding");
    assert_eq!((kept.len(), encoding.as_str()), (1, "listpack"));
    let again = Submission { command: CommandId::generate(), ..asked };
    let outcome = broker.submit(&again, LIMITS).await.expect("submit");
    assert!(matches!(outcome, SubmitOutcome::Repeated { workers_online: 1_000, .. }), "{outcome:?}");
}
