//! What anybody may use up of a worker's listener, and which requests it takes at all.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client;
use super::fixture::RemoteFixture;
use crate::support::api::until;
use crate::support::fleet::http_get;
use crate::support::socket::PATIENCE;

/// Sends bytes as they are, over a connection of their own; gives all that comes until it closes.
async fn raw(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connect");
    stream.write_all(request.as_bytes()).await.expect("send");
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end in time");
    read.expect("read");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_has_so_many_connections_to_a_worker_and_health_checks_are_answered_beyond_them() {
    let mut fixture = RemoteFixture::start(&[("LIMITS__CONNECTIONS_PER_ADDRESS", "3")]).await;
    let worker = fixture.worker();
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(client::open(&worker.address, &fixture.token).await.expect("let in"));
    }
    let (status, body) = client::open(&worker.address, &fixture.token).await.err().expect("refused");
    assert_eq!(status, 429, "{body}");
    assert!(body.contains("too_many_connections"), "{body}");
    assert_eq!(http_get(&worker.address, "/healthz").map(|(status, _)| status), Some(200));
    open.pop();
    until("room again", async || client::open(&worker.address, &fixture.token).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_answers_with_the_headers_of_the_house_and_wants_one_host() {
    let mut fixture = RemoteFixture::start(&[]).await;
    let worker = fixture.worker();
    for path in ["/healthz", "/readyz", "/metrics", "/api/v1/worker/ws", "/no/such/path"] {
        let answer =
            raw(&worker.address, &format!("GET {path} HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n")).await;
        for header in ["x-content-type-options: nosniff\r\n", "cache-control: no-store\r\n"] {
            assert!(answer.to_ascii_lowercase().contains(header), "{path}: {answer}");
        }
        for hosts in ["", "host: a\r\nhost: a\r\n", "host: a\r\nhost: b\r\n", "host: a, b\r\n"] {
            let answer =
                raw(&worker.address, &format!("GET {path} HTTP/1.1\r\n{hosts}connection: close\r\n\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{path} {hosts:?}: {answer}");
        }
    }
}
