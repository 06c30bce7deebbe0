//! That no worker is alive is told: to operators by a metric, to whoever watches by the snapshot.

use std::time::Duration;

use serde_json::json;

use crate::fixture::{GatewayFixture, worker};
use crate::support::api::until;
use crate::support::socket::Socket;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_says_how_many_workers_are_alive_for_the_tenant() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    let mine = ["acme".parse().expect("tenant")];
    let others = ["globex".parse().expect("tenant")];
    let long = Duration::from_secs(60);
    for path in ["jobs/j1", "campaigns/c1"] {
        for (alive, tenants, id) in [
            (0, None, None),
            (1, None, Some("w-all")),
            (1, Some(&others[..]), Some("w-globex")),
            (2, Some(&mine[..]), Some("w-acme")),
        ] {
            if let Some(id) = id {
                fixture.broker.heartbeat(&id.parse().expect("id"), tenants, long).await.expect("heartbeat");
            }
            let mut socket = Socket::open(&fixture.url(&gateway, path)).await;
            socket.next().await;
            assert_eq!(socket.next().await["workers_online"], json!(alive), "{path} {id:?}");
        }
        for (id, tenants) in [("w-all", None), ("w-globex", Some(&others[..])), ("w-acme", Some(&mine[..]))] {
            fixture.broker.leave(&id.parse().expect("id"), tenants).await.expect("leave");
        }
    }
}

#[tokio::test]
async fn workers_of_named_tenants_count_among_those_alive_and_each_counts_once() {
    let fixture = GatewayFixture::new().await;
    let long = Duration::from_secs(60);
    assert_eq!(fixture.broker.workers_alive().await.expect("count"), 0);
    let tenants = ["acme", "globex"].map(|id| id.parse().expect("tenant"));
    fixture.broker.heartbeat(&"w-some".parse().expect("id"), Some(&tenants), long).await.expect("heartbeat");
    fixture.broker.heartbeat(&worker(), None, long).await.expect("heartbeat");
    assert_eq!(fixture.broker.workers_alive().await.expect("count"), 2);
    fixture.broker.leave(&worker(), None).await.expect("leave");
    assert_eq!(fixture.broker.workers_alive().await.expect("count"), 1);
    let gateway = fixture.gateway().await;
    let shown = || async { fixture.get(&gateway, "/metrics").await.1.contains("\nwheelhouse_workers_alive ") };
    until("the metric is there", shown).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_sockets_hear_when_the_last_worker_of_their_tenant_is_gone_and_when_one_is_back() {
    let fixture = GatewayFixture::new().await;
    let gateway = fixture.gateway().await;
    let long = Duration::from_secs(60);
    let (mine, others) = (["acme".parse().expect("tenant")], ["globex".parse().expect("tenant")]);
    let (only, theirs) = ("w-acme".parse().expect("id"), "w-globex".parse().expect("id"));
    fixture.broker.heartbeat(&only, Some(&mine), long).await.expect("heartbeat");
    fixture.broker.heartbeat(&theirs, Some(&others), long).await.expect("heartbeat");
    let first = |socket: &serde_json::Value| socket["workers_online"].clone();
    let mut job = fixture.socket(&gateway, "jobs/j1").await;
    let mut campaign = fixture.socket(&gateway, "campaigns/c1").await;
    let mut whole = Socket::open(&fixture.tenant_url(&gateway, &fixture.token("ann", "acme"))).await;
    assert_eq!(first(&whole.next().await), json!(1));
    let mut elsewhere = fixture.tenant_socket_of(&gateway, &fixture.token("ann", "globex")).await;
    // Sockets that want nothing of the feed are told as well: it concerns their commands.
    whole.send(json!({"type": "subscribe", "filter": {"job_ids": ["other"]}})).await;
    assert_eq!(whole.next().await["type"], "subscription");

    let says = |online: i64| json!({"type": "workers_online", "tenant_id": "acme", "workers_online": online});
    fixture.broker.leave(&only, Some(&mine)).await.expect("leave");
    for socket in [&mut job, &mut campaign, &mut whole] {
        assert_eq!(socket.next().await, says(0));
    }
    let mut late = Socket::open(&fixture.url(&gateway, "jobs/j1")).await;
    assert_eq!(late.next().await["type"], "subscribed");
    assert_eq!(first(&late.next().await), json!(0));
    let mut late_whole = Socket::open(&fixture.tenant_url(&gateway, &fixture.token("ann", "acme"))).await;
    assert_eq!(first(&late_whole.next().await), json!(0));

    fixture.broker.heartbeat(&only, Some(&mine), long).await.expect("heartbeat");
    for socket in [&mut job, &mut campaign, &mut whole, &mut late, &mut late_whole] {
        // The next thing that each hears: who was greeted with it is not told again that there was none.
        assert_eq!(socket.next().await, says(1));
    }
    elsewhere.send(json!({"type": "ping"})).await;
    assert_eq!(elsewhere.next().await["type"], "pong", "it concerns the other tenant");
}
