//! How sockets end from the gateway's side: expiry, revocation, silence, drain.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use wheelhouse::gateway::Tuning;

use crate::fixture::{GatewayFixture, job};
use crate::support::socket::{PATIENCE, Socket};

async fn closed(socket: &mut Socket) -> serde_json::Value {
    socket.until_that(|v| v.get("closed").is_some()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_ends_with_its_token_unless_it_is_refreshed() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    // On a machine that needs longer than the token lives it is not refreshed in time: then once more with more time.
    for seconds in [4, 16, 64] {
        let soon = fixture.token_for("ann", "acme", seconds, None);
        let mut ends = fixture.socket_of(&gateway, "jobs/j1", &soon).await;
        let mut stays = fixture.socket_of(&gateway, "jobs/j1", &soon).await;
        let refresh = json!({"type": "refresh_token", "token": fixture.token("ann", "acme")});
        let sent = stays.try_send(Message::text(refresh.to_string())).await;
        let mut answer = stays.next().await;
        if answer["type"] == "token_expiring" {
            answer = stays.next().await;
        }
        // Both are told that there is less than a minute left, once.
        let warning = ends.next().await;
        if warning.get("closed").is_some() {
            continue;
        }
        assert_eq!(warning["type"], "token_expiring", "{warning}");
        assert!(warning["expires_in"].as_i64().is_some_and(|left| (0..=60).contains(&left)), "{warning}");
        assert_eq!(ends.next().await["closed"], 4401);
        if sent.is_err() || answer.get("closed").is_some() {
            continue;
        }
        assert_eq!(answer["type"], "token_refreshed", "{answer}");
        stays.send(json!({"type": "ping"})).await;
        assert_eq!(stays.next().await["type"], "pong");
        return;
    }
    panic!("a token that was refreshed ended its socket");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_is_refreshed_with_a_good_token_of_its_own_user_and_tenant_only() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    let mut stays = fixture.socket(&gateway, "jobs/j1").await;
    fixture.grant("bob", &["*"]).await;
    for bad in [fixture.token("bob", "acme"), fixture.token("ann", "globex"), "x.y.z".to_owned()] {
        stays.send(json!({"type": "refresh_token", "token": bad})).await;
        let error = stays.next().await;
        assert_eq!((&error["type"], &error["error"]), (&json!("error"), &json!("invalid_message")), "{error}");
        assert!(!error.to_string().contains(&bad), "a token in an error");
    }
    stays.send(json!({"type": "refresh_token", "token": fixture.token("ann", "acme")})).await;
    let (text, answer) = stays.next_text().await;
    let expires = answer["expires_at"].as_i64().expect("time");
    assert_eq!(text, format!(r#"{{"type":"token_refreshed","expires_at":{expires}}}"#));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_may_no_longer_watch_is_shown_out_and_others_stay() {
    let fixture = GatewayFixture::new().await;
    let (one, other) = (fixture.gateway().await, fixture.gateway().await);
    fixture.grant("bob", &["jobs.read", "jobs.pause"]).await;
    fixture.grant("cid", &["jobs.read"]).await;
    let (bob, cid) = (fixture.token("bob", "acme"), fixture.token("cid", "acme"));
    let mut bobs = [fixture.socket_of(&one, "jobs/j1", &bob).await, fixture.socket_of(&other, "jobs/j1", &bob).await];
    let mut cids = fixture.socket_of(&one, "jobs/j1", &cid).await;
    let mut anns = fixture.socket(&other, "jobs/j1").await;
    // As `wheelhouse revoke` does it: SQL, then the cache and the word to every gateway.
    let bob = "bob".parse().expect("user");
    let version = fixture.store.revoke(&bob, &["jobs.pause".to_owned()]).await.expect("revoke");
    fixture.broker.invalidate_permissions(&bob, version).await.expect("invalidate");
    bobs[0].send(json!({"type": "pause_job"})).await;
    assert_eq!(bobs[0].next().await["error"], "permission_denied", "in force before the call returned");
    let version = fixture.store.revoke(&bob, &["jobs.read".to_owned()]).await.expect("revoke");
    fixture.broker.invalidate_permissions(&bob, version).await.expect("invalidate");
    for socket in &mut bobs {
        assert_eq!(closed(socket).await["closed"], 4403);
    }
    // By plain SQL, as another program does it.
    fixture.sql("DELETE FROM user_permissions WHERE user_id = 'cid'").await;
    assert_eq!(closed(&mut cids).await["closed"], 4403);
    anns.send(json!({"type": "ping"})).await;
    assert_eq!(anns.next().await["type"], "pong");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_permissions_from_the_token_a_refresh_without_them_ends_the_socket() {
    let fixture = GatewayFixture::with(&[("auth.permissions", "token")]).await;
    let gateway = fixture.gateway().await;
    let mut socket = fixture
        .socket_of(&gateway, "jobs/j1", &fixture.token_for("bob", "acme", 600, Some(&["jobs.read", "jobs.pause"])))
        .await;
    socket.send(json!({"type": "cancel_job"})).await;
    assert_eq!(socket.next().await["error"], "permission_denied");
    socket.send(json!({"type": "pause_job"})).await;
    assert_eq!(socket.next().await["type"], "pause_requested");
    let fewer = fixture.token_for("bob", "acme", 600, Some(&["jobs.pause"]));
    socket.send(json!({"type": "refresh_token", "token": fewer})).await;
    assert_eq!(closed(&mut socket).await["closed"], 4403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_answers_no_ping_is_given_up_and_one_that_does_is_not() {
    let fixture = GatewayFixture::new().await;
    tokio::join!(a_socket_that_answers_stays(&fixture), a_silent_socket_is_given_up(&fixture));
}

async fn a_socket_that_answers_stays(fixture: &GatewayFixture) {
    // A client that is held up for two pings looks like one that is gone: then once more with more time.
    for ping in [300, 3_000, 30_000].map(Duration::from_millis) {
        let gateway = fixture.gateway_tuned(Tuning { ping, ..Tuning::default() }).await;
        let mut alive = fixture.socket(&gateway, "jobs/j1").await;
        // Only pings, answered.
        let mut came = alive.next_within(ping * 12).await;
        if came.is_none() {
            let _ = alive.try_send(Message::text(r#"{"type":"ping"}"#)).await;
            came = Some(alive.next().await);
        }
        match came {
            Some(pong) if pong == json!({"type": "pong"}) => return,
            Some(end) if end["closed"] == 4408 || end["closed"] == 1006 => {}
            other => panic!("{other:?}"),
        }
    }
    panic!("a socket that answered was given up");
}

async fn a_silent_socket_is_given_up(fixture: &GatewayFixture) {
    let gateway = fixture.gateway_tuned(Tuning { ping: Duration::from_millis(300), ..Tuning::default() }).await;
    // Half-open: the connection stands and nobody is there. By hand, for the library answers pings while it reads.
    let mut stream = TcpStream::connect(gateway.address).await.expect("connect");
    let request = format!(
        "GET /api/v1/realtime/ws/jobs/j1?token={} HTTP/1.1\r\nhost: {}\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n",
        fixture.token("ann", "acme"),
        gateway.address
    );
    stream.write_all(request.as_bytes()).await.expect("send");
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    read.expect("an end in time").expect("a clean end");
    let told = bytes.windows(4).any(|w| w[0] == 0x88 && w[2..4] == 4408_u16.to_be_bytes());
    assert!(told, "no close 4408 in {bytes:?}");
    // Two pings, and a third that was due when it was given up.
    assert_eq!(bytes.windows(2).filter(|w| *w == [0x89, 0x00]).count(), 2, "{bytes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_answers_what_is_under_way_and_sends_everyone_away_with_a_pause() {
    let fixture = GatewayFixture::with(&[("server.drain_seconds", "25")]).await;
    let (leaving, staying) = (fixture.gateway().await, fixture.gateway().await);
    let address = leaving.address;
    let mut sockets = Vec::new();
    for _ in 0..40 {
        sockets.push(fixture.socket(&leaving, "jobs/j1").await);
    }
    let mut stays = fixture.socket(&staying, "jobs/j1").await;
    sockets[0].send(json!({"type": "pause_job"})).await;
    leaving.stop.cancel();
    let mut reasons = std::collections::BTreeSet::new();
    for (n, socket) in sockets.iter_mut().enumerate() {
        let mut acked = n != 0;
        let end = loop {
            let message = socket.next().await;
            if message.get("closed").is_some() {
                break message;
            }
            acked |= message["type"] == "pause_requested";
        };
        assert_eq!(end["closed"], 1012, "{end}");
        let reason = end["reason"].as_str().expect("reason").to_owned();
        let pause = reason.strip_prefix("reconnect in ").and_then(|r| r.strip_suffix(" ms"));
        assert!(pause.is_some_and(|ms| ms.parse::<u64>().is_ok()), "{reason}");
        reasons.insert(reason);
        // Read before it was told to leave, or not at all: never accepted and left without an ack.
        if n == 0 && !acked {
            let claimed = fixture
                .broker
                .claim(&job("j1"), &crate::fixture::worker(), Duration::from_secs(5))
                .await
                .expect("claim");
            assert!(
                matches!(claimed, wheelhouse::broker::scripts::claim::ClaimOutcome::Nothing),
                "accepted without an ack"
            );
        }
    }
    assert!(reasons.len() > 5, "everyone would come back at once: {reasons:?}");
    leaving.left().await;
    assert!(TcpStream::connect(address).await.is_err(), "it still listens");
    stays.send(json!({"type": "ping"})).await;
    assert_eq!(stays.next().await["type"], "pong");
    // Their places are free again.
    assert_eq!(fixture.redis.inline(&format!("ZCARD {}", fixture.broker.keys().connections(&job("j1").tenant))), ":1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_ends_in_its_time_though_a_client_never_reads() {
    let fixture = GatewayFixture::with(&[("server.drain_seconds", "1")]).await;
    let gateway = fixture.gateway().await;
    let _deaf = fixture.socket(&gateway, "jobs/j1").await;
    gateway.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_that_a_client_makes_up_is_no_label_of_a_metric() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    for code in [4876_u16, 3999] {
        let mut socket = fixture.socket(&gateway, "jobs/j1").await;
        let frame = CloseFrame { code: code.into(), reason: "".into() };
        socket.send_raw(Message::Close(Some(frame))).await;
        assert_eq!(closed(&mut socket).await["closed"], code, "it is answered as it came");
    }
    let (status, metrics) = fixture.get(&gateway, "/metrics").await;
    assert_eq!(status, 200);
    assert!(metrics.contains(r#"websocket_connections_closed_total{code="other"}"#), "{metrics}");
    // With its label: a duration may have these digits, too.
    assert!(!metrics.contains(r#"code="4876""#) && !metrics.contains(r#"code="3999""#), "{metrics}");
}
