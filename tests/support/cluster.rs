//! A private Redis Cluster: three masters, each with a replica.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::proxy::{Line, Proxy, SERVERS};
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
    /// Of each node, what the others send it, where it was started so.
    buses: Vec<Proxy>,
}

impl RedisCluster {
    /// Starts one and waits until every node takes it for up. `more`: arguments for each server.
    pub fn start(more: &[&str]) -> Self {
        Self::start_with(more, |_, _| None)
    }

    /// As [`Self::start`], with a network between the nodes that can be cut: [`Self::cut_off_the_first`]. In the context of
    /// a runtime, and not in one of its tasks.
    pub fn start_with_network(more: &[&str]) -> Self {
        let runtime = tokio::runtime::Handle::current();
        Self::start_with(more, |node, bus| {
            let proxy = runtime.block_on(Proxy::to(bus));
            // Others would take the address from which it connects for its own.
            let mut own =
                ["--cluster-announce-ip", "127.0.0.1", "--cluster-announce-bus-port"].map(str::to_owned).to_vec();
            own.push(proxy.port().to_string());
            // Which takes 127.0.0.2 for another machine.
            own.extend(["--protected-mode", "no"].map(str::to_owned));
            if node > 0 {
                own.extend(["--bind-source-addr".to_owned(), SERVERS.to_owned()]);
            }
            Some((own, proxy))
        })
    }

    fn start_with(more: &[&str], network: impl Fn(usize, u16) -> Option<(Vec<String>, Proxy)>) -> Self {
        let server = |node: usize| {
            let at = std::cell::Cell::new((0, None));
            let server = RedisServer::start_with(|| {
                // Its own choice, port + 10000, may be none.
                let bus = super::free_port();
                let own = ["--cluster-enabled", "yes", "--cluster-node-timeout", NODE_TIMEOUT];
                // Its default of five seconds waits for more replicas than there are.
                let own = own.iter().chain(&["--repl-diskless-sync-delay", "0", "--cluster-port"]);
                let own = own.map(|word| (*word).to_owned()).chain([bus.to_string()]);
                let (proxied, proxy) = network(node, bus).unzip();
                at.set((bus, proxy));
                own.chain(proxied.into_iter().flatten()).chain(more.iter().map(|word| (*word).to_owned())).collect()
            });
            let (bus, proxy) = at.into_inner();
            (server, (proxy.as_ref().map_or(bus, Proxy::port), proxy))
        };
        let (nodes, networks): (Vec<_>, Vec<_>) = (0..2 * MASTERS).map(server).unzip();
        let (buses, proxies): (Vec<u16>, Vec<Option<Proxy>>) = networks.into_iter().unzip();
        let cluster = Self { nodes, buses: proxies.into_iter().flatten().collect() };
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

    /// From now on the first master and the other nodes do not hear each other any more; programs reach all of them.
    pub fn cut_off_the_first(&self) {
        self.buses[0].set_for_servers(Line::Cut);
        // What does not come from the other servers comes from the first.
        self.buses[1..].iter().for_each(|bus| bus.set(Line::Cut));
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
