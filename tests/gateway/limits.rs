//! What one user, one tenant and one address may use up, and that the others go on meanwhile.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fixture::{GatewayFixture, Running};
use crate::raw;
use crate::support::api::until;
use crate::support::socket::{PATIENCE, Socket};

const MIB: usize = 1024 * 1024;

fn bearer(fixture: &GatewayFixture, user: &str, tenant: &str) -> String {
    format!("authorization: Bearer {}\r\n", fixture.token(user, tenant))
}

/// One request over a connection of its own: its status and its answer, head and all. 0: closed without one.
async fn ask(gateway: &Running, method: &str, path: &str, headers: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(gateway.address).await.expect("connect");
    raw::exchange(&mut stream, raw::request(method, path, headers).as_bytes()).await
}

fn is_refusal(answer: &(u16, String), code: &str) -> bool {
    let body = answer.1.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    let error = serde_json::from_str::<Value>(body).ok().map(|body| body["error"].clone());
    answer.0 == 429 && error == Some(code.into()) && answer.1.contains("retry-after: 1\r\n")
}

/// How many requests are answered before one is refused.
async fn answered_before_a_refusal(gateway: &Running, path: &str, headers: &str, code: &str) -> usize {
    for count in 0..1_000 {
        let answer = ask(gateway, "GET", path, headers).await;
        if is_refusal(&answer, code) {
            return count;
        }
        assert_ne!(answer.0, 429, "{}", answer.1);
    }
    panic!("nothing was refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_has_a_rate_of_requests_and_another_user_has_another() {
    let fixture = GatewayFixture::with(&[("limits.requests_per_second", "1")]).await;
    let gateway = fixture.gateway().await;
    fixture.grant("bob", &["jobs.*"]).await;
    let (ann, bob) = (bearer(&fixture, "ann", "acme"), bearer(&fixture, "bob", "acme"));
    let count = answered_before_a_refusal(&gateway, "/api/v1/jobs", &ann, "rate_limit_exceeded").await;
    assert!(count >= 10, "a burst of ten seconds, not {count}");
    // Whatever is asked for, and whichever token of the user comes along.
    let again = bearer(&fixture, "ann", "acme");
    for (method, path) in [("GET", "/api/v1/me"), ("POST", "/api/v1/jobs/j1/pause"), ("POST", "/api/v1/campaigns")] {
        let mut refused = false;
        for _ in 0..50 {
            refused |= is_refusal(&ask(&gateway, method, path, &again).await, "rate_limit_exceeded");
        }
        assert!(refused, "{method} {path}");
    }
    assert_eq!(ask(&gateway, "GET", "/api/v1/jobs", &bob).await.0, 200);
    // In another tenant the same name is somebody else.
    assert_eq!(ask(&gateway, "GET", "/api/v1/jobs", &bearer(&fixture, "ann", "globex")).await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_has_a_rate_of_requests_also_for_those_who_never_sign_in() {
    let limits = [("limits.requests_per_second_per_address", "1"), ("server.trusted_proxies", "127.0.0.1")];
    let fixture = GatewayFixture::with(&limits).await;
    let gateway = fixture.gateway().await;
    let from = |address: &str| format!("x-forwarded-for: {address}\r\n");
    for path in ["/api/v1/jobs", "/", "/no/such/path", "/api/v1/realtime/ws/jobs/j1", "/api/v1/openapi.json"] {
        // What a client puts in front is not believed, and addresses of one network of IPv6 are one.
        let mut answers = Vec::new();
        for n in 0..200 {
            let forged = format!("x-forwarded-for: 6.6.6.{n}, 2001:db8::{n:x}\r\n");
            answers.push(ask(&gateway, "GET", path, &forged).await);
        }
        let refused = answers.iter().filter(|answer| is_refusal(answer, "rate_limit_exceeded")).count();
        assert!(refused > 0, "{path}: {:?}", answers.last());
        assert!(answers.iter().filter(|answer| answer.0 == 429).all(|answer| answer.1.contains("connection: close")));
    }
    assert_eq!(ask(&gateway, "GET", "/", &from("2001:db8:0:1::1")).await.0, 200, "another network");
    assert_eq!(ask(&gateway, "GET", "/", &from("203.0.113.9")).await.0, 200);
    // Who watches over the gateway is answered, however much else comes from the same place.
    assert_eq!(ask(&gateway, "GET", "/healthz", &from("2001:db8::1")).await.0, 200);
}

/// A body of which this much has come, and no more comes by itself.
async fn begin_body(gateway: &Running, path: &str, headers: &str, announced: usize, sent: usize) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.address).await.expect("connect");
    let head =
        raw::request("POST", path, headers).replace("content-length: 0", &format!("content-length: {announced}"));
    stream.write_all(head.as_bytes()).await.expect("send");
    let begin = [br#"{"job_type":"x","title":""#.to_vec(), vec![b' '; sent]].concat();
    stream.write_all(&begin[..sent]).await.expect("send");
    stream
}

fn is_unanswered(stream: &TcpStream) -> bool {
    stream.try_read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_trickle_hold_up_nobody() {
    let fixture = GatewayFixture::with(&[("server.body_seconds", "600")]).await;
    let gateway = fixture.gateway().await;
    for user in ["bob", "eve"] {
        fixture.grant(user, &["*"]).await;
    }
    let eve = bearer(&fixture, "eve", "acme");
    let mut trickling = Vec::new();
    for n in 0..36 {
        let path = ["/api/v1/campaigns", "/api/v1/jobs", "/api/v1/campaigns/c1/jobs"][n % 3];
        trickling.push(begin_body(&gateway, path, &eve, 16 * MIB, 1_000).await);
    }
    for (user, tenant) in [("bob", "globex"), ("ann", "acme"), ("eve", "acme")] {
        for n in 0..10 {
            let body = format!(r#"{{"id":"{user}-{n}","name":"{}"}}"#, "x".repeat(400));
            let head = raw::request("POST", "/api/v1/campaigns", &bearer(&fixture, user, tenant));
            let head = head.replace("content-length: 0", &format!("content-length: {}", body.len()));
            let mut stream = TcpStream::connect(gateway.address).await.expect("connect");
            let (status, text) = raw::exchange(&mut stream, (head + &body).as_bytes()).await;
            assert_eq!(status, 201, "{text}");
        }
    }
    // Large ones as well: those have places, and none of them is held by a body that is not here.
    let jobs = vec![r#"{"job_type":"x"}"#; 600].join(",");
    let body = format!(r#"{{"name":"large","jobs":[{jobs}],{}"id":"large"}}"#, " ".repeat(400_000));
    let head = raw::request("POST", "/api/v1/campaigns", &bearer(&fixture, "bob", "globex"));
    let head = head.replace("content-length: 0", &format!("content-length: {}", body.len()));
    let mut stream = TcpStream::connect(gateway.address).await.expect("connect");
    let (status, text) = raw::exchange(&mut stream, (head + &body).as_bytes()).await;
    assert_eq!(status, 201, "{text}");
    // All of this happened while they stood.
    for stream in &mut trickling {
        stream.write_all(b" ").await.expect("still open");
        assert!(is_unanswered(stream), "a trickling body has had its answer");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_does_not_come_in_time_is_given_up() {
    let fixture = GatewayFixture::with(&[("server.body_seconds", "1")]).await;
    let gateway = fixture.gateway().await;
    let ann = bearer(&fixture, "ann", "acme");
    // Lines as well, which are read as they come, however many there are.
    let lines = format!("{ann}content-type: application/x-ndjson\r\n");
    for (path, headers) in [
        ("/api/v1/campaigns", &ann),
        ("/api/v1/jobs", &ann),
        ("/api/v1/batch", &ann),
        ("/api/v1/jobs/j1/cancel", &ann),
        ("/api/v1/jobs", &lines),
    ] {
        let stream = begin_body(&gateway, path, headers, 2_000, 100).await;
        let mut answer = Vec::new();
        let (mut reading, mut writing) = stream.into_split();
        let trickle = tokio::spawn(async move {
            while writing.write_all(b" ").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        let read = async {
            while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
                assert_ne!(reading.read_buf(&mut answer).await.expect("read"), 0, "no answer");
            }
        };
        tokio::time::timeout(PATIENCE, read).await.expect("an answer in time");
        assert!(answer.starts_with(b"HTTP/1.1 408 "), "{path}: {}", String::from_utf8_lossy(&answer));
        trickle.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_have_come_take_no_more_than_the_users_share() {
    let fixture = GatewayFixture::with(&[("server.body_seconds", "600")]).await;
    let gateway = fixture.gateway().await;
    fixture.grant("bob", &["*"]).await;
    let ann = bearer(&fixture, "ann", "acme");
    // Nearly all of each is here, and its memory taken.
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(gateway.address).await.expect("connect");
        let head = raw::request("POST", "/api/v1/campaigns", &ann);
        let head = head.replace("content-length: 0", &format!("content-length: {}", 15 * MIB));
        stream.write_all(head.as_bytes()).await.expect("send");
        stream.write_all(&vec![b' '; 15 * MIB - 1]).await.expect("send");
        held.push(stream);
    }
    let answers = held.iter_mut().map(|stream| {
        Box::pin(async move {
            let mut answer = Vec::new();
            while !answer.ends_with(b"}") {
                assert_ne!(stream.read_buf(&mut answer).await.expect("read"), 0, "no answer");
            }
            String::from_utf8_lossy(&answer).into_owned()
        })
    });
    let first = tokio::time::timeout(PATIENCE, futures_util::future::select_all(answers)).await;
    let (refused, _, others) = first.expect("an answer in time");
    assert!(refused.starts_with("HTTP/1.1 429 ") && refused.contains("limits.memory_per_user_mib"), "{refused}");
    drop(others);
    // Others have theirs, and she has hers again when she gives some back.
    let body = format!(r#"{{"name":"n",{}"id":"c2"}}"#, " ".repeat(1_000_000));
    let head = raw::request("POST", "/api/v1/campaigns", &bearer(&fixture, "bob", "acme"));
    let head = head.replace("content-length: 0", &format!("content-length: {}", body.len()));
    let mut stream = TcpStream::connect(gateway.address).await.expect("connect");
    assert_eq!(raw::exchange(&mut stream, (head + &body).as_bytes()).await.0, 201);
    drop(held);
    until("her share is free", async || ask(&gateway, "GET", "/api/v1/jobs?fields=parameters", &ann).await.0 == 200)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_has_so_many_connections_and_sockets_are_among_them() {
    let fixture = GatewayFixture::with(&[("limits.connections_per_address", "4")]).await;
    let gateway = fixture.gateway().await;
    let mut silent = TcpStream::connect(gateway.address).await.expect("connect");
    let mut kept = TcpStream::connect(gateway.address).await.expect("connect");
    assert_eq!(raw::exchange(&mut kept, raw::request("GET", "/api/v1/jobs", "").as_bytes()).await.0, 401);
    let socket = fixture.socket(&gateway, "jobs/j1").await;
    let _fourth = fixture.socket(&gateway, "jobs/j1").await;
    let refused = ask(&gateway, "GET", "/api/v1/jobs", "").await;
    assert!(is_refusal(&refused, "too_many_connections") && refused.1.contains("connection: close"), "{}", refused.1);
    let refused = Socket::try_open(&fixture.url(&gateway, "jobs/j1"), &[]).await.err().expect("refused");
    assert_eq!(refused.0, 429);
    // Those that are there go on; what is closed makes room.
    assert_eq!(raw::exchange(&mut silent, raw::request("GET", "/api/v1/jobs", "").as_bytes()).await.0, 401);
    drop(socket);
    until("room again", async || ask(&gateway, "GET", "/api/v1/jobs", "").await.0 == 401).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_proxy_the_sockets_of_each_client_are_counted_and_not_the_proxys() {
    let limits = [("limits.connections_per_address", "2"), ("server.trusted_proxies", "127.0.0.0/8")];
    let fixture = GatewayFixture::with(&limits).await;
    let gateway = fixture.gateway().await;
    let url = fixture.url(&gateway, "jobs/j1");
    let open = async |forwarded: &str| Socket::try_open(&url, &[("x-forwarded-for", forwarded)]).await;
    let _first = open("203.0.113.9").await.expect("let in");
    let second = open("1.2.3.4, 203.0.113.9").await.expect("let in");
    assert_eq!(open("5.6.7.8, 203.0.113.9").await.err().expect("refused").0, 429);
    let _other = open("203.0.113.10").await.expect("another client");
    drop(second);
    until("room again", async || open("203.0.113.9").await.is_ok()).await;
    // The proxy keeps connections of its own, for requests of all clients.
    let mut proxied = Vec::new();
    for n in 0..8 {
        let mut stream = TcpStream::connect(gateway.address).await.expect("connect");
        let request = raw::request("GET", "/", &format!("x-forwarded-for: 198.51.100.{n}\r\n"));
        assert_eq!(raw::exchange(&mut stream, request.as_bytes()).await.0, 200);
        proxied.push(stream);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_opens_so_many_connections_a_second() {
    let fixture = GatewayFixture::with(&[("limits.new_connections_per_second", "1")]).await;
    let gateway = fixture.gateway().await;
    let count = answered_before_a_refusal(&gateway, "/api/v1/jobs", "", "too_many_connections").await;
    assert!(count >= 9, "a burst of ten seconds, not {count}");
    // One that is open is not closed for it.
    until("a place", async || ask(&gateway, "GET", "/api/v1/jobs", "").await.0 == 401).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_has_a_head_of_a_reasonable_size() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    let few: String = (0..90).map(|n| format!("x-{n}: 1\r\n")).collect();
    assert_eq!(ask(&gateway, "GET", "/healthz", &few).await.0, 200);
    let many: String = (0..200).map(|n| format!("x-{n}: 1\r\n")).collect();
    assert_eq!(ask(&gateway, "GET", "/healthz", &many).await.0, 431);
    let long = format!("x: {}\r\n", "y".repeat(64 * 1024));
    assert_eq!(ask(&gateway, "GET", "/healthz", &long).await.0, 431);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_path_wants_one_host_and_answers_with_the_headers_of_the_house() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    // As proxies write it; a host in the address is the one of the header.
    for (address, status) in
        [("http://gateway/healthz", 200), ("http://GATEWAY/healthz", 200), ("http://b/healthz", 400)]
    {
        assert_eq!(ask(&gateway, "GET", address, "").await.0, status, "{address}");
    }
    let document: Value = serde_json::from_str(&fixture.get(&gateway, "/api/v1/openapi.json").await.1).expect("JSON");
    let described = document["paths"].as_object().expect("paths").keys().map(|path| path.replace(['{', '}'], ""));
    for path in described.chain(["/".to_owned(), "/no/such/path".to_owned(), "/app.js".to_owned()]) {
        for method in ["GET", "POST"] {
            for hosts in ["", "host: a\r\nhost: a\r\n", "host: a\r\nhost: b\r\n", "host: a, b\r\n", "host: a/b\r\n"] {
                let request = raw::request(method, &path, "").replace("host: gateway\r\n", hosts);
                let mut stream = TcpStream::connect(gateway.address).await.expect("connect");
                let (status, text) = raw::exchange(&mut stream, request.as_bytes()).await;
                assert_eq!(status, 400, "{method} {path} {hosts:?}: {text}");
            }
            let answer = ask(&gateway, method, &path, "").await.1.to_ascii_lowercase();
            assert!(answer.contains("x-content-type-options: nosniff\r\n"), "{method} {path}: {answer}");
            assert!(answer.contains("\r\ncache-control: "), "{method} {path}: {answer}");
        }
    }
}
