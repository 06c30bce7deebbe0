//! Clients that break the rules: each is told in words or closed, nothing of it reaches a row, and others go on.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use super::client::{self, Client};
use super::fixture::RemoteFixture;
use super::outages::{attach, begin, is_read, save};
use super::outages_of_sql::Database;
use crate::support::socket::PATIENCE;

async fn said(client: &mut Client, text: &str) -> Value {
    client.send_text(text).await;
    client.until(|message| message["type"] != "log").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ref_is_one_jobs_for_ever() {
    let mut fixture = RemoteFixture::start(&[]).await;
    let worker = fixture.worker();
    let mut client = fixture.client(&worker, "s1").await;
    begin(&mut client, 1, "first").await;
    let words = |refused: &Value| refused["message"].as_str().is_some_and(|words| words.contains("ref"));
    let refused = client.attach(1, "acme", "second").await;
    assert!(refused["error"] == "invalid" && words(&refused), "while its job runs: {refused}");
    // At once after each other: the second one is not taken for the first one again.
    client.send(attach(2, "third")).await;
    client.send(attach(2, "fourth")).await;
    let mut answers =
        [client.about(2, &["attached", "refused"]).await, client.about(2, &["attached", "refused"]).await];
    answers.sort_by_key(|answer| answer["type"].to_string());
    assert_eq!((&answers[0]["type"], &answers[1]["error"]), (&json!("attached"), &json!("invalid")), "{answers:?}");
    assert_eq!(client.end(1, "completed").await["status"], "completed");
    let refused = client.attach(1, "acme", "fifth").await;
    assert!(refused["error"] == "invalid" && words(&refused), "it is not said to have ended: {refused}");
    assert_eq!(client.attach(1, "acme", "first").await["error"], "ended");
    let rows: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM jobs").fetch_one(&fixture.fleet.sql().await).await.expect("a count");
    assert_eq!(rows, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_confirmed_by_its_own_answer_alone() {
    let mut fixture = RemoteFixture::start(&[]).await;
    let worker = fixture.worker();
    let mut client = fixture.client(&worker, "s1").await;
    begin(&mut client, 1, "j1").await;
    // Nobody has ordered anything.
    for (order, state) in [(1, "ended"), (1, "still"), (99, "ended"), (1, "refused")] {
        client.send(json!({"type": "reached", "ref": 1, "order": order, "state": state})).await;
    }
    is_read(&mut client, "s1").await;
    let pause = fixture.command("pause", "j1");
    let order = client.order(1, "pause").await;
    let number = order["order"].as_u64().expect("a number");
    for other in [number - 1, number + 1, 1 << 52] {
        client.send(json!({"type": "reached", "ref": 1, "order": other, "state": "still"})).await;
    }
    client.reached(&order, "ended").await;
    let error = client.about(1, &["error"]).await;
    assert!(error["message"].as_str().is_some_and(|words| words.contains("still")), "{error}");
    assert_eq!(fixture.result("j1", &pause), None);
    client.reached(&order, "still").await;
    assert_eq!(fixture.result_of("j1", &pause).await["type"], "pause_succeeded");
    let cancel = fixture.command("cancel", "j1");
    let order = client.order(1, "cancel").await;
    client.reached(&order, "still").await;
    client.about(1, &["error"]).await;
    assert_eq!(fixture.result("j1", &cancel), None);
    client.reached(&order, "ended").await;
    assert_eq!(fixture.result_of("j1", &cancel).await["status"], "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_and_its_runs_are_no_other_tokens() {
    let mut fixture = RemoteFixture::start(&[]).await;
    let worker = fixture.worker();
    let mut client = fixture.client(&worker, "s1").await;
    begin(&mut client, 1, "j1").await;
    let stranger = crate::support::foreign::token(&fixture.fleet, "celery-2", "acme");
    // By the same id, and with the number of the run.
    let mut other = Client::connect(&worker.address, &stranger, "s1").await;
    for reference in [1, 2] {
        let refused = other.attach_with(reference, "acme", "j1", json!({"run": 1})).await;
        assert_eq!(refused["error"], "elsewhere", "{refused}");
    }
    other.send(json!({"type": "end", "ref": 1, "how": "completed"})).await;
    assert_eq!(other.about(1, &["error", "ended"]).await["type"], "error");
    let globex = crate::support::foreign::token(&fixture.fleet, "celery-1", "globex");
    // The same name, for another tenant: the same session of the same owner, and yet not that tenant's jobs.
    let mut third = Client::connect(&worker.address, &globex, "s1").await;
    assert_eq!(client.closed().await, 4409);
    assert_eq!(third.attach_with(7, "acme", "j1", json!({"run": 1})).await["error"], "denied");
    let mut client = fixture.client(&worker, "s1").await;
    assert_eq!(client.attach_with(1, "acme", "j1", json!({"run": 1})).await["type"], "attached");
    assert_eq!(client.end(1, "completed").await["status"], "completed");
}

/// Texts that no database or parser likes, in each field; on PostgreSQL, which takes no NUL.
#[tokio::test(flavor = "multi_thread")]
async fn odd_texts_and_numbers_are_stored_or_refused_and_the_socket_goes_on() {
    let (mut fixture, _database) = Database::start().await;
    let worker = fixture.worker();
    let mut client = fixture.client(&worker, "s1").await;
    let odd = "a\u{0}b\u{202e}\u{7f}\u{1b}[31m";
    let job = json!({"type": "attach", "ref": 1, "tenant_id": "acme", "job_id": "odd", "title": odd, "job_type": "odd",
        "parameters": {odd: odd}});
    let attached = said(&mut client, &job.to_string()).await;
    assert_eq!(attached["type"], "attached", "{attached}");
    for message in [
        json!({"type": "progress", "ref": 1, "current_item": odd, "items_total": 9_007_199_254_740_991_u64}),
        json!({"type": "failed_item", "ref": 1, "item": odd, "error": odd}),
        json!({"type": "log", "ref": 1, "lines": [odd, "", "x".repeat(100_000)]}),
    ] {
        client.send_text(&message.to_string()).await;
    }
    let point = json!({odd: [odd, 1e300, -0.0]});
    let save = json!({"type": "save", "ref": 1, "n": 9_007_199_254_740_991_u64, "point": point});
    assert_eq!(said(&mut client, &save.to_string()).await["type"], "saved");
    let end = json!({"type": "end", "ref": 1, "how": "failed", "error": odd, "permanent": true});
    assert_eq!(said(&mut client, &end.to_string()).await["status"], "failed");
    let expected = json!({"type": "expect", "ref": 2, "tenant_id": "acme", "job_id": "later", "title": odd, "job_type": "odd",
        "parameters": odd});
    assert_eq!(said(&mut client, &expected.to_string()).await["status"], "pending");
    begin(&mut client, 3, "done").await;
    let end = json!({"type": "end", "ref": 3, "how": "completed", "result": {odd: odd}});
    assert_eq!(said(&mut client, &end.to_string()).await["status"], "completed");
    for text in [
        r#"{"type":"attach","ref":1.5,"tenant_id":"acme","job_id":"j"}"#,
        r#"{"type":"attach","ref":9007199254740992,"tenant_id":"acme","job_id":"j"}"#,
        r#"{"type":"save","ref":1,"n":-1,"point":1}"#,
        r#"{"type":"save","ref":1,"n":1e400,"point":1}"#,
        r#"{"type":"end","ref":1,"how":"handed_back","run_after":"tomorrow"}"#,
        r#"{"type":"log","ref":1,"lines":[]}"#,
    ] {
        let answer = said(&mut client, text).await;
        assert!(
            answer["type"] == "error" || answer["type"] == "refused" || answer["closed"] == 4400,
            "{text}: {answer}"
        );
        if answer.get("closed").is_some() {
            client = fixture.client(&worker, "s1").await;
        }
    }
    let deep = format!(r#"{{"type":"save","ref":1,"n":1,"point":{}1{}}}"#, "[".repeat(50_000), "]".repeat(50_000));
    let answer = said(&mut client, &deep).await;
    assert!(answer["type"] == "error" || answer["closed"] == 4400, "{answer}");
    let mut client = fixture.client(&worker, "s2").await;
    begin(&mut client, 1, "after").await;
}

/// 300 jobs with long resume points, attached by somebody who reads nothing.
#[tokio::test(flavor = "multi_thread")]
async fn long_answers_are_not_made_for_a_client_that_takes_none() {
    const JOBS: u64 = 300;
    let mut fixture = RemoteFixture::start(&[]).await;
    let worker = fixture.worker();
    let sql = fixture.fleet.sql().await;
    for n in 1..=JOBS {
        let text = "INSERT INTO jobs (id, tenant_id, status, resume_point) VALUES ($1, 'acme', 'pending', $2)";
        let point = format!("\"{}\"", "x".repeat(250_000));
        sqlx::query(text).bind(format!("long-{n}")).bind(point).execute(&sql).await.expect("insert");
    }
    let mut other = fixture.client(&worker, "s2").await;
    begin(&mut other, 1, "first").await;
    let before = fixture.resident(&worker);
    let mut reads_nothing = client::open(&worker.address, &fixture.token).await.expect("open");
    reads_nothing.send(json!({"type": "hello", "v": 1, "worker": "w", "session": "s1"})).await;
    for n in 1..=JOBS {
        reads_nothing.send_raw(Message::text(attach(n, &format!("long-{n}")).to_string())).await;
    }
    // Meanwhile others are served.
    for n in 2..8 {
        begin(&mut other, n, &format!("other-{n}")).await;
        other.send(save(n, 1, "here")).await;
        other.about(n, &["saved"]).await;
    }
    let after = fixture.resident(&worker);
    assert!(after < before + 48 * 1024, "{before} KiB became {after}, and all answers have 75 MB");
    // It gets them all when it reads.
    for _ in 1..=JOBS {
        while reads_nothing.next().await["type"] != "attached" {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_connects_and_says_nothing_or_half_of_it_is_closed() {
    let mut fixture = RemoteFixture::start(&[("SERVER__KEEP_ALIVE_SECONDS", "2")]).await;
    let worker = fixture.worker();
    let ends = |begin: &'static str| {
        let address = worker.address.clone();
        async move {
            let mut stream = TcpStream::connect(&address).await.expect("connect");
            stream.write_all(begin.as_bytes()).await.expect("send");
            let mut answer = Vec::new();
            tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end in time").ok();
            String::from_utf8_lossy(&answer).into_owned()
        }
    };
    let drips = async {
        let mut stream = TcpStream::connect(&worker.address).await.expect("connect");
        let (mut reading, mut writing) = stream.split();
        let drip = async {
            // It is closed in the end.
            while writing.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        let mut answer = Vec::new();
        let end = async { reading.read_to_end(&mut answer).await.ok() };
        tokio::time::timeout(PATIENCE, async {
            tokio::select! { () = drip => {}, _ = end => {} }
        })
        .await
        .expect("an end in time");
    };
    let no_hello = async {
        let mut socket = client::open(&worker.address, &fixture.token).await.expect("open");
        let closed = tokio::time::timeout(PATIENCE, async {
            loop {
                let message = socket.next().await;
                if let Some(code) = message.get("closed") {
                    return code.clone();
                }
            }
        });
        closed.await.expect("an end in time")
    };
    let (nothing, half, (), closed) =
        tokio::join!(ends(""), ends("GET /api/v1/worker/ws HTTP/1.1\r\nhost: w\r\n"), drips, no_hello);
    assert_eq!(nothing, "");
    assert!(half.is_empty() || half.starts_with("HTTP/1.1 4"), "{half}");
    assert_eq!(closed, 4400);
}
