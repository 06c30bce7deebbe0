//! The promises of commands, under faults: real processes are killed, stopped and cut off while clients issue
//! commands, and a checker reads what everybody saw. `docs/testing-faults.md` describes the parts.
//!
//! `CHAOS_SEED=7 cargo test --test chaos` plays one seed again; `CHAOS_SECONDS` sets how long the load lasts,
//! `CHAOS_SEEDS` how many seeds are played, one after the other. `CHAOS_SHARDED=1`: channels of a
//! cluster are sharded. `CHAOS_WAIT=0`: for no replica and no disk is waited, and promises break.

mod support;

#[path = "chaos/check/mod.rs"]
mod check;
#[path = "chaos/client.rs"]
mod client;
#[path = "chaos/cluster.rs"]
mod cluster;
#[path = "chaos/faults.rs"]
mod faults;
#[path = "chaos/history.rs"]
mod history;
#[path = "chaos/http.rs"]
mod http;
#[path = "chaos/one_redis.rs"]
mod one_redis;
#[path = "chaos/plan.rs"]
mod plan;
#[path = "chaos/proof.rs"]
mod proof;
#[path = "chaos/proxy.rs"]
mod proxy;
#[path = "chaos/reader.rs"]
mod reader;
#[path = "chaos/report.rs"]
mod report;
#[path = "chaos/run.rs"]
mod run;
#[path = "chaos/servers.rs"]
mod servers;
#[path = "chaos/sql.rs"]
mod sql;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The seed of `cargo test`.
const USUAL: u64 = 2;

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_promises_of_commands_hold_under_faults() {
    let _alone = ALONE.lock().await;
    let seeds = number("CHAOS_SEEDS");
    // Among the other tests always the same plan, so that a failure speaks of a change; whoever asks for a number of
    // seeds looks somewhere else each time.
    let somewhere = || SystemTime::now().duration_since(UNIX_EPOCH).expect("clock").as_secs() % 1_000_000;
    let first = number("CHAOS_SEED").unwrap_or_else(|| if seeds.is_some() { somewhere() } else { USUAL });
    let load = Duration::from_secs(number("CHAOS_SECONDS").unwrap_or(40));
    for seed in first..first + seeds.unwrap_or(1) {
        let mut plan = plan::Plan::new(seed, load, topology());
        plan.sharded_channels = number("CHAOS_SHARDED").is_some_and(|sharded| sharded > 0);
        plan.copies_to_wait = number("CHAOS_WAIT").map_or(plan.copies_to_wait, |copies| copies as u32);
        run::play(&plan).await;
    }
}

/// A master dies, is replaced by order, and is cut off and reached again while another is about to be named.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn masters_that_sentinels_replace_break_no_promise() {
    let _alone = ALONE.lock().await;
    run::play(&plan::Plan::new(2, Duration::from_secs(25), plan::Topology::Sentinel)).await;
}

/// A master of a cluster is cut off, one dies, and then one with its replica.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn masters_of_a_cluster_that_are_lost_break_no_promise() {
    let _alone = ALONE.lock().await;
    run::play(&plan::Plan::new(4, Duration::from_secs(20), plan::Topology::Cluster)).await;
}

/// The same where programs hear nothing but sharded channels: a master is lost and replaced, and slots move.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sharded_channels_of_a_cluster_that_loses_masters_break_no_promise() {
    let _alone = ALONE.lock().await;
    let plan = plan::Plan::new(4, Duration::from_secs(20), plan::Topology::Cluster);
    run::play(&plan::Plan { sharded_channels: true, ..plan }).await;
}

/// A machine loses its power twice, the second time while its disk is too slow, and has what the disk has confirmed. It needs Linux.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_redis_whose_machine_loses_its_power_breaks_no_promise() {
    let _alone = ALONE.lock().await;
    run::play(&plan::Plan::new(51, Duration::from_secs(7), plan::Topology::Disk)).await;
}

/// One after the other: each run is as much as two cores can do.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// `CHAOS_TOPOLOGY`: one Redis where it says nothing.
fn topology() -> plan::Topology {
    match std::env::var("CHAOS_TOPOLOGY").unwrap_or_default().as_str() {
        "" => plan::Topology::Single,
        name => plan::Topology::named(name)
            .unwrap_or_else(|| panic!("CHAOS_TOPOLOGY={name} is neither single nor sentinel nor cluster nor disk")),
    }
}
