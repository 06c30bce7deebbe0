//! That no worker is alive is told: to operators by a metric, to whoever watches by the snapshot.

use std::time::Duration;

use serde_json::json;

use crate::bed::{Bed, worker};
use crate::support::api::until;
use crate::support::socket::Socket;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_says_how_many_workers_are_alive_for_the_tenant() {
    let bed = Bed::new().await;
    let gateway = bed.gateway().await;
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
                bed.broker.heartbeat(&id.parse().expect("id"), tenants, long).await.expect("heartbeat");
            }
            let mut socket = Socket::open(&bed.url(&gateway, path)).await;
            socket.next().await;
            assert_eq!(socket.next().await["workers_online"], json!(alive), "{path} {id:?}");
        }
        for (id, tenants) in [("w-all", None), ("w-globex", Some(&others[..])), ("w-acme", Some(&mine[..]))] {
            bed.broker.leave(&id.parse().expect("id"), tenants).await.expect("leave");
        }
    }
}

#[tokio::test]
async fn workers_of_named_tenants_count_among_those_alive_and_each_counts_once() {
    let bed = Bed::new().await;
    let long = Duration::from_secs(60);
    assert_eq!(bed.broker.workers_alive().await.expect("count"), 0);
    let tenants = ["acme", "globex"].map(|id| id.parse().expect("tenant"));
    bed.broker.heartbeat(&"w-some".parse().expect("id"), Some(&tenants), long).await.expect("heartbeat");
    bed.broker.heartbeat(&worker(), None, long).await.expect("heartbeat");
    assert_eq!(bed.broker.workers_alive().await.expect("count"), 2);
    bed.broker.leave(&worker(), None).await.expect("leave");
    assert_eq!(bed.broker.workers_alive().await.expect("count"), 1);
    let gateway = bed.gateway().await;
    let shown = || async { bed.get(&gateway, "/metrics").await.1.contains("\nwheelhouse_workers_alive ") };
    until("the metric is there", shown).await;
}
