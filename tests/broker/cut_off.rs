//! A master of a cluster that the other nodes do not hear any more, and that programs reach as ever: it accepts what its
//! replica will never know, and messages published there, or elsewhere, are not heard on the other side.

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::cluster::{LIMITS, pause, tenant_on};
use super::faults::until;
use crate::redis_at;
use crate::support::cluster::RedisCluster;
use wheelhouse::broker::scripts::submit::SubmitOutcome;
use wheelhouse::broker::{Broker, Event, Subscriber};

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_is_cut_off_is_left_for_its_replica_and_what_it_said_is_read_again() {
    let start = || RedisCluster::start_with_network(&["--cluster-require-full-coverage", "no"]);
    let cluster = tokio::task::spawn_blocking(start).await.expect("start a cluster");
    let redis = redis_at(cluster.url());
    let broker = Broker::connect(&redis).await.expect("connect to the cluster");
    let (cut_off, other) = (tenant_on(&cluster, &broker, 0), tenant_on(&cluster, &broker, 1));
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    // One subscriber that listens at the node which will be cut off, and one that does not.
    let (mut there, mut elsewhere) = (None, None);
    for _ in 0..100 {
        let listeners = || cluster.nodes[0].text("CLIENT LIST TYPE pubsub").lines().count();
        let before = listeners();
        let own = stop.child_token();
        let (subscriber, events) = Subscriber::start(&broker, &tracker, own.clone()).await.expect("subscribe");
        subscriber.psubscribe(vec!["*:job:control".to_owned()]).await.expect("subscribe");
        let found = if listeners() > before { &mut there } else { &mut elsewhere };
        match found {
            None => *found = Some((subscriber, events)),
            Some(_) => own.cancel(),
        }
        if there.is_some() && elsewhere.is_some() {
            break;
        }
        // What was cancelled is gone before the listeners are counted again.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let ((_one, mut there), (_two, mut elsewhere)) = (there.expect("by chance"), elsewhere.expect("by chance"));

    cluster.misses_nodes_soon();
    cluster.cut_off(0);
    // Whoever listens there hears nobody else, and goes away; whoever listens elsewhere does not hear it.
    until("the gap is told", async || matches!(there.recv().await, Some(Event::Gap))).await;
    let partition = broker.keys().partition(&cut_off);
    let is_told = |event: &Option<Event>| match event {
        Some(Event::PartitionGap(partitions)) => partitions.contains(&partition),
        Some(Event::Gap) => true,
        _ => false,
    };
    until("whose messages are lost is told", async || is_told(&elsewhere.recv().await)).await;
    until("its replica has taken over", async || cluster.taken_over(0)).await;
    for tenant in [&cut_off, &other] {
        let mut tries = 0;
        until("every tenant is served", async || {
            tries += 1;
            let asked = pause(tenant, &format!("after-{tries}"));
            matches!(broker.submit(&asked, LIMITS).await, Ok(SubmitOutcome::Accepted { .. }))
        })
        .await;
    }
    // By the new master alone: the old one still answers whoever asks it.
    let (new, mut tries) = (&cluster.nodes[3], 0);
    until("the new master has it", async || {
        tries += 1;
        let asked = pause(&cut_off, &format!("there-{tries}"));
        let accepted = broker.submit(&asked, LIMITS).await.is_ok();
        accepted && new.inline(&format!("EXISTS {}", broker.keys().queue(&asked.resource))) == ":1"
    })
    .await;
    let wanted = format!("{cut_off}:job:control");
    for events in [&mut there, &mut elsewhere] {
        let heard = |event| matches!(event, Some(Event::Message { channel, .. }) if channel == wanted);
        until("what it publishes is heard", async || heard(events.recv().await)).await;
    }
    stop.cancel();
    tracker.close();
    tracker.wait().await;
}
