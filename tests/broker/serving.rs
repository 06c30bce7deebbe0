//! A Redis that answers PING and still does not do what commands need: it is noticed at the start and later, and Redis's
//! own words say why. "Not reachable" is said of one that is not reached.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wheelhouse::broker::scripts::write_check::ProofExtent;
use wheelhouse::broker::{Broker, BrokerError, Subscriber};
use wheelhouse::config;

use crate::support::clock::Clock;
use crate::support::redis::RedisServer;
use crate::{LIMITS, connect, redis_at, settings, submission};
use wheelhouse::domain::Action;

/// The settings of a user of this Redis.
fn settings_of(redis: &RedisServer, user: &str, password: &str) -> config::Redis {
    let url = format!("redis://{user}:{password}@127.0.0.1:{}", redis.port());
    redis_at(url)
}

/// Makes a user with these rights, and starts what a gateway starts.
async fn start_with(rights: &str) -> Result<(), BrokerError> {
    let redis = RedisServer::start();
    assert_eq!(redis.inline(&format!("ACL SETUSER wheel on >hunter2 {rights}")), "+OK", "{rights}");
    let settings = settings_of(&redis, "wheel", "hunter2");
    let broker = Broker::connect(&settings).await?;
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let _end = stop.clone().drop_guard();
    let (subscriber, _events) = Subscriber::start(&broker, &tracker, stop).await?;
    subscriber.probe_by_pattern().await
}

#[tokio::test]
async fn the_rights_that_the_page_about_operations_names_are_enough() {
    start_with("~wh:* &* +@all -@dangerous +info").await.expect("start");
}

#[tokio::test]
async fn each_right_that_is_missing_stops_the_start_in_redis_own_words() {
    for rights in [
        "~wh:* &* +@all -@scripting",
        "~other:* &* +@all",
        "~wh:{00}:* &* +@all",
        "~wh:* &* +@all -xadd",
        "~wh:* &* +@all -publish",
        "~wh:* &* +@all -subscribe",
        "~wh:* &* +@all -info",
        // No channels at all; our own only; those of resources, and not by the pattern for a whole tenant.
        "~wh:* resetchannels +@all",
        "~wh:* resetchannels &wh:* +@all",
        "~wh:* resetchannels &wh:* &*:job:* &*:campaign:* +@all",
    ] {
        let error = start_with(rights).await.expect_err(rights);
        assert_eq!(error.code(), Some("NOPERM"), "{rights}: {error}");
        let words = error.to_string();
        assert!(words.contains("NOPERM") && !words.contains("not reachable"), "{rights}: {words}");
        assert!(!words.contains("hunter2"), "{rights}: {words}");
    }
}

#[tokio::test]
async fn a_wrong_password_or_none_is_not_called_unreachable() {
    let redis = RedisServer::start();
    redis.inline("ACL SETUSER wheel on >hunter2 ~* &* +@all");
    let error = Broker::connect(&settings_of(&redis, "wheel", "hunter3")).await.err().expect("refused");
    assert_eq!(error.code(), Some("WRONGPASS"), "{error}");
    assert!(!error.to_string().contains("hunter"), "{error}");
    redis.inline("ACL SETUSER default off");
    let error = Broker::connect(&settings(&redis)).await.err().expect("refused");
    assert_eq!(error.code(), Some("NOAUTH"), "{error}");
    assert!(!error.to_string().contains("not reachable"), "{error}");
}

#[tokio::test]
async fn one_that_is_away_is_called_unreachable_with_its_address() {
    let mut redis = RedisServer::start();
    redis.kill();
    let error = Broker::connect(&settings(&redis)).await.err().expect("refused").to_string();
    assert!(error.starts_with("Redis is not reachable: ") && error.contains(&redis.port().to_string()), "{error}");
}

/// Until the proof says this.
async fn until(subscriber: &Subscriber, code: Option<&str>) {
    let begun = Instant::now();
    loop {
        let problem = subscriber.proof().problem();
        match (&problem, code) {
            (None, None) => return,
            (Some(error), Some(code)) if error.code() == Some(code) => return,
            _ => assert!(begun.elapsed() < Duration::from_secs(40), "{code:?} is not seen: {problem:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_redis_that_stops_taking_writes_is_noticed_and_so_is_one_that_takes_them_again() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let _end = stop.clone().drop_guard();
    let (subscriber, _events) = Subscriber::start(&broker, &tracker, stop).await.expect("start");
    assert!(subscriber.proof().problem().is_none());
    for (breaks, mends, code) in [
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "OOM"),
        ("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0", "NOREPLICAS"),
        ("ACL SETUSER default -evalsha", "ACL SETUSER default +evalsha", "NOPERM"),
        ("ACL SETUSER default -xadd", "ACL SETUSER default +xadd", "NOPERM"),
    ] {
        redis.inline(breaks);
        until(&subscriber, Some(code)).await;
        assert!(broker.is_up(), "the connection is well: {breaks}");
        if code != "NOPERM" {
            // A command that comes before anybody has noticed.
            let error = broker.submit(&submission("j1", Action::Pause), LIMITS).await.expect_err(breaks);
            assert_eq!(error.code(), Some(code), "{error}");
        }
        redis.inline(mends);
        until(&subscriber, None).await;
    }
}

/// Its connection is given up, since the master is another: while the next one is made, it is still a replica that was
/// reached, and not a Redis that cannot be.
#[tokio::test]
async fn one_that_became_a_replica_is_called_so_and_never_unreachable() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let _end = stop.clone().drop_guard();
    let (subscriber, _events) = Subscriber::start(&broker, &tracker, stop).await.expect("start");
    redis.inline("REPLICAOF 127.0.0.1 1");
    until(&subscriber, Some("READONLY")).await;
    let begun = Instant::now();
    // Several connections come and go in that time.
    while begun.elapsed() < Duration::from_secs(3) {
        let error = broker.submit(&submission("j1", Action::Pause), LIMITS).await.expect_err("a replica");
        assert!(!matches!(error, BrokerError::Unavailable(_)), "{error}");
        let problem = subscriber.proof().problem();
        assert!(!matches!(problem, Some(BrokerError::Unavailable(_))), "{problem:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    redis.inline("REPLICAOF NO ONE");
    until(&subscriber, None).await;
}

#[tokio::test]
async fn one_that_passes_does_not_stop_the_start() {
    let redis = RedisServer::start();
    redis.inline("CONFIG SET min-replicas-to-write 1");
    let broker = connect(&redis).await;
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let _end = stop.clone().drop_guard();
    let (subscriber, _events) = Subscriber::start(&broker, &tracker, stop).await.expect("start");
    assert_eq!(subscriber.proof().problem().and_then(|error| error.code()), Some("NOREPLICAS"));
    redis.inline("CONFIG SET min-replicas-to-write 0");
    until(&subscriber, None).await;
}

/// A channel that is not permitted must not keep everything else from being heard.
#[tokio::test]
async fn a_subscription_that_is_denied_leaves_the_others_alone() {
    let redis = RedisServer::start();
    redis.inline("ACL SETUSER wheel on >p ~wh:* resetchannels &wh:* &acme:* &@probe:* +@all");
    let settings = settings_of(&redis, "wheel", "p");
    let broker = Broker::connect(&settings).await.expect("connect");
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let _end = stop.clone().drop_guard();
    let (subscriber, mut events) = Subscriber::start(&broker, &tracker, stop).await.expect("start");
    subscriber.subscribe(vec!["acme:job:j1".to_owned()]).await.expect("permitted");
    let error = subscriber.subscribe(vec!["globex:job:j1".to_owned()]).await.expect_err("not permitted");
    assert_eq!(error.code(), Some("NOPERM"), "{error}");
    redis.inline("PUBLISH acme:job:j1 heard");
    let heard = tokio::time::timeout(Duration::from_secs(20), events.recv()).await.expect("it is heard");
    assert!(matches!(heard, Some(wheelhouse::broker::Event::Message { .. })), "no gap between: {heard:?}");
}

/// The proof is worth what it tries.
#[test]
fn the_proof_tries_every_command_that_any_script_or_wrapper_uses() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let used = |folder: &str, before: &str, after: char| {
        let mut found = BTreeSet::new();
        for entry in std::fs::read_dir(root.join(folder)).expect("folder") {
            let path = entry.expect("entry").path();
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            if path.ends_with("prove_writes.lua") {
                continue;
            }
            for (at, _) in text.match_indices(before) {
                let word = text[at + before.len()..].split(after).next().expect("a first part");
                found.insert(word.to_owned());
            }
        }
        found
    };
    let proof = std::fs::read_to_string(root.join("lua/prove_writes.lua")).expect("read");
    let mut needed = used("lua", "redis.call('", '\'');
    needed.extend(used("lua/lib", "redis.call('", '\''));
    assert!(needed.len() > 30, "{needed:?}");
    needed.extend(used("src/broker/scripts", "redis::cmd(\"", '"'));
    for command in needed {
        assert!(proof.contains(&format!("redis.call('{command}'")), "prove_writes.lua does not try {command}");
    }
}

/// A thousand programs need not all try what one has tried; each notices by itself all the same.
#[tokio::test]
async fn what_one_program_has_tried_others_of_the_same_user_leave_out_for_a_moment_and_nobody_else() {
    let clock = Clock::new();
    let redis = RedisServer::start_on(&clock);
    for user in ["wheel", "cart"] {
        redis.inline(&format!("ACL SETUSER {user} on >hunter2 ~wh:* &* +@all"));
    }
    let connect = async |user: &str| Broker::connect(&settings_of(&redis, user, "hunter2")).await.expect("connect");
    let (first, second, other) = (connect("wheel").await, connect("wheel").await, connect("cart").await);
    let partition = first.keys().partitions().next().expect("one");
    let tried = || {
        let stats = redis.text("INFO commandstats");
        let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_xadd:calls="));
        line.and_then(|line| line.split(',').next()?.parse::<u32>().ok()).unwrap_or(0)
    };
    let prove = async |broker: &Broker| broker.prove_writes(partition, "@probe:job:test", ProofExtent::Shared).await;
    prove(&first).await.expect("first");
    assert!(
        first.is_proof_shared(partition).await.expect("read") && !other.is_proof_shared(partition).await.expect("read")
    );
    assert_eq!(tried(), 1);
    prove(&second).await.expect("second");
    assert_eq!(tried(), 1, "another program of the same user");
    prove(&other).await.expect("other");
    assert_eq!(tried(), 2, "another user may have other rights");
    // What was tried counts for seconds, also where the clock is set back.
    redis.inline("ACL SETUSER wheel -xadd");
    clock.set(8);
    assert_eq!(prove(&second).await.expect_err("it is noticed").code(), Some("NOPERM"));
    assert_eq!(prove(&first).await.expect_err("by each").code(), Some("NOPERM"));
    redis.inline("ACL SETUSER wheel +xadd");
    prove(&first).await.expect("mended");
    redis.inline("ACL SETUSER wheel -xadd");
    clock.set(-3_600);
    assert_eq!(prove(&second).await.expect_err("what lies ahead counts for nothing").code(), Some("NOPERM"));
}
