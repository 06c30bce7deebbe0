//! A private Redis Cluster: three masters, each with a replica.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::redis::RedisServer;

const MASTERS: usize = 3;
/// After how many ms of silence a node counts as gone: so long that a busy machine is not taken for a dead node…
const NODE_TIMEOUT: &str = "30000";
/// …and while one is to be missed.
const MISSED: &str = "1500";

/// Six `redis-server`s that know each other.
pub struct RedisCluster {
    /// The masters at the start, then the replica of each.
    pub nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts one and waits until every node takes it for up. `more`: arguments for each server.
    pub fn start(more: &[&str]) -> Self {
        let bus = std::cell::Cell::new(0);
        let server = || {
            let server = RedisServer::start_with(|| {
                // Its own choice, port + 10000, may be none.
                bus.set(super::free_port());
                let own = ["--cluster-enabled", "yes", "--cluster-node-timeout", NODE_TIMEOUT];
                // Its default of five seconds waits for more replicas than there are.
                let own = own.iter().chain(&["--repl-diskless-sync-delay", "0", "--cluster-port"]);
                own.map(|word| (*word).to_owned())
                    .chain([bus.get().to_string()])
                    .chain(more.iter().map(|word| (*word).to_owned()))
                    .collect()
            });
            (server, bus.get())
        };
        let (nodes, buses): (Vec<_>, Vec<_>) = (0..2 * MASTERS).map(|_| server()).unzip();
        let cluster = Self { nodes };
        for (i, node) in cluster.nodes.iter().enumerate() {
            assert_eq!(node.inline(&format!("CLUSTER SET-CONFIG-EPOCH {}", i + 1)), "+OK");
            if i < MASTERS {
                let slots = slots(i);
                assert_eq!(node.inline(&format!("CLUSTER ADDSLOTSRANGE {} {}", slots.start(), slots.end())), "+OK");
            }
            let meet = format!("CLUSTER MEET 127.0.0.1 {} {}", node.port(), buses[i]);
            assert_eq!(cluster.nodes[0].inline(&meet), "+OK");
        }
        let known = format!("cluster_known_nodes:{}", 2 * MASTERS);
        until("all nodes know each other", || cluster.all(|node| node.text("CLUSTER INFO").contains(&known)));
        for i in 0..MASTERS {
            let master = cluster.nodes[i].text("CLUSTER MYID");
            let follow = format!("CLUSTER REPLICATE {master}");
            until("a replica knows its master", || cluster.nodes[MASTERS + i].inline(&follow) == "+OK");
        }
        until("the cluster is up", || {
            cluster.all(|node| node.text("CLUSTER INFO").contains("cluster_state:ok"))
                && cluster.nodes[MASTERS..].iter().all(|r| r.text("INFO replication").contains("master_link_status:up"))
                // Each knows who would take over from whom.
                && cluster.all(|node| node.text("CLUSTER NODES").matches("slave").count() == MASTERS)
        });
        cluster
    }

    /// `redis+cluster://` with two of its nodes.
    pub fn url(&self) -> String {
        format!("redis+cluster://127.0.0.1:{},127.0.0.1:{}", self.nodes[0].port(), self.nodes[1].port())
    }

    /// Which of the masters at the start has a key.
    pub fn holder(&self, key: &str) -> usize {
        let slot: u16 = self.nodes[0].inline(&format!("CLUSTER KEYSLOT {key}"))[1..].parse().expect("slot");
        (0..MASTERS).find(|i| slots(*i).contains(&slot)).expect("a master")
    }

    /// Waits until the replica of a master has all that the master has now.
    pub fn replicated(&self, master: usize) {
        let number = |text: &str, before: &str| -> Option<u64> {
            let rest = text.split(before).nth(1)?;
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        };
        let wanted = number(&self.nodes[master].text("INFO replication"), "master_repl_offset:").expect("offset");
        until("the replica has it too", || {
            number(&self.nodes[MASTERS + master].text("INFO replication"), "slave_repl_offset:") >= Some(wanted)
        });
    }

    /// From now on a node that is silent is missed soon: before one is taken away, and as short as can be.
    pub fn misses_nodes_soon(&self) {
        self.node_timeout(MISSED);
    }

    /// Again as at the start.
    pub fn is_patient(&self) {
        self.node_timeout(NODE_TIMEOUT);
    }

    fn node_timeout(&self, ms: &str) {
        assert!(self.all(|node| node.inline(&format!("CONFIG SET cluster-node-timeout {ms}")) == "+OK"));
    }

    /// Whether the replica of a master has taken its place.
    pub fn taken_over(&self, master: usize) -> bool {
        self.nodes[MASTERS + master].text("INFO replication").contains("role:master")
    }

    fn all(&self, holds: impl Fn(&RedisServer) -> bool) -> bool {
        self.nodes.iter().all(holds)
    }
}

fn slots(master: usize) -> RangeInclusive<u16> {
    let at = |i: usize| (i * 16_384 / MASTERS) as u16;
    at(master)..=at(master + 1) - 1
}

/// Waits for something that happens by itself; the limit only ends a test that has failed.
fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
