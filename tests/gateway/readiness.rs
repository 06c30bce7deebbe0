//! What `/readyz` promises: while Redis or SQL answers and does not do what commands need, a gateway is not ready, and
//! says why in one word; whoever asks for a command is told the same, and nothing that is secret.

use serde_json::{Value, json};

use crate::fixture::{GatewayFixture, Running};
use crate::support::api::until;
use crate::support::socket::Socket;

async fn readiness(fixture: &GatewayFixture, gateway: &Running) -> (u16, Value) {
    let (status, body) = fixture.get(gateway, "/readyz").await;
    (status, serde_json::from_str(&body).expect("JSON"))
}

async fn is_ready(fixture: &GatewayFixture, gateway: &Running) -> bool {
    readiness(fixture, gateway).await.0 == 200
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_answers_and_refuses_commands_is_not_ready_and_every_refusal_has_its_word() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    let mut socket = fixture.socket(&gateway, "jobs/j1").await;
    until("ready", || is_ready(&fixture, &gateway)).await;
    for (breaks, mends, word) in [
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "OOM"),
        ("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0", "NOREPLICAS"),
        ("ACL SETUSER default -evalsha -eval", "ACL SETUSER default +@all", "NOPERM"),
    ] {
        fixture.redis.inline(breaks);
        // In this very moment, too: a command is refused whether or not anybody has looked.
        socket.send(json!({"type": "pause_job"})).await;
        let refused = socket.next().await;
        assert_eq!(refused["error"], "unavailable", "{breaks}: {refused}");
        let words = refused["message"].as_str().expect("words");
        assert!(words.contains(&format!("({word})")) && words.contains("nothing was done"), "{words}");
        until("not ready", || async { !is_ready(&fixture, &gateway).await }).await;
        let (_, body) = readiness(&fixture, &gateway).await;
        assert_eq!((&body["redis"], &body["redis_reason"]), (&json!(false), &json!(word)), "{body}");
        let down = || async { fixture.get(&gateway, "/metrics").await.1.contains("wheelhouse_redis_up 0") };
        until("the metric says so", down).await;
        let refused = Socket::try_open(&fixture.url(&gateway, "jobs/j1"), &[]).await.err().expect("refused");
        assert_eq!(refused.0, 503, "{}", refused.1);
        assert!(refused.1.contains(word) && !refused.1.contains("evalsha"), "{}", refused.1);
        fixture.redis.inline(mends);
        until("ready again", || is_ready(&fixture, &gateway)).await;
        assert_eq!(readiness(&fixture, &gateway).await.1.get("redis_reason"), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_right_to_the_channels_of_resources_it_is_not_ready() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    until("ready", || is_ready(&fixture, &gateway)).await;
    // Its own channels stay permitted: to hear those alone proves nothing.
    fixture.redis.inline("ACL SETUSER default resetchannels &wh:*");
    until("not ready", || async { !is_ready(&fixture, &gateway).await }).await;
    let noticed = || async { readiness(&fixture, &gateway).await.1["redis_reason"] == "NOPERM" };
    until("and why", noticed).await;
    fixture.redis.inline("ACL SETUSER default allchannels");
    until("ready again", || is_ready(&fixture, &gateway)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_can_be_read_and_not_written_is_not_ready() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    until("ready", || is_ready(&fixture, &gateway)).await;
    fixture.sql("ALTER TABLE jobs RENAME TO jobs_elsewhere").await;
    let told = || async {
        let (status, body) = readiness(&fixture, &gateway).await;
        status == 503 && body["sql"] == false && body["sql_reason"] == "not_writable"
    };
    until("not ready", told).await;
    fixture.sql("ALTER TABLE jobs_elsewhere RENAME TO jobs").await;
    until("ready again", || is_ready(&fixture, &gateway)).await;
}
