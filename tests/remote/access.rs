//! Who may connect, and what happens to what is no message.

use serde_json::{Value, json};

use super::client::{self, Client};
use super::fixture::RemoteFixture;
use crate::support::fleet::http;
use crate::support::socket::Socket;
use crate::support::tokens::{now, signed, token_with};

fn revoke(fixture: &RemoteFixture, args: &[&str]) {
    let output = fixture.fleet.command(args).output().expect("run wheelhouse");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workers_token_is_good_here_alone_and_a_users_is_not() {
    for source in ["database", "token"] {
        let mut fixture = RemoteFixture::start(&[("AUTH__PERMISSIONS", source)]).await;
        let worker = fixture.worker();
        let user = token_with("ann", "acme", &json!({"permissions": ["*"], "jti": "u"}));
        let both = token_with("ann", "acme", &json!({"worker": "w", "tenants": ["acme"]}));
        let claims = |tenants: Value| json!({"worker": "w", "tenants": tenants, "iat": now(), "exp": now() + 60});
        let old = json!({"worker": "w", "tenants": ["acme"], "iat": now() - 100, "exp": now() - 60});
        let long = json!({"worker": "w", "tenants": ["acme"], "iat": now(), "exp": now() + 500 * 86_400});
        let bad = [user, both, String::new(), "x.y.z".to_owned(), signed(&old), signed(&long)];
        let bad =
            bad.into_iter().chain([json!([]), json!("acme"), json!(["a:b"]), json!(null)].map(|t| signed(&claims(t))));
        for token in bad {
            let (status, body) = client::open(&worker.address, &token).await.err().expect("refused");
            assert_eq!(status, 401, "{token}: {body}");
            assert_eq!(serde_json::from_str::<Value>(&body).expect("JSON")["error"], "unauthorized");
        }
        let good = signed(&claims(json!(["*"])));
        let mut anywhere = Client::connect(&worker.address, &good, "s1").await;
        assert_eq!(anywhere.attach(1, "globex", "j1").await["type"], "attached");
        // At a gateway it is nobody's.
        let gateway = fixture.fleet.process(fixture.gateway).address.clone();
        let bearer = format!("Bearer {}", fixture.token);
        for (method, path) in [
            ("GET", "/api/v1/jobs"),
            ("GET", "/api/v1/me"),
            ("POST", "/api/v1/jobs/j1/cancel"),
            ("GET", "/api/v1/audit"),
        ] {
            let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
            let (status, body) = http(&gateway, method, path, &headers, "{}").expect("an answer");
            assert_eq!(status, 401, "{path}: {body}");
        }
        for path in ["", "/jobs/j1"] {
            let url = format!("ws://{gateway}/api/v1/realtime/ws{path}?token={}", fixture.token);
            assert_eq!(Socket::try_open(&url, &[]).await.err().expect("refused").0, 401);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_is_refused_and_its_sockets_are_closed() {
    let mut fixture = RemoteFixture::start(&[]).await;
    let worker = fixture.worker();
    let claims = |jti: &str, worker: &str| {
        signed(&json!({"worker": worker, "tenants": ["acme"], "iat": now() - 5, "exp": now() + 600, "jti": jti}))
    };
    let (one, other, third) = (claims("one", "w1"), claims("other", "w1"), claims("third", "w2"));
    let mut sockets = Vec::new();
    for (token, session) in [(&one, "s1"), (&other, "s2"), (&third, "s3")] {
        sockets.push(Client::connect(&worker.address, token, session).await);
    }
    revoke(&fixture, &["revoke-token", "--jti", "one"]);
    assert_eq!(sockets[0].closed().await, 4403);
    assert_eq!(client::open(&worker.address, &one).await.err().expect("refused").0, 401);
    assert_eq!(sockets[1].attach(1, "acme", "j1").await["type"], "attached");
    revoke(&fixture, &["revoke-token", "--worker", "w1"]);
    assert_eq!(sockets[1].closed().await, 4403);
    assert_eq!(sockets[2].attach(1, "acme", "j2").await["type"], "attached");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_message_closes_the_socket_and_a_wrong_field_does_nothing() {
    let mut fixture = RemoteFixture::start(&[("WORKER__MAX_JOBS_PER_CONNECTION", "3")]).await;
    let worker = fixture.worker();
    for (text, code) in [
        ("{", 4400),
        ("[]", 4400),
        (r#"{"type":"dance"}"#, 4400),
        (r#"{"type":"hello","v":1,"worker":"w","session":"s"}"#, 0),
    ] {
        let mut client = fixture.client(&worker, "s1").await;
        client.send_text(text).await;
        if code == 0 {
            assert_eq!(client.next().await["type"], "error", "hello a second time");
        } else {
            assert_eq!(client.closed().await, code, "{text}");
        }
    }
    // Before hello nothing else is taken.
    let mut socket = client::open(&worker.address, &fixture.token).await.expect("open");
    socket.send(json!({"type": "attach", "ref": 1, "tenant_id": "acme", "job_id": "j1"})).await;
    assert_eq!(socket.next().await["closed"], 4400);
    let mut socket = client::open(&worker.address, &fixture.token).await.expect("open");
    socket.send(json!({"type": "hello", "v": 2, "worker": "w", "session": "s"})).await;
    assert_eq!(socket.next().await["closed"], 4400);

    let mut client = fixture.client(&worker, "s2").await;
    client.socket.send_raw(tokio_tungstenite::tungstenite::Message::binary(vec![1, 2])).await;
    assert_eq!(client.closed().await, 1003);
    let mut client = fixture.client(&worker, "s3").await;
    client.send_text(&format!(r#"{{"type":"save","ref":1,"n":1,"point":"{}"}}"#, "x".repeat(300 * 1024))).await;
    assert_eq!(client.closed().await, 1009);

    let mut client = fixture.client(&worker, "s4").await;
    let attach = json!({"type": "attach", "ref": 9, "tenant_id": "acme", "job_id": "j9"});
    for (name, value) in [
        ("tenant_id", json!("a:b")),
        ("job_id", json!("")),
        ("job_id", json!(7)),
        ("job_type", json!("")),
        ("title", json!("x".repeat(501))),
        ("campaign_id", json!("a*")),
        ("timeout_seconds", json!(0)),
        ("max_retries", json!(-1)),
        ("created_by", json!("a b")),
        ("run", json!(0)),
        ("color", json!(1)),
    ] {
        let mut message = attach.clone();
        message[name] = value;
        client.send_text(&message.to_string()).await;
        let answer = client.about(9, &["refused", "attached", "error"]).await;
        assert_eq!((&answer["type"], &answer["error"]), (&json!("refused"), &json!("invalid")), "{message}: {answer}");
        assert!(answer["message"].as_str().is_some_and(|words| words.contains(name)), "{message}: {answer}");
    }
    for text in [
        r#"{"type":"progress","ref":9,"items_total":-1}"#,
        r#"{"type":"progress","ref":9,"progress_percent":"half"}"#,
        r#"{"type":"reached","ref":9,"order":1,"state":"gone"}"#,
        r#"{"type":"failed_item","ref":9,"item":"a"}"#,
        r#"{"type":"end","ref":9,"how":"somehow"}"#,
        r#"{"type":"end","ref":9,"how":"completed"}"#,
    ] {
        client.send_text(text).await;
        let answer = client.about(9, &["error"]).await;
        assert_eq!(answer["error"], "invalid", "{text}: {answer}");
    }
    for reference in 1..=3 {
        assert_eq!(client.attach(reference, "acme", &format!("j{reference}")).await["type"], "attached");
    }
    let refused = client.attach(4, "acme", "j4").await;
    assert_eq!(refused["error"], "invalid", "it has as many jobs as it may: {refused}");
    assert_eq!(client.end(1, "completed").await["status"], "completed");
    assert_eq!(client.attach(4, "acme", "j4").await["type"], "attached", "there is room again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_and_too_many_sockets_are_refused() {
    let settings = [("WORKER__MAX_CONNECTIONS", "2"), ("WORKER__MESSAGES_PER_SECOND", "5")];
    let mut fixture = RemoteFixture::start(&settings).await;
    let worker = fixture.worker();
    let mut first = fixture.client(&worker, "s1").await;
    let _second = fixture.client(&worker, "s2").await;
    let (status, body) = client::open(&worker.address, &fixture.token).await.err().expect("refused");
    assert_eq!(status, 429, "{body}");
    first.attach(1, "acme", "j1").await;
    for n in 0..100 {
        first
            .socket
            .try_send(tokio_tungstenite::tungstenite::Message::text(
                json!({"type": "progress", "ref": 1, "items_processed": n}).to_string(),
            ))
            .await
            .ok();
    }
    assert_eq!(first.closed().await, 4429);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_says_how_it_is() {
    let mut fixture = RemoteFixture::start(&[]).await;
    let worker = fixture.worker();
    let get = |path: &str| http(&worker.address, "GET", path, &[], "").expect("an answer");
    assert_eq!(get("/healthz"), (200, r#"{"status":"ok"}"#.to_owned()));
    let (status, body) = get("/readyz");
    assert_eq!(
        (status, serde_json::from_str::<Value>(&body).expect("JSON")["sql"].clone()),
        (200, json!(true)),
        "{body}"
    );
    let mut client = fixture.client(&worker, "s1").await;
    client.attach(1, "acme", "j1").await;
    let metrics = get("/metrics").1;
    for line in ["wheelhouse_worker_foreign_sockets 1", "wheelhouse_worker_foreign_runs 1"] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    assert_eq!(get("/api/v1/jobs").0, 404);
    assert_eq!(get("/api/v1/worker/ws").0, 401);
    let bearer = format!("Bearer {}", fixture.token);
    let plain =
        http(&worker.address, "GET", "/api/v1/worker/ws", &[("authorization", &bearer)], "").expect("an answer");
    assert_eq!(plain.0, 400, "{}", plain.1);
    let long =
        fixture.fleet.command(&["token", "--worker", "w", "--tenants", "acme", "--ttl", "500d"]).output().expect("run");
    assert_eq!(long.status.code(), Some(2), "{}", String::from_utf8_lossy(&long.stderr));
}
