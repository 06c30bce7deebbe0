//! The connections under sockets and requests: slow clients, idle ones, floods of nothing, clocks, bytes that are no
//! text, and proxies in front.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use wheelhouse::domain::JsonText;
use wheelhouse::gateway::Tuning;
use wheelhouse::store::NewJob;

use crate::fixture::{GatewayFixture, Running, new_job};
use crate::raw::{self, Slowly};
use crate::support::api::until;
use crate::support::socket::{PATIENCE, Socket};

/// A job whose snapshot is far longer than what the system holds for a client that does not read.
async fn large_job(fixture: &GatewayFixture, id: &str) {
    let parameters = JsonText::of(&json!({"rows": "x".repeat(400_000)})).expect("JSON");
    let job = NewJob { parameters, ..new_job(id) };
    fixture.store.create_job(&job).await.expect("job");
}

fn path(fixture: &GatewayFixture, resource: &str) -> String {
    format!("/api/v1/realtime/ws/{resource}?token={}", fixture.token("ann", "acme"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_slowly_and_steadily_gets_a_large_snapshot() {
    let fixture = GatewayFixture::new().await;
    large_job(&fixture, "large").await;
    // Several pings fall due while the snapshot is on its way, behind which they wait. A machine that is held up for as
    // long as two of them looks like a client that is gone: then once more with more time.
    let mut last = String::new();
    for slower in [1, 4, 16] {
        let ping = Duration::from_secs(slower);
        let gateway = fixture.gateway_tuned(Tuning { ping, ..Tuning::default() }).await;
        let mut stream = raw::connect(gateway.address).await;
        raw::open(&mut stream, &path(&fixture, "jobs/large")).await;
        let mut reader = Slowly { stream, bytes: 4_096, pause: ping / 16 };
        match reader.long_frame().await {
            Ok(snapshot) => {
                let snapshot: Value = serde_json::from_slice(&snapshot).expect("JSON");
                assert_eq!(snapshot["parameters"]["rows"].as_str().map(str::len), Some(400_000));
                return;
            }
            Err(end) => last = end,
        }
    }
    panic!("{last}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_nothing_is_closed_as_too_slow_though_only_one_message_waits() {
    let fixture = GatewayFixture::new().await;
    large_job(&fixture, "large").await;
    let gateway = fixture.gateway().await;
    let mut stream = raw::connect(gateway.address).await;
    raw::open(&mut stream, &path(&fixture, "jobs/large")).await;
    // Its place is free long before two pings could have gone unanswered.
    let places = format!("ZCARD {}", fixture.broker.keys().connections(&"acme".parse().expect("id")));
    assert_eq!(fixture.redis.inline(&places), ":1");
    until("its place is free", async || fixture.redis.inline(&places) == ":0").await;
    // It finds the code behind what it had not read.
    assert_eq!(raw::close_code(&mut stream).await, Some(4413));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_carry_nothing_are_a_flood_too() {
    let fixture = GatewayFixture::with(&[("limits.messages_per_second", "5")]).await;
    let gateway = fixture.gateway().await;
    let (text, piece, ping, pong) = (0x01, 0x00, 0x89, 0x8a);
    for (first, other, payload) in
        [(text, piece, &b""[..]), (text, piece, b"x"), (ping, ping, b""), (pong, pong, b""), (0x81, 0x81, b"")]
    {
        let mut stream = TcpStream::connect(gateway.address).await.expect("connect");
        raw::open(&mut stream, &path(&fixture, "jobs/j1")).await;
        let (mut reading, mut writing) = stream.split();
        let flood = async {
            // Far more than a burst, also where it takes a minute to send them; or as many as the gateway takes.
            let _ = writing.write_all(&raw::client_frame(first, payload)).await;
            for _ in 0..4_000 {
                if writing.write_all(&raw::client_frame(other, payload)).await.is_err() {
                    break;
                }
            }
        };
        let (code, ()) = tokio::join!(raw::close_code(&mut reading), flood);
        assert_eq!(code, Some(4429), "frames {first:#x}, {other:#x}");
    }
    // A message in large pieces is one message.
    let mut socket = fixture.socket(&gateway, "jobs/j1").await;
    for _ in 0..3 {
        let text = format!(r#"{{"type":"ping","x":"{}"}}"#, "x".repeat(14 * 1_024));
        let pieces: Vec<&[u8]> = text.as_bytes().chunks(1_024).collect();
        for (n, piece) in pieces.iter().enumerate() {
            use tokio_tungstenite::tungstenite::protocol::frame::Frame;
            use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
            let code = if n == 0 { Data::Text } else { Data::Continue };
            let frame = Frame::message(piece.to_vec(), OpCode::Data(code), n + 1 == pieces.len());
            socket.send_raw(Message::Frame(frame)).await;
        }
        assert_eq!(socket.next().await, json!({"type": "pong"}));
    }
}

/// Bytes that were thrown away without a look at them, by all gateways of this program.
async fn unparsed(fixture: &GatewayFixture, gateway: &Running) -> u64 {
    let metrics = fixture.get(gateway, "/metrics").await.1;
    let line = metrics.lines().find_map(|line| line.strip_prefix("websocket_unparsed_bytes_total "));
    line.expect("the metric").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_parsed_of_a_client_that_was_closed_for_a_flood() {
    let fixture = GatewayFixture::with(&[("limits.messages_per_second", "5")]).await;
    let gateway = fixture.gateway().await;
    for (first, other) in [(0x01, 0x00), (0x89, 0x89), (0x81, 0x81)] {
        let mut stream = TcpStream::connect(gateway.address).await.expect("connect");
        raw::open(&mut stream, &path(&fixture, "jobs/j1")).await;
        let flood = [raw::client_frame(first, b""), raw::client_frame(other, b"").repeat(500)].concat();
        stream.write_all(&flood).await.expect("send");
        assert_eq!(raw::close_code(&mut stream).await, Some(4429));
        // The gateway says that nothing more comes (but for a pong that it owed), and takes in what does without a look.
        let mut rest = Vec::new();
        let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("an end in time");
        end.expect("a clean end");
        let before = unparsed(&fixture, &gateway).await;
        let more = raw::client_frame(other, b"").repeat(170_000);
        stream.write_all(&more).await.expect("it is taken in");
        let all = before + more.len() as u64;
        until("all of it is thrown away", async || unparsed(&fixture, &gateway).await >= all).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_floods_instead_of_answering_a_close_is_parsed_no_further() {
    let fixture = GatewayFixture::with(&[("limits.messages_per_second", "1000")]).await;
    let gateway = fixture.gateway().await;
    let mut stream = TcpStream::connect(gateway.address).await.expect("connect");
    raw::open(&mut stream, &path(&fixture, "jobs/j1")).await;
    stream.write_all(&raw::client_frame(0x82, b"binary")).await.expect("send");
    assert_eq!(raw::close_code(&mut stream).await, Some(1003));
    let before = unparsed(&fixture, &gateway).await;
    let frames = raw::client_frame(0x89, b"").repeat(100_000);
    stream.write_all(&frames).await.expect("it is taken in");
    let most = before + frames.len() as u64 - 32 * 1024;
    until("most of it is thrown away", async || unparsed(&fixture, &gateway).await >= most).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_good_for_a_socket_exactly_as_long_as_for_a_request() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    // Over already, by less than clocks may differ. Where the machine is held up for as long, once more.
    for _ in 0..10 {
        let token = fixture.token_for("ann", "acme", 0, None);
        let Ok(mut socket) = Socket::try_open(&fixture.url_of(&gateway, "jobs/j1", &token), &[]).await else {
            continue;
        };
        let sent = socket.try_send(Message::text(r#"{"type":"ping"}"#)).await;
        let end = socket.until_that(|v| v["type"] == "pong" || v.get("closed").is_some()).await;
        if sent.is_err() || end["type"] != "pong" {
            assert_eq!(end["closed"], 4401, "{end}");
            continue;
        }
        let end = socket.until_that(|v| v.get("closed").is_some()).await;
        assert_eq!(end["closed"], 4401, "{end}");
        // From the same moment on it is good for nothing.
        let (status, body) = fixture.get(&gateway, &format!("/api/v1/jobs/j1?token={token}")).await;
        assert_eq!(status, 401, "{body}");
        let refused = Socket::try_open(&fixture.url_of(&gateway, "jobs/j1", &token), &[]).await.err().expect("refused");
        assert_eq!(refused.0, 401);
        return;
    }
    panic!("no socket lived on a token that requests take");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_jump_of_the_wall_clock_lets_a_socket_outlive_its_token() {
    static AHEAD: AtomicI64 = AtomicI64::new(0);
    static BEHIND: AtomicI64 = AtomicI64::new(0);
    let fixture = GatewayFixture::new().await;
    let ahead = fixture.gateway_tuned(Tuning { clock_off: Some(&AHEAD), ..Tuning::default() }).await;
    let mut socket = fixture.socket(&ahead, "jobs/j1").await;
    socket.send(json!({"type": "ping"})).await;
    assert_eq!(socket.next().await["type"], "pong");
    // The clock was behind, or the machine slept: the ten minutes are over.
    AHEAD.store(700_000, Ordering::Relaxed);
    let end = socket.until_that(|v| v.get("closed").is_some()).await;
    assert_eq!(end["closed"], 4401, "{end}");

    // It is set back by an hour under a token that ends soon.
    let behind = fixture.gateway_tuned(Tuning { clock_off: Some(&BEHIND), ..Tuning::default() }).await;
    for seconds in [2, 8, 32] {
        let token = fixture.token_for("ann", "acme", seconds, None);
        BEHIND.store(0, Ordering::Relaxed);
        let Ok(mut socket) = Socket::try_open(&fixture.url_of(&behind, "jobs/j1", &token), &[]).await else { continue };
        // The session has begun, and with it the token's time.
        if socket.next().await["type"] != "subscribed" {
            continue;
        }
        BEHIND.store(-3_600_000, Ordering::Relaxed);
        let end = socket.until_that(|v| v.get("closed").is_some()).await;
        assert_eq!(end["closed"], 4401, "{end}");
        return;
    }
    panic!("no socket opened in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_text_do_not_hide_the_token_beside_them() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    let token = fixture.token("ann", "acme");
    for name in [&b"J\xc3\xb6rg"[..], b"J\xf6rg", b"\xff\xfe"] {
        let cookie = [b"cookie: name=", name, b"; access_token=", token.as_bytes(), b"\r\n"].concat();
        let with = |request: String| [request.trim_end().as_bytes(), b"\r\n", &cookie, b"\r\n"].concat();
        let mut stream = TcpStream::connect(gateway.address).await.expect("connect");
        let (status, text) = raw::exchange(&mut stream, &with(raw::request("GET", "/api/v1/jobs/j1", ""))).await;
        assert_eq!(status, 200, "{text}");
        let (status, text) = raw::exchange(&mut stream, &with(raw::upgrade("/api/v1/realtime/ws/jobs/j1", ""))).await;
        assert_eq!(status, 101, "{text}");
        // The page, and what a browser says it has of it.
        let mut stream = TcpStream::connect(gateway.address).await.expect("connect");
        let page = [b"GET / HTTP/1.1\r\nhost: gateway\r\nif-none-match: ", name, b"\r\n\r\n"].concat();
        assert_eq!(raw::exchange(&mut stream, &page).await.0, 200);
    }
    // In the query, of another parameter: as it came, and written with %.
    for other in ["name=J%F6rg", "name=J%C3%B6rg"] {
        let mut stream = TcpStream::connect(gateway.address).await.expect("connect");
        let path = format!("/api/v1/realtime/ws/jobs/j1?{other}&token={token}");
        let (status, text) = raw::exchange(&mut stream, raw::upgrade(&path, "").as_bytes()).await;
        assert_eq!(status, 101, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_stays_for_the_time_of_the_setting_and_is_then_closed() {
    let fixture = GatewayFixture::new().await;
    let usual = fixture.gateway().await;
    let mut kept = TcpStream::connect(usual.address).await.expect("connect");
    let health = raw::request("GET", "/healthz", "");
    assert_eq!(raw::exchange(&mut kept, health.as_bytes()).await.0, 200);
    // One that has never said anything, as balancers keep some for later.
    let mut silent = TcpStream::connect(usual.address).await.expect("connect");

    let short = GatewayFixture::with(&[("server.keep_alive_seconds", "1")]).await;
    let gateway = short.gateway().await;
    let mut closed = TcpStream::connect(gateway.address).await.expect("connect");
    assert_eq!(raw::exchange(&mut closed, health.as_bytes()).await.0, 200);
    let mut rest = Vec::new();
    let read = tokio::time::timeout(PATIENCE, closed.read_to_end(&mut rest)).await.expect("an end in time");
    assert_eq!((read.expect("a clean end"), rest.len()), (0, 0));

    // Half a request is not waited for that long.
    let mut half = TcpStream::connect(usual.address).await.expect("connect");
    half.write_all(b"GET /healthz HTTP/1.1\r\nhost:").await.expect("send");
    let read = tokio::time::timeout(PATIENCE, half.read_to_end(&mut rest)).await;
    let _ = read.expect("an end in time");
    // As long as half a request is waited for, and longer, an idle connection has been kept.
    for stream in [&mut kept, &mut silent] {
        assert_eq!(raw::exchange(stream, health.as_bytes()).await.0, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_leaves_says_so_and_serves_until_its_notice_is_over() {
    let fixture = GatewayFixture::with(&[("server.drain_notice_seconds", "8")]).await;
    let gateway = fixture.gateway().await;
    let mut before = fixture.socket(&gateway, "jobs/j1").await;
    until("ready", async || fixture.get(&gateway, "/readyz").await.0 == 200).await;
    gateway.stop.cancel();
    until("draining", async || {
        let (status, body) = fixture.get(&gateway, "/readyz").await;
        let body: Value = serde_json::from_str(&body).expect("JSON");
        status == 503 && body["draining"] == true
    })
    .await;
    // Nobody is turned away while load balancers have not noticed yet.
    let mut during = fixture.socket(&gateway, "jobs/j1").await;
    for socket in [&mut before, &mut during] {
        socket.send(json!({"type": "ping"})).await;
        assert_eq!(socket.next().await["type"], "pong");
    }
    during.send(json!({"type": "pause_job"})).await;
    during.until(&["pause_requested"]).await;
    for socket in [&mut before, &mut during] {
        assert_eq!(socket.until_that(|v| v.get("closed").is_some()).await["closed"], 1012);
    }
    let address = gateway.address;
    assert!(TcpStream::connect(address).await.is_err(), "it still listens while it sends everyone away");
    gateway.left().await;
}

/// Where the last command came from, by the audit trail.
async fn recorded(fixture: &GatewayFixture) -> String {
    // All of one tenant stand in one partition, in order.
    let mut last = None;
    for partition in fixture.broker.keys().partitions() {
        let entries = fixture.broker.audit_after(partition, "0", 1_000).await.expect("entries");
        last = entries.into_iter().next_back().or(last);
    }
    last.expect("an entry").address.expect("an address")
}

/// Asks for a pause over a connection that begins with these bytes and with these headers; gives the recorded address.
async fn asked_from(fixture: &GatewayFixture, gateway: &Running, before: &[u8], headers: &str) -> String {
    let headers = format!("authorization: Bearer {}\r\n{headers}", fixture.token("ann", "acme"));
    let request = raw::request("POST", "/api/v1/jobs/j1/pause", &headers);
    let mut stream = TcpStream::connect(gateway.address).await.expect("connect");
    let (status, text) = raw::exchange(&mut stream, &[before, request.as_bytes()].concat()).await;
    assert_eq!(status, 202, "{text}");
    recorded(fixture).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_trail_names_the_client_and_not_the_proxy() {
    let fixture = GatewayFixture::with(&[("server.trusted_proxies", "127.0.0.0/8, 10.0.0.0/8")]).await;
    let gateway = fixture.gateway().await;
    for (headers, is) in [
        ("", "127.0.0.1"),
        ("x-forwarded-for: 203.0.113.9\r\n", "203.0.113.9"),
        ("x-forwarded-for: 6.6.6.6, 203.0.113.9\r\nx-forwarded-for: 10.0.0.4\r\n", "203.0.113.9"),
        ("forwarded: for=6.6.6.6, for=\"[2001:db8::7]:4711\";proto=https, for=10.0.0.4\r\n", "2001:db8::7"),
        ("x-forwarded-for: ::ffff:203.0.113.9\r\n", "203.0.113.9"),
        ("x-forwarded-for: 203.0.113.9, nobody\r\n", "127.0.0.1"),
    ] {
        assert_eq!(asked_from(&fixture, &gateway, b"", headers).await, is, "{headers}");
    }
    // On a socket as well.
    let url = fixture.url(&gateway, "jobs/j1");
    let mut socket = Socket::try_open(&url, &[("x-forwarded-for", "203.0.113.9")]).await.expect("let in");
    socket.send(json!({"type": "pause_job"})).await;
    socket.until(&["pause_requested"]).await;
    assert_eq!(recorded(&fixture).await, "203.0.113.9");

    // Whoever is no proxy is not believed.
    let fixture = GatewayFixture::with(&[("server.trusted_proxies", "10.0.0.0/8")]).await;
    let gateway = fixture.gateway().await;
    let headers = "x-forwarded-for: 203.0.113.9\r\nforwarded: for=203.0.113.9\r\n";
    assert_eq!(asked_from(&fixture, &gateway, b"", headers).await, "127.0.0.1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_with_ipv4_on_a_listener_for_ipv6_are_recorded_as_such() {
    let fixture =
        GatewayFixture::with(&[("server.listen", "[::]:0"), ("server.trusted_proxies", "127.0.0.2/32")]).await;
    let mut gateway = fixture.gateway().await;
    gateway.address = format!("127.0.0.1:{}", gateway.address.port()).parse().expect("address");
    assert_eq!(asked_from(&fixture, &gateway, b"", "").await, "127.0.0.1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_proxy_protocol_names_the_client_where_the_peer_is_trusted_and_nowhere_else() {
    let trusted = [("server.trusted_proxies", "127.0.0.1, 10.0.0.0/8"), ("server.proxy_protocol", "on")];
    let fixture = GatewayFixture::with(&trusted).await;
    let gateway = fixture.gateway().await;
    let mut second = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0f".to_vec();
    second.extend_from_slice(&[203, 0, 113, 9, 127, 0, 0, 1, 0x12, 0x67, 0x1f, 0x40]);
    second.extend_from_slice(&[0x04, 0x00, 0x00]); // A field that says nothing.
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";
    for (before, headers, is) in [
        (&b"PROXY TCP4 203.0.113.9 127.0.0.1 4711 8000\r\n"[..], "", "203.0.113.9"),
        (b"PROXY TCP6 2001:db8::7 ::1 4711 8000\r\n", "", "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n", "", "127.0.0.1"),
        (&second, "", "203.0.113.9"),
        (local, "", "127.0.0.1"),
        // A proxy that speaks HTTP stands behind one that passes bytes on.
        (b"PROXY TCP4 10.0.0.4 127.0.0.1 4711 8000\r\n", "x-forwarded-for: 203.0.113.9\r\n", "203.0.113.9"),
        (b"PROXY TCP4 203.0.113.9 127.0.0.1 4711 8000\r\n", "x-forwarded-for: 6.6.6.6\r\n", "203.0.113.9"),
    ] {
        assert_eq!(asked_from(&fixture, &gateway, before, headers).await, is, "{}", String::from_utf8_lossy(before));
    }
    // In two pieces, and for a socket.
    let mut stream = TcpStream::connect(gateway.address).await.expect("connect");
    stream.write_all(b"PROXY TCP4 203.0.11").await.expect("send");
    tokio::time::sleep(Duration::from_millis(100)).await;
    stream.write_all(b"3.9 127.0.0.1 4711 8000\r\n").await.expect("send");
    raw::open(&mut stream, &path(&fixture, "jobs/j1")).await;
    stream.write_all(&raw::client_frame(0x81, br#"{"type":"pause_job"}"#)).await.expect("send");
    while !raw::frame(&mut stream).await.is_some_and(|(_, text)| text.starts_with(br#"{"type":"pause_requested"#)) {}
    assert_eq!(recorded(&fixture).await, "203.0.113.9");
    // A trusted proxy that sends none is not served: whose connection it is cannot be known.
    let mut stream = TcpStream::connect(gateway.address).await.expect("connect");
    assert_eq!(raw::exchange(&mut stream, raw::request("GET", "/healthz", "").as_bytes()).await.0, 0);

    let fixture =
        GatewayFixture::with(&[("server.trusted_proxies", "10.0.0.0/8"), ("server.proxy_protocol", "on")]).await;
    let gateway = fixture.gateway().await;
    assert_eq!(asked_from(&fixture, &gateway, b"", "").await, "127.0.0.1");
    let mut stream = TcpStream::connect(gateway.address).await.expect("connect");
    let forged = format!("PROXY TCP4 6.6.6.6 127.0.0.1 1 2\r\n{}", raw::request("GET", "/healthz", ""));
    assert_eq!(raw::exchange(&mut stream, forged.as_bytes()).await.0, 400);
}
