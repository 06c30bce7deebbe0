//! What a version before has written goes on to count after an upgrade.

use crate::support::redis::RedisServer;
use crate::{LIMITS, accept, batch, connect, job, submission};
use wheelhouse::broker::Broker;
use wheelhouse::broker::scripts::batch::{Batch, BatchSubmitted, ItemSubmitted};
use wheelhouse::broker::scripts::submit::{Submission, SubmitOutcome};
use wheelhouse::domain::{Action, CommandId, IdDerivation, fnv1a};

/// Puts the digest of the version before in front of what is remembered under a request id.
async fn store_former_digest(redis: &RedisServer, key: &str, former: &str) {
    let client = redis::Client::open(redis.url()).expect("client");
    let mut connection = client.get_multiplexed_async_connection().await.expect("connection");
    let stored: String = redis::cmd("GET").arg(key).query_async(&mut connection).await.expect("read");
    let (digest, rest) = stored.split_once('|').expect("digest and outcome");
    assert_ne!(digest, former, "today's digest has another form");
    let value = format!("{former}|{rest}");
    redis::cmd("SET").arg(key).arg(value).arg("KEEPTTL").query_async::<()>(&mut connection).await.expect("write");
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
    store_former_digest(&redis, &key, &format!("pause.{:016x}", fnv1a("the disk is full"))).await;

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
    store_former_digest(&redis, &key, &format!("{:016x}", fnv1a(&begun.body))).await;

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
