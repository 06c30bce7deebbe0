//! The way to Redis, whether that is one server or a cluster: commands, scripts, and what an error means.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use redis::{Cmd, ConnectionInfo, ErrorKind, FromRedisValue, Pipeline, RedisResult, ServerErrorKind, Value};
use tokio::sync::watch;

use super::cluster::Cluster;
use super::connection::{self, Connection};
use super::discovery::Discovery;
use super::error::BrokerError;
use super::scripts::lua::LuaScript;
use super::waits::Waits;
use crate::config::PublishedChannels;

/// A handle; cheap to clone. Connections are given up when the last one is dropped.
#[derive(Clone)]
pub struct Client {
    kind: ClientKind,
    discovery: Arc<Discovery>,
    /// Where its scripts publish.
    published: PublishedChannels,
    /// When the first connections stood.
    connected_at: Instant,
}

#[derive(Clone)]
enum ClientKind {
    /// One server, or the one that the sentinels name.
    One(Connection),
    Cluster(Cluster),
}

impl Client {
    /// First connections, with a look at every master. Later ones are made by tasks that live as long as a handle does.
    pub async fn connect(settings: &crate::config::Redis) -> Result<Self, BrokerError> {
        let discovery = Discovery::of(settings)?;
        let kind = match &discovery {
            Discovery::Cluster(seeds) => {
                ClientKind::Cluster(Cluster::connect(seeds.clone(), Waits::of(settings)).await?)
            }
            one => ClientKind::One(Connection::connect(one.clone(), Waits::of(settings)).await?),
        };
        let published = settings.published_channels;
        Ok(Self { kind, discovery: Arc::new(discovery), published, connected_at: Instant::now() })
    }

    /// Where is published what wakes others.
    pub(super) fn published(&self) -> PublishedChannels {
        self.published
    }

    /// Where Redis is: for connections beside these, which then leave a deposed master together with them.
    pub(super) fn discovery(&self) -> Arc<Discovery> {
        self.discovery.clone()
    }

    /// Whether a connection is believed to be up; in a cluster, to any master.
    pub fn is_up(&self) -> bool {
        match &self.kind {
            ClientKind::One(node) => node.is_up(),
            ClientKind::Cluster(cluster) => cluster.is_up(),
        }
    }

    /// Whether this is a cluster.
    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self.kind, ClientKind::Cluster(_))
    }

    /// Waits until the server that has this key is connected, at most so long.
    pub(crate) async fn wait_up(&self, key: &str, within: Duration) -> bool {
        match &self.kind {
            ClientKind::One(node) => node.wait_up(within).await,
            ClientKind::Cluster(cluster) => cluster.wait_up(key, within).await,
        }
    }

    /// PING, within the time. In a cluster: whether more than half of the masters say that the cluster is up.
    pub async fn ping(&self, within: Duration) -> Result<(), BrokerError> {
        let ask = async {
            match &self.kind {
                ClientKind::One(node) => Ok(node.send(&redis::cmd("PING"), false).await.map(drop)?),
                ClientKind::Cluster(cluster) => cluster.ping().await,
            }
        };
        let late = || BrokerError::Unknown("no answer to PING".to_owned());
        tokio::time::timeout(within, ask).await.unwrap_or_else(|_| Err(late()))
    }

    /// Sends one command, to the server that has its first key.
    pub(crate) async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, BrokerError> {
        read(self.send(command).await?)
    }

    /// Sends several commands that do not depend on each other: in a cluster each goes to its own server.
    /// All are sent, even where one fails.
    pub(crate) async fn pipeline(&self, pipeline: &Pipeline) -> Result<(), BrokerError> {
        match &self.kind {
            ClientKind::One(node) => Ok(node.send_all(pipeline).await?),
            ClientKind::Cluster(cluster) => {
                let answers = join_all(pipeline.cmd_iter().map(|command| cluster.send(command))).await;
                Ok(answers.into_iter().try_for_each(|answer| answer.map(drop))?)
            }
        }
    }

    /// Runs a script by its hash; a server that does not have it (yet, or after a restart) gets its text.
    pub(crate) async fn script<T: FromRedisValue>(
        &self,
        script: &LuaScript,
        keys: &[&str],
        args: &[&[u8]],
    ) -> Result<T, BrokerError> {
        match self.send(&script.by_hash(self.published, keys, args)).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                read(self.send(&script.in_full(self.published, keys, args)).await?)
            }
            answer => read(answer?),
        }
    }

    /// As [`Self::script`], for a call that the caller can divide: it is not sent again while its slot is on its way to another
    /// server, which is [said at once](BrokerError::is_slot_on_its_way).
    pub(crate) async fn script_at_once<T: FromRedisValue>(
        &self,
        script: &LuaScript,
        keys: &[&str],
        args: &[&[u8]],
    ) -> Result<T, BrokerError> {
        let send = async |command: Cmd| match &self.kind {
            ClientKind::One(node) => node.send(&command, false).await,
            ClientKind::Cluster(cluster) => cluster.send_at_once(&command).await,
        };
        match send(script.by_hash(self.published, keys, args)).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                read(send(script.in_full(self.published, keys, args)).await?)
            }
            answer => read(answer?),
        }
    }

    /// As [`Self::script`]; where the settings say so, it answers only once replicas have what it has written.
    pub(crate) async fn script_replicated<T: FromRedisValue>(
        &self,
        script: &LuaScript,
        keys: &[&str],
        args: &[&[u8]],
    ) -> Result<T, BrokerError> {
        let key = keys.first().copied().unwrap_or_default();
        match self.send_replicated(&script.by_hash(self.published, keys, args), key).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                read(self.send_replicated(&script.in_full(self.published, keys, args), key).await?)
            }
            answer => read(answer?),
        }
    }

    /// A read; where the settings say so, it answers only once replicas have what it has seen: what is told to somebody must not
    /// be taken back by a failover. `key`: the first of the command.
    pub(crate) async fn query_replicated<T: FromRedisValue>(&self, command: &Cmd, key: &str) -> Result<T, BrokerError> {
        read(self.send_replicated(command, key).await?)
    }

    async fn send_replicated(&self, command: &Cmd, key: &str) -> RedisResult<Value> {
        match &self.kind {
            ClientKind::One(node) => node.send_replicated(command, false, key).await,
            ClientKind::Cluster(cluster) => cluster.send_replicated(command, key).await,
        }
    }

    async fn send(&self, command: &Cmd) -> RedisResult<Value> {
        match &self.kind {
            ClientKind::One(node) => node.send(command, false).await,
            ClientKind::Cluster(cluster) => cluster.send(command).await,
        }
    }

    /// This moment by the clock of the server that has this key, as far as known, Unix µs.
    pub(crate) fn now_us(&self, key: &str) -> i64 {
        self.node(key).map_or_else(connection::this_machine_us, |node| node.now_us())
    }

    /// The server that has this key said what time it is.
    pub(crate) fn learn_clock(&self, key: &str, redis_us: i64) {
        if let Some(node) = self.node(key) {
            node.learn_clock(redis_us);
        }
    }

    /// Which server has this key, as far as known: another number for another process, as after a failover.
    pub(crate) fn server(&self, key: &str) -> Option<u64> {
        self.node(key).map(|node| node.server())
    }

    /// Whether this key came to another server within the time: by a failover, a restart, or with its slot.
    pub(super) fn has_changed_server(&self, key: &str, within: Duration) -> bool {
        let since = self.node(key).and_then(|node| node.server_since());
        // The servers of the beginning are no change.
        since.is_some_and(|since| since > self.connected_at && since.elapsed() < within)
    }

    /// Asks the server that has this key what time it is, and remembers the answer.
    pub(crate) async fn ask_clock(&self, key: &str) -> Result<(), BrokerError> {
        // A server of a cluster that is not there is found by whatever else is sent.
        let Some(node) = self.node(key) else { return Ok(()) };
        let (seconds, micros): (i64, i64) = read(node.send(&redis::cmd("TIME"), false).await?)?;
        node.learn_clock(seconds * 1_000_000 + micros);
        Ok(())
    }

    fn node(&self, key: &str) -> Option<Connection> {
        match &self.kind {
            ClientKind::One(node) => Some(node.clone()),
            ClientKind::Cluster(cluster) => cluster.node(key),
        }
    }

    /// The servers that are up and have no append-only file.
    pub(super) fn without_append_only_file(&self) -> Vec<String> {
        match &self.kind {
            ClientKind::One(node) => node.without_append_only_file().into_iter().collect(),
            ClientKind::Cluster(cluster) => cluster.without_append_only_file(),
        }
    }

    /// A server for pub/sub, by its name and where it is: in a cluster any node hears everything that reaches the others,
    /// and another one than `but` is taken where there is one. `None` where that is no choice, or none is known to be up.
    pub(super) fn server_for_pubsub(&self, but: Option<&str>) -> Option<(String, ConnectionInfo)> {
        match &self.kind {
            ClientKind::One(_) => None,
            ClientKind::Cluster(cluster) => cluster.server_for_pubsub(but),
        }
    }

    /// The name of the server that has this key: empty where there is but one, `None` where none is known.
    pub(super) fn server_of(&self, key: &str) -> Option<String> {
        match &self.kind {
            ClientKind::One(_) => Some(String::new()),
            ClientKind::Cluster(cluster) => cluster.server_of(key),
        }
    }

    /// The server of a cluster that has this key, by its name and where it is. `None` where none is known.
    pub(super) fn address_of(&self, key: &str) -> Option<(String, ConnectionInfo)> {
        match &self.kind {
            ClientKind::One(_) => None,
            ClientKind::Cluster(cluster) => cluster.address_of(key),
        }
    }

    /// Every server to which commands go and that is connected, by its name.
    pub(super) fn servers(&self) -> Vec<(String, Connection)> {
        match &self.kind {
            ClientKind::One(node) => vec![(String::new(), node.clone())],
            ClientKind::Cluster(cluster) => cluster.connected(),
        }
    }

    /// Whether a server is cut off from most others of its cluster.
    pub(super) fn is_isolated(&self, server: &str) -> bool {
        match &self.kind {
            ClientKind::One(_) => false,
            ClientKind::Cluster(cluster) => cluster.is_isolated(server),
        }
    }

    /// Waits until other servers of a cluster have some keys, or others are isolated, than when `known` was last brought up
    /// to date here. For ever where there is but one server.
    pub(super) async fn changed(&self, known: &mut Option<watch::Receiver<u64>>) {
        if let ClientKind::Cluster(cluster) = &self.kind {
            let changes = known.get_or_insert_with(|| cluster.changes());
            if changes.changed().await.is_ok() {
                return;
            }
        }
        std::future::pending().await
    }
}

fn read<T: FromRedisValue>(answer: Value) -> Result<T, BrokerError> {
    redis::from_redis_value(answer).map_err(|error| BrokerError::Refused(error.to_string()))
}
