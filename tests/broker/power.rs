//! `redis.fsyncs_to_wait`, when the machine loses its power: what was told is there afterwards, as far as the disk keeps its word.

use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::task::block_in_place;
use tokio_util::sync::CancellationToken;
use wheelhouse::broker::scripts::claim::{ClaimOutcome, CompleteOutcome, RenewOutcome};
use wheelhouse::broker::scripts::submit::{Submission, SubmitLimits, SubmitOutcome};
use wheelhouse::broker::{Broker, BrokerError};
use wheelhouse::domain::{Action, CommandId};

use super::disks::{on_disk, on_disks, words};
use super::faults::until;
use crate::support::disk::Disk;
use crate::support::redis::RedisServer;
use crate::{LEASE, LIMITS, ROW, accept, back_up, claim, job, submission, succeeded, success, worker};

/// A stream of commands is not what limits are for.
const NO_LIMITS: SubmitLimits =
    SubmitLimits { commands_per_minute: 1_000_000, backlog_per_tenant: 1_000_000, schedules_per_tenant: 100 };
/// Who send commands at once, each one after the other.
const SENDERS: usize = 32;
/// Power is lost before so many commands were sent and answered.
const MOST_EVENTS: usize = 200;

const EVERYSEC: [&str; 2] = ["--appendfsync", "everysec"];

async fn connect(redis: &RedisServer, fsyncs_to_wait: u32) -> Broker {
    Broker::connect(&on_disks(redis, fsyncs_to_wait)).await.expect("connect")
}

fn asked(id: &str) -> Submission {
    Submission { request: Some(format!("r-{id}").parse().expect("id")), ..submission(id, Action::Pause) }
}

/// Asks for the same once more, as its sender would.
async fn ask_again(broker: &Broker, first: &Submission) -> SubmitOutcome {
    let again = Submission { command: CommandId::generate(), ..first.clone() };
    broker.submit(&again, NO_LIMITS).await.expect("an answer")
}

async fn lose_power(disk: &Disk, redis: &mut RedisServer) -> u64 {
    block_in_place(|| disk.lose_power(redis))
}

async fn restart(redis: &mut RedisServer, brokers: &[&Broker]) {
    block_in_place(|| redis.restart());
    for broker in brokers {
        back_up(broker).await;
    }
}

/// What a sender has sent, and what it was told.
type Told = (Submission, Result<SubmitOutcome, BrokerError>);

/// One command after the other, each on a job of its own, until one is not accepted or it is over. `None` says that one is sent.
async fn send_many(broker: Broker, name: String, events: mpsc::UnboundedSender<Option<Told>>, over: CancellationToken) {
    for n in 0.. {
        let asked = asked(&format!("{name}-{n}"));
        let _ = events.send(None);
        let answer = broker.submit(&asked, NO_LIMITS).await;
        let goes_on = answer.is_ok() && !over.is_cancelled();
        let _ = events.send(Some((asked, answer)));
        if !goes_on {
            return;
        }
    }
}

/// Many send commands, power is lost at some moment, and each learns what became of its commands. Gives how much was not on
/// the disk at that moment, and how many commands were accepted before.
async fn power_is_lost_in_a_stream(disk: &Disk, redis: &mut RedisServer, round: usize) -> (u64, usize) {
    let (sure, hasty) = (connect(redis, 1).await, connect(redis, 0).await);
    // It may be lost while the file is made anew.
    redis.inline("BGREWRITEAOF");
    let ((events, mut seen), over) = (mpsc::unbounded_channel(), CancellationToken::new());
    for n in 0..SENDERS {
        tokio::spawn(send_many(sure.clone(), format!("j{round}-{n}"), events.clone(), over.clone()));
    }
    drop(events);
    let mut told = Vec::new();
    for _ in 0..fastrand::usize(1..MOST_EVENTS) {
        let Some(event) = seen.recv().await else { break };
        told.extend(event);
    }
    let (lost, before) = (lose_power(disk, redis).await, told.len());
    // Some of what is under way is sent again to the server that comes back.
    restart(redis, &[&sure, &hasty]).await;
    over.cancel();
    while let Some(event) = seen.recv().await {
        told.extend(event);
    }
    let learned = told.iter().map(|(asked, answer)| learns(&hasty, asked, answer));
    let accepted = join_all(learned).await.into_iter().take(before).filter(|accepted| *accepted).count();
    (lost, accepted)
}

/// What the sender of a command learns after the loss of power is what it was told before, and the command is carried out once.
/// Gives whether it was told that the command is accepted.
async fn learns(broker: &Broker, asked: &Submission, answer: &Result<SubmitOutcome, BrokerError>) -> bool {
    let again = ask_again(broker, asked).await;
    let is_there = matches!(again, SubmitOutcome::Repeated { command, .. } if command == asked.command);
    let is_new = matches!(again, SubmitOutcome::Accepted { .. });
    let was = format!("{} was told {answer:?}, and then {again:?}", asked.resource);
    let accepted = matches!(answer, Ok(SubmitOutcome::Accepted { .. } | SubmitOutcome::Repeated { .. }));
    match answer {
        Ok(_) if accepted => assert!(is_there, "{was}"),
        Err(BrokerError::Unknown(_)) => assert!(is_new || is_there, "{was}"),
        Err(BrokerError::Unavailable(_)) => assert!(is_new, "{was}"),
        _ => panic!("{was}"),
    }
    let held = claim(broker, asked.resource.id.as_str(), "w1").await;
    assert_eq!(held.command == asked.command, is_there, "{was}");
    let done = broker.complete(&held, &worker("w1"), &succeeded("paused"), ROW, None).await;
    assert_eq!(done.expect("complete"), CompleteOutcome::Done { more: false }, "{was}");
    let next = broker.claim(&asked.resource, &worker("w1"), LEASE).await;
    assert!(matches!(next, Ok(ClaimOutcome::Nothing)), "{was}, and {next:?}");
    accepted
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_accepted_with_a_disk_that_is_written_once_a_second_is_there_when_power_comes_back() {
    let disk = Disk::new();
    let mut redis = RedisServer::start_newer_on(&disk, || words(&EVERYSEC));
    let (mut lost, mut accepted) = (0, 0);
    for round in 0..30 {
        let of_this = power_is_lost_in_a_stream(&disk, &mut redis, round).await;
        (lost, accepted) = (lost + of_this.0, accepted + of_this.1);
        if round >= 2 && lost > 0 && accepted > 0 {
            return;
        }
    }
    panic!("nothing was tried: {accepted} were accepted, and {lost} bytes were not on the disk");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_accepted_with_a_disk_that_is_always_written_is_there_when_power_comes_back() {
    let disk = Disk::new();
    let mut redis = RedisServer::start_newer_on(&disk, || words(&["--appendfsync", "always"]));
    let mut accepted = 0;
    for round in 0..3 {
        accepted += power_is_lost_in_a_stream(&disk, &mut redis, round).await.1;
    }
    assert!(accepted > 0, "nothing was tried");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_waiting_a_command_is_accepted_that_is_lost_with_the_power() {
    let disk = Disk::new();
    let mut redis = RedisServer::start_newer_on(&disk, || words(&EVERYSEC));
    let (sure, hasty) = (connect(&redis, 1).await, connect(&redis, 0).await);
    let kept = asked("kept");
    on_disk(&sure, &kept).await;
    let stall = disk.stall();
    let accepted: Vec<Submission> = (0..10).map(|n| asked(&format!("lost{n}"))).collect();
    for one in &accepted {
        accept(&hasty, one).await;
    }
    let late = asked("late");
    let said = sure.submit(&late, LIMITS).await;
    assert!(matches!(said, Err(BrokerError::Unknown(_))), "{said:?}");
    assert!(lose_power(&disk, &mut redis).await > 0);
    drop(stall);
    restart(&mut redis, &[&sure, &hasty]).await;
    for gone in accepted.iter().chain([&late]) {
        let again = ask_again(&hasty, gone).await;
        assert!(matches!(again, SubmitOutcome::Accepted { .. }), "{}: {again:?}", gone.resource);
    }
    let again = ask_again(&hasty, &kept).await;
    assert!(matches!(again, SubmitOutcome::Repeated { command, .. } if command == kept.command), "{again:?}");
}

/// Redis holds its writes back while the disk has not confirmed those before, for two seconds at most.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_takes_along_what_a_slow_disk_held_back_and_nobody_who_waited_was_told_of_it() {
    let disk = Disk::new();
    let mut redis = RedisServer::start_newer_on(&disk, || words(&EVERYSEC));
    let (sure, hasty) = (connect(&redis, 1).await, connect(&redis, 0).await);
    for round in 0..10 {
        let stall = disk.stall();
        until("a write hangs", async || {
            ask_again(&hasty, &asked(&format!("before{round}"))).await;
            redis.text("INFO persistence").contains("aof_pending_bio_fsync:1")
        })
        .await;
        let (waited, lost) = (asked(&format!("waited{round}")), asked(&format!("lost{round}")));
        let (said, ()) = tokio::join!(sure.submit(&waited, NO_LIMITS), async {
            let said = hasty.submit(&lost, NO_LIMITS).await;
            assert!(matches!(said, Ok(SubmitOutcome::Accepted { .. })), "{said:?}");
            block_in_place(|| redis.kill());
        });
        assert!(said.is_err(), "{said:?}");
        drop(stall);
        restart(&mut redis, &[&sure, &hasty]).await;
        // On a machine where the kill came after two seconds it is there.
        if matches!(ask_again(&hasty, &lost).await, SubmitOutcome::Accepted { .. }) {
            return;
        }
    }
    panic!("this machine is too slow");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_and_a_result_that_were_told_are_there_when_power_comes_back() {
    let disk = Disk::new();
    let mut redis = RedisServer::start_newer_on(&disk, || words(&EVERYSEC));
    let (sure, hasty) = (connect(&redis, 1).await, connect(&redis, 0).await);
    join_all(["claimed", "ended", "hasty"].map(asked).iter().map(|one| on_disk(&sure, one))).await;
    let held_until_told = async |id: &str| {
        let mut claimed = None;
        until("the claim is on disk", async || {
            if let Ok(ClaimOutcome::Command(told)) = sure.claim(&job(id), &worker("w1"), LEASE).await {
                claimed = Some(*told);
            }
            claimed.is_some()
        })
        .await;
        claimed.expect("a claim")
    };
    let (claimed, ended) = tokio::join!(held_until_told("claimed"), held_until_told("ended"));
    // What the worker is told may be late; it is the result that somebody is told.
    let _ = sure.complete(&ended, &worker("w1"), &succeeded("paused"), ROW, None).await;
    let mut told = None;
    until("the result is on disk", async || {
        told = sure.result_of(&ended.resource, ended.command).await.ok().flatten();
        told.is_some()
    })
    .await;
    assert_eq!(told, Some(success(&ended, "paused")));

    // And the same without waiting, on a disk that is too slow.
    let stall = disk.stall();
    let lost = claim(&hasty, "hasty", "w1").await;
    hasty.complete(&lost, &worker("w1"), &succeeded("paused"), ROW, None).await.expect("complete");
    let told_hastily = hasty.result_of(&lost.resource, lost.command).await.expect("result");
    assert_eq!(told_hastily, Some(success(&lost, "paused")));
    let late = sure.result_of(&lost.resource, lost.command).await;
    assert!(matches!(late, Err(BrokerError::Unknown(_))), "{late:?}");
    assert!(lose_power(&disk, &mut redis).await > 0);
    drop(stall);
    restart(&mut redis, &[&sure, &hasty]).await;

    let renewed = hasty.renew_claim(&claimed, LEASE).await.expect("renew");
    assert_eq!(renewed, RenewOutcome::Held { cancel_waiting: false });
    assert_eq!(hasty.result_of(&ended.resource, ended.command).await.expect("result"), told);
    assert!(matches!(hasty.claim(&ended.resource, &worker("w1"), LEASE).await, Ok(ClaimOutcome::Nothing)));
    assert_eq!(hasty.result_of(&lost.resource, lost.command).await.expect("result"), None);
    assert_eq!(claim(&hasty, "hasty", "w1").await.command, lost.command);
}

/// What the other tests stand on: with the server that this machine has, and with one that knows WAITAOF.
#[tokio::test]
async fn a_loss_of_power_leaves_what_a_server_has_synced_and_nothing_else() {
    let always: fn() -> Vec<String> = || words(&["--appendfsync", "always"]);
    for newer in [false, true] {
        let disk = Disk::new();
        let start = if newer { RedisServer::start_newer_on } else { RedisServer::start_with_on };
        let mut redis = start(&disk, always);
        let there =
            |redis: &RedisServer| -> Vec<Option<u8>> { redis.query(&["MGET", "a", "b", "c", "d"]).expect("MGET") };
        redis.inline("SET a 1");
        let files = std::fs::read_dir(redis.append_only_folder()).expect("folder").count();
        redis.inline("BGREWRITEAOF");
        until("it is made anew", async || {
            let state = redis.text("INFO persistence");
            ["aof_rewrite_in_progress:0", "aof_rewrite_scheduled:0"].iter().all(|no| state.contains(no))
        })
        .await;
        assert!(files >= 3, "{files} files: a base, an increment and a manifest");
        redis.inline("SET b 1");
        redis.inline("CONFIG SET appendfsync no");
        redis.inline("SET c 1");
        assert!(disk.lose_power(&mut redis) > 0);
        redis.restart();
        assert_eq!(there(&redis), [Some(1), Some(1), None, None]);
        redis.inline("SET d 1");
        assert_eq!(disk.lose_power(&mut redis), 0);
        redis.restart();
        assert_eq!(there(&redis), [Some(1), Some(1), None, Some(1)]);
    }
}
