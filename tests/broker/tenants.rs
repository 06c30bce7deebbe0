//! Who waits: each tenant is found, however much another one has waiting.

use std::time::Duration;

use crate::support::redis::RedisServer;
use crate::{LIMITS, ROW, accept, connect, submission, succeeded, worker};
use wheelhouse::broker::Broker;
use wheelhouse::broker::scripts::claim::ClaimOutcome;
use wheelhouse::broker::scripts::submit::{Grant, Submission};
use wheelhouse::domain::{Action, Resource, TenantId};

fn internal(resource: &str) -> Submission {
    let resource = Resource::parse(resource).expect("resource");
    Submission { resource, grant: Grant::Internal, ..submission("x", Action::Pause) }
}

/// A tenant in the same partition as `acme`.
fn neighbour(broker: &Broker) -> TenantId {
    let keys = broker.keys();
    let acme = keys.partition(&"acme".parse().expect("tenant"));
    let names = (0..).map(|n| format!("t{n}").parse::<TenantId>().expect("tenant"));
    names.into_iter().find(|tenant| keys.partition(tenant) == acme).expect("one of them")
}

#[tokio::test]
async fn a_tenant_is_found_behind_a_thousand_commands_of_another() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let other = neighbour(&broker);
    for n in 0..LIMITS.backlog_per_tenant {
        accept(&broker, &internal(&format!("acme:job:j{n}"))).await;
    }
    accept(&broker, &internal(&format!("{other}:job:one"))).await;
    let partition = broker.keys().partition(&other);
    let mut waiting = broker.tenants_with_ready(partition, 10).await.expect("tenants");
    waiting.sort();
    assert_eq!(waiting, ["acme".parse().expect("tenant"), other.clone()]);
    let due = broker.ready_resources(&other, 10, Duration::ZERO).await.expect("due");
    assert_eq!(due, [Resource::parse(&format!("{other}:job:one")).expect("resource")]);
    assert_eq!(broker.ready_resources(&other, 10, Duration::from_secs(600)).await.expect("due"), []);
}

#[tokio::test]
async fn a_tenant_of_whom_nothing_waits_is_not_asked_about_any_more_and_comes_back_with_its_next_command() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let acme: TenantId = "acme".parse().expect("tenant");
    let only_acme = vec![acme.clone()];
    let partition = broker.keys().partition(&acme);
    for _ in 0..2 {
        let asked = internal("acme:job:j1");
        accept(&broker, &asked).await;
        assert_eq!(broker.tenants_with_ready(partition, 10).await.expect("tenants"), only_acme);
        let ClaimOutcome::Command(held) =
            broker.claim(&asked.resource, &worker("w1"), crate::LEASE).await.expect("claim")
        else {
            panic!("not claimed")
        };
        assert_eq!(
            broker.ready_resources(&acme, 10, Duration::ZERO).await.expect("due"),
            [],
            "it is being carried out"
        );
        assert_eq!(broker.tenants_with_ready(partition, 10).await.expect("tenants"), only_acme);
        broker.complete(&held, &worker("w1"), &succeeded("paused"), ROW, None).await.expect("complete");
        assert_eq!(broker.ready_resources(&acme, 10, Duration::ZERO).await.expect("due"), []);
        assert_eq!(broker.tenants_with_ready(partition, 10).await.expect("tenants"), []);
    }
}
