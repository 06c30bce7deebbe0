//! What a version before has written goes on to count after an upgrade.

use serde_json::Value;

use super::request_ids::forget_short_answers;
use crate::support::former;
use crate::support::redis::RedisServer;
use crate::{LEASE, LIMITS, ROW, accept, batch, connect, job, submission, succeeded, worker};
use std::time::Duration;
use wheelhouse::broker::Broker;
use wheelhouse::broker::scripts::batch::{Batch, BatchSubmitted, ItemSubmitted};
use wheelhouse::broker::scripts::claim::ClaimOutcome;
use wheelhouse::broker::scripts::submit::{Grant, Submission, SubmitOutcome};
use wheelhouse::domain::{Action, CommandId, IdDerivation, Resource, When, fnv1a};
use wheelhouse::protocol::server;

/// Writes what is remembered under a request id as an older program did: between bars, with the digest that it had.
async fn store_former(redis: &RedisServer, key: &str, former_digest: &str) {
    let client = redis::Client::open(redis.url()).expect("client");
    let mut connection = client.get_multiplexed_async_connection().await.expect("connection");
    let stored: Option<String> = redis::cmd("GET").arg(key).query_async(&mut connection).await.expect("read");
    let stored = match stored {
        Some(stored) => stored,
        None => take_request(&mut connection).await,
    };
    let stored: Value = serde_json::from_str(&stored).expect("a record");
    assert_ne!(stored["body"], former_digest, "today's digest has another form");
    let value = match stored["ids"].as_array() {
        Some(ids) => {
            let ids: Vec<&str> = ids.iter().map(|id| id.as_str().expect("id")).collect();
            format!("{former_digest}|accepted|{}|{}|all", stored["batch_id"].as_str().expect("id"), ids.join(","))
        }
        None => {
            let workers = stored["workers_online"].as_i64().expect("a number");
            format!("{former_digest}|accepted_row|{}|{workers}", stored["command_id"].as_str().expect("id"))
        }
    };
    redis::cmd("SET")
        .arg(key)
        .arg(value)
        .arg("EX")
        .arg(86_400)
        .query_async::<()>(&mut connection)
        .await
        .expect("write");
}

/// The one answer among the requests of today, which is taken out of there: as the version before keeps it.
async fn take_request(connection: &mut redis::aio::MultiplexedConnection) -> String {
    let hashes: Vec<String> = redis::cmd("KEYS").arg("wh:*:@requests:*").query_async(connection).await.expect("keys");
    let [hash] = hashes.as_slice() else { panic!("{hashes:?}") };
    let all: Vec<(String, String)> = redis::cmd("HGETALL").arg(hash).query_async(connection).await.expect("read");
    redis::cmd("DEL").arg(hash).query_async::<()>(connection).await.expect("take out");
    forget_short_answers(connection).await;
    let [(_, stored)] = all.as_slice() else { panic!("{all:?}") };
    stored.clone()
}

#[tokio::test]
async fn a_request_that_a_version_before_took_in_is_repeated_and_no_conflict() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let mut first = submission("j1", Action::Pause);
    first.request = Some("r1".parse().expect("id"));
    first.reason = Some("the disk is full".to_owned());
    accept(&broker, &first).await;
    let key = broker.keys().request(&first.resource, &first.user, "r1");
    store_former(&redis, &key, &format!("pause.{:016x}", fnv1a("the disk is full"))).await;

    let again = Submission { command: CommandId::generate(), ..first.clone() };
    let repeated = broker.submit(&again, LIMITS).await.expect("submit");
    assert!(matches!(repeated, SubmitOutcome::Repeated { command, .. } if command == first.command), "{repeated:?}");
    let other = Submission { reason: Some("another one".to_owned()), ..again };
    assert_eq!(broker.submit(&other, LIMITS).await.expect("submit"), SubmitOutcome::Conflict);
}

#[tokio::test]
async fn a_batch_that_a_version_before_began_goes_on_under_the_ids_that_it_gave() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let begun = Batch { derivation: IdDerivation::Fnv, ..batch(&["j1", "j2"], Action::Pause, Some("b1")) };
    assert!(items(&broker, &begun).await.iter().all(|item| matches!(item, ItemSubmitted::Accepted { .. })));
    let request = begun.request.clone().expect("given");
    let key = broker.keys().batch(&begun.tenant, &begun.user, request.as_str());
    store_former(&redis, &key, &format!("{:016x}", fnv1a(&begun.body))).await;

    let known = broker.known_batch(&begun.tenant, &begun.user, &request).await.expect("read").expect("known");
    let again = Batch { id: known.id, derivation: known.derivation, ..begun.clone() };
    assert_eq!(again.command(&begun.ids[0]), begun.command(&begun.ids[0]));
    assert!(items(&broker, &again).await.iter().all(|item| matches!(item, ItemSubmitted::Repeated { .. })));
    let other = Batch { body: "something else".to_owned(), ..again };
    assert_eq!(broker.submit_batch(&other, LIMITS).await.expect("submit"), BatchSubmitted::Conflict);
}

async fn items(broker: &Broker, batch: &Batch) -> Vec<ItemSubmitted> {
    match broker.submit_batch(batch, LIMITS).await.expect("submit") {
        BatchSubmitted::Done { items, .. } => items,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_command_that_a_version_before_derived_is_not_submitted_under_a_second_id() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let (first, job) = (CommandId::generate(), job("j1"));
    assert_eq!(broker.derived_command(first, &job).await.expect("read"), first.derive_for(&job));
    let former = first.derive_as(IdDerivation::Fnv, &job);
    accept(&broker, &Submission { command: former, ..submission("j1", Action::Cancel) }).await;
    assert_eq!(broker.derived_command(first, &job).await.expect("read"), former);
}

fn resource(id: &str) -> Resource {
    Resource::parse(&format!("acme:{id}")).expect("resource")
}

/// As the client of version 0.1 asked, once more.
fn again(id: &str, action: Action, request: &str, reason: Option<&str>) -> Submission {
    let request = Some(request.parse().expect("id"));
    Submission { resource: resource(id), request, reason: reason.map(str::to_owned), ..submission("any", action) }
}

#[tokio::test]
async fn a_request_that_version_0_1_answered_gets_the_same_answer() {
    let redis = RedisServer::start();
    former::load(&redis.url()).await;
    let broker = connect(&redis).await;
    let ended: Vec<former::FormerResult> = former::results();
    assert_eq!(ended.len(), 7);
    for result in &ended {
        let resource = Resource::parse(&result.resource).expect("resource");
        let command = result.command.parse().expect("id");
        let read = broker.command_result(&resource, command).await.expect("read").expect("a result");
        assert_eq!(read.message, result.message);
        assert_eq!(read.has_succeeded(), result.message.contains("_succeeded\""));
        assert!(broker.recent_results(&resource, 10).await.expect("read").contains(&read));
    }
    let waiting = [
        again("job:queued", Action::Pause, "r-queued", Some("the disk is full")),
        again("campaign:queued", Action::Pause, "r-campaign", None),
        again("job:leased", Action::Pause, "r-leased", None),
        again("job:retried", Action::Resume, "r-retried", None),
        again("job:superseded", Action::Cancel, "r-cancel", None),
    ];
    let over = [
        again("job:ended", Action::Pause, "r-ended", None),
        again("campaign:ended", Action::Cancel, "r-campaign-ended", None),
        again("job:ended", Action::Cancel, "r-refused", None),
        again("job:dead", Action::Pause, "r-dead", Some("by \"ops\" | on call")),
        again("job:expired", Action::Pause, "r-expired", None),
        again("job:superseded", Action::Pause, "r-superseded", None),
    ];
    for asked in waiting.iter().chain(&over) {
        let outcome = broker.submit(asked, LIMITS).await.expect("submit");
        let SubmitOutcome::Repeated { command, workers_online, control, result } = &outcome else {
            panic!("{asked:?}: {outcome:?}")
        };
        assert_ne!(*command, asked.command);
        assert_eq!((*workers_online, *control), (1, ROW.filter(|_| asked.resource.kind == job("j").kind)));
        let expected = ended.iter().find(|result| result.command == command.to_string());
        assert_eq!(result.as_ref().map(|r| &r.message), expected.map(|r| &r.message), "{asked:?}");
        assert_eq!(expected.is_some(), over.iter().any(|other| std::ptr::eq(other, asked)));
        let other = Submission { reason: Some("for another reason".to_owned()), ..asked.clone() };
        assert_eq!(broker.submit(&other, LIMITS).await.expect("submit"), SubmitOutcome::Conflict);
    }
    let later =
        Submission { when: When::After(3600), ..again("job:later", Action::Cancel, "r-later", Some("at night")) };
    let outcome = broker.submit(&later, LIMITS).await.expect("submit");
    let SubmitOutcome::Scheduled { command, run_at, result: None } = outcome else { panic!("{outcome:?}") };
    let scheduled = broker.scheduled(&later.resource.tenant, command).await.expect("read").expect("it waits");
    assert_eq!((scheduled.run_at, scheduled.reason.as_deref()), (run_at, Some("at night")));
    let denied = again("job:denied", Action::Cancel, "r-denied", None);
    assert_eq!(broker.submit(&denied, LIMITS).await.expect("submit"), SubmitOutcome::Denied);

    let batch = batch(&["b1", "b2"], Action::Pause, Some("r-batch"));
    let request = batch.request.clone().expect("given");
    let known = broker.known_batch(&batch.tenant, &batch.user, &request).await.expect("read").expect("known");
    let repeated = items(&broker, &Batch { id: known.id, derivation: known.derivation, ..batch }).await;
    let results: Vec<Option<&str>> = repeated
        .iter()
        .map(|item| match item {
            ItemSubmitted::Repeated { result, .. } => result.as_ref().map(|result| result.message.as_str()),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = ended.iter().find(|result| result.resource == "acme:job:b1").expect("it has ended");
    assert_eq!(results, [Some(expected.message.as_str()), None]);
}

#[tokio::test]
async fn commands_of_version_0_1_are_carried_out_by_a_worker_of_this_one() {
    let redis = RedisServer::start();
    former::load(&redis.url()).await;
    let broker = connect(&redis).await;
    let tenant = job("j").tenant;
    let partition = broker.keys().partition(&tenant);
    let due = broker.due_schedules(partition, 10).await.expect("due").due;
    assert_eq!(due.len(), 1, "{due:?}");
    let scheduled = broker.scheduled(&tenant, due[0].1).await.expect("read").expect("it waits");
    let outcome = broker.submit(&scheduled.submission(Grant::Token(true)), LIMITS).await.expect("submit");
    assert!(matches!(outcome, SubmitOutcome::Accepted { .. }), "{outcome:?}");

    let entries = broker.audit_after(partition, "0", 1_000).await.expect("audit");
    assert_eq!(entries.len(), former::audit_entries() + 1);
    let mut carried_out = Vec::new();
    for resource in broker.ready_resources(&tenant, 100, Duration::ZERO).await.expect("ready") {
        let claimed = broker.claim(&resource, &worker("w1"), LEASE).await.expect("claim");
        let ClaimOutcome::Command(held) = claimed else { panic!("{resource}: {claimed:?}") };
        let control = ROW.filter(|_| resource.kind == job("j").kind);
        broker.complete(&held, &worker("w1"), &succeeded("x"), control, None).await.expect("complete");
        let result = broker.result_of(&resource, held.command).await.expect("read").expect("a result");
        let request = held.request_id.as_deref();
        assert_eq!(result, server::succeeded(held.action, &resource, held.command, "x", control, request));
        let entries = broker.audit_after(partition, "0", 1_000).await.expect("audit");
        let last = entries.last().expect("an entry");
        assert_eq!((last.outcome.as_deref(), last.worker_id.as_deref()), (Some("x"), Some("w1")));
        assert_eq!((&last.reason, &last.request_id), (&held.reason, &held.request_id));
        carried_out.push((resource.to_string(), held.action, held.attempt));
    }
    carried_out.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [
        ("acme:campaign:queued", Action::Pause, 1),
        ("acme:job:b2", Action::Pause, 1),
        ("acme:job:leased", Action::Pause, 2),
        ("acme:job:queued", Action::Pause, 1),
        ("acme:job:retried", Action::Resume, 3),
        ("acme:job:soon", Action::Cancel, 1),
        ("acme:job:superseded", Action::Cancel, 1),
    ];
    assert_eq!(carried_out, expected.map(|(resource, action, attempt)| (resource.to_owned(), action, attempt)));
    assert_eq!(redis.inline(&format!("EXISTS {}", broker.keys().backlog(&tenant))), ":0", "all have their results");
}

#[tokio::test]
async fn what_failed_under_version_0_1_and_what_it_did_not_take_up_in_time_is_told_in_its_words() {
    let redis = RedisServer::start();
    former::load(&redis.url()).await;
    let broker = connect(&redis).await;
    let tenant = job("j").tenant;
    let failed = broker.failed(&tenant, 0, 10).await.expect("read");
    let mut told: Vec<_> =
        failed.iter().map(|one| (one.resource.to_string(), one.event.as_str(), one.error.as_str())).collect();
    told.sort();
    let expected = [
        ("acme:job:dead", "failed", "4711 (tar) belongs to \"root\" | may not be signalled\nby this worker"),
        ("acme:job:ended", "failed", "Job not found or already completed"),
        ("acme:job:expired", "expired", "Command expired before a worker could run it"),
    ];
    assert_eq!(told, expected.map(|(resource, event, error)| (resource.to_owned(), event, error)));
    let dead = failed.iter().find(|one| one.resource == resource("job:dead")).expect("kept");
    assert_eq!(dead.reason.as_deref(), Some("by \"ops\" | on call"));

    let queued = resource("job:queued");
    let ended = broker.expire(&queued, Duration::from_millis(1)).await.expect("expire");
    assert_eq!(ended.len(), 1);
    let expected = server::failed(
        Action::Pause,
        &queued,
        ended[0],
        "Command expired before a worker could run it",
        ROW,
        Some("r-queued"),
    );
    assert_eq!(broker.result_of(&queued, ended[0]).await.expect("read"), Some(expected));
    // A cancel that comes now outranks what version 0.1 took in.
    let waiting = resource("job:b2");
    accept(&broker, &Submission { resource: waiting.clone(), ..submission("b2", Action::Cancel) }).await;
    let recent = broker.recent_results(&waiting, 10).await.expect("read");
    let words = r#""error":"Superseded by cancel","control":"row","request_id":"r-batch"}"#;
    assert!(recent.len() == 1 && recent[0].message.ends_with(words), "{recent:?}");
}
