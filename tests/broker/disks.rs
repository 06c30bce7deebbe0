//! `redis.fsyncs_to_wait`: what is accepted is on disk, and where it cannot be, nobody is told that it is.

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wheelhouse::broker::scripts::submit::{Submission, SubmitLimits, SubmitOutcome};
use wheelhouse::broker::{Broker, BrokerError, Subscriber};
use wheelhouse::config;
use wheelhouse::domain::{Action, CommandId};

use super::faults::until;
use crate::support::redis::RedisServer;
use crate::{LIMITS, accept, back_up, job, redis_at, settings, submission};

pub fn on_disks(redis: &RedisServer, fsyncs_to_wait: u32) -> config::Redis {
    config::Redis { fsyncs_to_wait, ..settings(redis) }
}

/// A stream of commands is not what limits are for.
pub const NO_LIMITS: SubmitLimits =
    SubmitLimits { commands_per_minute: 1_000_000, backlog_per_tenant: 1_000_000, schedules_per_tenant: 100 };

pub fn words(of: &[&str]) -> Vec<String> {
    of.iter().map(|word| (*word).to_owned()).collect()
}

/// What is said in the end: on a busy machine a sender may have to ask again.
pub async fn answered(broker: &Broker, asked: &Submission) -> SubmitOutcome {
    let mut said = None;
    until("it is answered", async || {
        said = broker.submit(asked, NO_LIMITS).await.ok().filter(|said| *said != SubmitOutcome::TooLate);
        said.is_some()
    })
    .await;
    said.expect("an answer")
}

/// Whether somebody was told that it is accepted.
pub fn is_accepted(answer: &Result<SubmitOutcome, BrokerError>) -> bool {
    matches!(answer, Ok(SubmitOutcome::Accepted { .. } | SubmitOutcome::Repeated { .. }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_accepted_when_it_is_on_disk_and_the_same_again_finds_out_where_that_was_late() {
    // It never writes to the disk by itself.
    let redis = RedisServer::start_newer(|| words(&["--appendfsync", "no"]));
    let broker = Broker::connect(&on_disks(&redis, 1)).await.expect("connect");
    let asked = Submission { request: Some("r1".parse().expect("id")), ..submission("j1", Action::Pause) };
    until("it is in memory", async || {
        let said = broker.submit(&asked, NO_LIMITS).await;
        assert!(!is_accepted(&said), "it is on no disk: {said:?}");
        redis.inline(&format!("LLEN {}", broker.keys().queue(&asked.resource))) == ":1"
    })
    .await;
    let hasty = Broker::connect(&on_disks(&redis, 0)).await.expect("connect");
    answered(&hasty, &submission("j2", Action::Pause)).await;

    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let _end = stop.clone().drop_guard();
    let (subscriber, _events) = Subscriber::start(&broker, &tracker, stop).await.expect("subscribe");
    let problem = subscriber.proof().problem().expect("it cannot serve").to_string();
    assert!(problem.contains("redis.fsyncs_to_wait"), "{problem}");
    assert_eq!(redis.inline("CONFIG SET appendfsync always"), "+OK");
    until("it is ready", async || subscriber.proof().problem().is_none()).await;
    let again = Submission { command: CommandId::generate(), ..asked.clone() };
    let outcome = answered(&broker, &again).await;
    assert!(matches!(outcome, SubmitOutcome::Repeated { command, .. } if command == asked.command), "{outcome:?}");
    // Many at once share a wait.
    let many: Vec<Submission> = (0..20).map(|n| submission(&format!("k{n}"), Action::Pause)).collect();
    futures_util::future::join_all(many.iter().map(|one| answered(&broker, one))).await;

    assert_eq!(redis.inline("CONFIG SET appendonly no"), "+OK");
    until("it says that it cannot keep that any more", async || subscriber.proof().problem().is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_accepted_with_a_disk_that_is_written_once_a_second_is_there_after_a_kill() {
    let mut redis = RedisServer::start_newer(|| words(&["--appendfsync", "everysec"]));
    let broker = Broker::connect(&on_disks(&redis, 1)).await.expect("connect");
    for round in 0..3 {
        let asked: Vec<Submission> = (0..5).map(|n| submission(&format!("j{round}-{n}"), Action::Pause)).collect();
        let answers = futures_util::future::join_all(asked.iter().map(|one| broker.submit(one, LIMITS))).await;
        redis.kill();
        redis.restart();
        back_up(&broker).await;
        for (one, answer) in asked.iter().zip(answers) {
            // On a busy disk some were not there in time, and nobody was told that they are.
            if let Ok(SubmitOutcome::Accepted { .. }) = answer {
                let queue = broker.keys().queue(&one.resource);
                assert_eq!(redis.inline(&format!("LLEN {queue}")), ":1", "{queue} was accepted and is gone");
            }
        }
    }
}

/// A port that leads the first two connections to one server, and all later ones to another.
async fn port_that_moves(first: u16, then: u16) -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("bind a free port");
    let port = listener.local_addr().expect("address").port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        for n in 0.. {
            let (mut near, _) = listener.accept().await.expect("a connection");
            let target = if n < 2 { first } else { then };
            connections.spawn(async move {
                let mut far = TcpStream::connect(("127.0.0.1", target)).await.expect("connect to Redis");
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    (port, tasks)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_of_another_server_than_the_one_that_answers_is_not_waited_for() {
    let redis = RedisServer::start_newer(|| words(&["--appendfsync", "no"]));
    let other = RedisServer::start_newer(|| words(&["--appendfsync", "always"]));
    let (port, _tasks) = port_that_moves(redis.port(), other.port()).await;
    let moved = config::Redis { fsyncs_to_wait: 1, ..redis_at(format!("redis://127.0.0.1:{port}")) };
    let refused = Broker::connect(&moved).await.err().expect("its disk is not written").to_string();
    assert!(refused.contains("another server answers at this address by now"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_cannot_say_what_is_on_disk_is_refused_with_what_to_do() {
    let newer = RedisServer::start_newer(|| words(&["--appendonly", "no"]));
    let refused = Broker::connect(&on_disks(&newer, 1)).await.err().expect("it has no file").to_string();
    assert!(refused.contains("redis.fsyncs_to_wait") && refused.contains("appendonly yes"), "{refused}");
    let usual = RedisServer::start();
    let known: Vec<redis::Value> = usual.query(&["COMMAND", "INFO", "WAITAOF"]).expect("COMMAND INFO");
    let connected = Broker::connect(&on_disks(&usual, 1)).await;
    match (known.as_slice(), connected) {
        ([redis::Value::Nil], connected) => {
            let refused = connected.err().expect("it is too old").to_string();
            assert!(refused.contains("redis.fsyncs_to_wait needs Redis 7.2 or newer"), "{refused}");
        }
        (_, connected) => drop(connected.expect("it knows it")),
    }
    // Without the setting nobody minds.
    let broker = Broker::connect(&on_disks(&newer, 0)).await.expect("connect");
    accept(&broker, &submission("j1", Action::Pause)).await;
    assert_eq!(newer.inline(&format!("LLEN {}", broker.keys().queue(&job("j1")))), ":1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replicas_disk_is_waited_for_as_well() {
    let redis = RedisServer::start_newer(|| words(&["--appendfsync", "always", "--repl-diskless-sync-delay", "0"]));
    let port = redis.port().to_string();
    let follow = ["--appendfsync", "always", "--replicaof", "127.0.0.1", &port];
    let replica = RedisServer::start_newer(|| words(&follow));
    until("it follows", async || replica.text("INFO replication").contains("master_link_status:up")).await;
    let broker = Broker::connect(&on_disks(&redis, 2)).await.expect("connect");
    let first = submission("j1", Action::Pause);
    answered(&broker, &first).await;
    answered(&broker, &submission("j2", Action::Pause)).await;
    assert_eq!(replica.inline("CONFIG SET appendfsync no"), "+OK");
    let late = submission("j3", Action::Pause);
    let said = broker.submit(&late, LIMITS).await;
    assert!(!is_accepted(&said), "{said:?}");
    assert_eq!(replica.inline("CONFIG SET appendfsync always"), "+OK");
    answered(&broker, &late).await;
}
