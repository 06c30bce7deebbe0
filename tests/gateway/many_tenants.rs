//! A gateway on which many tenants are watched as a whole: two patterns for all of them, and nothing missed or told twice on the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::fixture::{GatewayFixture, Running};
use crate::support::api::until;
use crate::support::socket::Socket;

/// More than have patterns of their own.
const MANY: usize = 20;
/// The probe of the gateway's subscription.
const OTHERS: usize = 1;

/// How many patterns Redis knows.
fn patterns(fixture: &GatewayFixture) -> usize {
    fixture.redis.query(&["PUBSUB", "NUMPAT"]).expect("a number")
}

async fn watch(fixture: &GatewayFixture, gateway: &Running, tenant: &str) -> Socket {
    fixture.tenant_socket_of(gateway, &fixture.token("ann", tenant)).await.with_foreign_updates()
}

fn tenant(n: usize) -> String {
    format!("t{n}")
}

fn update(tenant: &str, number: &str) -> String {
    format!(r#"{{"type":"job_status","job_id":"j1","tenant_id":"{tenant}","status":"running",{number}}}"#)
}

/// Publishes on the channel of a job, with numbers and without, until told to stop. Gives how many of each.
fn publishing(fixture: &GatewayFixture, tenant: &str, stop: Arc<AtomicBool>) -> tokio::task::JoinHandle<i64> {
    let client = redis::Client::open(fixture.redis.url()).expect("client");
    let tenant = tenant.to_owned();
    tokio::spawn(async move {
        let mut connection = client.get_multiplexed_async_connection().await.expect("connect");
        let mut count = 0;
        while !stop.load(Ordering::Relaxed) {
            count += 1;
            let mut both = redis::pipe();
            // The first has no `seq` by which a repeat could be known.
            for number in [format!(r#""at":{count}"#), format!(r#""seq":{count}"#)] {
                both.cmd("PUBLISH").arg(format!("{tenant}:job:j1")).arg(update(&tenant, &number)).ignore();
            }
            let () = both.query_async(&mut connection).await.expect("publish");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        count
    })
}

/// Everything that was published, each once and in order.
async fn hears_all(socket: &mut Socket, count: i64) {
    for number in 1..=count {
        for field in ["at", "seq"] {
            let next = socket.next().await;
            assert_eq!(next[field], number, "{next}");
        }
    }
}

/// Whether a tenant is heard just now, by somebody who publishes on the contract's channel.
async fn is_heard(fixture: &GatewayFixture, socket: &mut Socket, tenant: &str, seq: i64) {
    fixture.publish(&format!("{tenant}:job:j1"), &update(tenant, &format!(r#""seq":{seq}"#))).await;
    socket.until_that(|next| next["seq"] == seq).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tenants_cost_two_patterns_and_a_change_loses_and_repeats_nothing() {
    let fixture = GatewayFixture::with(&[("limits.outbox_messages", "65536")]).await;
    let gateway = fixture.gateway().await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut first = watch(&fixture, &gateway, "t0").await;
    let published = publishing(&fixture, "t0", stop.clone());
    let mut others = Vec::new();
    for n in 1..MANY {
        others.push(watch(&fixture, &gateway, &tenant(n)).await);
    }
    until("all are heard by two patterns", async || patterns(&fixture) == 2 + OTHERS).await;
    for (n, socket) in (1..MANY).zip(&mut others) {
        is_heard(&fixture, socket, &tenant(n), 1).await;
        socket.send(json!({"type": "ping"})).await;
        assert_eq!(socket.next().await["type"], "pong", "only what is its own tenant's");
    }
    let mut late = watch(&fixture, &gateway, "late").await;
    is_heard(&fixture, &mut late, "late", 1).await;
    drop((late, others.split_off(3)));
    until("each has patterns of its own again", async || patterns(&fixture) == 4 * 2 + OTHERS).await;
    for (n, socket) in (1..MANY).zip(&mut others) {
        is_heard(&fixture, socket, &tenant(n), 2).await;
    }
    stop.store(true, Ordering::Relaxed);
    hears_all(&mut first, published.await.expect("no panic")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_redis_permits_single_tenants_alone_each_is_heard_by_itself() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    let tenants =
        |count: usize| (0..count).map(|n| format!("&t{n}:job:* &t{n}:campaign:*")).collect::<Vec<_>>().join(" ");
    let permit = |count: usize| {
        let rights = format!("ACL SETUSER default resetchannels &wh:* &@probe:job:* {}", tenants(count));
        assert_eq!(fixture.redis.inline(&rights), "+OK");
    };
    let mut sockets = Vec::new();
    for n in 0..MANY {
        sockets.push(watch(&fixture, &gateway, &tenant(n)).await);
    }
    until("all are heard by two patterns", async || patterns(&fixture) == 2 + OTHERS).await;
    // The right to hear all is taken away while sockets are open, and one tenant with it.
    permit(MANY - 1);
    let mut last = sockets.pop().expect("one");
    assert_eq!(last.until_that(|v| v.get("closed").is_some()).await["closed"], 1012);
    for (n, socket) in sockets.iter_mut().enumerate() {
        socket.until(&["resynchronize"]).await;
        until("it has patterns of its own", async || patterns(&fixture) == (MANY - 1) * 2 + OTHERS).await;
        is_heard(&fixture, socket, &tenant(n), 1).await;
    }
    let refused = Socket::try_open(&fixture.tenant_url(&gateway, &fixture.token("ann", &tenant(MANY))), &[]).await;
    let Err((status, body)) = refused else { panic!("it may not be heard") };
    assert!(status == 503 && body.contains("NOPERM"), "{status} {body}");
    // Another gateway, which never had the right.
    let other = fixture.gateway().await;
    let mut sockets = Vec::new();
    for n in 0..MANY - 1 {
        sockets.push(watch(&fixture, &other, &tenant(n)).await);
    }
    for (n, socket) in sockets.iter_mut().enumerate() {
        is_heard(&fixture, socket, &tenant(n), 2).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_lost_connection_all_are_heard_together_again_and_told_to_list() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    let mut sockets = Vec::new();
    for n in 0..MANY {
        sockets.push(watch(&fixture, &gateway, &tenant(n)).await);
    }
    until("all are heard by two patterns", async || patterns(&fixture) == 2 + OTHERS).await;
    fixture.redis.inline("CLIENT KILL TYPE pubsub");
    for (n, socket) in sockets.iter_mut().enumerate() {
        assert_eq!(socket.next().await, json!({"type": "resynchronize", "tenant_id": tenant(n)}));
        is_heard(&fixture, socket, &tenant(n), 1).await;
    }
    assert_eq!(patterns(&fixture), 2 + OTHERS);
}
