//! One executor, one result, in order: whatever the workers do, and however often they do it twice.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use proptest::prelude::*;

use crate::support::redis::RedisServer;
use crate::{LEASE, LIMITS, ROW, accept, claim, connect, job, refused, submission, succeeded, worker};
use wheelhouse::broker::scripts::claim::{Claim, ClaimOutcome, CompleteOutcome, RenewOutcome};
use wheelhouse::broker::scripts::submit::{Grant, Submission, SubmitOutcome};
use wheelhouse::broker::{Broker, BrokerError};
use wheelhouse::domain::{Action, CommandId, Resource};

#[derive(Debug, Clone, Copy)]
enum Step {
    Submit(Action),
    /// With a lease that has ended by the time anybody looks, or with one that has not.
    Claim {
        worker: usize,
        short: bool,
    },
    Complete {
        worker: usize,
    },
    Renew {
        worker: usize,
    },
    GiveBack {
        worker: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let worker = 0..3_usize;
    prop_oneof![
        3 => prop::sample::select(vec![Action::Pause, Action::Resume, Action::Pause, Action::Cancel]).prop_map(Step::Submit),
        6 => (worker.clone(), any::<bool>()).prop_map(|(worker, short)| Step::Claim { worker, short }),
        5 => worker.clone().prop_map(|worker| Step::Complete { worker }),
        2 => worker.clone().prop_map(|worker| Step::Renew { worker }),
        1 => worker.prop_map(|worker| Step::GiveBack { worker }),
    ]
}

/// What must be true of one resource.
#[derive(Default)]
struct Model {
    /// Accepted, without a result, oldest first.
    waiting: Vec<(CommandId, Action)>,
    /// The claim that stands: command, fence, whether its lease is long, whether it was given back.
    held: Option<(CommandId, i64, bool, bool)>,
    /// The claim that ended last: completing it again is harmless.
    ended: Option<(CommandId, i64)>,
    newest_fence: i64,
    results: usize,
}

async fn play(broker: &Broker, resource: &Resource, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut model = Model::default();
    let mut claims: [Option<Claim>; 3] = [const { None }; 3];
    for step in steps {
        match step {
            Step::Submit(action) => {
                let mut asked = submission("x", action);
                (asked.resource, asked.grant) = (resource.clone(), Grant::Internal);
                accept(broker, &asked).await;
                if action == Action::Cancel {
                    // Whoever claimed it may have applied it, also if the lease is over.
                    let was = model.held;
                    let mut left = Vec::new();
                    for (id, what) in std::mem::take(&mut model.waiting) {
                        let ended = broker.result_of(resource, id).await.expect("result").is_some();
                        let spared = what == Action::Cancel || was.is_some_and(|(held, ..)| held == id);
                        prop_assert_eq!(ended, !spared, "superseded too much, or not");
                        if ended {
                            model.results += 1;
                        } else {
                            left.push((id, what));
                        }
                    }
                    model.waiting = left;
                }
                model.waiting.push((asked.command, action));
            }
            Step::Claim { worker: who, short } => {
                let lease = if short { Duration::from_millis(1) } else { LEASE };
                let name = worker(&format!("w{who}"));
                match broker.claim(resource, &name, lease).await.expect("claim") {
                    ClaimOutcome::Command(new) => {
                        let held_fast = model.held.is_some_and(|(_, _, long, back)| long && !back);
                        prop_assert!(!held_fast, "two workers hold one resource");
                        prop_assert_eq!(Some(new.command), model.waiting.first().map(|(id, _)| *id), "out of order");
                        prop_assert!(new.fence > model.newest_fence, "the fence must grow");
                        model.newest_fence = new.fence;
                        model.held = Some((new.command, new.fence, !short, false));
                        claims[who] = Some(*new);
                    }
                    ClaimOutcome::Nothing => prop_assert!(model.waiting.is_empty()),
                    ClaimOutcome::Later => prop_assert!(model.held.is_some(), "nobody holds it"),
                    ClaimOutcome::Hosted(host) => prop_assert!(false, "hosted by {}", host),
                }
            }
            Step::Complete { worker: who } => {
                let Some(old) = &claims[who] else { continue };
                let name = worker(&format!("w{who}"));
                let done = broker.complete(old, &name, &succeeded("x"), ROW, None).await.expect("complete");
                let mine = (old.command, old.fence);
                if model.held.is_some_and(|(id, fence, ..)| (id, fence) == mine) {
                    model.waiting.retain(|(id, _)| *id != old.command);
                    model.results += 1;
                    (model.held, model.ended) = (None, Some(mine));
                    prop_assert_eq!(done, CompleteOutcome::Done { more: !model.waiting.is_empty() });
                } else if model.ended == Some(mine) {
                    prop_assert_eq!(done, CompleteOutcome::Done { more: !model.waiting.is_empty() });
                } else {
                    prop_assert_eq!(done, CompleteOutcome::Lost);
                }
            }
            Step::Renew { worker: who } => {
                let Some(old) = &claims[who] else { continue };
                let renewed = broker.renew_claim(old, LEASE).await.expect("renew");
                match &mut model.held {
                    Some((id, fence, long, false)) if (*id, *fence) == (old.command, old.fence) => {
                        *long = true;
                        let outranked = old.action != Action::Cancel;
                        let cancel = model.waiting.iter().any(|(_, action)| *action == Action::Cancel);
                        prop_assert_eq!(renewed, RenewOutcome::Held { cancel_waiting: outranked && cancel });
                    }
                    _ => prop_assert_eq!(renewed, RenewOutcome::Lost),
                }
            }
            Step::GiveBack { worker: who } => {
                let Some(old) = &claims[who] else { continue };
                let given = broker.retry_later(old, Duration::ZERO).await.expect("retry");
                match &mut model.held {
                    Some((id, fence, _, back)) if (*id, *fence) == (old.command, old.fence) => {
                        *back = true;
                        prop_assert!(given);
                    }
                    _ => prop_assert!(!given, "a lost claim was given back"),
                }
            }
        }
    }
    let results = broker.recent_results(resource, 1_000).await.expect("results");
    prop_assert_eq!(results.len(), model.results, "each command that ended has one result");
    Ok(())
}

#[test]
fn in_no_order_of_calls_do_two_workers_hold_one_resource_or_two_results_come_of_one_command() {
    let redis = RedisServer::start();
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let broker = runtime.block_on(connect(&redis));
    let config = ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() };
    let case = AtomicUsize::new(0);
    proptest!(config, |(steps in prop::collection::vec(step(), 1..70))| {
        let resource = job(&format!("case-{}", case.fetch_add(1, Ordering::Relaxed)));
        runtime.block_on(play(&broker, &resource, steps))?;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_workers_at_once_answer_every_command_once_and_in_order() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let mut expected: BTreeMap<String, Vec<CommandId>> = BTreeMap::new();
    for i in 0..120 {
        let id = format!("j{}", i % 6);
        let mut asked = submission(&id, if i % 2 == 0 { Action::Pause } else { Action::Resume });
        asked.grant = Grant::Internal;
        accept(&broker, &asked).await;
        expected.entry(id).or_default().push(asked.command);
    }
    let busy: &'static [AtomicBool; 6] = Box::leak(Box::default());
    let tenant = job("j0").tenant;
    let workers = (0..8).map(|number| {
        let (broker, tenant) = (broker.clone(), tenant.clone());
        tokio::spawn(async move {
            let me = worker(&format!("w{number}"));
            loop {
                let due = broker.ready_resources(&tenant, 100, Duration::ZERO).await.expect("due");
                for resource in &due {
                    let ClaimOutcome::Command(held) = broker.claim(resource, &me, LEASE).await.expect("claim") else {
                        continue;
                    };
                    let place: usize = resource.id.as_str()[1..].parse().expect("number");
                    assert!(!busy[place].swap(true, Ordering::SeqCst), "two workers hold {resource}");
                    tokio::task::yield_now().await;
                    assert!(busy[place].swap(false, Ordering::SeqCst));
                    let done = broker.complete(&held, &me, &succeeded("x"), ROW, None).await;
                    assert!(matches!(done, Ok(CompleteOutcome::Done { .. })), "{done:?}");
                }
                if due.is_empty() && broker.ready_resources(&tenant, 1, Duration::ZERO).await.expect("due").is_empty() {
                    let mut left = false;
                    for place in 0..6 {
                        left |= !matches!(
                            broker.claim(&job(&format!("j{place}")), &me, Duration::from_millis(1)).await,
                            Ok(ClaimOutcome::Nothing)
                        );
                    }
                    if !left {
                        return;
                    }
                }
            }
        })
    });
    for ended in futures_util::future::join_all(workers).await {
        ended.expect("a worker failed");
    }
    for (id, commands) in expected {
        let results = broker.recent_results(&job(&id), 100).await.expect("results");
        assert_eq!(results.into_iter().map(|ended| ended.command).collect::<Vec<_>>(), commands);
    }
}

#[tokio::test]
async fn a_claim_given_back_cannot_be_taken_again_by_a_renewal_under_way() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    accept(&broker, &submission("j1", Action::Pause)).await;
    let held = claim(&broker, "j1", "w1").await;
    assert!(broker.retry_later(&held, Duration::ZERO).await.expect("retry"));
    assert_eq!(broker.renew_claim(&held, LEASE).await.expect("renew"), RenewOutcome::Lost);
    let again = loop {
        // The delay of nothing is over as soon as Redis's clock shows the next millisecond.
        if let ClaimOutcome::Command(again) = broker.claim(&job("j1"), &worker("w2"), LEASE).await.expect("claim") {
            break again;
        }
    };
    assert_eq!((again.command, again.attempt), (held.command, 2));
}

#[tokio::test]
async fn a_pause_that_waits_to_be_tried_again_gives_way_at_once_but_to_a_worker_that_can_look_into_sql() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let pause = submission("j1", Action::Pause);
    accept(&broker, &pause).await;
    let held = claim(&broker, "j1", "w1").await;
    assert!(broker.retry_later(&held, Duration::from_secs(600)).await.expect("retry"));
    let cancel = submission("j1", Action::Cancel);
    accept(&broker, &cancel).await;
    assert_eq!(broker.result_of(&job("j1"), pause.command).await.expect("result"), None, "it may be applied already");
    assert_eq!(broker.renew_claim(&held, LEASE).await.expect("renew"), RenewOutcome::Lost, "it was given back");
    let partition = broker.keys().partition(&job("j1").tenant);
    assert_eq!(broker.ready_resources(&job("j1").tenant, 10, Duration::ZERO).await.expect("due"), [job("j1")]);
    let again = claim(&broker, "j1", "w2").await;
    assert_eq!((again.command, again.attempt, again.cancel_waits), (pause.command, 2, true));
    let done = broker.complete(&again, &worker("w2"), &refused("x"), ROW, None).await.expect("complete");
    assert_eq!(done, CompleteOutcome::Done { more: true });
    assert_eq!(claim(&broker, "j1", "w2").await.command, cancel.command);
    let events: Vec<String> =
        broker.audit_after(partition, "0", 10).await.expect("audit").into_iter().map(|e| e.event).collect();
    assert_eq!(events, ["accepted", "accepted", "failed"]);
}

#[tokio::test]
async fn what_was_accepted_waits_for_ever_and_what_is_answered_is_cleared_away() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let (names, r) = (broker.keys(), job("j1"));
    accept(&broker, &submission("j1", Action::Pause)).await;
    let held = claim(&broker, "j1", "w1").await;
    for key in [names.queue(&r), names.commands(&r), names.ready(&r.tenant)] {
        assert_eq!(redis.inline(&format!("TTL {key}")), ":-1", "{key} must not expire under a command");
    }
    broker.complete(&held, &worker("w1"), &succeeded("paused"), ROW, None).await.expect("complete");
    for key in [names.queue(&r), names.commands(&r), names.ready(&r.tenant), names.backlog(&r.tenant)] {
        assert_eq!(redis.inline(&format!("EXISTS {key}")), ":0", "{key} is left behind");
    }
}

#[tokio::test]
async fn a_denial_whose_answer_was_lost_uses_budget_once() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let mut asked = submission("j1", Action::Pause);
    asked.grant = Grant::Token(false);
    for _ in 0..3 {
        assert_eq!(broker.submit(&asked, LIMITS).await.expect("submit"), SubmitOutcome::Denied);
    }
    let rate = broker.keys().rate(&asked.resource.tenant, &asked.user);
    assert_eq!(redis.inline(&format!("LLEN {rate}")), ":1");
}

#[tokio::test]
async fn a_resource_whose_keys_somebody_damaged_is_set_aside_so_that_others_come_before_it() {
    let server = RedisServer::start();
    let broker = connect(&server).await;
    let (tenant, good) = ("acme".parse().expect("tenant"), job("good"));
    let mut commands = Vec::new();
    for n in 0..4 {
        let bad = job(&format!("bad-{n}"));
        let asked = submission(bad.id.as_str(), Action::Pause);
        accept(&broker, &asked).await;
        commands.push(asked.command);
        let damaged = [broker.keys().queue(&bad), broker.keys().state(&bad)];
        assert_eq!(server.inline(&format!("SET {} x", damaged[n % 2])), "+OK");
    }
    accept(&broker, &submission("good", Action::Pause)).await;
    let due = broker.ready_resources(&tenant, 10, Duration::ZERO).await.expect("due");
    assert_eq!((due.len(), due.last()), (5, Some(&good)));
    for (n, bad) in due[..4].iter().enumerate() {
        let error = if n < 2 {
            broker.claim(bad, &worker("w"), Duration::from_secs(1)).await.map(drop).expect_err("damaged")
        } else {
            // Where no worker is left, gateways end what has waited for too long.
            broker.expire(bad, Duration::ZERO).await.map(drop).expect_err("damaged")
        };
        assert!(matches!(&error, BrokerError::Refused(why) if why.contains("WRONGTYPE")), "{error}");
    }
    assert_eq!(broker.ready_resources(&tenant, 10, Duration::ZERO).await.expect("due"), [good]);
    // Mended as docs/redis.md says, they go on.
    let (queue, state) = (broker.keys().queue(&due[0]), broker.keys().state(&due[1]));
    for mend in [format!("DEL {queue}"), format!("RPUSH {queue} {}", commands[0]), format!("DEL {state}")] {
        assert_eq!(server.inline(&mend), ":1");
    }
    for mended in &due[..2] {
        claim(&broker, mended.id.as_str(), "w").await;
    }
}

#[tokio::test]
async fn a_record_that_somebody_spoilt_is_passed_over_and_those_behind_it_are_carried_out() {
    let server = RedisServer::start();
    let broker = connect(&server).await;
    let corrupt = ["nonsense", "1|1|{\"action\":\"pause\"", "1|1|null", "1|1|{\"action\":\"explode\"}"];
    for (n, record) in corrupt.into_iter().enumerate() {
        let job = job(&format!("j{n}"));
        let (first, second) =
            (submission(&job.id.to_string(), Action::Pause), submission(&job.id.to_string(), Action::Resume));
        accept(&broker, &first).await;
        accept(&broker, &second).await;
        let (key, first) = (broker.keys().commands(&job), first.command);
        // In quotes, as redis-cli takes it.
        assert_eq!(server.inline(&format!("HSET {key} {first} \"{}\"", record.replace('"', "\\\""))), ":0");
        // The first to look at it may get no more than an error; nobody must be stopped by it.
        let found = async {
            loop {
                if let Ok(ClaimOutcome::Command(claim)) =
                    broker.claim(&job, &worker("w"), Duration::from_millis(20)).await
                {
                    return claim;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let claim = tokio::time::timeout(Duration::from_secs(20), found).await.expect("the next command");
        assert_eq!(claim.command, second.command, "{record}");
    }
}

#[tokio::test]
async fn a_cancel_is_accepted_whole_whatever_stands_in_the_records_that_it_supersedes() {
    let server = RedisServer::start();
    let broker = connect(&server).await;
    let of =
        |command: &str| format!(r#""tenant_id":"acme","user_id":"ann","resource_id":"j","command_id":"{command}""#);
    for (n, (kind, more)) in [("planet", ""), ("job", r#","retries":1e999"#)].into_iter().enumerate() {
        let job = job(&format!("j{n}"));
        let (pause, cancel) =
            (submission(&job.id.to_string(), Action::Pause), submission(&job.id.to_string(), Action::Cancel));
        accept(&broker, &pause).await;
        let fields = of(&pause.command.to_string());
        let record = format!(r#"1|1|{{"v":1,"action":"pause","resource_kind":"{kind}",{fields}{more}}}"#);
        let key = broker.keys().commands(&job);
        let written = server.inline(&format!("HSET {key} {} \"{}\"", pause.command, record.replace('"', "\\\"")));
        assert_eq!(written, ":0");
        accept(&broker, &cancel).await;
        assert_eq!(server.inline(&format!("LLEN {}", broker.keys().queue(&job))), ":2", "{record}");
    }
}

#[tokio::test]
async fn a_request_whose_record_somebody_damaged_is_answered_all_the_same() {
    let server = RedisServer::start();
    let broker = connect(&server).await;
    let mut damages: Vec<String> = [r#""soon""#, "[]", "1e999", "4102444800000"]
        .map(|ends| format!(r#"{{"v":1,"body":"x","outcome":"scheduled","ends":{ends}}}"#))
        .into();
    let id = "0190f3c87a2b7000800000000000000a";
    damages.extend(["", "l", "l4102444800", "d41024448c", "l4102444800zp"].map(str::to_owned));
    damages.extend([format!("l4102444800{id}p"), format!("x4102444800{id}3p"), format!("l4102444800{id}3")]);
    for (n, damaged) in damages.iter().enumerate() {
        let request = Some(format!("again-{n}").parse().expect("an id"));
        let asked = Submission { request, ..submission("j", Action::Pause) };
        accept(&broker, &asked).await;
        let kept: Vec<String> = server.query(&["KEYS", "*:@request*"]).expect("the requests");
        for hash in &kept {
            for field in server.query::<Vec<String>>(&["HKEYS", hash]).expect("their names") {
                let _: i64 = server.query(&["HSET", hash, &field, damaged]).expect("HSET");
            }
        }
        assert_eq!(kept.iter().filter(|name| name.contains(":@request_ids:")).count(), n + 1, "each is remembered");
        // What was asked is not known any more, so that it is a new command; SQL knows that it was carried out.
        accept(&broker, &Submission { command: CommandId::generate(), ..asked }).await;
    }
}
