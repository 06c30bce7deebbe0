//! `redis.fsyncs_to_wait`, when the machine loses its power: what was told is there afterwards, as far as the disk keeps its word.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::task::block_in_place;
use tokio_util::sync::CancellationToken;
use wheelhouse::broker::scripts::claim::{Claim, ClaimOutcome, CompleteOutcome, RenewOutcome};
use wheelhouse::broker::scripts::submit::{Submission, SubmitOutcome};
use wheelhouse::broker::{Broker, BrokerError};
use wheelhouse::domain::{Action, CommandId};

use super::disks::{NO_LIMITS, answered, is_accepted, on_disks, words};
use super::faults::until;
use crate::support::disk::Disk;
use crate::support::redis::RedisServer;
use crate::{ROW, back_up, job, submission, succeeded, success, worker};

/// Who send commands at once, each one after the other.
const SENDERS: usize = 32;
/// Power is lost before so many commands were sent and answered.
const MOST_EVENTS: usize = 200;

/// It may end: nobody else claims. And a claim of which its worker was not told does not keep the next one waiting for long.
const SHORT_LEASE: Duration = Duration::from_secs(1);

const EVERYSEC: [&str; 2] = ["--appendfsync", "everysec"];

async fn connect(redis: &RedisServer, fsyncs_to_wait: u32) -> Broker {
    Broker::connect(&on_disks(redis, fsyncs_to_wait)).await.expect("connect")
}

fn asked(id: &str) -> Submission {
    Submission { request: Some(format!("r-{id}").parse().expect("id")), ..submission(id, Action::Pause) }
}

/// Whether the sender of a command finds it when it asks once more. If it does not, the command is accepted now, under another id.
async fn finds(broker: &Broker, first: &Submission) -> bool {
    let again = Submission { command: CommandId::generate(), ..first.clone() };
    match answered(broker, &again).await {
        SubmitOutcome::Accepted { .. } => false,
        SubmitOutcome::Repeated { command, .. } if command == again.command => false,
        SubmitOutcome::Repeated { command, .. } if command == first.command => true,
        other => panic!("{}: {other:?}", first.resource),
    }
}

/// The answer in the end, to a question that may be asked again.
async fn said<T>(mut ask: impl AsyncFnMut() -> Result<T, BrokerError>) -> T {
    let mut answer = None;
    until("it is answered", async || {
        answer = ask().await.ok();
        answer.is_some()
    })
    .await;
    answer.expect("an answer")
}

/// A claim of which the worker was told.
async fn held(broker: &Broker, id: &str) -> Claim {
    let mut held = None;
    until("it is claimed", async || {
        if let Ok(ClaimOutcome::Command(claim)) = broker.claim(&job(id), &worker("w1"), SHORT_LEASE).await {
            held = Some(*claim);
        }
        held.is_some()
    })
    .await;
    held.expect("a claim")
}

async fn complete(broker: &Broker, claim: &Claim) {
    let done = said(async || broker.complete(claim, &worker("w1"), &succeeded("paused"), ROW, None).await).await;
    assert_eq!(done, CompleteOutcome::Done { more: false });
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
async fn power_is_lost_in_a_stream(
    disk: &Disk,
    redis: &mut RedisServer,
    fsyncs_to_wait: u32,
    round: u32,
) -> (u64, usize) {
    let (sure, hasty) = (connect(redis, fsyncs_to_wait).await, connect(redis, 0).await);
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
    let learned = join_all(told.iter().map(|(asked, answer)| learns(&hasty, asked, answer))).await;
    for ((asked, answer), is_there) in told.iter().zip(learned) {
        // There is one command to carry out, whatever its sender was told.
        let queue: Vec<String> =
            redis.query(&["LRANGE", &hasty.keys().queue(&asked.resource), "0", "-1"]).expect("queue");
        let was = format!("{} was told {answer:?}, and there is {queue:?}", asked.resource);
        assert_eq!((queue.len(), queue.contains(&asked.command.to_string())), (1, is_there), "{was}");
    }
    (lost, told[..before].iter().filter(|(_, answer)| is_accepted(answer)).count())
}

/// What the sender of a command finds after the loss of power is what it was told before. Gives whether it finds its command.
async fn learns(broker: &Broker, asked: &Submission, answer: &Result<SubmitOutcome, BrokerError>) -> bool {
    let is_there = finds(broker, asked).await;
    let was = format!("{} was told {answer:?}, and is there: {is_there}", asked.resource);
    match answer {
        _ if is_accepted(answer) => assert!(is_there, "{was}"),
        Err(BrokerError::Unknown(_)) => {}
        Ok(SubmitOutcome::TooLate) | Err(BrokerError::Unavailable(_) | BrokerError::NotServing(_)) => {
            assert!(!is_there, "{was}");
        }
        _ => panic!("{was}"),
    }
    is_there
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_accepted_with_a_disk_that_is_written_once_a_second_is_there_when_power_comes_back() {
    let disk = Disk::new();
    let mut redis = RedisServer::start_newer_on(&disk, || words(&EVERYSEC));
    let (mut lost, mut accepted) = (0, 0);
    for round in 0..30 {
        let of_this = power_is_lost_in_a_stream(&disk, &mut redis, 1, round).await;
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
    for round in 0..4 {
        // Redis itself waits for the disk.
        accepted += power_is_lost_in_a_stream(&disk, &mut redis, round % 2, round).await.1;
    }
    assert!(accepted > 0, "nothing was tried");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_waiting_a_command_is_accepted_that_is_lost_with_the_power() {
    let disk = Disk::new();
    let mut redis = RedisServer::start_newer_on(&disk, || words(&EVERYSEC));
    let (sure, hasty) = (connect(&redis, 1).await, connect(&redis, 0).await);
    let kept = asked("kept");
    answered(&sure, &kept).await;
    let stall = disk.stall();
    let accepted: Vec<Submission> = (0..10).map(|n| asked(&format!("lost{n}"))).collect();
    for one in &accepted {
        let said = answered(&hasty, one).await;
        assert!(is_accepted(&Ok(said)));
    }
    let late = asked("late");
    let said = sure.submit(&late, NO_LIMITS).await;
    assert!(!is_accepted(&said), "{said:?}");
    assert!(lose_power(&disk, &mut redis).await > 0);
    drop(stall);
    restart(&mut redis, &[&sure, &hasty]).await;
    for gone in accepted.iter().chain([&late]) {
        assert!(!finds(&hasty, gone).await, "{} is there", gone.resource);
    }
    assert!(finds(&hasty, &kept).await);
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
            answered(&hasty, &submission(&format!("before{round}"), Action::Pause)).await;
            redis.text("INFO persistence").contains("aof_pending_bio_fsync:1")
        })
        .await;
        let (waited, lost) = (asked(&format!("waited{round}")), asked(&format!("lost{round}")));
        let (said, said_hastily) = tokio::join!(sure.submit(&waited, NO_LIMITS), async {
            let said = hasty.submit(&lost, NO_LIMITS).await;
            block_in_place(|| redis.kill());
            said
        });
        assert!(!is_accepted(&said), "{said:?}");
        drop(stall);
        restart(&mut redis, &[&sure, &hasty]).await;
        // Where the machine was so slow that the kill came after two seconds it is there.
        if is_accepted(&said_hastily) && !finds(&hasty, &lost).await {
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
    join_all(["claimed", "ended", "hasty"].map(asked).iter().map(|one| answered(&sure, one))).await;
    let (claimed, ended) = tokio::join!(held(&sure, "claimed"), held(&sure, "ended"));
    complete(&sure, &ended).await;
    let result = async |broker: &Broker, claim: &Claim| {
        said(async || broker.result_of(&claim.resource, claim.command).await).await
    };
    assert_eq!(result(&sure, &ended).await, Some(success(&ended, "paused")));

    // And the same without waiting, on a disk that is too slow.
    let stall = disk.stall();
    let lost = held(&hasty, "hasty").await;
    complete(&hasty, &lost).await;
    assert_eq!(result(&hasty, &lost).await, Some(success(&lost, "paused")));
    let late = sure.result_of(&lost.resource, lost.command).await;
    assert!(late.is_err(), "{late:?}");
    assert!(lose_power(&disk, &mut redis).await > 0);
    drop(stall);
    restart(&mut redis, &[&sure, &hasty]).await;

    let renewed = said(async || hasty.renew_claim(&claimed, SHORT_LEASE).await).await;
    assert_eq!(renewed, RenewOutcome::Held { cancel_waiting: false });
    assert_eq!(result(&hasty, &ended).await, Some(success(&ended, "paused")));
    let next = said(async || hasty.claim(&ended.resource, &worker("w1"), SHORT_LEASE).await).await;
    assert!(matches!(next, ClaimOutcome::Nothing), "{next:?}");
    assert_eq!(result(&hasty, &lost).await, None);
    assert_eq!(held(&hasty, "hasty").await.command, lost.command);
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
