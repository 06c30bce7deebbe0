//! A master, two replicas and three sentinels, with a network between them that can be cut: every server is reached
//! through a proxy, which knows programs and the other servers apart.

use std::cell::Cell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::free_port;
use super::proxy::{Line, Proxy, SERVERS};
use super::redis::RedisServer;
use super::watchdog::Watchdog;

const NODES: usize = 3;
const SENTINELS: usize = 3;
/// What a sentinel logs, in its folder.
const LOG_FILE: &str = "sentinel.log";
/// The name of the master.
const NAME: &str = "main";
/// After how many ms of silence a sentinel misses a server: so long that a busy machine is not taken for a dead server…
const PATIENT_MS: u32 = 60_000;
/// …and while one is to be missed.
const IMPATIENT_MS: u32 = 1_000;
/// A switch that was ordered and has not come about is ordered again.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// The servers of one service.
pub struct Replicated {
    pub nodes: Vec<Node>,
    sentinels: Vec<Sentinel>,
}

/// A `redis-server`, and the way to it.
pub struct Node {
    pub server: RedisServer,
    proxy: Proxy,
}

impl Node {
    /// What it has to know again after each start: by which way others reach it, and from where it comes to them.
    fn configure(&self) {
        for setting in [
            format!("bind-source-addr {SERVERS}"),
            "replica-announce-ip 127.0.0.1".to_owned(),
            format!("replica-announce-port {}", self.proxy.port()),
            // Its default of five seconds waits for more replicas than there are.
            "repl-diskless-sync-delay 0".to_owned(),
        ] {
            assert_eq!(self.server.inline(&format!("CONFIG SET {setting}")), "+OK", "{setting}");
        }
    }

    /// Starts it again with the data that it had, after [`RedisServer::kill`]. The sentinels make it a replica.
    pub fn restart(&mut self) {
        self.server.restart();
        self.configure();
    }
}

struct Sentinel {
    port: u16,
    child: Child,
    _watchdog: Watchdog,
    folder: tempfile::TempDir,
}

impl Replicated {
    /// Starts them, and waits until the replicas are in step and the sentinels know everybody.
    pub async fn start() -> Self {
        let mut nodes = Vec::new();
        for _ in 0..NODES {
            let server = RedisServer::start();
            let proxy = Proxy::to(server.port()).await;
            nodes.push(Node { server, proxy });
        }
        nodes.iter().for_each(Node::configure);
        let follow = format!("REPLICAOF 127.0.0.1 {}", nodes[0].proxy.port());
        for replica in &nodes[1..] {
            assert_eq!(replica.server.inline(&follow), "+OK");
        }
        until("the replicas are in step", || nodes[0].server.inline("WAIT 2 100") == ":2").await;
        let sentinels = (0..SENTINELS).map(|_| Sentinel::start(nodes[0].proxy.port())).collect();
        let all = Self { nodes, sentinels };
        until("the sentinels know everybody", || {
            all.sentinels.iter().all(|s| {
                let known = |what: &str| s.ask::<Vec<redis::Value>>(&[what, NAME]).map_or(0, |found| found.len());
                known("REPLICAS") == NODES - 1 && known("SENTINELS") == SENTINELS - 1
            })
        })
        .await;
        all
    }

    /// `redis+sentinel://` with all sentinels.
    pub fn url(&self) -> String {
        let hosts: Vec<String> = self.sentinels.iter().map(|s| format!("127.0.0.1:{}", s.port)).collect();
        format!("redis+sentinel://{}/{NAME}", hosts.join(","))
    }

    /// What each server and each sentinel logs, by a name for it.
    pub fn log_files(&self) -> Vec<(String, PathBuf)> {
        let nodes = self.nodes.iter().map(|node| (format!("redis-{}", node.proxy.port()), node.server.log_file()));
        let sentinels = self.sentinels.iter().map(|s| (format!("sentinel-{}", s.port), s.folder.path().join(LOG_FILE)));
        nodes.chain(sentinels).collect()
    }

    /// Which node most sentinels name.
    pub fn master(&self) -> usize {
        let named = self.sentinels.iter().filter_map(|sentinel| self.named_by(sentinel));
        let mut votes = [0; NODES];
        named.for_each(|node| votes[node] += 1);
        (0..NODES).max_by_key(|node| votes[*node]).expect("a node")
    }

    fn named_by(&self, sentinel: &Sentinel) -> Option<usize> {
        let (_, port) = sentinel.ask::<(String, u16)>(&["GET-MASTER-ADDR-BY-NAME", NAME]).ok()?;
        self.nodes.iter().position(|node| node.proxy.port() == port)
    }

    /// Waits until another node than this is the master; gives it.
    pub async fn switched_from(&self, old: usize) -> usize {
        until("the sentinels name another master", || self.master() != old).await;
        self.master()
    }

    /// Waits until every sentinel has seen that this node is a replica. One that has not would make it one again, also when it
    /// has become the master meanwhile.
    pub async fn is_known_to_follow(&self, node: usize) {
        let port = self.nodes[node].proxy.port().to_string();
        until("the sentinels see a replica", || {
            self.sentinels.iter().all(|sentinel| {
                let known: Vec<HashMap<String, String>> = sentinel.ask(&["REPLICAS", NAME]).unwrap_or_default();
                known.iter().any(|replica| replica["port"] == port && replica["role-reported"] == "slave")
            })
        })
        .await;
    }

    /// `SENTINEL FAILOVER`, once: a sentinel may be unable to do it just now.
    pub fn order_switch(&self) {
        let _: redis::RedisResult<()> = self.sentinels[0].ask(&["FAILOVER", NAME]);
    }

    /// `SENTINEL FAILOVER`: a switch from this node while all are well; to which one. Asked for again after a while: a
    /// sentinel gives up where a replica is just not ready. Never of one that has switched, and waits for the others to hear
    /// of it: it would switch once more.
    pub async fn fail_over(&self, old: usize) -> usize {
        let asked_at = Cell::new(None);
        until("an ordered switch", || {
            let is_due = asked_at.get().is_none_or(|at: Instant| at.elapsed() > ASK_AGAIN_AFTER);
            if is_due && self.named_by(&self.sentinels[0]) == Some(old) {
                asked_at.set(Some(Instant::now()));
                self.order_switch();
            }
            self.master() != old
        })
        .await;
        self.master()
    }

    /// From now on a server that is silent is missed soon: before one is taken away, and as short as can be.
    pub fn misses_servers_soon(&self) {
        self.down_after(IMPATIENT_MS);
    }

    /// Again as at the start.
    pub fn is_patient(&self) {
        self.down_after(PATIENT_MS);
    }

    fn down_after(&self, ms: u32) {
        for sentinel in &self.sentinels {
            sentinel.ask::<()>(&["SET", NAME, "down-after-milliseconds", &ms.to_string()]).expect("SENTINEL SET");
        }
    }

    /// From now on sentinels and other servers do not reach this node, and programs still do: it is alive, believes itself
    /// to be the master if it was, and takes what it is given.
    pub fn cut_off(&self, node: usize) {
        self.nodes[node].proxy.set_for_servers(Line::Hold);
    }

    /// Ends [`Self::cut_off`].
    pub fn join(&self, node: usize) {
        self.nodes[node].proxy.set_for_servers(Line::Pass);
    }

    /// Ends the sentinels, all but so many.
    pub fn keep_sentinels(&mut self, count: usize) {
        self.sentinels.truncate(count);
    }
}

impl Sentinel {
    fn start(master: u16) -> Self {
        let (folder, port) = (tempfile::tempdir().expect("folder"), free_port());
        let file = folder.path().join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\nbind-source-addr {SERVERS}\nsentinel announce-ip 127.0.0.1\n\
             dir {folder}\npidfile {folder}/sentinel.pid\nlogfile {folder}/{LOG_FILE}\n\
             sentinel monitor {NAME} 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds {NAME} {PATIENT_MS}\nsentinel failover-timeout {NAME} 5000\n\
             sentinel parallel-syncs {NAME} 2\n",
            folder = folder.path().display(),
        );
        std::fs::write(&file, text).expect("write sentinel.conf");
        let _watchdog = Watchdog::over(folder.path());
        let mut command = Command::new("redis-server");
        command.arg(&file).arg("--sentinel").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self { port, child: command.spawn().expect("redis-server --sentinel"), _watchdog, folder }
    }

    fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port))?;
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(5))?;
        connection.set_read_timeout(Some(Duration::from_secs(5)))?;
        redis::cmd("SENTINEL").arg(words).query(&mut connection)
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for something that happens by itself; the limit only ends a test that has failed.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !tokio::task::block_in_place(&holds) {
        assert!(begun.elapsed() < Duration::from_secs(60), "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
