//! Commands over sockets: their answers, their limits, their repeats.

use std::time::Duration;

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::fixture::{GatewayFixture, job};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_accepted_command_is_acked_as_the_contract_says_and_then_answered() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    // Before the socket, which would hear of its first worker otherwise.
    fixture.broker.heartbeat(&crate::fixture::worker(), None, Duration::from_secs(60)).await.expect("heartbeat");
    let mut socket = fixture.socket(&gateway, "jobs/j1").await;
    socket.send(json!({"type": "pause_job", "request_id": "r1", "reason": "lunch"})).await;
    let (text, ack) = socket.next_text().await;
    let command = ack["command_id"].as_str().expect("id").to_owned();
    let expected = format!(
        r#"{{"type":"pause_requested","job_id":"j1","tenant_id":"acme","command_id":"{command}","workers_online":1,"control":"row","request_id":"r1"}}"#
    );
    assert_eq!(text, expected);
    let claim = fixture.claim(&job("j1")).await;
    assert_eq!((claim.command.to_string(), claim.user.as_str()), (command.clone(), "ann"));
    let message = fixture.succeed(&claim).await;
    assert_eq!(socket.next_text().await.0, message);

    socket.send(json!({"type": "cancel_job"})).await;
    let (text, ack) = socket.next_text().await;
    let command = ack["command_id"].as_str().expect("id");
    let expected = format!(
        r#"{{"type":"cancel_requested","job_id":"j1","tenant_id":"acme","command_id":"{command}","workers_online":1,"control":"row"}}"#
    );
    assert_eq!(text, expected);

    let mut campaign = fixture.socket(&gateway, "campaigns/c1").await;
    campaign.send(json!({"type": "resume_campaign"})).await;
    let (text, _) = campaign.next_text().await;
    assert!(text.starts_with(r#"{"type":"resume_requested","campaign_id":"c1","tenant_id":"acme","#), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denied_command_says_which_permission_is_missing() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    fixture.grant("reader", &["jobs.read", "campaigns.read"]).await;
    let reader = fixture.token("reader", "acme");
    let mut socket = fixture.socket_of(&gateway, "jobs/j1", &reader).await;
    for action in ["cancel", "pause", "resume"] {
        socket.send(json!({"type": format!("{action}_job")})).await;
        let expected = format!(
            r#"{{"type":"error","error":"permission_denied","message":"Insufficient permissions to {action} job"}}"#
        );
        assert_eq!(socket.next_text().await.0, expected);
    }
    let mut socket = fixture.socket_of(&gateway, "campaigns/c1", &reader).await;
    socket.send(json!({"type": "cancel_campaign"})).await;
    let message = socket.next().await["message"].clone();
    assert_eq!(message, "Insufficient permissions to cancel campaign");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_commands_through_two_gateways_and_the_next_is_refused_by_either() {
    let fixture = GatewayFixture::with(&[("limits.messages_per_second", "1000")]).await;
    let (one, other) = (fixture.gateway().await, fixture.gateway().await);
    let mut first = fixture.socket(&one, "jobs/j1").await;
    let mut second = fixture.socket(&other, "campaigns/c1").await;
    for n in 0..30 {
        let (socket, kind) = if n % 2 == 0 { (&mut first, "job") } else { (&mut second, "campaign") };
        socket.send(json!({"type": format!("pause_{kind}")})).await;
        assert_eq!(socket.next().await["type"], "pause_requested");
    }
    for (socket, kind) in [(&mut first, "job"), (&mut second, "campaign")] {
        socket.send(json!({"type": format!("pause_{kind}"), "request_id": "over"})).await;
        let (text, error) = socket.next_text().await;
        let seconds = error["retry_after"].as_i64().expect("seconds");
        assert!((1..=60).contains(&seconds), "{text}");
        let expected = format!(
            r#"{{"type":"error","error":"rate_limit_exceeded","message":"Rate limit exceeded: 30/30 commands per minute","retry_after":{seconds},"request_id":"over"}}"#
        );
        assert_eq!(text, expected);
    }
    // Another user's budget is their own.
    fixture.grant("bob", &["*"]).await;
    let mut bob = fixture.socket_of(&one, "jobs/j1", &fixture.token("bob", "acme")).await;
    bob.send(json!({"type": "pause_job"})).await;
    assert_eq!(bob.until(&["pause_requested", "error"]).await["type"], "pause_requested");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_come_in_the_order_of_the_commands() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    let mut socket = fixture.socket(&gateway, "jobs/j1").await;
    for n in 0..20 {
        let word = ["pause_job", "resume_job", "ping", "nonsense"][n % 4];
        socket.send_raw(Message::text(json!({"type": word, "request_id": format!("r{n}")}).to_string())).await;
    }
    for n in 0..20 {
        let answer = socket.next().await;
        match n % 4 {
            2 => assert_eq!(answer, json!({"type": "pong"})),
            _ => assert_eq!(answer["request_id"], format!("r{n}"), "{answer}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_sent_again_is_answered_as_the_first_time_and_runs_once() {
    let fixture = GatewayFixture::new().await;
    let (one, other) = (fixture.gateway().await, fixture.gateway().await);
    let mut socket = fixture.socket(&one, "jobs/j1").await;
    let request = json!({"type": "pause_job", "request_id": "once"});
    socket.send(request.clone()).await;
    let (first, ack) = socket.next_text().await;
    socket.send(request.clone()).await;
    assert_eq!(socket.next_text().await.0, first);

    let claim = fixture.claim(&job("j1")).await;
    let result = fixture.succeed(&claim).await;
    assert_eq!(socket.next_text().await.0, result);
    // This socket has seen the result; one that has not gets it after the ack.
    socket.send(request.clone()).await;
    assert_eq!(socket.next_text().await.0, first);
    let mut later = fixture.socket(&other, "jobs/j1").await;
    later.send(request.clone()).await;
    assert_eq!(later.next_text().await.0, first);
    assert_eq!(later.next_text().await.0, result);
    for socket in [&mut socket, &mut later] {
        socket.send(json!({"type": "ping"})).await;
        assert_eq!(socket.next().await, json!({"type": "pong"}), "the result came twice");
    }
    assert!(matches!(
        fixture.broker.claim(&job("j1"), &crate::fixture::worker(), Duration::from_secs(5)).await.expect("claim"),
        wheelhouse::broker::scripts::claim::ClaimOutcome::Nothing
    ));
    // The same id with another body is a mistake of the client's.
    later.send(json!({"type": "cancel_job", "request_id": "once"})).await;
    let error = later.next().await;
    assert_eq!((&error["error"], &error["request_id"]), (&json!("request_conflict"), &json!("once")));
    assert!(ack["command_id"].is_string());
}
