//! Redis or SQL goes away and comes back under a running gateway.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use sqlx::{Connection, Executor};
use wheelhouse::broker::scripts::claim::ClaimOutcome;

use crate::fixture::{GatewayFixture, Running, job, worker};
use crate::support::api::until;
use crate::support::socket::Socket;

async fn is_ready(fixture: &GatewayFixture, gateway: &Running) -> bool {
    fixture.get(gateway, "/readyz").await.0 == 200
}

/// Nothing was accepted: there is nothing to claim, now or a little later.
async fn nothing_runs(fixture: &GatewayFixture) {
    // The test's own connection comes back at a time of its own.
    until("connected", || async { fixture.broker.is_up() }).await;
    for _ in 0..2 {
        let claimed = fixture.broker.claim(&job("j1"), &worker(), Duration::from_secs(5)).await.expect("claim");
        assert!(matches!(claimed, ClaimOutcome::Nothing), "{claimed:?}");
        tokio::time::sleep(Duration::from_millis(1_600)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_commands_are_unavailable_and_everything_goes_on_when_it_returns() {
    let mut fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    let mut socket = fixture.socket(&gateway, "jobs/j1").await;
    until("ready", || is_ready(&fixture, &gateway)).await;
    fixture.redis.kill();
    // In the very moment it may have been sent to a Redis that is gone: then nobody knows, and that is said.
    socket.send(json!({"type": "cancel_job", "request_id": "r1"})).await;
    let error = socket.until(&["error", "cancel_requested"]).await;
    assert!(matches!(error["error"].as_str(), Some("unavailable" | "outcome_unknown")), "{error}");
    assert_eq!(error["request_id"], "r1");
    until("not ready", || async { !is_ready(&fixture, &gateway).await }).await;
    socket.send(json!({"type": "cancel_job"})).await;
    assert_eq!(socket.next().await["error"], "unavailable");
    let refused = Socket::try_open(&fixture.url(&gateway, "jobs/j1"), &[]).await.err().expect("refused");
    assert_eq!(refused.0, 503, "{}", refused.1);
    // Pings need no Redis.
    socket.send(json!({"type": "ping"})).await;
    assert_eq!(socket.next().await["type"], "pong");

    fixture.redis.restart();
    until("ready again", || is_ready(&fixture, &gateway)).await;
    nothing_runs(&fixture).await;
    socket.send(json!({"type": "cancel_job", "request_id": "r2"})).await;
    socket.until(&["cancel_requested"]).await;
    let claim = fixture.claim(&job("j1")).await;
    let result = fixture.succeed(&claim).await;
    let told = socket.until(&["cancel_succeeded"]).await;
    assert_eq!(told, serde_json::from_str::<serde_json::Value>(&result).expect("JSON"));
    assert!(Socket::try_open(&fixture.url(&gateway, "jobs/j1"), &[]).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_hangs_gets_an_answer_too_and_what_was_not_done_never_is() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    let mut socket = fixture.socket(&gateway, "jobs/j1").await;
    until("ready", || is_ready(&fixture, &gateway)).await;
    fixture.redis.signal(Signal::STOP);
    socket.send(json!({"type": "cancel_job", "request_id": "r1"})).await;
    let first = socket.until(&["error", "cancel_requested"]).await;
    until("not ready", || async { !is_ready(&fixture, &gateway).await }).await;
    socket.send(json!({"type": "cancel_job", "request_id": "r2"})).await;
    let second = socket.until(&["error", "cancel_requested"]).await;
    assert_eq!((&second["error"], &second["request_id"]), (&json!("unavailable"), &json!("r2")), "{second}");
    fixture.redis.signal(Signal::CONT);
    until("ready again", || is_ready(&fixture, &gateway)).await;
    assert!(matches!(first["error"].as_str(), Some("unavailable" | "outcome_unknown")), "{first}");
    if first["error"] == "unavailable" {
        nothing_runs(&fixture).await;
    }
    // Sending the same request again is safe, whatever became of it.
    socket.send(json!({"type": "cancel_job", "request_id": "r1"})).await;
    socket.until(&["cancel_requested"]).await;
    let claim = fixture.claim(&job("j1")).await;
    fixture.succeed(&claim).await;
    socket.until(&["cancel_succeeded"]).await;
    assert!(matches!(
        fixture.broker.claim(&job("j1"), &worker(), Duration::from_secs(5)).await.expect("claim"),
        ClaimOutcome::Nothing
    ));
}

/// Lets nobody into a database any more, or everybody in again.
async fn open_database(url: &str, is_open: bool) {
    let (server, name) = url.rsplit_once('/').expect("a name");
    let mut connection = sqlx::PgConnection::connect(&format!("{server}/postgres")).await.expect("connect");
    let alter = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS {is_open}");
    connection.execute(sqlx::AssertSqlSafe(alter)).await.expect("alter the database");
    if !is_open {
        let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
        connection.execute(sqlx::AssertSqlSafe(end)).await.expect("end its connections");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_sql_commands_are_unavailable_and_everything_goes_on_when_it_returns() {
    let database = crate::support::postgres::database().await;
    let fixture = GatewayFixture::with(&[("database.url", &database)]).await;
    let gateway = fixture.gateway().await;
    let mut socket = fixture.socket(&gateway, "jobs/j1").await;
    until("ready", || is_ready(&fixture, &gateway)).await;
    open_database(&database, false).await;
    until("not ready", || async { !is_ready(&fixture, &gateway).await }).await;
    socket.send(json!({"type": "cancel_job"})).await;
    assert_eq!(socket.next().await["error"], "unavailable");
    let refused = Socket::try_open(&fixture.url(&gateway, "jobs/j1"), &[]).await.err().expect("refused");
    assert_eq!(refused.0, 503, "{}", refused.1);
    open_database(&database, true).await;
    until("ready again", || is_ready(&fixture, &gateway)).await;
    nothing_runs(&fixture).await;
    socket.send(json!({"type": "cancel_job"})).await;
    assert_eq!(socket.next().await["type"], "cancel_requested");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_recorded_while_redis_could_not_be_read_is_told_when_it_can() {
    let mut fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    let mut socket = fixture.socket(&gateway, "jobs/j1").await;
    socket.send(json!({"type": "cancel_job"})).await;
    socket.until(&["cancel_requested"]).await;
    let claim = fixture.claim(&job("j1")).await;
    let result = fixture.succeed(&claim).await;
    // At once: some of these sockets have heard of it and not yet what it was.
    fixture.redis.restart();
    assert_eq!(
        socket.until(&["cancel_succeeded"]).await,
        serde_json::from_str::<serde_json::Value>(&result).expect("JSON")
    );
    socket.send(json!({"type": "ping"})).await;
    let next = socket.until_that(|v| v["type"] != "job_status" && v["type"] != "job_progress").await;
    assert_eq!(next["type"], "pong", "told twice");
}
