//! What a client may send, and what it is told (CONTRACT section 4).

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::fixture::GatewayFixture;
use crate::support::socket::Socket;

fn part(text: Vec<u8>, first: bool, last: bool) -> Message {
    let code = if first { Data::Text } else { Data::Continue };
    Message::Frame(Frame::message(text, OpCode::Data(code), last))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_opens_with_subscribed_and_the_snapshot_to_the_byte() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    let (mut raw, _) = connect(&fixture.url(&gateway, "jobs/j1")).await;
    let first = raw.next().await.expect("one").expect("message");
    let expected = r#"{"type":"subscribed","channel":"acme:job:j1","tenant_id":"acme","job_id":"j1"}"#;
    assert_eq!(first.to_text().expect("text"), expected);
    let second = raw.next().await.expect("one").expect("message");
    let text = second.to_text().expect("text");
    assert!(text.starts_with(r#"{"type":"job_snapshot","job_id":"j1","#), "{text}");
    let snapshot: serde_json::Value = serde_json::from_str(text).expect("JSON");
    assert_eq!((&snapshot["status"], &snapshot["seq"]), (&json!("pending"), &json!(0)));

    let (mut raw, _) = connect(&fixture.url(&gateway, "campaigns/c1")).await;
    let first = raw.next().await.expect("one").expect("message");
    let expected = r#"{"type":"subscribed","channel":"acme:campaign:c1","tenant_id":"acme","campaign_id":"c1"}"#;
    assert_eq!(first.to_text().expect("text"), expected);
    let second = raw.next().await.expect("one").expect("message");
    let snapshot: serde_json::Value = serde_json::from_str(second.to_text().expect("text")).expect("JSON");
    assert_eq!((&snapshot["type"], &snapshot["is_active"]), (&json!("campaign_snapshot"), &json!(true)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_in_a_snapshot_keep_every_digit() {
    let fixture = GatewayFixture::new().await;
    fixture
        .sql(
            r#"UPDATE jobs SET parameters = '{"whole":9007199254740993,"decimal":0.1234567890123456789012345678}',
             result = '[0.1234567890123456789012345678,9007199254740993]' WHERE id = 'j1'"#,
        )
        .await;
    let gateway = fixture.gateway().await;
    let mut socket = Socket::open(&fixture.url(&gateway, "jobs/j1")).await;
    assert_eq!(socket.next().await["type"], "subscribed");
    let (text, snapshot) = socket.next_text().await;
    assert_eq!(snapshot["type"], "job_snapshot");
    for written in [
        r#""parameters":{"whole":9007199254740993,"decimal":0.1234567890123456789012345678}"#,
        r#""result":[0.1234567890123456789012345678,9007199254740993]"#,
    ] {
        assert!(text.contains(written), "{text}");
    }
}

async fn connect(url: &str) -> (tokio_tungstenite::WebSocketStream<TcpStream>, ()) {
    let address = url.trim_start_matches("ws://").split('/').next().expect("address");
    let tcp = TcpStream::connect(address).await.expect("connect");
    let (stream, _) = tokio_tungstenite::client_async(url, tcp).await.expect("upgrade");
    (stream, ())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_understood_is_answered_and_the_socket_stays() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    let mut socket = fixture.socket(&gateway, "jobs/j1").await;
    socket.send_raw(Message::text(r#"{"type":"ping"}"#)).await;
    assert_eq!(socket.next().await, json!({"type": "pong"}));
    for (text, code) in [
        ("{", "invalid_message"),
        ("[]", "invalid_message"),
        ("null", "invalid_message"),
        (r#"{"type":7}"#, "invalid_message"),
        (r#"{"type":"cancel_job","reason":7}"#, "invalid_message"),
        (r#"{"type":"stop_job"}"#, "unknown_type"),
        (r#"{"type":"cancel_campaign"}"#, "unknown_type"),
    ] {
        socket.send_raw(Message::text(text)).await;
        let error = socket.next().await;
        assert_eq!((&error["type"], &error["error"]), (&json!("error"), &json!(code)), "{text}");
    }
    for (when, words) in [
        (r#""run_at":"9999-12-31T23:59:59Z""#, "run_at may lie 366 days ahead at most"),
        (r#""run_at":"2999-12-31T23:59:59Z""#, "run_at may lie 366 days ahead at most"),
        (r#""run_at":"9999-12-32T23:59:59Z""#, "run_at must be an RFC 3339 time"),
        (r#""delay_seconds":1.5"#, "delay_seconds must be whole seconds"),
    ] {
        socket.send_raw(Message::text(format!(r#"{{"type":"cancel_job",{when}}}"#))).await;
        let error = socket.next().await;
        assert!(error["message"].as_str().is_some_and(|said| said.starts_with(words)), "{when}: {error}");
    }
    socket.send_raw(Message::text(r#"{"type":"cancel_job","delay_seconds":1000.0}"#)).await;
    assert_eq!(socket.next().await["type"], "cancel_scheduled");
    socket.send(json!({"type": "stop_job", "request_id": "r-7"})).await;
    assert_eq!(socket.next().await["request_id"], "r-7");
    // In pieces, with a ping between them, as the RFC allows.
    socket.send_raw(part(br#"{"type":"#.to_vec(), true, false)).await;
    socket.send_raw(Message::Ping("x".into())).await;
    socket.send_raw(part(br#""ping"}"#.to_vec(), false, true)).await;
    assert_eq!(socket.next().await, json!({"type": "pong"}));
    // 16 KiB exactly still pass.
    let mut longest = br#"{"type":"ping","x":""#.to_vec();
    longest.resize(16 * 1024 - 2, b'x');
    longest.extend_from_slice(br#""}"#);
    socket.send_raw(Message::text(String::from_utf8(longest).expect("text"))).await;
    assert_eq!(socket.next().await, json!({"type": "pong"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_are_refused_close_the_socket_with_their_code() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    let piece = vec![b'x'; 4 * 1024];
    let in_pieces: Vec<Message> = (0..5).map(|n| part(piece.clone(), n == 0, n == 4)).collect();
    let cases: Vec<(Vec<Message>, u16)> = vec![
        (vec![Message::binary(b"{}".to_vec())], 1003),
        (vec![Message::text("x".repeat(16 * 1024 + 1))], 1009),
        // Far more than the kernel's buffers hold: the code must arrive all the same.
        (vec![Message::text("x".repeat(4 * 1024 * 1024))], 1009),
        (in_pieces, 1009),
        (vec![part(vec![0xff, 0xfe], true, true)], 1007),
        (vec![part(b"x".to_vec(), false, true)], 1002),
    ];
    for (messages, code) in cases {
        let mut socket = fixture.socket(&gateway, "jobs/j1").await;
        for message in messages {
            // The gateway may have closed before the last piece.
            let _ = tokio::time::timeout(std::time::Duration::from_secs(20), socket.try_send(message)).await;
        }
        let closed = socket.until_that(|v| v.get("closed").is_some()).await;
        assert_eq!(closed["closed"], code, "{closed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unmasked_frame_is_refused_and_a_clients_close_is_answered() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    let (raw, ()) = connect(&fixture.url(&gateway, "jobs/j1")).await;
    let mut tcp = raw.into_inner();
    tcp.write_all(&[0x81, 0x02, b'{', b'}']).await.expect("send");
    let mut seen = Vec::new();
    tcp.read_to_end(&mut seen).await.expect("read to the end");
    let close = seen.windows(4).any(|w| w[0] == 0x88 && w[2..4] == 1002_u16.to_be_bytes());
    assert!(close, "no close 1002 in {} bytes", seen.len());

    let (mut raw, ()) = connect(&fixture.url(&gateway, "jobs/j1")).await;
    raw.send(Message::Close(None)).await.expect("send");
    let mut last = None;
    while let Some(message) = raw.next().await {
        last = Some(message.expect("a clean end"));
    }
    assert!(matches!(last, Some(Message::Close(_))), "{last:?}");
}

/// Far more than a burst, also where it takes a minute to send them; or as many as the gateway takes.
async fn flood(socket: &mut Socket, message: &Message) {
    for _ in 0..400 {
        if socket.try_send(message.clone()).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_closed_and_a_burst_is_not() {
    let fixture = GatewayFixture::with(&[("limits.messages_per_second", "5")]).await;
    let gateway = fixture.gateway().await;
    let mut socket = fixture.socket(&gateway, "jobs/j1").await;
    for _ in 0..10 {
        socket.send(json!({"type": "ping"})).await;
    }
    for _ in 0..10 {
        assert_eq!(socket.next().await["type"], "pong");
    }
    flood(&mut socket, &Message::text(r#"{"type":"ping"}"#)).await;
    assert_eq!(socket.until_that(|v| v.get("closed").is_some()).await["closed"], 4429);
    // Control frames are messages, too.
    let mut socket = Socket::open(&fixture.url(&gateway, "jobs/j1")).await;
    flood(&mut socket, &Message::Ping("x".into())).await;
    assert_eq!(socket.until_that(|v| v.get("closed").is_some()).await["closed"], 4429);
}
