//! Before the upgrade: who is let in, and what everybody else is told (CONTRACT section 3).

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wheelhouse::broker::scripts::connections::{ConnectionLease, OpenOutcome};

use crate::fixture::{GatewayFixture, Running};
use crate::support::api::until;
use crate::support::socket::Socket;

/// The status and the error code of a refusal.
async fn refusal(url: &str, headers: &[(&str, &str)]) -> (u16, String) {
    match Socket::try_open(url, headers).await {
        Ok(_) => panic!("let in"),
        Err((status, body)) => {
            let body: Value = serde_json::from_str(&body).unwrap_or_else(|e| panic!("{e}: {body}"));
            assert!(body["message"].as_str().is_some_and(|m| !m.is_empty()), "{body}");
            (status, body["error"].as_str().expect("code").to_owned())
        }
    }
}

fn is(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_check_before_the_upgrade_has_its_answer() {
    let fixture = GatewayFixture::with(&[("server.public_origins", "https://ops.example.com")]).await;
    let gateway = fixture.gateway().await;
    let base = format!("ws://{}/api/v1/realtime/ws", gateway.address);
    fixture.grant("reader-of-jobs", &["jobs.read"]).await;
    let token = fixture.token("ann", "acme");

    assert_eq!(refusal(&format!("{base}/jobs/j1"), &[]).await, is(401, "unauthorized"));
    assert_eq!(refusal(&format!("{base}/jobs/j1?token=x.y.z"), &[]).await, is(401, "unauthorized"));
    let expired = fixture.token_for("ann", "acme", 0, None);
    // A token is still good for the five seconds that clocks may differ.
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!(refusal(&fixture.url_of(&gateway, "jobs/j1", &expired), &[]).await, is(401, "unauthorized"));
    let none = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4iLCJ0ZW5hbnRfaWQiOiJhY21lIiwiZXhwIjo5OTk5OTk5OTk5fQ.";
    assert_eq!(refusal(&fixture.url_of(&gateway, "jobs/j1", none), &[]).await, is(401, "unauthorized"));

    let long = "a".repeat(129);
    for id in ["a:b", "a*", "%2A", ".x", long.as_str(), "nothing-here"] {
        assert_eq!(refusal(&fixture.url(&gateway, &format!("jobs/{id}")), &[]).await, is(404, "not_found"), "{id}");
    }
    assert_eq!(refusal(&fixture.url(&gateway, "campaigns/j1"), &[]).await, is(404, "not_found"));
    // Another tenant's is told the same, to the byte, as for what nobody has.
    fixture.grant("eve", &["*"]).await;
    let eve = fixture.token("eve", "globex");
    let theirs = Socket::try_open(&fixture.url_of(&gateway, "jobs/j1", &eve), &[]).await.err().expect("refused");
    let nobodys = Socket::try_open(&fixture.url_of(&gateway, "jobs/j2", &eve), &[]).await.err().expect("refused");
    assert_eq!(theirs, nobodys);
    assert_eq!(theirs.0, 404);

    let reader = fixture.token("reader-of-jobs", "acme");
    assert_eq!(refusal(&fixture.url_of(&gateway, "campaigns/c1", &reader), &[]).await, is(403, "permission_denied"));
    let stranger = fixture.token("stranger", "acme");
    assert_eq!(refusal(&fixture.url_of(&gateway, "jobs/j1", &stranger), &[]).await, is(403, "permission_denied"));
    fixture.socket_of(&gateway, "jobs/j1", &reader).await;

    let own = format!("http://{}", gateway.address);
    for bad in ["https://evil.example", "null", "http://127.0.0.1:1", "https://ops.example.com.evil.example"] {
        assert_eq!(refusal(&fixture.url(&gateway, "jobs/j1"), &[("origin", bad)]).await, is(403, "forbidden"), "{bad}");
    }
    for good in [own.as_str(), "https://ops.example.com"] {
        assert!(Socket::try_open(&fixture.url(&gateway, "jobs/j1"), &[("origin", good)]).await.is_ok(), "{good}");
    }
    // In the order of the contract: without a token nothing else is said.
    assert_eq!(refusal(&format!("{base}/jobs/a:b"), &[("origin", "null")]).await, is(401, "unauthorized"));

    let (status, body) = fixture.get(&gateway, &format!("/api/v1/realtime/ws/jobs/j1?token={token}")).await;
    assert_eq!(status, 426, "{body}");
    assert!(serde_json::from_str::<Value>(&body).expect("JSON")["error"].is_string());
    let (_, metrics) = fixture.get(&gateway, "/metrics").await;
    assert!(!metrics.contains(&token), "a token in the metrics");
    for head in [
        "GET /api/v1/realtime/ws/jobs/j1 HTTP/1.1".to_owned(),
        "GET /api/v1/realtime/ws HTTP/1.1".to_owned(),
        format!("GET /api/v1/realtime/ws/jobs/j1?token={token} HTTP/1.1"),
    ] {
        let answer = by_hand(&gateway, &head).await;
        for header in ["x-content-type-options: nosniff\r\n", "cache-control: no-store\r\n"] {
            assert!(answer.contains(header), "a refusal is not kept and not guessed at: {answer}");
        }
    }
}

/// Sends a request by hand and gives the head of the answer.
async fn by_hand(gateway: &Running, head: &str) -> String {
    let mut stream = TcpStream::connect(gateway.address).await.expect("connect");
    let request = format!("{}\r\nhost: {}\r\n\r\n", head.trim_end(), gateway.address);
    stream.write_all(request.as_bytes()).await.expect("send");
    let mut answer = Vec::new();
    let mut byte = [0_u8];
    while !answer.ends_with(b"\r\n\r\n") {
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut byte));
        assert_eq!(read.await.expect("an answer").expect("read"), 1, "{}", String::from_utf8_lossy(&answer));
        answer.push(byte[0]);
    }
    String::from_utf8(answer).expect("text").to_ascii_lowercase()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_upgrade_is_what_the_rfc_says_and_nothing_less_is_upgraded() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    let line = format!("GET /api/v1/realtime/ws/jobs/j1?token={} HTTP/1.1\r\n", fixture.token("ann", "acme"));
    let key = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let good =
        format!("{line}upgrade: WebSocket\r\nconnection: keep-alive, Upgrade\r\n{key}sec-websocket-version: 13\r\n");
    let answer = by_hand(&gateway, &good).await;
    assert!(answer.starts_with("http/1.1 101 "), "{answer}");
    assert!(answer.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{answer}");
    assert!(!answer.contains("sec-websocket-protocol"), "{answer}");

    for (bad, status) in [
        (good.replace("sec-websocket-version: 13", "sec-websocket-version: 8"), 426),
        (good.replace("keep-alive, Upgrade", "keep-alive"), 426),
        (good.replace("upgrade: WebSocket", "upgrade: h2c"), 426),
        (good.replace(key, ""), 400),
        (good.replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), 400),
    ] {
        let answer = by_hand(&gateway, &bad).await;
        assert!(answer.starts_with(&format!("http/1.1 {status} ")), "{bad}\n{answer}");
        assert_eq!(answer.contains("sec-websocket-version: 13"), status == 426, "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_token_is_taken_from_each_of_its_four_places() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    let token = fixture.token("ann", "acme");
    let url = format!("ws://{}/api/v1/realtime/ws/jobs/j1", gateway.address);
    let (bearer, cookie) = (format!("Bearer {token}"), format!("a=b; access_token={token}"));
    let protocols = format!("wheelhouse, bearer.{token}");
    assert!(Socket::try_open(&fixture.url(&gateway, "jobs/j1"), &[]).await.is_ok());
    assert!(Socket::try_open(&url, &[("authorization", &bearer)]).await.is_ok());
    assert!(Socket::try_open(&url, &[("cookie", &cookie)]).await.is_ok());
    // The client library refuses an answer that picks none of its protocols, or another one.
    assert!(Socket::try_open(&url, &[("sec-websocket-protocol", &protocols)]).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_limit_holds_over_all_gateways_and_heals() {
    let fixture =
        GatewayFixture::with(&[("limits.connections_per_user", "2"), ("limits.connections_per_tenant", "3")]).await;
    let (one, other) = (fixture.gateway().await, fixture.gateway().await);
    fixture.grant("bob", &["*"]).await;
    fixture.grant("cid", &["*"]).await;
    let first = fixture.socket(&one, "jobs/j1").await;
    let _second = fixture.socket(&other, "campaigns/c1").await;
    assert_eq!(refusal(&fixture.url(&one, "jobs/j1"), &[]).await, is(429, "too_many_connections"));
    let line = format!("GET /api/v1/realtime/ws/jobs/j1?token={} HTTP/1.1\r\n", fixture.token("ann", "acme"));
    let upgrade = "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n";
    let answer = by_hand(&other, &format!("{line}{upgrade}")).await;
    assert!(answer.starts_with("http/1.1 429 ") && answer.contains("\r\nretry-after: "), "{answer}");

    // A gateway that crashed left a lease behind, which ends by itself.
    let dead = ConnectionLease {
        tenant: "acme".parse().expect("id"),
        user: "bob".parse().expect("user"),
        id: "g-dead-1".to_owned(),
    };
    let lease = async |seconds| {
        let taken = fixture.broker.open_connection(&dead, 3, 2, Duration::from_secs(seconds)).await.expect("lease");
        assert_eq!(taken, OpenOutcome::Open);
    };
    lease(600).await;
    let cid = fixture.url_of(&one, "jobs/j1", &fixture.token("cid", "acme"));
    assert_eq!(refusal(&cid, &[]).await, is(429, "too_many_connections"));
    lease(1).await;
    until("the dead gateway's lease ends", || async { Socket::try_open(&cid, &[]).await.is_ok() }).await;

    drop(first);
    let again = fixture.url(&other, "jobs/j1");
    until("a closed socket's place is free", || async { Socket::try_open(&again, &[]).await.is_ok() }).await;
}
