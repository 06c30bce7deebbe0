//! One tenant with a thousand commands holds up nobody else's.

use std::time::Duration;

use wheelhouse::broker::scripts::submit::{Grant, Origin, Submission, SubmitLimits};
use wheelhouse::domain::{Action, CommandId, Resource, When};

use crate::world::{World, eventually};

const LIMITS: SubmitLimits =
    SubmitLimits { commands_per_minute: 30, backlog_per_tenant: 100_000, schedules_per_tenant: 1 };

async fn submit(world: &World, resource: &str) -> (Resource, CommandId) {
    let submission = Submission {
        command: CommandId::generate(),
        resource: Resource::parse(resource).expect("resource"),
        action: Action::Pause,
        user: "ann".parse().expect("user"),
        request: None,
        reason: None,
        origin: Origin::default(),
        grant: Grant::Internal,
        when: When::Now,
        batch: None,
    };
    world.broker.submit(&submission, LIMITS).await.expect("submit");
    (submission.resource, submission.command)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_tenant_is_answered_long_before_a_busy_one_is_through() {
    let world = World::new().await;
    // 4,000 commands on 400 resources of one tenant are there when the worker comes, and one of another tenant.
    for n in 0..4_000 {
        submit(&world, &format!("busy:job:j{}", n % 400)).await;
    }
    let (resource, command) = submit(&world, "quiet:job:one").await;
    let worker = world.worker("w1", |builder| builder).await;
    world.result(&resource, command).await;
    let backlog = world.broker.keys().backlog(&"busy".parse().expect("tenant"));
    let left = world.redis.inline(&format!("INCRBY {backlog} 0"));
    let left: u32 = left.trim_start_matches(':').parse().expect("a number");
    assert!(left > 1_000, "only {left} of 4,000 were left when the quiet tenant had its turn");
    // And all of them are answered in the end.
    eventually("the busy tenant is through", || async {
        world.broker.due(&"busy".parse().expect("tenant"), 1, Duration::ZERO).await.is_ok_and(|due| due.is_empty())
            && world.redis.inline(&format!("EXISTS {backlog}")) == ":0"
    })
    .await;
    worker.drain().await;
}
