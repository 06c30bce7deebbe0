//! Results: to every socket, once each, never before the ack, as recorded.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use wheelhouse::broker::scripts::claim::ClaimOutcome;
use wheelhouse::domain::CommandId;

use crate::fixture::{GatewayFixture, job, worker};
use crate::support::socket::Socket;

/// Whether nothing but the answer to this ping is on its way.
async fn is_quiet(socket: &mut Socket) {
    socket.send(json!({"type": "ping"})).await;
    assert_eq!(socket.next().await, json!({"type": "pong"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_gateways_tell_every_socket_once_what_the_record_says() {
    let fixture = GatewayFixture::new().await;
    let (one, other) = (fixture.gateway().await, fixture.gateway().await);
    let mut asking = fixture.socket(&one, "jobs/j1").await;
    let mut beside = fixture.socket(&one, "jobs/j1").await;
    let mut far = fixture.socket(&other, "jobs/j1").await;
    fixture.job("j2").await;
    let mut elsewhere = fixture.socket(&other, "jobs/j2").await;
    asking.send(json!({"type": "cancel_job"})).await;
    asking.until(&["cancel_requested"]).await;
    let claim = fixture.claim(&job("j1")).await;
    let result = fixture.succeed(&claim).await;
    for socket in [&mut asking, &mut beside, &mut far] {
        assert_eq!(socket.next_text().await.0, result);
    }
    // Published again, and with other words: the first is known, the second is not what is recorded.
    for message in [result.clone(), result.replace("cancelled", "completed")] {
        publish(&fixture, "acme:job:j1:reply", &message).await;
    }
    for socket in [&mut asking, &mut beside, &mut far, &mut elsewhere] {
        is_quiet(socket).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_result_says_nothing() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    let mut socket = fixture.socket(&gateway, "jobs/j1").await;
    socket.send(json!({"type": "cancel_job"})).await;
    let ack = socket.until(&["cancel_requested"]).await;
    let forge = |command: &str| {
        format!(
            r#"{{"type":"cancel_succeeded","job_id":"j1","tenant_id":"acme","command_id":"{command}","status":"cancelled"}}"#
        )
    };
    // Of a command that waits, of one that never was, and of no form at all.
    publish(&fixture, "acme:job:j1:reply", &forge(ack["command_id"].as_str().expect("id"))).await;
    publish(&fixture, "acme:job:j1:reply", &forge(&CommandId::generate().to_string())).await;
    publish(&fixture, "acme:job:j1:reply", "nonsense").await;
    // What comes after them has passed the same way.
    let claim = fixture.claim(&job("j1")).await;
    let result = fixture.succeed(&claim).await;
    assert_eq!(socket.next_text().await.0, result);
    is_quiet(&mut socket).await;
}

async fn publish(fixture: &GatewayFixture, channel: &str, message: &str) {
    let client = redis::Client::open(fixture.redis.url()).expect("client");
    let mut connection = client.get_multiplexed_async_connection().await.expect("connect");
    let () = redis::cmd("PUBLISH").arg(channel).arg(message).query_async(&mut connection).await.expect("publish");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ack_comes_before_the_result_however_fast_the_worker_is() {
    let fixture = Arc::new(
        GatewayFixture::with(&[("limits.commands_per_minute", "1000"), ("limits.messages_per_second", "1000")]).await,
    );
    let gateway = fixture.gateway().await;
    let mut socket = fixture.socket(&gateway, "jobs/j1").await;
    let other = fixture.clone();
    let working = tokio::spawn(async move {
        loop {
            match other.broker.claim(&job("j1"), &worker(), Duration::from_secs(30)).await.expect("claim") {
                ClaimOutcome::Command(claim) => {
                    other.succeed(&claim).await;
                }
                _ => tokio::task::yield_now().await,
            }
        }
    });
    for n in 0..200 {
        let action = if n % 2 == 0 { "pause" } else { "resume" };
        socket.send(json!({"type": format!("{action}_job"), "request_id": format!("r{n}")})).await;
        let ack = socket.next().await;
        assert_eq!(ack["type"], format!("{action}_requested"), "{ack}");
        let result = socket.next().await;
        assert_eq!(result["type"], format!("{action}_succeeded"), "{result}");
        assert_eq!(ack["command_id"], result["command_id"]);
    }
    working.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happened_while_the_subscription_was_cut_is_told_once_it_is_back() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    // It ended before anyone listened: nobody is told of it later either.
    let mut early = fixture.socket(&gateway, "jobs/j1").await;
    early.send(json!({"type": "pause_job"})).await;
    early.until(&["pause_requested"]).await;
    let claim = fixture.claim(&job("j1")).await;
    fixture.succeed(&claim).await;
    early.until(&["pause_succeeded"]).await;
    drop(early);

    let mut socket = fixture.socket(&gateway, "jobs/j1").await;
    for round in 0..5 {
        socket.send(json!({"type": "resume_job"})).await;
        let ack = socket.until(&["resume_requested"]).await;
        let claim = fixture.claim(&job("j1")).await;
        // Everything subscribed is cut, and the result is recorded in the same moment.
        fixture.redis.inline("CLIENT KILL TYPE pubsub");
        let result = fixture.succeed(&claim).await;
        let seq = fixture.status(&job("j1"), "running").await;
        let mut told: Vec<Value> = Vec::new();
        while !(told.iter().any(|m| m["type"] == "resume_succeeded") && told.iter().any(|m| m["seq"] == seq)) {
            told.push(socket.next().await);
        }
        let results: Vec<&Value> = told.iter().filter(|m| m["command_id"].is_string()).collect();
        assert_eq!(results, [&serde_json::from_str::<Value>(&result).expect("JSON")], "round {round}: {told:#?}");
        assert_eq!(results[0]["command_id"], ack["command_id"]);
    }
}
