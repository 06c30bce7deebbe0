//! Ids that are words of Wheelhouse's own: what is done for one tenant or user leaves every other's keys alone.

use std::time::Duration;

use crate::support::redis::RedisServer;
use crate::{LEASE, LIMITS, connect, submission, worker};
use wheelhouse::broker::scripts::claim::ClaimOutcome;
use wheelhouse::broker::scripts::permissions::PermissionSet;
use wheelhouse::broker::scripts::submit::{Grant, Submission, SubmitOutcome};
use wheelhouse::domain::{Action, CommandId, Resource, UserId};

/// What follows a tenant in the names of its keys.
const TENANT_KEY_MARK: [&str; 7] = ["ready", "schedules", "failed", "failed_at", "workers", "backlog", "connections"];

#[tokio::test]
async fn a_tenant_named_floor_gets_its_commands_done_whosever_permissions_change() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    for user in TENANT_KEY_MARK {
        let user: UserId = user.parse().expect("user");
        broker.invalidate_permissions(&user, 7).await.expect("before the tenant has any keys");
        let resource = Resource::parse(&format!("floor:job:{user}")).expect("resource");
        let asked = Submission { resource: resource.clone(), ..submission("x", Action::Pause) };
        let accepted = broker.submit(&asked, LIMITS).await.expect("submit");
        assert!(matches!(accepted, SubmitOutcome::Accepted { .. }), "{user}: {accepted:?}");
        broker.invalidate_permissions(&user, 8).await.expect("while it has");
        match broker.claim(&resource, &worker("w1"), LEASE).await.expect("claim") {
            ClaimOutcome::Command(claim) => assert_eq!(claim.command, asked.command),
            other => panic!("{user}: {other:?}"),
        }
        // And the tenant's keys say nothing of the user's permissions.
        let set = PermissionSet { version: 8, held: vec!["jobs.pause".to_owned()] };
        let cached = broker.fill_permissions(&resource.tenant, &user, &set, Duration::from_secs(60)).await;
        cached.expect("fill");
        let own = Submission {
            command: CommandId::generate(),
            user: user.clone(),
            grant: Grant::Database,
            ..submission("x", Action::Pause)
        };
        let own = Submission { resource, ..own };
        let outcome = broker.submit(&own, LIMITS).await.expect("submit");
        assert!(matches!(outcome, SubmitOutcome::Accepted { .. }), "{user}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_request_id_that_is_somebodys_command_id_is_not_that_commands_denial() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let denied = Submission { grant: Grant::Token(false), ..submission("j1", Action::Pause) };
    assert_eq!(broker.submit(&denied, LIMITS).await.expect("submit"), SubmitOutcome::Denied);
    let mut asked = submission("j1", Action::Pause);
    asked.request = Some(denied.command.to_string().parse().expect("id"));
    let outcome = broker.submit(&asked, LIMITS).await.expect("submit");
    assert!(matches!(outcome, SubmitOutcome::Accepted { .. }), "{outcome:?}");
    // The denied one again, as after a lost answer, is still known.
    assert_eq!(broker.submit(&denied, LIMITS).await.expect("submit"), SubmitOutcome::Denied);
}

#[tokio::test]
async fn a_former_gateway_learns_of_a_revoked_right_too() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let user: UserId = "ann@example.com".parse().expect("user");
    broker.invalidate_permissions(&user, 7).await.expect("invalidate");
    let mut connection = redis::Client::open(redis.url()).expect("address").get_connection().expect("connect");
    for name in ["wh:{00}:floor:ann%40example.com", "wh:{15}:@floor:ann%40example.com"] {
        let floor: Option<String> = redis::cmd("GET").arg(name).query(&mut connection).expect("get");
        assert_eq!(floor.as_deref(), Some("7"), "{name}");
    }
}
