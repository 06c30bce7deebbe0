//! The scripts, each against a real Redis: what is accepted, refused, claimed, answered, and what faults do to it.

mod support;

mod broker {
    mod batches;
    mod claims;
    mod clock;
    mod cluster;
    mod cut_off;
    mod disks;
    mod failed;
    mod failover;
    mod faults;
    mod leaders;
    mod leftovers;
    mod limiter;
    mod names;
    mod permissions;
    #[cfg(target_os = "linux")]
    mod power;
    mod redis_doc;
    mod refusals;
    mod request_ids;
    mod runs;
    mod schedules;
    mod serving;
    mod sharded;
    mod tenants;
    mod tls;
    mod upgrade;
}

use std::time::{Duration, Instant};

use support::redis::RedisServer;
use wheelhouse::broker::scripts::batch::Batch;
use wheelhouse::broker::scripts::claim::{Claim, ClaimOutcome, CompleteOutcome, RenewOutcome};
use wheelhouse::broker::scripts::connections::{ConnectionLease, OpenOutcome};
use wheelhouse::broker::scripts::permissions::{FillOutcome, PermissionSet};
use wheelhouse::broker::scripts::runs::RunState;
use wheelhouse::broker::scripts::submit::{ClientOrigin, Grant, Submission, SubmitLimits, SubmitOutcome};
use wheelhouse::broker::scripts::updates::Update;
use wheelhouse::broker::{Broker, BrokerError, Event, Subscriber};
use wheelhouse::config;
use wheelhouse::domain::{
    Action, CommandId, Control, IdDerivation, Permission, Resource, ResourceKind, UserId, When, WorkerId,
};
use wheelhouse::protocol::{CommandError, Outcome, server};

const LIMITS: SubmitLimits =
    SubmitLimits { commands_per_minute: 30, backlog_per_tenant: 1000, schedules_per_tenant: 100 };
/// Longer than any test may be held up between two of its calls. None waits for its end.
const LEASE: Duration = Duration::from_secs(60);

/// The Redis at this address, with nothing special.
fn redis_at(url: String) -> config::Redis {
    config::Redis {
        url: url.into(),
        ca_pem: None,
        client_certificate: None,
        partitions: 16,
        replicas_to_wait: 0,
        fsyncs_to_wait: 0,
        published_channels: config::PublishedChannels::Plain,
        heard_channels: config::HeardChannels::Plain,
    }
}

fn settings(redis: &RedisServer) -> config::Redis {
    redis_at(redis.url())
}

async fn connect(redis: &RedisServer) -> Broker {
    Broker::connect(&settings(redis)).await.expect("connect")
}

/// Until the connection stands again, by itself.
async fn back_up(broker: &Broker) {
    let begun = Instant::now();
    while !broker.is_up() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it never reconnected");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn job(id: &str) -> Resource {
    Resource::parse(&format!("acme:job:{id}")).expect("resource")
}

fn worker(name: &str) -> WorkerId {
    name.parse().expect("worker id")
}

fn submission(id: &str, action: Action) -> Submission {
    Submission {
        command: CommandId::generate(),
        resource: job(id),
        action,
        user: "ann@example.com".parse().expect("user"),
        request: None,
        reason: None,
        origin: ClientOrigin::default(),
        grant: Grant::Token(true),
        when: When::Now,
        batch: None,
    }
}

async fn accept(broker: &Broker, submission: &Submission) {
    let outcome = broker.submit(submission, LIMITS).await.expect("submit");
    assert!(matches!(outcome, SubmitOutcome::Accepted { .. }), "{outcome:?}");
}

async fn claim(broker: &Broker, id: &str, by: &str) -> Claim {
    match broker.claim(&job(id), &worker(by), LEASE).await.expect("claim") {
        ClaimOutcome::Command(claim) => *claim,
        other => panic!("nothing to claim: {other:?}"),
    }
}

/// What the claims of these tests reach, as jobs that run nowhere do.
const ROW: Option<Control> = Some(Control::Row);

fn succeeded(status: &str) -> Outcome {
    Outcome::Succeeded(status.to_owned())
}

fn refused(reason: &str) -> Outcome {
    Outcome::Failed(CommandError::ControlFailed { reason: reason.to_owned() })
}

/// The result message of a command that [`succeeded`].
fn success(claim: &Claim, status: &str) -> String {
    server::succeeded(
        claim.action,
        &claim.resource,
        claim.command,
        status,
        Some(Control::Row),
        claim.request_id.as_deref(),
    )
}

fn batch(ids: &[&str], action: Action, request: Option<&str>) -> Batch {
    Batch {
        id: CommandId::generate(),
        derivation: IdDerivation::Uuid5,
        tenant: job("j").tenant,
        kind: ResourceKind::Job,
        ids: ids.iter().map(|id| id.parse().expect("id")).collect(),
        action,
        user: "ann@example.com".parse().expect("user"),
        request: request.map(|id| id.parse().expect("id")),
        more: false,
        body: format!("{action:?} {ids:?}"),
        reason: None,
        origin: ClientOrigin::default(),
        grant: Grant::Token(true),
    }
}

#[tokio::test]
async fn a_command_is_accepted_claimed_once_and_answered_once() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let asked = submission("j1", Action::Pause);
    accept(&broker, &asked).await;
    assert_eq!(broker.ready_resources(&job("j1").tenant, 10, Duration::ZERO).await.expect("due"), vec![job("j1")]);
    let held = claim(&broker, "j1", "w1").await;
    assert_eq!((held.command, held.action, held.attempt), (asked.command, Action::Pause, 1));
    assert!(matches!(broker.claim(&job("j1"), &worker("w2"), LEASE).await, Ok(ClaimOutcome::Later)));
    let message = success(&held, "paused");
    for _ in 0..2 {
        let done = broker.complete(&held, &worker("w1"), &succeeded("paused"), ROW, None).await.expect("complete");
        assert_eq!(done, CompleteOutcome::Done { more: false });
    }
    assert_eq!(broker.result_of(&job("j1"), asked.command).await.expect("result"), Some(message.clone()));
    let recent = broker.recent_results(&job("j1"), 10).await.expect("results");
    assert_eq!(recent.into_iter().map(|e| (e.command, e.message)).collect::<Vec<_>>(), [(asked.command, message)]);
    assert!(matches!(broker.claim(&job("j1"), &worker("w2"), LEASE).await, Ok(ClaimOutcome::Nothing)));
    let partition = broker.keys().partition(&job("j1").tenant);
    let entries = broker.audit_after(partition, "0", 10).await.expect("audit");
    let events: Vec<_> = entries.iter().map(|e| (e.event.as_str(), e.outcome.as_deref())).collect();
    assert_eq!(events, [("accepted", None), ("succeeded", Some("paused"))]);
    assert_eq!(entries[1].worker_id.as_deref(), Some("w1"));
    broker.audit_forget(partition, &entries[..1]).await.expect("forget");
    assert_eq!(broker.audit_after(partition, "0", 10).await.expect("audit").len(), 1);
}

#[tokio::test]
async fn commands_of_one_resource_come_in_the_order_of_acceptance() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let asked = [Action::Pause, Action::Resume, Action::Pause].map(|a| submission("j1", a));
    for one in &asked {
        accept(&broker, one).await;
    }
    for (i, one) in asked.iter().enumerate() {
        let held = claim(&broker, "j1", "w1").await;
        assert_eq!(held.command, one.command);
        let done = broker.complete(&held, &worker("w1"), &succeeded("x"), ROW, None).await.expect("complete");
        assert_eq!(done, CompleteOutcome::Done { more: i < 2 });
    }
}

#[tokio::test]
async fn a_claim_whose_lease_ended_is_void_and_the_command_goes_to_another() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    accept(&broker, &submission("j1", Action::Cancel)).await;
    let Ok(ClaimOutcome::Command(old)) = broker.claim(&job("j1"), &worker("w1"), Duration::from_millis(1)).await else {
        panic!("not claimed")
    };
    let new = loop {
        match broker.claim(&job("j1"), &worker("w2"), LEASE).await.expect("claim") {
            ClaimOutcome::Command(new) => break *new,
            ClaimOutcome::Later => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(new.fence > old.fence);
    assert_eq!(new.attempt, 2);
    assert_eq!(broker.renew_claim(&old, LEASE).await.expect("renew"), RenewOutcome::Lost);
    let void = broker.complete(&old, &worker("w1"), &succeeded("cancelled"), ROW, None).await;
    assert_eq!(void.expect("complete"), CompleteOutcome::Lost);
    assert!(!broker.retry_later(&old, LEASE).await.expect("retry"));
    let done = broker.complete(&new, &worker("w2"), &succeeded("cancelled"), ROW, None).await;
    assert_eq!(done.expect("complete"), CompleteOutcome::Done { more: false });
}

#[tokio::test]
async fn a_command_given_back_waits_and_is_then_anyones() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    accept(&broker, &submission("j1", Action::Cancel)).await;
    let held = claim(&broker, "j1", "w1").await;
    assert!(broker.retry_later(&held, Duration::from_secs(60)).await.expect("retry"));
    assert!(matches!(broker.claim(&job("j1"), &worker("w2"), LEASE).await, Ok(ClaimOutcome::Later)));
}

#[tokio::test]
async fn a_cancel_ends_waiting_pauses_and_tells_the_one_under_way() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let (first, second) = (submission("j1", Action::Pause), submission("j1", Action::Resume));
    accept(&broker, &first).await;
    let held = claim(&broker, "j1", "w1").await;
    accept(&broker, &second).await;
    assert_eq!(broker.renew_claim(&held, LEASE).await.expect("renew"), RenewOutcome::Held { cancel_waiting: false });
    let cancel = submission("j1", Action::Cancel);
    accept(&broker, &cancel).await;
    assert_eq!(broker.renew_claim(&held, LEASE).await.expect("renew"), RenewOutcome::Held { cancel_waiting: true });
    let superseded = broker.result_of(&job("j1"), second.command).await.expect("result").expect("it has ended");
    let expected =
        server::failed(Action::Resume, &job("j1"), second.command, "Superseded by cancel", Some(Control::Row), None);
    assert_eq!(superseded, expected);
    let more = broker
        .complete(&held, &worker("w1"), &Outcome::Failed(CommandError::Superseded), ROW, None)
        .await
        .expect("complete");
    assert_eq!(more, CompleteOutcome::Done { more: true });
    assert_eq!(claim(&broker, "j1", "w1").await.command, cancel.command);
}

#[tokio::test]
async fn the_same_request_id_runs_once_and_another_body_is_a_conflict() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let mut first = submission("j1", Action::Pause);
    first.request = Some("r1".parse().expect("id"));
    accept(&broker, &first).await;
    let again = Submission { command: CommandId::generate(), ..first.clone() };
    let repeated = SubmitOutcome::Repeated {
        command: first.command,
        workers_online: 0,
        control: Some(Control::Row),
        result: None,
    };
    assert_eq!(broker.submit(&again, LIMITS).await.expect("submit"), repeated);
    assert_eq!(broker.submit(&first, LIMITS).await.expect("submit"), repeated);
    for other in [
        Submission { action: Action::Cancel, ..again.clone() },
        Submission { reason: Some("why".to_owned()), ..again.clone() },
    ] {
        assert_eq!(broker.submit(&other, LIMITS).await.expect("submit"), SubmitOutcome::Conflict);
    }
    let held = claim(&broker, "j1", "w1").await;
    let message = success(&held, "paused");
    broker.complete(&held, &worker("w1"), &succeeded("paused"), ROW, None).await.expect("complete");
    let outcome = broker.submit(&again, LIMITS).await.expect("submit");
    assert!(
        matches!(outcome, SubmitOutcome::Repeated { result: Some(r), .. } if r.message == message && r.ended_at > 0)
    );
    assert!(matches!(broker.claim(&job("j1"), &worker("w1"), LEASE).await, Ok(ClaimOutcome::Nothing)));
}

#[tokio::test]
async fn thirty_commands_are_accepted_or_denied_and_the_next_is_limited() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    for i in 0..30 {
        let mut one = submission(&format!("j{i}"), Action::Pause);
        one.grant = Grant::Token(i % 3 != 0);
        let outcome = broker.submit(&one, LIMITS).await.expect("submit");
        assert_eq!(outcome == SubmitOutcome::Denied, i % 3 == 0, "{outcome:?}");
    }
    let outcome = broker.submit(&submission("j99", Action::Pause), LIMITS).await.expect("submit");
    assert!(matches!(outcome, SubmitOutcome::RateLimited { retry_after: 1..=60 }), "{outcome:?}");
    let mut other = submission("j99", Action::Pause);
    other.user = "bob".parse().expect("user");
    accept(&broker, &other).await;
    let full = SubmitLimits { backlog_per_tenant: 21, ..LIMITS };
    other.command = CommandId::generate();
    assert_eq!(broker.submit(&other, full).await.expect("submit"), SubmitOutcome::QueueFull);
}

#[tokio::test]
async fn permissions_are_unknown_until_filled_and_a_revoked_one_is_never_believed_again() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let mut one = submission("j1", Action::Pause);
    one.grant = Grant::Database;
    assert_eq!(broker.submit(&one, LIMITS).await.expect("submit"), SubmitOutcome::PermissionsUnknown);
    let (tenant, user): (_, UserId) = (job("j1").tenant, one.user.clone());
    let set = |version, held: &[&str]| PermissionSet { version, held: held.iter().map(|h| (*h).to_owned()).collect() };
    let ttl = Duration::from_secs(60);
    let fill = |set| {
        let (broker, tenant, user) = (broker.clone(), tenant.clone(), user.clone());
        async move { broker.fill_permissions(&tenant, &user, &set, ttl).await.expect("fill") }
    };
    assert_eq!(fill(set(5, &["jobs.*"])).await, FillOutcome::Stored);
    accept(&broker, &one).await;
    let read = Permission::read(ResourceKind::Campaign);
    assert_eq!(broker.check_permission(&tenant, &user, &read).await.expect("check"), Some(false));
    broker.invalidate_permissions(&user, 6).await.expect("invalidate");
    assert_eq!(broker.check_permission(&tenant, &user, &read).await.expect("check"), None);
    assert_eq!(fill(set(5, &["jobs.*"])).await, FillOutcome::Stale);
    let mut two = submission("j1", Action::Resume);
    two.grant = Grant::Database;
    assert_eq!(broker.submit(&two, LIMITS).await.expect("submit"), SubmitOutcome::PermissionsUnknown);
    assert_eq!(fill(set(6, &[])).await, FillOutcome::Stored);
    assert_eq!(fill(set(5, &["*"])).await, FillOutcome::Stale);
    assert_eq!(broker.submit(&two, LIMITS).await.expect("submit"), SubmitOutcome::Denied);
}

#[tokio::test]
async fn only_a_live_host_may_claim_and_a_dead_ones_commands_are_anyones() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let host = worker("host");
    broker.heartbeat(&host, None, Duration::from_secs(60)).await.expect("heartbeat");
    assert_eq!(broker.live_workers(&job("j1").tenant).await.expect("live"), vec![host.clone()]);
    assert_eq!(broker.renew_run(&job("j1"), &host, 1).await.expect("run"), RunState::Held { waiting: 0 });
    accept(&broker, &submission("j1", Action::Pause)).await;
    assert_eq!(broker.renew_run(&job("j1"), &host, 1).await.expect("run"), RunState::Held { waiting: 1 });
    let hosted = broker.claim(&job("j1"), &worker("w2"), LEASE).await.expect("claim");
    assert!(matches!(hosted, ClaimOutcome::Hosted(h) if h == host));
    broker.leave(&host, None).await.expect("leave");
    claim(&broker, "j1", "w2").await;
    assert_eq!(broker.renew_run(&job("j1"), &worker("w2"), 2).await.expect("run"), RunState::Held { waiting: 1 });
    assert_eq!(broker.renew_run(&job("j1"), &host, 1).await.expect("run"), RunState::Lost);
    broker.end_run(&job("j1"), 2).await.expect("end");
    assert_eq!(broker.renew_run(&job("j1"), &worker("w2"), 2).await.expect("run"), RunState::Lost);
}

#[tokio::test]
async fn connection_leases_are_counted_for_tenant_and_user_and_end_by_themselves() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let lease = |user: &str, id: &str| ConnectionLease {
        tenant: job("j").tenant,
        user: user.parse().expect("user"),
        id: id.to_owned(),
    };
    let long = Duration::from_secs(60);
    let open =
        async |user: &str, id: &str, ttl| broker.open_connection(&lease(user, id), 3, 2, ttl).await.expect("open");
    assert_eq!(open("a", "1", long).await, OpenOutcome::Open);
    assert_eq!(open("a", "2", long).await, OpenOutcome::Open);
    assert_eq!(open("a", "2", long).await, OpenOutcome::Open);
    assert_eq!(open("a", "3", long).await, OpenOutcome::UserFull);
    assert_eq!(open("b", "4", Duration::from_millis(50)).await, OpenOutcome::Open);
    let begun = Instant::now();
    while open("c", "5", long).await != OpenOutcome::Open {
        assert!(begun.elapsed() < Duration::from_secs(20), "the lease of a crashed gateway never ended");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(open("d", "6", long).await, OpenOutcome::TenantFull);
    broker.close_connections(&[lease("a", "1")]).await.expect("close");
    broker.renew_connections(&[lease("a", "2"), lease("c", "5")], long).await.expect("renew");
    assert_eq!(open("d", "6", long).await, OpenOutcome::Open);
}

#[tokio::test]
async fn while_redis_is_away_nothing_is_sent_and_it_goes_on_by_itself() {
    let mut redis = RedisServer::start();
    let broker = connect(&redis).await;
    accept(&broker, &submission("j1", Action::Pause)).await;
    redis.kill();
    let begun = Instant::now();
    loop {
        match broker.submit(&submission("j2", Action::Pause), LIMITS).await {
            Err(BrokerError::Unavailable(_)) => break,
            Err(BrokerError::Unknown(_)) => {} // It was under way when the connection broke.
            other => panic!("{other:?}"),
        }
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
    redis.restart();
    back_up(&broker).await;
    claim(&broker, "j1", "w1").await;
    assert!(matches!(broker.claim(&job("j2"), &worker("w1"), LEASE).await, Ok(ClaimOutcome::Nothing)));
}

#[tokio::test]
async fn what_a_hung_redis_reads_too_late_is_not_carried_out() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    accept(&broker, &submission("j1", Action::Pause)).await;
    redis.signal(rustix::process::Signal::STOP);
    let outcome = broker.submit(&submission("j2", Action::Pause), LIMITS).await;
    assert!(matches!(outcome, Err(BrokerError::Unknown(_))), "{outcome:?}");
    // By now the server is known to hang: nothing more is sent to it.
    let outcome = broker.submit(&submission("j3", Action::Pause), LIMITS).await;
    assert!(matches!(outcome, Err(BrokerError::Unavailable(_))), "{outcome:?}");
    redis.signal(rustix::process::Signal::CONT);
    back_up(&broker).await;
    for id in ["j2", "j3"] {
        assert!(matches!(broker.claim(&job(id), &worker("w1"), LEASE).await, Ok(ClaimOutcome::Nothing)));
    }
}

#[tokio::test]
async fn a_subscriber_hears_what_it_subscribed_to_and_is_told_of_a_gap() {
    let mut redis = RedisServer::start();
    let broker = connect(&redis).await;
    let tracker = tokio_util::task::TaskTracker::new();
    let stop = tokio_util::sync::CancellationToken::new();
    let (subscriber, mut events) = Subscriber::start(&broker, &tracker, stop.clone()).await.expect("start");
    subscriber.subscribe(vec!["acme:job:j1".into()]).await.expect("subscribe");
    subscriber.psubscribe(vec!["*:job:control".into()]).await.expect("subscribe");
    let update = Update { message: "{\"type\":\"job_status\"".into(), desired: None };
    assert_eq!(broker.publish_update(&job("j1"), &update).await.expect("update"), 1);
    let heard = events.recv().await.expect("event");
    let message = |by_pattern| Event::Message {
        channel: "acme:job:j1".into(),
        payload: "{\"type\":\"job_status\",\"seq\":1}".into(),
        by_pattern,
    };
    assert_eq!(heard, message(false));
    // Where a pattern fits too it comes twice, and says which way; until the pattern is given up.
    subscriber.psubscribe(vec!["acme:job:*".into()]).await.expect("subscribe");
    let publish = async || {
        let words = ["PUBLISH", "acme:job:j1", "{\"type\":\"job_status\",\"seq\":1}"].map(str::to_owned);
        broker.query_any(&words).await.expect("publish");
    };
    publish().await;
    let both = [events.recv().await, events.recv().await];
    assert!(both.contains(&Some(message(false))) && both.contains(&Some(message(true))), "{both:?}");
    assert!(subscriber.punsubscribe(vec!["acme:job:*".into()]));
    subscriber.subscribe(vec!["acme:job:later".into()]).await.expect("after it");
    publish().await;
    assert_eq!(events.recv().await, Some(message(false)));
    redis.restart();
    assert_eq!(events.recv().await, Some(Event::Gap));
    back_up(&broker).await;
    accept(&broker, &submission("j1", Action::Pause)).await;
    let Some(Event::Message { channel, .. }) = events.recv().await else { panic!("no message") };
    assert_eq!(channel, "acme:job:control");
    stop.cancel();
    tracker.close();
    tracker.wait().await;
}
