//! What sockets that ask for it are told while news cannot come, and afterwards.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::faults::open_database;
use crate::fixture::{GatewayFixture, Running, job};
use crate::support::api::until;
use crate::support::socket::Socket;

/// A job's socket and the tenant's, which ask to be told, and two that do not.
struct Watchers {
    job: Socket,
    tenant: Socket,
    plain: [Socket; 2],
}

impl Watchers {
    async fn open(fixture: &GatewayFixture, gateway: &Running) -> Self {
        until("ready", || async { fixture.get(gateway, "/readyz").await.0 == 200 }).await;
        let asking = |url: String| format!("{url}&interruptions=true");
        let mut job = Socket::open(&asking(fixture.url(gateway, "jobs/j1"))).await;
        let mut tenant = Socket::open(&asking(fixture.tenant_url(gateway, &fixture.token("ann", "acme")))).await;
        job.until(&["job_snapshot"]).await;
        tenant.until(&["subscribed"]).await;
        let plain = [fixture.socket(gateway, "jobs/j1").await, fixture.tenant_socket(gateway).await];
        Self { job, tenant, plain }
    }

    async fn are_interrupted(&mut self, reason: &str) {
        for socket in [&mut self.job, &mut self.tenant] {
            let told = socket.until(&["feed_interrupted"]).await;
            assert_eq!((&told["reason"], &told["tenant_id"]), (&json!(reason), &json!("acme")));
            let since: jiff::Timestamp = told["since"].as_str().expect("a time").parse().expect("RFC 3339");
            assert!(since < jiff::Timestamp::now());
        }
    }

    /// Every socket is still open, and those that did not ask hear nothing of it.
    async fn others_are_told_nothing(&mut self) {
        for socket in &mut self.plain {
            socket.send(json!({"type": "ping"})).await;
            let kinds = ["pong", "feed_interrupted", "feed_resumed"];
            assert_eq!(socket.until(&kinds).await["type"], "pong");
        }
    }

    /// News come again: on the job's socket behind what was missed, and as ever from then on.
    async fn are_resumed(&mut self, fixture: &GatewayFixture, missed: Option<&str>) {
        if let Some(missed) = missed {
            let told = self.job.until(&["job_status", "feed_resumed"]).await;
            assert_eq!(
                (&told["type"], &told["status"]),
                (&json!("job_status"), &json!(missed)),
                "what was missed comes first"
            );
        }
        self.job.until(&["feed_resumed"]).await;
        self.tenant.until(&["feed_resumed"]).await;
        let seq = fixture.status(&job("j1"), "running").await;
        for socket in [&mut self.job, &mut self.tenant] {
            let told = socket.until_that(|told| told["type"] == "job_status" && told["seq"] == seq).await;
            assert_eq!(told["status"], "running");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_watchers_who_asked_are_told_and_again_when_all_is_live() {
    let mut fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    let mut watchers = Watchers::open(&fixture, &gateway).await;
    fixture.redis.kill();
    watchers.are_interrupted("redis").await;
    watchers.others_are_told_nothing().await;
    fixture.redis.restart();
    until("connected", || async { fixture.broker.is_up() }).await;
    watchers.are_resumed(&fixture, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_hangs_interrupts_what_is_watched_each_time_anew() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    let mut watchers = Watchers::open(&fixture, &gateway).await;
    for _ in 0..2 {
        fixture.redis.signal(Signal::STOP);
        watchers.are_interrupted("redis").await;
        watchers.others_are_told_nothing().await;
        fixture.redis.signal(Signal::CONT);
        until("connected", || async { fixture.broker.is_up() }).await;
        watchers.are_resumed(&fixture, None).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_whose_subscription_alone_is_cut_again_and_again_says_that_it_hears_nothing() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    let mut watchers = Watchers::open(&fixture, &gateway).await;
    let cutting = async {
        loop {
            fixture.redis.inline("CLIENT KILL TYPE pubsub");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = cutting => {}
        () = watchers.are_interrupted("subscription") => {}
    }
    // Published while the gateway may not hear it.
    fixture.sql("UPDATE jobs SET status = 'paused' WHERE id = 'j1'").await;
    fixture.status(&job("j1"), "paused").await;
    watchers.are_resumed(&fixture, Some("paused")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_sql_watchers_who_asked_are_told_too() {
    let database = crate::support::postgres::database().await;
    let fixture = GatewayFixture::with(&[("database.url", &database)]).await;
    let gateway = fixture.gateway().await;
    let mut watchers = Watchers::open(&fixture, &gateway).await;
    open_database(&database, false).await;
    watchers.are_interrupted("sql").await;
    watchers.others_are_told_nothing().await;
    open_database(&database, true).await;
    watchers.are_resumed(&fixture, None).await;
}
