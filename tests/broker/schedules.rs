//! Commands for later: kept, taken back, brought in once.

use std::time::{Duration, Instant};

use crate::support::redis::RedisServer;
use crate::{LIMITS, accept, claim, connect, job, submission, worker};
use wheelhouse::broker::scripts::claim::ClaimOutcome;
use wheelhouse::broker::scripts::permissions::PermissionSet;
use wheelhouse::broker::scripts::schedules::{Scheduled, WithdrawOutcome};
use wheelhouse::broker::scripts::submit::{ClientOrigin, Grant, Submission, SubmitLimits, SubmitOutcome};
use wheelhouse::broker::{Broker, BrokerError};
use wheelhouse::domain::{Action, CommandId, Resource, When};

fn later(action: Action, when: When) -> Submission {
    Submission { when, reason: Some("tonight".to_owned()), ..submission("j1", action) }
}

async fn schedule(broker: &Broker, asked: &Submission) -> i64 {
    match broker.submit(asked, LIMITS).await.expect("submit") {
        SubmitOutcome::Scheduled { command, run_at, result: None } if command == asked.command => run_at,
        other => panic!("{other:?}"),
    }
}

async fn kept(broker: &Broker, command: CommandId) -> Scheduled {
    broker.scheduled(&job("j1").tenant, command).await.expect("read").expect("it is kept")
}

/// Takes it back in Bob's name.
async fn withdraw(broker: &Broker, scheduled: &Scheduled) -> Result<WithdrawOutcome, BrokerError> {
    broker.withdraw(scheduled, &"bob".parse().expect("user"), &ClientOrigin::default(), None).await
}

/// Until something is due.
async fn due(broker: &Broker) -> Vec<(Resource, CommandId)> {
    let partition = broker.keys().partition(&job("j1").tenant);
    let begun = Instant::now();
    loop {
        // Redis may be on its way back.
        let found = broker.due_schedules(partition, 10).await.unwrap_or_default();
        if !found.due.is_empty() {
            return found.due;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "its time never came");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn events(broker: &Broker) -> Vec<String> {
    let partition = broker.keys().partition(&job("j1").tenant);
    let entries = broker.audit_after(partition, "0", 50).await.expect("audit");
    entries.into_iter().map(|entry| entry.event).collect()
}

#[tokio::test]
async fn a_scheduled_command_waits_for_its_time_and_is_brought_in_once() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let far = later(Action::Pause, When::After(600));
    schedule(&broker, &far).await;
    assert!(matches!(broker.claim(&job("j1"), &worker("w1"), crate::LEASE).await, Ok(ClaimOutcome::Nothing)));
    let partition = broker.keys().partition(&job("j1").tenant);
    let next = broker.due_schedules(partition, 10).await.expect("due");
    assert!(next.due.is_empty() && next.next_in_ms.is_some_and(|ms| (1..=600_000).contains(&ms)), "{next:?}");
    let asked = later(Action::Cancel, When::After(1));
    schedule(&broker, &asked).await;
    assert_eq!(due(&broker).await, [(job("j1"), asked.command)]);
    let scheduled = kept(&broker, asked.command).await;
    assert_eq!((scheduled.action, scheduled.reason.as_deref()), (Action::Cancel, Some("tonight")));
    let brought = broker.submit(&scheduled.submission(Grant::Token(true)), LIMITS).await.expect("submit");
    assert!(matches!(brought, SubmitOutcome::Accepted { .. }), "{brought:?}");
    for _ in 0..2 {
        let again = broker.submit(&scheduled.submission(Grant::Token(true)), LIMITS).await.expect("submit");
        assert_eq!(again, SubmitOutcome::Gone);
    }
    assert_eq!(claim(&broker, "j1", "w1").await.command, asked.command);
    assert_eq!(broker.schedules(&job("j1").tenant).await.expect("list"), [kept(&broker, far.command).await]);
    assert_eq!(events(&broker).await, ["scheduled", "scheduled", "accepted"]);
}

#[tokio::test]
async fn a_scheduled_command_that_was_taken_back_never_runs() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let (first, second) = (later(Action::Pause, When::After(600)), later(Action::Cancel, When::After(300)));
    schedule(&broker, &first).await;
    schedule(&broker, &second).await;
    let all = broker.schedules(&job("j1").tenant).await.expect("list");
    assert_eq!(all.iter().map(|one| one.command).collect::<Vec<_>>(), [second.command, first.command]);
    assert_eq!(withdraw(&broker, &all[0]).await.expect("withdraw"), WithdrawOutcome::Done);
    assert_eq!(withdraw(&broker, &all[0]).await.expect("withdraw"), WithdrawOutcome::Gone);
    let brought = broker.submit(&all[0].submission(Grant::Token(true)), LIMITS).await.expect("submit");
    assert_eq!(brought, SubmitOutcome::Gone);
    let partition = broker.keys().partition(&job("j1").tenant);
    let entries = broker.audit_after(partition, "0", 10).await.expect("audit");
    let last = entries.last().expect("an entry");
    assert_eq!((last.event.as_str(), last.user_id.as_str()), ("withdrawn", "bob"));
    assert_eq!(last.command_id, Some(second.command.to_string()));
}

#[tokio::test]
async fn a_request_whose_scheduled_command_was_taken_back_is_told_so_and_schedules_nothing() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let named = |id: &str, when| Submission { request: Some(id.parse().expect("id")), ..later(Action::Pause, when) };
    let (first, other) = (named("night", When::After(600)), named("noon", When::After(600)));
    schedule(&broker, &first).await;
    schedule(&broker, &other).await;
    withdraw(&broker, &kept(&broker, first.command).await).await.expect("withdraw");
    for _ in 0..2 {
        let again = broker.submit(&named("night", When::After(600)), LIMITS).await.expect("submit");
        assert_eq!(again, SubmitOutcome::Withdrawn { command: first.command });
    }
    let changed = broker.submit(&named("night", When::After(601)), LIMITS).await.expect("submit");
    assert_eq!(changed, SubmitOutcome::Conflict);
    let again = broker.submit(&named("noon", When::After(600)), LIMITS).await.expect("submit");
    assert!(matches!(again, SubmitOutcome::Scheduled { command, .. } if command == other.command), "{again:?}");
    let all = broker.schedules(&job("j1").tenant).await.expect("list");
    assert_eq!(all.iter().map(|one| one.command).collect::<Vec<_>>(), [other.command]);
    assert_eq!(events(&broker).await, ["scheduled", "scheduled", "withdrawn"]);
}

/// Two are scheduled and the first is taken back, so that Redis knows the script; this is the second.
async fn second_of_two(broker: &Broker) -> Scheduled {
    let (first, second) = (later(Action::Pause, When::After(600)), later(Action::Pause, When::After(600)));
    schedule(broker, &first).await;
    schedule(broker, &second).await;
    withdraw(broker, &kept(broker, first.command).await).await.expect("withdraw");
    kept(broker, second.command).await
}

#[tokio::test]
async fn a_withdrawal_that_redis_reads_too_late_takes_nothing_back() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let scheduled = second_of_two(&broker).await;
    redis.signal(rustix::process::Signal::STOP);
    let outcome = withdraw(&broker, &scheduled).await;
    assert!(matches!(outcome, Err(BrokerError::Unknown(_))), "{outcome:?}");
    redis.signal(rustix::process::Signal::CONT);
    crate::back_up(&broker).await;
    assert_eq!(kept(&broker, scheduled.command).await, scheduled);
    assert_eq!(events(&broker).await, ["scheduled", "scheduled", "withdrawn"]);
    assert_eq!(withdraw(&broker, &scheduled).await.expect("withdraw"), WithdrawOutcome::Done);
}

#[tokio::test]
async fn a_withdrawal_whose_answer_was_lost_is_done_once_and_its_sender_learns_of_it() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let scheduled = second_of_two(&broker).await;
    // Longer than one answer may take, shorter than all tries together.
    assert_eq!(redis.inline("CLIENT PAUSE 1200 WRITE"), "+OK");
    let outcome = withdraw(&broker, &scheduled).await;
    // Unknown on a machine so slow that the time was over; never that there was nothing to take back.
    assert!(matches!(outcome, Ok(WithdrawOutcome::Done) | Err(BrokerError::Unknown(_))), "{outcome:?}");
    crate::back_up(&broker).await;
    if outcome.is_ok() {
        assert_eq!(broker.schedules(&job("j1").tenant).await.expect("list"), []);
        assert_eq!(events(&broker).await, ["scheduled", "scheduled", "withdrawn", "withdrawn"]);
    }
}

#[tokio::test]
async fn the_permission_is_asked_for_again_when_the_time_has_come() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let asked = Submission { grant: Grant::Database, ..later(Action::Cancel, When::After(1)) };
    let fill = async |version, held: &[&str]| {
        let held = held.iter().map(|h| (*h).to_owned()).collect();
        let set = PermissionSet { version, held };
        broker.fill_permissions(&job("j1").tenant, &asked.user, &set, Duration::from_secs(60)).await.expect("fill")
    };
    fill(1, &["jobs.cancel"]).await;
    schedule(&broker, &asked).await;
    fill(2, &["jobs.read"]).await;
    due(&broker).await;
    let scheduled = kept(&broker, asked.command).await;
    let brought = broker.submit(&scheduled.submission(Grant::Database), LIMITS).await.expect("submit");
    assert_eq!(brought, SubmitOutcome::Denied);
    let result = broker.result_of(&job("j1"), asked.command).await.expect("result").expect("it says so");
    assert!(result.contains("\"cancel_failed\"") && result.contains("Insufficient permissions to cancel job"));
    assert!(matches!(broker.claim(&job("j1"), &worker("w1"), crate::LEASE).await, Ok(ClaimOutcome::Nothing)));
    assert_eq!(events(&broker).await, ["scheduled", "denied"]);
}

#[tokio::test]
async fn the_same_request_is_scheduled_once_and_answered_as_the_first_time() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let mut asked = later(Action::Pause, When::After(60));
    asked.request = Some("r1".parse().expect("id"));
    let run_at = schedule(&broker, &asked).await;
    for again in [asked.clone(), Submission { command: CommandId::generate(), ..asked.clone() }] {
        let repeated = SubmitOutcome::Scheduled { command: asked.command, run_at, result: None };
        assert_eq!(broker.submit(&again, LIMITS).await.expect("submit"), repeated);
    }
    for when in [When::Now, When::After(61), When::At(run_at)] {
        let other = Submission { command: CommandId::generate(), when, ..asked.clone() };
        assert_eq!(broker.submit(&other, LIMITS).await.expect("submit"), SubmitOutcome::Conflict);
    }
    assert_eq!(broker.schedules(&job("j1").tenant).await.expect("list").len(), 1);
    assert_eq!(redis.inline(&format!("LLEN {}", broker.keys().rate(&job("j1").tenant, &asked.user))), ":1");
}

#[tokio::test]
async fn a_time_that_has_passed_means_at_once() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    for when in [When::At(1_000), When::After(0)] {
        let asked = later(Action::Pause, when);
        accept(&broker, &asked).await;
    }
}

#[tokio::test]
async fn what_is_due_while_the_backlog_is_full_comes_again_later() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    accept(&broker, &submission("j2", Action::Pause)).await;
    let asked = later(Action::Cancel, When::After(1));
    schedule(&broker, &asked).await;
    due(&broker).await;
    let scheduled = kept(&broker, asked.command).await;
    let full = SubmitLimits { backlog_per_tenant: 1, ..LIMITS };
    let brought = broker.submit(&scheduled.submission(Grant::Token(true)), full).await.expect("submit");
    assert_eq!(brought, SubmitOutcome::QueueFull);
    assert_eq!(due(&broker).await, [(job("j1"), asked.command)]);
}

#[tokio::test]
async fn a_tenant_may_schedule_no_more_than_its_limit() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let limits = SubmitLimits { schedules_per_tenant: 1, ..LIMITS };
    let submitted = broker.submit(&later(Action::Pause, When::After(60)), limits).await.expect("submit");
    assert!(matches!(submitted, SubmitOutcome::Scheduled { .. }), "{submitted:?}");
    let submitted = broker.submit(&later(Action::Pause, When::After(60)), limits).await.expect("submit");
    assert_eq!(submitted, SubmitOutcome::QueueFull);
    accept(&broker, &submission("j1", Action::Pause)).await;
}

#[tokio::test]
async fn schedules_survive_a_restart_of_redis() {
    let mut redis = RedisServer::start();
    let broker = connect(&redis).await;
    let asked = later(Action::Cancel, When::After(1));
    schedule(&broker, &asked).await;
    redis.restart();
    crate::back_up(&broker).await;
    assert_eq!(due(&broker).await, [(job("j1"), asked.command)]);
    assert_eq!(kept(&broker, asked.command).await.command, asked.command);
}
