//! One tenant with a thousand commands holds up nobody else's.

use std::time::Duration;

use wheelhouse::broker::scripts::submit::{ClientOrigin, Grant, Submission, SubmitLimits};
use wheelhouse::domain::{Action, CommandId, Resource, When};

use crate::audit::until_moved;
use crate::fixture::{WorkerFixture, eventually};

const LIMITS: SubmitLimits =
    SubmitLimits { commands_per_minute: 30, backlog_per_tenant: 100_000, schedules_per_tenant: 1 };

async fn submit(fixture: &WorkerFixture, resource: &str) -> (Resource, CommandId) {
    let submission = Submission {
        command: CommandId::generate(),
        resource: Resource::parse(resource).expect("resource"),
        action: Action::Pause,
        user: "ann".parse().expect("user"),
        request: None,
        reason: None,
        origin: ClientOrigin::default(),
        grant: Grant::Internal,
        when: When::Now,
        batch: None,
    };
    fixture.broker.submit(&submission, LIMITS).await.expect("submit");
    (submission.resource, submission.command)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_behind_hundreds_of_damaged_resources_is_found() {
    let fixture = WorkerFixture::new().await;
    let tenant = "acme".parse().expect("tenant");
    for n in 0..300 {
        let (bad, _) = submit(&fixture, &format!("acme:job:bad-{n}")).await;
        let queue = fixture.broker.keys().queue(&bad);
        assert_eq!(fixture.redis.inline(&format!("SET {queue} x")), "+OK");
    }
    let (good, command) = submit(&fixture, "acme:job:good").await;
    // More than a worker asks for at once stand before it.
    let due = fixture.broker.ready_resources(&tenant, 300, Duration::ZERO).await.expect("due");
    assert!(!due.contains(&good));
    let worker = fixture.worker("w1", |builder| builder).await;
    fixture.result(&good, command).await;
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_tenant_is_answered_long_before_a_busy_one_is_through() {
    let fixture = WorkerFixture::new().await;
    // 4,000 commands on 400 resources of one tenant are there when the worker comes, and one of another tenant.
    for n in 0..4_000 {
        submit(&fixture, &format!("busy:job:j{}", n % 400)).await;
    }
    let (resource, command) = submit(&fixture, "quiet:job:one").await;
    let worker = fixture.worker("w1", |builder| builder).await;
    fixture.result(&resource, command).await;
    // All of them are answered in the end.
    let backlog = fixture.broker.keys().backlog(&"busy".parse().expect("tenant"));
    eventually("the busy tenant is through", || async {
        fixture
            .broker
            .ready_resources(&"busy".parse().expect("tenant"), 1, Duration::ZERO)
            .await
            .is_ok_and(|due| due.is_empty())
            && fixture.redis.inline(&format!("EXISTS {backlog}")) == ":0"
    })
    .await;
    // By the trail's times, not by a look at the backlog: by the time of the look they may all be through.
    until_moved(&fixture).await;
    let before: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM command_audit WHERE tenant_id = 'busy' AND event = 'failed' AND julianday(at) <=
           (SELECT julianday(at) FROM command_audit WHERE tenant_id = 'quiet' AND event = 'failed')",
    )
    .fetch_one(&mut fixture.connection().await)
    .await
    .expect("count");
    assert!(before < 3_000, "{before} of 4,000 were through before the quiet tenant had its turn");
    worker.drain().await;
}
