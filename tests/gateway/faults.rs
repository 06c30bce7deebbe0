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

/// The gateway has seen that SQL cannot be read. That it cannot be written is seen by another look, and may be seen before.
async fn until_without_sql(fixture: &GatewayFixture, gateway: &Running) {
    until("SQL is seen to be away", || async {
        let (_, body) = fixture.get(gateway, "/readyz").await;
        let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        body["sql"] == false && body["sql_reason"].is_null()
    })
    .await;
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
pub async fn open_database(url: &str, is_open: bool) {
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
    until_without_sql(&fixture, &gateway).await;
    socket.send(json!({"type": "cancel_job"})).await;
    let answer = socket.next().await;
    assert_eq!(answer["error"], "unavailable", "{answer}");
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_whose_outcome_is_unknown_is_not_said_to_be_undone_while_redis_is_away() {
    let mut fixture = GatewayFixture::new().await;
    fixture.job("j2").await;
    let gateway = fixture.gateway().await;
    let mut sockets = [fixture.socket(&gateway, "jobs/j1").await, fixture.socket(&gateway, "jobs/j2").await];
    let requests = [
        json!({"type": "pause_job", "request_id": "r1"}),
        json!({"type": "pause_job", "request_id": "r2", "delay_seconds": 3_600}),
    ];
    until("ready", || is_ready(&fixture, &gateway)).await;
    fixture.redis.signal(Signal::STOP);
    for (socket, request) in sockets.iter_mut().zip(&requests) {
        socket.send(request.clone()).await;
    }
    for socket in &mut sockets {
        let error = socket.until(&["error"]).await;
        assert_eq!(error["error"], "outcome_unknown", "{error}");
    }
    until("not ready", || async { !is_ready(&fixture, &gateway).await }).await;
    fixture.redis.kill();
    for (socket, request) in sockets.iter_mut().zip(&requests) {
        socket.send(request.clone()).await;
        let error = socket.until(&["error"]).await;
        assert_eq!((&error["error"], &error["request_id"]), (&json!("outcome_unknown"), &request["request_id"]));
        socket.send(json!({"type": "pause_job", "request_id": "another"})).await;
        let error = socket.until(&["error"]).await;
        assert_eq!(error["error"], "unavailable", "this one was never sent: {error}");
    }
    fixture.redis.restart();
    until("ready again", || is_ready(&fixture, &gateway)).await;
    let [now, later] = &mut sockets;
    now.send(requests[0].clone()).await;
    now.until(&["pause_requested"]).await;
    later.send(requests[1].clone()).await;
    later.until(&["pause_scheduled"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_was_accepted_is_not_said_to_be_undone_while_redis_or_sql_is_away() {
    let database = crate::support::postgres::database().await;
    let mut fixture = GatewayFixture::with(&[("database.url", &database)]).await;
    let gateway = fixture.gateway().await;
    let mut socket = fixture.socket(&gateway, "jobs/j1").await;
    let mut of_tenant = fixture.tenant_socket(&gateway).await;
    until("ready", || is_ready(&fixture, &gateway)).await;
    let request = json!({"type": "pause_job", "job_id": "j1", "request_id": "r1"});
    socket.send(request.clone()).await;
    let ack = socket.until(&["pause_requested", "error"]).await;
    let refused = async |socket: &mut Socket, request_id: &str| {
        socket.send(json!({"type": "pause_job", "job_id": "j1", "request_id": request_id})).await;
        socket.until_that(|v| v["type"] == "error" && v["request_id"] == request_id).await["error"].clone()
    };
    // No worker has taken it: SQL knows nothing of it yet.
    fixture.redis.kill();
    until("not ready", || async { !is_ready(&fixture, &gateway).await }).await;
    assert_eq!(refused(&mut socket, "r1").await, "outcome_unknown");
    assert_eq!(refused(&mut socket, "never-sent").await, "unavailable");
    fixture.redis.restart();
    until("ready again", || is_ready(&fixture, &gateway)).await;

    open_database(&database, false).await;
    until_without_sql(&fixture, &gateway).await;
    for socket in [&mut socket, &mut of_tenant] {
        assert_eq!(refused(socket, "r1").await, "outcome_unknown");
        assert_eq!(refused(socket, "never-sent").await, "unavailable");
    }
    open_database(&database, true).await;
    until("ready with SQL", || is_ready(&fixture, &gateway)).await;
    socket.send(request).await;
    assert_eq!(socket.until(&["pause_requested", "error"]).await["command_id"], ack["command_id"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_was_carried_out_is_not_said_to_be_undone_by_another_gateway() {
    let mut fixture = GatewayFixture::new().await;
    let change = wheelhouse::store::CommandChange {
        command: wheelhouse::domain::CommandId::generate(),
        resource: job("j1"),
        action: wheelhouse::domain::Action::Pause,
        user: "ann".parse().expect("user"),
        fence: 1,
        run: None,
        request_id: Some("r1".to_owned()),
        record: None,
    };
    fixture.store.apply(&change).await.expect("apply");
    let gateway = fixture.gateway().await;
    let mut socket = fixture.socket(&gateway, "jobs/j1").await;
    until("ready", || is_ready(&fixture, &gateway)).await;
    fixture.redis.kill();
    until("not ready", || async { !is_ready(&fixture, &gateway).await }).await;
    for (request_id, error) in [("r1", "outcome_unknown"), ("r2", "unavailable")] {
        socket.send(json!({"type": "pause_job", "request_id": request_id})).await;
        assert_eq!(socket.until(&["error"]).await["error"], error);
    }
}
