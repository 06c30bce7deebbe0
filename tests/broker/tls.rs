//! Redis behind TLS, with a certificate authority that only its owner knows.

use super::faults::{Sentinel, until};
use crate::support::free_port;
use crate::support::tls::Authority;
use crate::{LIMITS, accept, back_up, redis_at, submission};
use wheelhouse::broker::diagnosis::diagnose;
use wheelhouse::broker::scripts::submit::SubmitOutcome;
use wheelhouse::broker::{Broker, BrokerError, Event, Subscriber};
use wheelhouse::config;
use wheelhouse::domain::Action;

fn settings(url: String, authority: Option<&Authority>) -> config::Redis {
    let ca_pem = authority.map(|authority| std::fs::read(authority.file()).expect("its certificate"));
    config::Redis { ca_pem, ..redis_at(url) }
}

#[tokio::test]
async fn over_tls_commands_and_subscriptions_travel_and_come_back_after_a_restart() {
    let authority = Authority::new();
    authority.sign("IP:127.0.0.1");
    let (mut redis, port) = authority.server(&[]);
    let settings = settings(format!("rediss://127.0.0.1:{port}"), Some(&authority));
    let broker = Broker::connect(&settings).await.expect("connect over TLS");
    let (tracker, stop) = (tokio_util::task::TaskTracker::new(), tokio_util::sync::CancellationToken::new());
    let (subscriber, mut events) =
        Subscriber::start(&broker, &tracker, stop.clone()).await.expect("subscribe over TLS");
    subscriber.psubscribe(vec!["*:job:control".to_owned()]).await.expect("subscribe");
    accept(&broker, &submission("j1", Action::Pause)).await;
    assert!(matches!(events.recv().await, Some(Event::Message { .. })));
    redis.restart();
    until("the subscriber is told of the gap", async || matches!(events.recv().await, Some(Event::Gap))).await;
    back_up(&broker).await;
    accept(&broker, &submission("j2", Action::Pause)).await;
    assert!(matches!(events.recv().await, Some(Event::Message { .. })));
    stop.cancel();
    tracker.close();
    tracker.wait().await;
}

#[tokio::test]
async fn a_certificate_of_another_authority_or_for_another_host_is_refused_with_what_to_do() {
    let (authority, other) = (Authority::new(), Authority::new());
    authority.sign("DNS:redis.example");
    let (_redis, port) = authority.server(&[]);
    for (trusted, advice) in [(Some(&other), "redis.ca_file"), (None, "redis.ca_file"), (Some(&authority), "redis.url")]
    {
        let error = Broker::connect(&settings(format!("rediss://:hunter2@127.0.0.1:{port}"), trusted)).await.err();
        let error = error.expect("refused");
        assert!(matches!(error, BrokerError::Unavailable(_)), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(&format!("127.0.0.1:{port}")) && text.contains(advice), "{text}");
        assert!(!text.contains("hunter2") && !text.contains('\n'), "{text}");
    }
}

/// The connection itself says only that it was reset, or that its time was over.
#[tokio::test]
async fn a_server_with_tls_where_none_is_asked_for_is_named_as_such_and_so_is_one_without() {
    let authority = Authority::new();
    authority.sign("IP:127.0.0.1");
    let (redis, tls_port) = authority.server(&[]);
    let sentinel = Sentinel::watching_at(tls_port, "");
    let address = format!("127.0.0.1:{}", sentinel.port);
    until("the sentinel listens", async || tokio::net::TcpStream::connect(&address).await.is_ok()).await;
    let with_tls = format!("127.0.0.1:{tls_port} speaks TLS: write rediss://");
    let without = |port: u16| format!("127.0.0.1:{port} is a Redis without TLS");
    for (url, words) in [
        (format!("redis://:hunter2@127.0.0.1:{tls_port}"), &with_tls),
        (format!("redis+cluster://:hunter2@127.0.0.1:{tls_port}"), &with_tls),
        (format!("rediss://:hunter2@127.0.0.1:{}", redis.port()), &without(redis.port())),
        (format!("rediss+cluster://:hunter2@127.0.0.1:{}", redis.port()), &without(redis.port())),
        (format!("rediss+sentinel://127.0.0.1:{}/wheel", sentinel.port), &without(sentinel.port)),
    ] {
        let settings = settings(url.clone(), url.starts_with("rediss").then_some(&authority));
        let error = Broker::connect(&settings).await.err().expect("refused");
        let found = diagnose(&settings, false).await.and_then(|mut servers| servers.remove(0)).expect_err("refused");
        for error in [error, found] {
            assert!(matches!(error, BrokerError::Unavailable(_)), "{error:?}");
            let text = error.to_string();
            assert!(text.contains(words.as_str()), "{url}: {text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
    let closed = format!("redis://127.0.0.1:{}", free_port());
    let error = Broker::connect(&settings(closed, None)).await.err().expect("refused").to_string();
    assert!(!error.contains("TLS"), "nobody is there: {error}");
}

#[tokio::test]
async fn over_tls_the_sentinels_are_asked_and_their_master_is_used() {
    let authority = Authority::new();
    authority.sign("IP:127.0.0.1");
    let (_redis, port) = authority.server(&[]);
    let own = free_port();
    let lines: Vec<String> =
        authority.arguments(own).chunks(2).map(|pair| format!("{} {}\n", &pair[0][2..], pair[1])).collect();
    // To reach the master, it uses TLS as a replica would.
    let _sentinel = Sentinel::watching_at(port, &format!("{}tls-replication yes\n", lines.concat()));
    let settings = settings(format!("rediss+sentinel://127.0.0.1:{own}/main"), Some(&authority));
    let mut broker = None;
    until("the sentinel names the master", async || {
        broker = Broker::connect(&settings).await.ok();
        broker.is_some()
    })
    .await;
    accept(&broker.expect("connected"), &submission("j1", Action::Pause)).await;
}

#[tokio::test]
async fn over_tls_the_nodes_of_a_cluster_are_used_by_their_own_names() {
    let authority = Authority::new();
    authority.sign("IP:127.0.0.1");
    let bus = free_port().to_string();
    let (redis, port) = authority.server(&["--cluster-enabled", "yes", "--tls-cluster", "yes", "--cluster-port", &bus]);
    assert_eq!(redis.inline("CLUSTER ADDSLOTSRANGE 0 16383"), "+OK");
    assert_eq!(redis.inline("CONFIG SET requirepass hunter2"), "+OK");
    let settings = settings(format!("rediss+cluster://:hunter2@127.0.0.1:{port}/"), Some(&authority));
    let broker = Broker::connect(&settings).await.expect("connect");
    until("the cluster is up", async || {
        matches!(broker.submit(&submission("j1", Action::Pause), LIMITS).await, Ok(SubmitOutcome::Accepted { .. }))
    })
    .await;
}
