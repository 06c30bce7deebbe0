//! What faults do to the connection: answers that are lost, servers that hang, a master that moves.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{free_port, redis::RedisServer, watchdog::Watchdog};
use crate::{
    LEASE, LIMITS, ROW, accept, back_up, claim, connect, job, redis_at, settings, submission, succeeded, success,
    worker,
};
use wheelhouse::broker::scripts::claim::ClaimOutcome;
use wheelhouse::broker::scripts::submit::SubmitOutcome;
use wheelhouse::broker::{Broker, BrokerError, Event, Subscriber};
use wheelhouse::domain::Action;
use wheelhouse::domain::Control;

#[tokio::test]
async fn a_command_whose_answer_was_lost_is_accepted_once_and_its_sender_learns_of_it() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    accept(&broker, &submission("j0", Action::Pause)).await; // Every script is loaded.
    // Longer than one answer may take, shorter than a submission may: it arrives, and its answer does not.
    assert_eq!(redis.inline("CLIENT PAUSE 1200 WRITE"), "+OK");
    let asked = submission("j1", Action::Pause);
    let outcome = broker.submit(&asked, LIMITS).await;
    let known = match outcome {
        Ok(SubmitOutcome::Accepted { .. }) => true,
        Ok(SubmitOutcome::Repeated { command, .. }) => command == asked.command,
        Err(BrokerError::Unknown(_)) => false, // On a machine so slow that the time was over.
        other => panic!("{other:?}"),
    };
    back_up(&broker).await;
    assert_eq!(redis.inline("CLIENT UNPAUSE"), "+OK");
    match broker.claim(&job("j1"), &worker("w1"), LEASE).await.expect("claim") {
        ClaimOutcome::Command(held) => {
            assert_eq!(held.command, asked.command);
            broker.complete(&held, &worker("w1"), &succeeded("paused"), ROW, None).await.expect("complete");
            assert!(matches!(broker.claim(&job("j1"), &worker("w1"), LEASE).await, Ok(ClaimOutcome::Nothing)));
        }
        other => assert!(!known && matches!(other, ClaimOutcome::Nothing), "{other:?}"),
    }
}

#[tokio::test]
async fn after_a_restart_with_its_file_redis_still_knows_what_it_accepted() {
    let mut redis = RedisServer::start();
    let broker = connect(&redis).await;
    broker.heartbeat(&worker("w1"), None, Duration::from_secs(60)).await.expect("heartbeat");
    let asked = submission("j1", Action::Pause);
    assert_eq!(
        broker.submit(&asked, LIMITS).await.expect("submit"),
        SubmitOutcome::Accepted { workers_online: 1, control: Some(Control::Row) }
    );
    broker.leave(&worker("w1"), None).await.expect("leave");
    // Waits until it is in the file, as a crash of the machine would ask for; a crash of the process does not.
    assert_eq!(redis.inline("CONFIG SET appendfsync always"), "+OK");
    redis.restart();
    back_up(&broker).await;
    let repeated = |result| SubmitOutcome::Repeated {
        command: asked.command,
        workers_online: 1,
        control: Some(Control::Row),
        result,
    };
    assert_eq!(broker.submit(&asked, LIMITS).await.expect("submit"), repeated(None));
    let held = claim(&broker, "j1", "w1").await;
    let message = success(&held, "paused");
    broker.complete(&held, &worker("w1"), &succeeded("paused"), ROW, None).await.expect("complete");
    let Ok(SubmitOutcome::Repeated { command, workers_online: 1, result: Some(said), .. }) =
        broker.submit(&asked, LIMITS).await
    else {
        panic!("the ack's number of workers or the result is forgotten")
    };
    assert_eq!((command, said.message), (asked.command, message));
}

#[tokio::test]
async fn a_first_connection_that_fails_names_the_address_and_never_the_password() {
    let (redis, locked) = (RedisServer::start(), RedisServer::start());
    assert_eq!(locked.inline("CONFIG SET requirepass another"), "+OK");
    let nobody = free_port();
    for (url, names) in [
        (format!("redis://:hunter2@127.0.0.1:{nobody}"), format!("127.0.0.1:{nobody}")),
        (format!("redis://:hunter2@127.0.0.1:{}", locked.port()), format!("127.0.0.1:{}", locked.port())),
        (format!("redis+sentinel://:hunter2@127.0.0.1:{nobody}/main"), format!("127.0.0.1:{nobody}")),
    ] {
        let error = Broker::connect(&redis_at(url)).await.err().expect("refused");
        // The one that answers is reached, and does not let us in.
        let is_reached = url_port(&names) == locked.port();
        let fits = match &error {
            BrokerError::NotServing(words) => is_reached && words.contains("WRONGPASS"),
            BrokerError::Unavailable(_) => !is_reached,
            _ => false,
        };
        assert!(fits, "{error:?}");
        let text = format!("{error} {error:?}");
        assert!(text.contains(&names) && !text.contains("hunter2"), "{text}");
    }
    let no_sentinel = format!("redis+sentinel://127.0.0.1:{}/main", redis.port());
    let error = Broker::connect(&redis_at(no_sentinel)).await.err().expect("refused").to_string();
    assert!(error.contains("this is no sentinel") && !error.contains("Pipeline"), "{error}");
    assert_eq!(redis.inline("CONFIG SET maxmemory-policy allkeys-lru"), "+OK");
    let error = Broker::connect(&settings(&redis)).await.err().expect("refused");
    assert!(matches!(&error, BrokerError::Refused(text) if text.contains("noeviction")), "{error:?}");
}

fn url_port(address: &str) -> u16 {
    address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("port")
}

/// A `redis-sentinel` that watches one master under the name `main`.
pub(super) struct Sentinel {
    pub(super) port: u16,
    child: Child,
    _watchdog: Watchdog,
    _folder: tempfile::TempDir,
}

impl Sentinel {
    fn watching(master: &RedisServer) -> Self {
        Self::watching_at(master.port(), "")
    }

    /// With more lines of configuration, and the master at another of its ports.
    pub(super) fn watching_at(master: u16, more: &str) -> Self {
        let (folder, port) = (tempfile::tempdir().expect("folder"), free_port());
        let file = folder.path().join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {folder}\npidfile {folder}/sentinel.pid\n\
             sentinel monitor main 127.0.0.1 {master} 1\n\
             sentinel down-after-milliseconds main 60000\nsentinel failover-timeout main 3000\n{more}",
            folder = folder.path().display(),
        );
        std::fs::write(&file, text).expect("write sentinel.conf");
        let _watchdog = Watchdog::over(folder.path());
        let mut command = Command::new("redis-server");
        command.arg(&file).arg("--sentinel").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self { port, child: command.spawn().expect("redis-server --sentinel"), _watchdog, _folder: folder }
    }

    fn knows_a_replica(&self) -> bool {
        let replicas = self.ask::<Vec<redis::Value>>(&["REPLICAS", "main"]);
        replicas.is_ok_and(|replicas| !replicas.is_empty())
    }

    /// From now on a short silence of the master is its death. Before, a busy machine must not look like one.
    fn loses_patience(&self) {
        self.ask::<()>(&["SET", "main", "down-after-milliseconds", "500"]).expect("SENTINEL SET");
    }

    fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port))?;
        redis::cmd("SENTINEL").arg(words).query(&mut client.get_connection()?)
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for something that happens by itself; the limit only ends a test that has failed.
pub(super) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < Duration::from_secs(60), "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn when_the_sentinels_name_another_master_everything_goes_on_there() {
    let (mut old, new) = (RedisServer::start(), RedisServer::start());
    // Its default of five seconds waits for more replicas than there are.
    assert_eq!(old.inline("CONFIG SET repl-diskless-sync-delay 0"), "+OK");
    assert_eq!(new.inline(&format!("REPLICAOF 127.0.0.1 {}", old.port())), "+OK");
    until("the replica is in step", async || old.inline("WAIT 1 100") == ":1").await;
    let sentinel = Sentinel::watching(&old);
    until("the sentinel knows the replica", async || sentinel.knows_a_replica()).await;
    let url = format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port);
    let settings = redis_at(url);
    let broker = Broker::connect(&settings).await.expect("connect through the sentinel");
    let (tracker, stop) = (tokio_util::task::TaskTracker::new(), tokio_util::sync::CancellationToken::new());
    let (subscriber, mut events) =
        Subscriber::start(&broker, &tracker, stop.clone()).await.expect("subscribe through the sentinel");
    subscriber.psubscribe(vec!["*:job:control".to_owned()]).await.expect("subscribe");
    let before = submission("j1", Action::Pause);
    accept(&broker, &before).await;
    // Not by WAIT: that speaks of the writes of its own connection.
    let queued = format!("EXISTS {}", broker.keys().queue(&job("j1")));
    until("the replica has the command", async || new.inline(&queued) == ":1").await;
    old.kill();
    sentinel.loses_patience();
    let mut after = submission("j2", Action::Pause);
    until("a command is accepted by the new master", async || {
        after = submission("j2", Action::Pause);
        matches!(broker.submit(&after, LIMITS).await, Ok(SubmitOutcome::Accepted { .. }))
    })
    .await;
    assert!(new.inline(&format!("EXISTS {}", broker.keys().queue(&job("j2")))) == ":1", "it is on the other server");
    assert_eq!(claim(&broker, "j1", "w1").await.command, before.command, "what was accepted before is still there");
    until("the subscriber is told of the gap", async || matches!(events.recv().await, Some(Event::Gap))).await;
    accept(&broker, &submission("j3", Action::Pause)).await;
    until("and hears the new master", async || {
        matches!(events.recv().await, Some(Event::Message { payload, .. }) if payload.windows(2).any(|w| w == b"j3"))
    })
    .await;
    stop.cancel();
    tracker.close();
    tracker.wait().await;
}

#[tokio::test]
async fn subscriptions_keep_their_order_and_outlive_their_handle_and_a_restart() {
    let mut redis = RedisServer::start();
    let broker = connect(&redis).await;
    let (tracker, stop) = (tokio_util::task::TaskTracker::new(), tokio_util::sync::CancellationToken::new());
    let (subscriber, mut events) = Subscriber::start(&broker, &tracker, stop.clone()).await.expect("start");
    let names = |i: usize| vec![format!("acme:job:j{i}")];
    // All asked before the owner sees the first: on, off, and for the even ones on again.
    let asked = (0..200_usize).map(|i| {
        let subscriber = subscriber.clone();
        async move {
            subscriber.subscribe(names(i)).await.expect("subscribe");
            assert!(subscriber.unsubscribe(names(i)));
            if i % 2 == 0 {
                subscriber.subscribe(names(i)).await.expect("subscribe");
            }
        }
    });
    futures_util::future::join_all(asked).await;
    until("it delivers", async || subscriber.is_delivering()).await;
    drop(subscriber.clone());
    redis.kill();
    until("it knows that nothing is delivered", async || !subscriber.is_delivering()).await;
    redis.restart();
    assert_eq!(events.recv().await, Some(Event::Gap));
    until("it delivers again", async || subscriber.is_delivering()).await;
    drop(subscriber); // Whoever only listens needs no handle.
    for i in 0..200_usize {
        let heard = redis.inline(&format!("PUBLISH acme:job:j{i} {i}"));
        assert_eq!(heard, if i % 2 == 0 { ":1" } else { ":0" }, "{i}");
    }
    for i in (0..200_usize).step_by(2) {
        let expected =
            Event::Message { channel: format!("acme:job:j{i}"), payload: i.to_string().into(), by_pattern: false };
        assert_eq!(events.recv().await, Some(expected));
    }
    stop.cancel();
    tracker.close();
    tracker.wait().await;
}
