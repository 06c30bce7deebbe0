//! A private Redis Cluster: three masters, each with a replica.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::proxy::{Line, Proxy};
use super::redis::RedisServer;

pub const MASTERS: usize = 3;
/// After how many ms of silence a node counts as gone: so long that a busy machine is not taken for a dead node…
const NODE_TIMEOUT: &str = "30000";
/// …and while one is to be missed.
const MISSED: &str = "1500";

/// Six `redis-server`s that know each other.
pub struct RedisCluster {
    /// The masters at the start, then the replica of each.
    pub nodes: Vec<RedisServer>,
    /// Of each node, the ways to it, where it was started so.
    ways: Vec<Ways>,
}

/// The ways to a node: a network between the nodes that can be cut.
struct Ways {
    /// What other nodes tell it.
    bus: Proxy,
    /// Programs, and the replica.
    port: Proxy,
}

/// From where a node comes to the others.
fn source(node: usize) -> String {
    format!("127.0.0.{}", node + 2)
}

impl RedisCluster {
    /// Starts one and waits until every node takes it for up. `more`: arguments for each server.
    pub fn start(more: &[&str]) -> Self {
        Self::start_with(more, |_, _, _| None)
    }

    /// As [`Self::start`], with a network between the nodes that can be cut: [`Self::cut_off`]. In the context of
    /// a runtime, and not in one of its tasks.
    pub fn start_with_network(more: &[&str]) -> Self {
        let runtime = tokio::runtime::Handle::current();
        Self::start_with(more, |node, port, bus| {
            let ways = runtime.block_on(async { Ways { bus: Proxy::to(bus).await, port: Proxy::to(port).await } });
            let own = [
                // Others would take the address from which it connects for its own.
                ("--cluster-announce-ip", "127.0.0.1".to_owned()),
                ("--cluster-announce-port", ways.port.port().to_string()),
                ("--cluster-announce-bus-port", ways.bus.port().to_string()),
                ("--bind-source-addr", source(node)),
                // Which takes that address for another machine.
                ("--protected-mode", "no".to_owned()),
            ];
            Some((own.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect(), ways))
        })
    }

    fn start_with(more: &[&str], network: impl Fn(usize, u16, u16) -> Option<(Vec<String>, Ways)>) -> Self {
        let server = |node: usize| {
            let at = std::cell::Cell::new((0, None));
            let server = RedisServer::start_with_port(|port| {
                // Its own choice, port + 10000, may be none.
                let bus = super::free_port();
                let own = ["--cluster-enabled", "yes", "--cluster-node-timeout", NODE_TIMEOUT];
                // Its default of five seconds waits for more replicas than there are.
                let own = own.iter().chain(&["--repl-diskless-sync-delay", "0", "--cluster-port"]);
                let own = own.map(|word| (*word).to_owned()).chain([bus.to_string()]);
                let (proxied, ways) = network(node, port, bus).unzip();
                at.set((bus, ways));
                own.chain(proxied.into_iter().flatten()).chain(more.iter().map(|word| (*word).to_owned())).collect()
            });
            let (bus, ways) = at.into_inner();
            (server, (ways.as_ref().map_or(bus, |ways: &Ways| ways.bus.port()), ways))
        };
        let (nodes, networks): (Vec<_>, Vec<_>) = (0..2 * MASTERS).map(server).unzip();
        let (buses, ways): (Vec<u16>, Vec<Option<Ways>>) = networks.into_iter().unzip();
        let cluster = Self { nodes, ways: ways.into_iter().flatten().collect() };
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
        format!("redis+cluster://127.0.0.1:{},127.0.0.1:{}", self.port(0), self.port(1))
    }

    /// What each node logs, by a name for it.
    pub fn log_files(&self) -> Vec<(String, PathBuf)> {
        let log = |(n, node): (usize, &RedisServer)| (format!("redis-{}", self.port(n)), node.log_file());
        self.nodes.iter().enumerate().map(log).collect()
    }

    /// Where programs and other nodes reach a node.
    fn port(&self, node: usize) -> u16 {
        self.ways.get(node).map_or_else(|| self.nodes[node].port(), |ways| ways.port.port())
    }

    /// Which of the masters at the start has a key.
    pub fn holder(&self, key: &str) -> usize {
        let slot = self.slot(key);
        (0..MASTERS).find(|i| slots(*i).contains(&slot)).expect("a master")
    }

    /// In which slot a key is.
    pub fn slot(&self, key: &str) -> u16 {
        let running = self.nodes.iter().find(|node| node.is_running()).expect("a node");
        running.query(&["CLUSTER", "KEYSLOT", key]).expect("slot")
    }

    /// The first slot of a master at the start.
    pub fn first_slot(master: usize) -> u16 {
        *slots(master).start()
    }

    /// From now on this node and the others do not hear each other any more; programs reach all of them.
    pub fn cut_off(&self, node: usize) {
        self.set_network(node, Line::Cut, Line::Hold);
    }

    /// Ends [`Self::cut_off`].
    pub fn join(&self, node: usize) {
        self.set_network(node, Line::Pass, Line::Pass);
    }

    fn set_network(&self, node: usize, bus: Line, port: Line) {
        for other in (0..self.ways.len()).filter(|other| *other != node) {
            for (to, from) in [(node, other), (other, node)] {
                self.ways[to].bus.set_for(&source(from), bus);
                self.ways[to].port.set_for(&source(from), port);
            }
        }
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

/// What a node says of itself.
struct Own {
    id: String,
    /// Its master's id, where it is a replica.
    follows: Option<String>,
    epoch: u64,
    slots: Vec<RangeInclusive<u16>>,
}

impl Own {
    fn has(&self, slot: u16) -> bool {
        self.follows.is_none() && self.slots.iter().any(|slots| slots.contains(&slot))
    }
}

impl RedisCluster {
    /// Which node is the master of a slot by now: of those that say so, the one with the newest right to it.
    pub fn master_of(&self, slot: u16) -> Option<usize> {
        let own = (0..self.nodes.len()).filter_map(|node| Some((node, self.own(node)?)));
        own.filter(|(_, own)| own.has(slot)).max_by_key(|(_, own)| own.epoch).map(|(node, _)| node)
    }

    /// The replicas of a node that is a master.
    pub fn replicas_of(&self, master: usize) -> Vec<usize> {
        let Some(own) = self.own(master) else { return Vec::new() };
        let follows = |node: &usize| self.own(*node).is_some_and(|other| other.follows.as_ref() == Some(&own.id));
        (0..self.nodes.len()).filter(follows).collect()
    }

    /// Whether every node takes the cluster for up, and every replica is in step.
    pub fn is_well(&self) -> bool {
        let well = |node: usize| {
            self.own(node).is_some_and(|own| {
                let server = &self.nodes[node];
                server.text("CLUSTER INFO").contains("cluster_state:ok")
                    && (own.follows.is_none() || server.text("INFO replication").contains("master_link_status:up"))
            })
        };
        (0..self.nodes.len()).all(well)
    }

    /// Moves a slot with all that it holds to another master, while programs use it. An error says what a node refused; then
    /// it may be tried again.
    pub fn move_slot(&self, slot: u16, to: usize) -> Result<(), String> {
        let from = self.master_of(slot).ok_or("no master has it")?;
        let (from_own, to_own) = self.own(from).zip(self.own(to)).ok_or("one of the two masters does not run")?;
        if from == to {
            return Ok(()); // A try before this one got as far as that.
        }
        let tell = |node: usize, command: &str| match self.nodes[node].inline(command) {
            answer if answer == "+OK" => Ok(()),
            answer => Err(format!("{command}: {answer}")),
        };
        tell(to, &format!("CLUSTER SETSLOT {slot} IMPORTING {}", from_own.id))?;
        tell(from, &format!("CLUSTER SETSLOT {slot} MIGRATING {}", to_own.id))?;
        let (number, port) = (slot.to_string(), self.port(to).to_string());
        loop {
            let keys: Vec<String> = self.nodes[from]
                .query(&["CLUSTER", "GETKEYSINSLOT", &number, "50"])
                .map_err(|error| format!("its keys: {error}"))?;
            if keys.is_empty() {
                break;
            }
            // A try that took too long may have left a copy over there. What is still here is newer: nobody was sent there for it.
            let words = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "REPLACE", "KEYS"].map(str::to_owned);
            let words: Vec<String> = words.into_iter().chain(keys).collect();
            self.nodes[from].query::<String>(&words).map_err(|error| format!("MIGRATE: {error}"))?;
        }
        // First where it is now: nobody may be sent to a node that does not know that it has it.
        tell(to, &format!("CLUSTER SETSLOT {slot} NODE {}", to_own.id))?;
        tell(from, &format!("CLUSTER SETSLOT {slot} NODE {}", to_own.id))
    }

    /// `None`: it does not run.
    fn own(&self, node: usize) -> Option<Own> {
        let server = self.nodes.get(node).filter(|server| server.is_running())?;
        let text = server.text("CLUSTER NODES");
        let line = text.lines().find(|line| line.contains("myself"))?;
        let words: Vec<&str> = line.split(' ').collect();
        let slots = words.get(8..).unwrap_or_default().iter().filter(|word| !word.starts_with('['));
        let range = |word: &&str| {
            let (from, to) = word.split_once('-').unwrap_or((word, word));
            Some(from.parse().ok()?..=to.parse().ok()?)
        };
        Some(Own {
            id: words[0].to_owned(),
            follows: words[2].contains("slave").then(|| words[3].to_owned()),
            epoch: words[6].parse().unwrap_or(0),
            slots: slots.filter_map(range).collect(),
        })
    }
}

/// Waits for something that happens by itself; the limit only ends a test that has failed.
fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
