//! Progress and changes of state: from the snapshot on nothing is lost or repeated.

use std::time::Duration;

use serde_json::{Value, json};
use wheelhouse::broker::scripts::runs::{RunMessage, RunState, RunUpdate};
use wheelhouse::broker::scripts::updates::Update;
use wheelhouse::domain::{JobStatus, Progress};
use wheelhouse::protocol::server;

use crate::fixture::{GatewayFixture, job};
use crate::support::socket::Socket;

async fn progress(fixture: &GatewayFixture, percent: u8) -> i64 {
    let progress = Progress { progress_percent: percent, ..Progress::default() };
    let message = server::job_progress(&job("j1"), JobStatus::Running, &progress);
    let told = Some(RunMessage { text: message, progress: Some(progress), fence: None });
    let update = RunUpdate { job: job("j1"), run: 1, keep: true, message: told };
    let answers = fixture.broker.update_runs(&"w1".parse().expect("worker"), &[update]).await.expect("publish");
    assert!(matches!(answers[..], [Ok(RunState::Held { .. })]), "{answers:?}");
    fixture.broker.live(&job("j1")).await.expect("number").seq
}

async fn publish(fixture: &GatewayFixture, message: &str) {
    let client = redis::Client::open(fixture.redis.url()).expect("client");
    let mut connection = client.get_multiplexed_async_connection().await.expect("connect");
    let () = redis::cmd("PUBLISH").arg("acme:job:j1").arg(message).query_async(&mut connection).await.expect("publish");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_and_states_reach_every_gateway_as_they_were_published() {
    let fixture = GatewayFixture::new().await;
    let (one, other) = (fixture.gateway().await, fixture.gateway().await);
    let mut sockets = [fixture.socket(&one, "jobs/j1").await, fixture.socket(&other, "jobs/j1").await];
    let seq = fixture.status(&job("j1"), "running").await;
    for socket in &mut sockets {
        let expected =
            format!(r#"{{"type":"job_status","job_id":"j1","tenant_id":"acme","status":"running","seq":{seq}}}"#);
        assert_eq!(socket.next_text().await.0, expected);
    }
    let seq = progress(&fixture, 42).await;
    for socket in &mut sockets {
        let update = socket.next().await;
        assert_eq!((&update["type"], &update["progress_percent"]), (&json!("job_progress"), &json!(42)));
        assert_eq!(update["seq"], seq);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_taken_in_the_middle_of_a_stream_fits_it_without_a_seam() {
    let fixture = std::sync::Arc::new(GatewayFixture::new().await);
    let gateway = fixture.gateway().await;
    let publishing = {
        let fixture = fixture.clone();
        tokio::spawn(async move {
            // Changes of state are never folded: every single number must arrive.
            loop {
                fixture.status(&job("j1"), "running").await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
    };
    for _ in 0..20 {
        let mut socket = Socket::open(&fixture.url(&gateway, "jobs/j1")).await;
        assert_eq!(socket.next().await["type"], "subscribed");
        let snapshot = socket.next().await;
        let seq = snapshot["seq"].as_i64().expect("number");
        assert_eq!(snapshot["type"], "job_snapshot");
        for next in seq + 1..=seq + 10 {
            let update = socket.next().await;
            assert_eq!(update["seq"], next, "{update}");
        }
    }
    publishing.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_updates_of_the_channels_own_resource_are_passed_on() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    let mut socket = fixture.socket(&gateway, "jobs/j1").await;
    for odd in [
        "nonsense",
        "[]",
        r#"{"type":"job_status","job_id":"j2","tenant_id":"acme","status":"cancelled","seq":90}"#,
        r#"{"type":"job_status","job_id":"j1","tenant_id":"globex","status":"cancelled","seq":91}"#,
        r#"{"type":"cancel_succeeded","job_id":"j1","tenant_id":"acme","command_id":"x","seq":92}"#,
        r#"{"type":"error","error":"unavailable","job_id":"j1","tenant_id":"acme"}"#,
    ] {
        publish(&fixture, odd).await;
    }
    // Another system's, without a number, is passed on as it is.
    let foreign = r#"{"type":"job_status","job_id":"j1","tenant_id":"acme","status":"running"}"#;
    publish(&fixture, foreign).await;
    assert_eq!(socket.next_text().await.0, foreign);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_number_or_numbers_that_begin_anew_silence_nobody() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    for _ in 0..5 {
        fixture.status(&job("j1"), "running").await;
    }
    let mut socket = fixture.socket(&gateway, "jobs/j1").await;
    publish(&fixture, r#"{"type":"job_status","job_id":"j1","tenant_id":"acme","status":"running","seq":9000000}"#)
        .await;
    assert_eq!(socket.next().await["seq"], 9_000_000);
    speak_until_heard(&fixture, &mut socket).await;
    // Somebody empties Redis: the numbers begin at 1 again, below what the snapshot said.
    fixture.redis.inline("FLUSHALL");
    let mut socket = {
        speak_until_heard(&fixture, &mut socket).await;
        socket
    };
    speak_until_heard(&fixture, &mut socket).await;
}

/// Publishes progress until the socket hears some of it with its number.
async fn speak_until_heard(fixture: &GatewayFixture, socket: &mut Socket) {
    let mut sent = Vec::new();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        sent.push(progress(fixture, u8::try_from(sent.len() % 100).expect("small")).await);
        let heard: Option<Value> = socket.next_within(Duration::from_millis(200)).await;
        if heard.is_some_and(|update| sent.iter().any(|seq| update["seq"] == *seq)) {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "nothing of {sent:?} was heard");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_says_what_is_desired_and_how_far_the_work_is() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    fixture.sql("UPDATE jobs SET status = 'running' WHERE id = 'j1'").await;
    progress(&fixture, 42).await;
    let message = server::job_status(&job("j1"), JobStatus::Running, Some("paused"));
    let update = Update { message, desired: Some(Some("paused".to_owned())) };
    let seq = fixture.broker.publish_update(&job("j1"), &update).await.expect("publish");
    let mut socket = Socket::open(&fixture.url(&gateway, "jobs/j1")).await;
    assert_eq!(socket.next().await["type"], "subscribed");
    let snapshot = socket.next().await;
    assert_eq!((&snapshot["desired"], &snapshot["progress_percent"]), (&json!("paused"), &json!(42)));
    assert_eq!(snapshot["seq"], seq);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_too_slow_for_what_must_not_be_dropped_is_closed() {
    let fixture = GatewayFixture::with(&[("limits.outbox_messages", "16")]).await;
    let gateway = fixture.gateway().await;
    let mut quick = fixture.socket(&gateway, "jobs/j1").await.with_foreign_updates();
    let slow = Socket::open_with_small_buffer(&fixture.url(&gateway, "jobs/j1")).await;
    let mut slow = slow.with_foreign_updates();
    assert_eq!(slow.next().await["type"], "subscribed");
    let filler = "x".repeat(8 * 1024);
    for n in 1..=200 {
        let message = format!(
            r#"{{"type":"job_status","job_id":"j1","tenant_id":"acme","status":"running","x":"{filler}","seq":{n}}}"#
        );
        publish(&fixture, &message).await;
        assert_eq!(quick.next().await["seq"], n, "a slow neighbour holds nobody up");
    }
    // It reads on only now, and finds out why.
    let closed = slow.until_that(|v| v.get("closed").is_some()).await;
    assert_eq!(closed["closed"], 4413, "{closed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_alone_closes_nobody_and_a_slow_reader_gets_the_newest() {
    let fixture = GatewayFixture::with(&[("limits.outbox_messages", "8")]).await;
    let gateway = fixture.gateway().await;
    let mut quick = fixture.socket(&gateway, "jobs/j1").await.with_foreign_updates();
    let slow = Socket::open_with_small_buffer(&fixture.url(&gateway, "jobs/j1")).await;
    let mut slow = slow.with_foreign_updates();
    assert_eq!(slow.next().await["type"], "subscribed");
    let filler = "x".repeat(8 * 1024);
    for n in 1..=200 {
        let message = format!(
            r#"{{"type":"job_progress","job_id":"j1","tenant_id":"acme","status":"running","x":"{filler}","seq":{n}}}"#
        );
        publish(&fixture, &message).await;
        while quick.next().await["seq"] != n {}
    }
    let mut heard = 0;
    slow.until_that(|update| {
        heard += 1;
        update["seq"] == 200
    })
    .await;
    assert!(heard < 200, "nothing was folded");
}
