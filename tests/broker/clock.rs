//! Redis's clock is set forwards and backwards under what is stored: a real Redis on a clock that the test holds.

use std::time::Duration;

use crate::support::clock::Clock;
use crate::support::redis::RedisServer;
use crate::{LIMITS, accept, batch, claim, connect, job, submission, worker};
use wheelhouse::broker::Broker;
use wheelhouse::broker::scripts::batch::BatchSubmitted;
use wheelhouse::broker::scripts::claim::{ClaimOutcome, RenewOutcome};
use wheelhouse::broker::scripts::connections::{ConnectionLease, OpenOutcome};
use wheelhouse::broker::scripts::permissions::PermissionSet;
use wheelhouse::broker::scripts::runs::RunState;
use wheelhouse::broker::scripts::submit::{Submission, SubmitOutcome};
use wheelhouse::domain::{Action, CommandId, Control, Permission, Resource, ResourceKind};

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;
/// Longer than a test is held up between two of its calls, shorter than the steps of the clock.
const LEASE: Duration = Duration::from_secs(60);

async fn on_a_clock() -> (Clock, RedisServer, Broker) {
    let clock = Clock::new();
    let redis = RedisServer::start_on(&clock);
    let broker = connect(&redis).await;
    (clock, redis, broker)
}

async fn due(broker: &Broker, for_long: Duration) -> Vec<Resource> {
    broker.ready_resources(&job("x").tenant, 10, for_long).await.expect("due")
}

fn number(answer: &str) -> i64 {
    answer.trim_start_matches(':').parse().unwrap_or_else(|_| panic!("no number: {answer}"))
}

#[tokio::test]
async fn commands_of_before_the_clock_went_back_lock_a_user_out_for_one_window_and_let_none_too_many_through() {
    let (clock, redis, broker) = on_a_clock().await;
    let submit = async || broker.submit(&submission("j1", Action::Pause), LIMITS).await.expect("submit");
    clock.set(HOUR);
    for _ in 0..20 {
        assert!(matches!(submit().await, SubmitOutcome::Accepted { .. }));
    }
    clock.set(0);
    for n in 0..10 {
        assert!(matches!(submit().await, SubmitOutcome::Accepted { .. }), "the {n}th of the ten that are left");
    }
    let SubmitOutcome::RateLimited { retry_after } = submit().await else { panic!("31 within a minute") };
    assert!((1..=60).contains(&retry_after), "{retry_after}");
    let user = &submission("j1", Action::Pause).user;
    let kept = number(&redis.inline(&format!("PTTL {}", broker.keys().rate(&job("j1").tenant, user))));
    assert!(kept <= 61_000, "the list is kept for {kept} ms");
    clock.set(61);
    for _ in 0..30 {
        assert!(matches!(submit().await, SubmitOutcome::Accepted { .. }), "a minute later all of them are free again");
    }
    assert!(matches!(submit().await, SubmitOutcome::RateLimited { .. }));
}

#[tokio::test]
async fn a_worker_that_died_before_the_clock_went_back_is_dead_and_its_job_is_anyones() {
    let (clock, _redis, broker) = on_a_clock().await;
    let (dead, alive, lasts) = (worker("dead"), worker("alive"), Duration::from_secs(4));
    clock.set(HOUR);
    for one in [&dead, &alive] {
        broker.heartbeat(one, None, lasts).await.expect("heartbeat");
    }
    assert_eq!(broker.renew_run(&job("j1"), &dead, 1).await.expect("run"), RunState::Held { waiting: 0 });
    let Ok(SubmitOutcome::Accepted { workers_online, .. }) =
        broker.submit(&submission("j1", Action::Cancel), LIMITS).await
    else {
        panic!("not accepted")
    };
    assert_eq!(workers_online, 2);
    assert!(matches!(broker.claim(&job("j1"), &alive, LEASE).await, Ok(ClaimOutcome::Hosted(host)) if host == dead));
    clock.set(0);
    assert!(broker.all_live_workers().await.expect("live").is_empty(), "nobody has renewed since");
    // Whoever lives says so; the other has one heartbeat's length to do the same, so that none is buried too early.
    broker.heartbeat(&alive, None, lasts).await.expect("heartbeat");
    assert!(matches!(broker.claim(&job("j1"), &alive, LEASE).await, Ok(ClaimOutcome::Hosted(host)) if host == dead));
    clock.set(5);
    broker.heartbeat(&alive, None, lasts).await.expect("heartbeat");
    assert_eq!(broker.live_workers(&job("j1").tenant).await.expect("live"), [alive]);
    assert_eq!(due(&broker, Duration::ZERO).await, [job("j1")]);
    claim(&broker, "j1", "alive").await;
}

#[tokio::test]
async fn a_host_whose_heartbeat_lies_ahead_and_that_nobody_renews_keeps_no_command_from_other_workers() {
    let (clock, _redis, broker) = on_a_clock().await;
    clock.set(HOUR);
    broker.heartbeat(&worker("dead"), None, Duration::from_secs(4)).await.expect("heartbeat");
    broker.renew_run(&job("j1"), &worker("dead"), 1).await.expect("run");
    clock.set(0);
    let outcome = broker.submit(&submission("j1", Action::Cancel), LIMITS).await.expect("submit");
    assert_eq!(outcome, SubmitOutcome::Accepted { workers_online: 0, control: Some(Control::Row) });
    claim(&broker, "j1", "w2").await;
}

#[tokio::test]
async fn a_lease_of_before_the_clock_went_back_ends_one_lease_later_and_a_live_holder_keeps_it() {
    let (clock, _redis, broker) = on_a_clock().await;
    clock.set(HOUR);
    for id in ["j1", "j2"] {
        accept(&broker, &submission(id, Action::Pause)).await;
    }
    let (_died, lives) = (claim(&broker, "j1", "w1").await, claim(&broker, "j2", "w1").await);
    clock.set(0);
    assert_eq!(due(&broker, Duration::ZERO).await, [job("j1"), job("j2")], "their times are looked at");
    for id in ["j1", "j2"] {
        assert!(matches!(broker.claim(&job(id), &worker("w2"), LEASE).await, Ok(ClaimOutcome::Later)), "{id}");
    }
    assert_eq!(due(&broker, Duration::ZERO).await, [], "and put right");
    clock.set(30);
    assert!(!matches!(broker.renew_claim(&lives, LEASE).await, Ok(RenewOutcome::Lost)));
    clock.set(62);
    assert_eq!(due(&broker, Duration::ZERO).await, [job("j1")]);
    assert_eq!(claim(&broker, "j1", "w2").await.attempt, 2);
    assert!(matches!(broker.claim(&job("j2"), &worker("w2"), LEASE).await, Ok(ClaimOutcome::Later)));
}

#[tokio::test]
async fn what_was_accepted_or_put_back_before_the_clock_went_back_is_carried_out_at_once() {
    let (clock, _redis, broker) = on_a_clock().await;
    clock.set(HOUR);
    accept(&broker, &submission("j1", Action::Pause)).await;
    accept(&broker, &submission("j2", Action::Pause)).await;
    let held = claim(&broker, "j2", "w1").await;
    assert!(broker.retry_later(&held, Duration::from_secs(20)).await.expect("retry"));
    clock.set(0);
    assert_eq!(due(&broker, Duration::ZERO).await, [job("j1"), job("j2")]);
    let (first, again) = (claim(&broker, "j1", "w2").await, claim(&broker, "j2", "w2").await);
    assert!(first.accepted_at <= first.claimed_at, "no command waits for less than no time");
    assert!(again.attempt == 2 && again.fence > held.fence, "the fence grows whatever the clock does");
}

#[tokio::test]
async fn how_long_a_command_may_wait_counts_from_when_the_clock_went_back() {
    let (clock, _redis, broker) = on_a_clock().await;
    let ttl = Duration::from_secs(600);
    clock.set(HOUR);
    let asked = submission("j1", Action::Pause);
    accept(&broker, &asked).await;
    clock.set(0);
    assert_eq!(due(&broker, ttl).await, [job("j1")], "its time is looked at");
    assert_eq!(broker.expire(&job("j1"), ttl).await.expect("expire"), []);
    assert_eq!(due(&broker, ttl).await, [], "and put right");
    clock.set(590);
    assert_eq!(broker.expire(&job("j1"), ttl).await.expect("expire"), []);
    clock.set(605);
    assert_eq!(due(&broker, ttl).await, [job("j1")]);
    assert_eq!(broker.expire(&job("j1"), ttl).await.expect("expire"), [asked.command]);
}

#[tokio::test]
async fn a_clock_that_is_set_forwards_ends_no_command_early() {
    let (clock, _redis, broker) = on_a_clock().await;
    let (ttl, partition) = (Duration::from_secs(600), broker.keys().partition(&job("j1").tenant));
    broker.read_clock(partition).await.expect("clock");
    accept(&broker, &submission("j1", Action::Pause)).await;
    clock.set(HOUR);
    broker.read_clock(partition).await.expect("clock");
    let longer = broker.ttl_adjusted_for_clock_steps(partition, ttl);
    assert!(longer > ttl + Duration::from_secs(HOUR as u64 - 5), "{longer:?}");
    assert_eq!(broker.expire(&job("j1"), longer).await.expect("expire"), []);
    assert_eq!(broker.expire(&job("j1"), ttl).await.expect("expire").len(), 1, "it would have been ended");
}

#[tokio::test]
async fn leases_of_sockets_of_before_the_clock_went_back_end_one_lease_later() {
    let (clock, _redis, broker) = on_a_clock().await;
    let lease =
        |id: &str| ConnectionLease { tenant: job("j").tenant, user: "ann".parse().expect("user"), id: id.to_owned() };
    let open = async |id: &str| broker.open_connection(&lease(id), 2, 2, LEASE).await.expect("open");
    clock.set(HOUR);
    assert_eq!((open("crashed").await, open("open").await), (OpenOutcome::Open, OpenOutcome::Open));
    clock.set(0);
    assert_eq!(open("new").await, OpenOutcome::TenantFull, "they may be open still");
    clock.set(40);
    broker.renew_connections(&[lease("open")], LEASE).await.expect("renew");
    clock.set(62);
    assert_eq!(open("new").await, OpenOutcome::Open, "the gateway of the first has not renewed it");
    assert_eq!(open("one more").await, OpenOutcome::TenantFull, "that of the second has");
}

#[tokio::test]
async fn permissions_read_before_the_clock_went_back_are_read_again() {
    let (clock, _redis, broker) = on_a_clock().await;
    let (tenant, user) = (job("j1").tenant, "ann".parse().expect("user"));
    let pause = Permission::of(ResourceKind::Job, "pause");
    let held = PermissionSet { version: 3, held: vec!["jobs.*".to_owned()] };
    let fill = async || broker.fill_permissions(&tenant, &user, &held, Duration::from_secs(30)).await.expect("fill");
    let check = async || broker.check_permission(&tenant, &user, &pause).await.expect("check");
    clock.set(HOUR);
    fill().await;
    assert_eq!(check().await, Some(true));
    clock.set(0);
    assert_eq!(check().await, None, "plain SQL may have taken the right away meanwhile");
    fill().await;
    assert_eq!(check().await, Some(true));
}

#[tokio::test]
async fn request_ids_of_a_year_ahead_are_forgotten_a_day_after_they_are_seen_again() {
    let (clock, redis, broker) = on_a_clock().await;
    let mut asked = submission("j1", Action::Pause);
    asked.request = Some("r1".parse().expect("id"));
    clock.set(400 * DAY);
    accept(&broker, &asked).await;
    let together = batch(&["b1"], Action::Pause, Some("r2"));
    assert!(matches!(broker.submit_batch(&together, LIMITS).await, Ok(BatchSubmitted::Done { .. })));
    clock.set(0);
    asked.command = CommandId::generate();
    assert!(matches!(broker.submit(&asked, LIMITS).await, Ok(SubmitOutcome::Repeated { .. })));
    assert!(broker.submit_batch(&together, LIMITS).await.is_ok());
    let (names, tenant) = (broker.keys(), &job("j1").tenant);
    let kept = number(&redis.inline(&format!("TTL {}", names.batch(tenant, &asked.user, "r2"))));
    assert!((1..=DAY).contains(&kept), "the batch is kept for {kept} s");
    for (at, known) in [(DAY - HOUR, true), (DAY + HOUR, false)] {
        clock.set(at);
        let again = Submission { command: CommandId::generate(), ..asked.clone() };
        let outcome = broker.submit(&again, LIMITS).await.expect("submit");
        assert_eq!(matches!(outcome, SubmitOutcome::Repeated { .. }), known, "after {at} s: {outcome:?}");
    }
}

#[tokio::test]
async fn a_request_id_is_known_for_a_day_whatever_the_hour_and_its_hashes_go_when_nothing_in_them_counts() {
    let (clock, redis, broker) = on_a_clock().await;
    let hashes = || redis.inline("EVAL \"return #redis.call('KEYS','wh:*:@request_ids:*')\" 0");
    for begun in (0..3).map(|n| n * (4 * DAY + 7 * HOUR)) {
        let mut asked = submission("j1", Action::Pause);
        asked.request = Some("r1".parse().expect("id"));
        clock.set(begun);
        accept(&broker, &asked).await;
        assert_eq!(number(&hashes()), 1, "those of before have gone");
        for (after, known) in [(60, true), (DAY - 60, true), (DAY + 60, false)] {
            clock.set(begun + after);
            let again = Submission { command: CommandId::generate(), ..asked.clone() };
            let outcome = broker.submit(&again, LIMITS).await.expect("submit");
            assert_eq!(matches!(outcome, SubmitOutcome::Repeated { .. }), known, "after {after} s: {outcome:?}");
        }
    }
}

#[tokio::test]
async fn the_audit_trail_has_the_time_of_now_although_the_streams_ids_stay_a_year_ahead() {
    let (clock, _redis, broker) = on_a_clock().await;
    clock.set(400 * DAY);
    accept(&broker, &submission("j1", Action::Pause)).await;
    clock.set(0);
    accept(&broker, &submission("j1", Action::Resume)).await;
    let partition = broker.keys().partition(&job("j1").tenant);
    let entries = broker.audit_after(partition, "0", 10).await.expect("audit");
    let days_apart = |at: i64| (at - jiff::Timestamp::now().as_millisecond()) / 1_000 / DAY;
    assert_eq!(entries.iter().map(|entry| days_apart(entry.at)).collect::<Vec<_>>(), [399, 0]);
}
