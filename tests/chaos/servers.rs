//! The Redis servers of a run, what breaks them and what mends them.
//!
//! Where there are several, one thing is broken at a time, so that what is left can make up for it.

use std::path::PathBuf;

use rustix::process::Signal;
use tokio::task::block_in_place;
use wheelhouse::broker::Keys;

use crate::plan::{Act, TENANT, Topology, Whose};
use crate::support::cluster::{MASTERS, RedisCluster};
use crate::support::sentinels::Replicated;

/// `redis.partitions`, as `config/default.toml` has it.
pub const PARTITIONS: u16 = 16;
/// How often a slot is tried to be moved: a node may be busy just then with what was broken before.
const TRIES: usize = 50;

/// What there is beside the one server of the fleet.
pub enum Servers {
    /// Nothing: it is the one.
    Single,
    Sentinel(Box<Replicated>, Broken),
    /// And the slot in which all keys of the test's tenant are.
    Cluster(Box<RedisCluster>, Broken, u16),
}

/// Nodes that are down, hang, or are cut off.
pub type Broken = Vec<usize>;

impl Servers {
    pub async fn start(topology: Topology) -> Self {
        match topology {
            Topology::Single | Topology::Disk => Self::Single,
            Topology::Sentinel => {
                let replicated = Replicated::start().await;
                replicated.misses_servers_soon();
                Self::Sentinel(Box::new(replicated), Broken::new())
            }
            Topology::Cluster => {
                // Masters that are well go on while a shard is missing.
                let start = || RedisCluster::start_with_network(&["--cluster-require-full-coverage", "no"]);
                let cluster = tokio::task::spawn_blocking(start).await.expect("start a cluster");
                block_in_place(|| cluster.misses_nodes_soon());
                let slot =
                    block_in_place(|| cluster.slot(&Keys::new(PARTITIONS).backlog(&TENANT.parse().expect("tenant"))));
                Self::Cluster(Box::new(cluster), Broken::new(), slot)
            }
        }
    }

    /// Where programs find them; `None`: where the fleet's own is.
    pub fn url(&self) -> Option<String> {
        match self {
            Self::Single => None,
            Self::Sentinel(replicated, _) => Some(replicated.url()),
            Self::Cluster(cluster, ..) => Some(cluster.url()),
        }
    }

    /// What they log, by a name for each.
    pub fn log_files(&self) -> Vec<(String, PathBuf)> {
        match self {
            Self::Single => Vec::new(),
            Self::Sentinel(replicated, _) => replicated.log_files(),
            Self::Cluster(cluster, ..) => cluster.log_files(),
        }
    }

    /// Breaks or mends. `false`: the act is about something else, or about the one server of the fleet.
    pub fn act(&mut self, act: Act) -> bool {
        let is_about_servers = matches!(
            act,
            Act::RedisDown(_)
                | Act::RedisUp
                | Act::RedisHangs(_)
                | Act::RedisGoesOn
                | Act::SplitBrain(_)
                | Act::SplitEnds
                | Act::Switch(_)
                | Act::ShardDown(_)
                | Act::MoveSlot
        );
        match self {
            Self::Sentinel(replicated, broken) if is_about_servers => {
                block_in_place(|| break_replicated(replicated, broken, act));
            }
            Self::Cluster(cluster, broken, slot) if is_about_servers => {
                block_in_place(|| break_cluster(cluster, broken, *slot, act));
            }
            _ => return false,
        }
        true
    }

    /// Waits until the sentinels name another master than the one that was broken.
    pub async fn until_switched(&self) {
        if let Self::Sentinel(replicated, broken) = self
            && let Some(old) = broken.first()
        {
            replicated.switched_from(*old).await;
        }
    }

    /// Waits until all that was broken is whole again.
    pub async fn until_whole(&self) {
        if let Self::Cluster(cluster, ..) = self {
            let begun = std::time::Instant::now();
            while !block_in_place(|| cluster.is_well()) {
                assert!(begun.elapsed() < crate::cluster::UP, "the cluster did not come to itself");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

/// What happens to the master of several.
fn break_replicated(replicated: &mut Replicated, broken: &mut Broken, act: Act) {
    match act {
        Act::RedisUp | Act::RedisGoesOn | Act::SplitEnds => {
            for node in broken.drain(..) {
                replicated.join(node);
                if replicated.nodes[node].server.is_running() {
                    replicated.nodes[node].server.signal(Signal::CONT);
                } else {
                    replicated.nodes[node].restart();
                }
            }
        }
        _ if !broken.is_empty() => {}
        Act::RedisDown(_) | Act::RedisHangs(_) | Act::SplitBrain(_) => {
            let master = replicated.master();
            broken.push(master);
            match act {
                Act::RedisDown(_) => replicated.nodes[master].server.kill(),
                Act::RedisHangs(_) => replicated.nodes[master].server.signal(Signal::STOP),
                _ => replicated.cut_off(master),
            }
        }
        Act::Switch(_) => replicated.order_switch(),
        _ => {}
    }
}

fn break_cluster(cluster: &mut RedisCluster, broken: &mut Broken, slot: u16, act: Act) {
    if matches!(act, Act::RedisUp | Act::RedisGoesOn | Act::SplitEnds) {
        for node in broken.drain(..) {
            cluster.join(node);
            if cluster.nodes[node].is_running() {
                cluster.nodes[node].signal(Signal::CONT);
            } else {
                cluster.nodes[node].restart();
            }
        }
        return;
    }
    if !broken.is_empty() {
        return;
    }
    let Some(own) = cluster.master_of(slot) else { return };
    // Masters change, their slots do not, but for the one that is moved: a slot of another shard that never is.
    let others = (0..MASTERS).filter_map(|shard| cluster.master_of(RedisCluster::first_slot(shard) + 1));
    let others: Vec<usize> = others.filter(|master| *master != own).collect();
    let master = |whose: Whose| match whose {
        Whose::Tenants => own,
        Whose::Others => others.first().copied().unwrap_or(own),
    };
    match act {
        Act::RedisDown(whose) => {
            let node = master(whose);
            broken.push(node);
            cluster.nodes[node].kill();
        }
        Act::RedisHangs(whose) => {
            let node = master(whose);
            broken.push(node);
            cluster.nodes[node].signal(Signal::STOP);
        }
        Act::SplitBrain(whose) => {
            let node = master(whose);
            broken.push(node);
            cluster.cut_off(node);
        }
        Act::ShardDown(whose) => {
            let node = master(whose);
            broken.push(node);
            broken.extend(cluster.replicas_of(node));
            // The master first: a replica that is away when it accepts something might come back as the master.
            for node in broken.iter() {
                cluster.nodes[*node].kill();
            }
        }
        Act::Switch(whose) => {
            if let Some(replica) = cluster.replicas_of(master(whose)).first() {
                // Refused where it is not ready for it just now.
                cluster.nodes[*replica].inline("CLUSTER FAILOVER");
            }
        }
        Act::MoveSlot => {
            let Some(to) = others.first() else { return };
            let mut refused = String::new();
            let moved = (0..TRIES).any(|_| match cluster.move_slot(slot, *to) {
                Ok(()) => true,
                Err(why) => {
                    refused = why;
                    std::thread::sleep(std::time::Duration::from_millis(200));
                    false
                }
            });
            assert!(moved, "slot {slot} cannot be moved to {to}: {refused}");
        }
        _ => {}
    }
}
