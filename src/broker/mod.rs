//! Everything that talks to Redis. Names of keys are built in [`keys`] and nowhere else; each file
//! under `lua/` has one typed wrapper under [`scripts`].

pub mod channels_in_use;
mod client;
mod clock_steps;
mod cluster;
mod connection;
pub mod diagnosis;
mod discovery;
mod error;
mod events;
mod former_programs;
mod hearing;
pub mod keys;
mod mastership;
mod probes;
mod replication;
pub mod scripts;
mod sentinels;
mod shard_connection;
mod shard_lane;
mod shard_names;
mod shards;
mod slots;
pub mod subscriber;
mod subscribing;
mod topology;
mod transport_mismatch;
mod version;
mod waits;
mod write_check;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::HeardChannels;
use crate::domain::TenantId;
pub use client::Client;
use clock_steps::ClockSteps;
pub use error::BrokerError;
pub use events::Event;
use former_programs::FormerPrograms;
pub use hearing::ChannelFilter;
pub use keys::{Keys, Partition};
pub use subscriber::Subscriber;
pub use version::RedisVersion;
use waits::Waits;
pub use write_check::WriteCheck;

/// Redis, as the rest of the program sees it: cheap to clone, one set of multiplexed connections.
/// The operations are in [`scripts`], one file for each Lua script.
#[derive(Clone)]
pub struct Broker {
    pub(crate) client: Client,
    keys: Keys,
    clock_steps: Arc<ClockSteps>,
    former_programs: FormerPrograms,
    waits: Waits,
    heard: HeardChannels,
}

impl Broker {
    /// Connects, and checks what the design relies on, on every master: Redis 7 or newer, `maxmemory-policy noeviction`
    /// (eviction would reset limits and minimum permission versions; another policy is an error that says so).
    pub async fn connect(settings: &crate::config::Redis) -> Result<Self, BrokerError> {
        let client = Client::connect(settings).await?;
        Ok(Self {
            client,
            keys: Keys::new(settings.partitions),
            clock_steps: Arc::default(),
            former_programs: FormerPrograms::default(),
            waits: Waits::of(settings),
            heard: settings.heard_channels,
        })
    }

    /// The names of keys.
    pub fn keys(&self) -> Keys {
        self.keys
    }

    /// Whether the connection is believed to be up right now, without asking; in a cluster, to any master.
    pub fn is_up(&self) -> bool {
        self.client.is_up()
    }

    /// This moment by the clock of the Redis that has a tenant's keys, as far as known, Unix ms.
    pub fn tenant_now_ms(&self, tenant: &TenantId) -> i64 {
        self.client.now_us(&self.keys.backlog(tenant)) / 1_000
    }

    /// A command's longest wait, `ttl`, by the clock of the Redis that has this partition: longer by what that clock was
    /// set forwards within the time. See `clock_steps`.
    pub fn ttl_adjusted_for_clock_steps(&self, partition: Partition, ttl: Duration) -> Duration {
        ttl + self.clock_steps.total_within(partition, ttl)
    }

    /// The Redis that has this partition said what time it is (Unix ms), to a call that began at `asked`.
    fn observe_clock(&self, partition: Partition, asked: Instant, redis_ms: i64) {
        self.clock_steps.observe(partition, asked, redis_ms);
    }

    /// This moment by Redis's clock as far as known, Unix ms: the one clock of all programs, for times that one writes
    /// and another compares. In a cluster always the same node's, as long as it is there.
    pub fn now_ms(&self) -> i64 {
        self.client.now_us(&self.clock_key()) / 1_000
    }

    /// Asks Redis what time it is, so that [`Self::now_ms`] follows it also where its clock is set.
    pub async fn learn_now(&self) -> Result<(), BrokerError> {
        self.client.ask_clock(&self.clock_key()).await
    }

    fn clock_key(&self) -> String {
        self.keys.partitions().next().map(|first| self.keys.workers(first)).unwrap_or_default()
    }

    /// The name of the server that has each partition: empty where there is but one, `None` where none is known.
    pub(crate) fn servers_of_partitions(&self) -> Vec<(Partition, Option<String>)> {
        let keys = self.keys;
        keys.partitions().map(|partition| (partition, self.client.server_of(&keys.workers(partition)))).collect()
    }

    /// Whether a tenant's keys came to another server within the time, as by a failover: what that one has not, the one before may have had.
    pub fn has_changed_server(&self, tenant: &TenantId, within: Duration) -> bool {
        self.client.has_changed_server(&self.keys.backlog(tenant), within)
    }

    /// Whether `redis.url` names a cluster.
    pub fn is_cluster(&self) -> bool {
        self.client.is_cluster()
    }

    /// Whether one write proves all there is to prove: there is one server, and neither a replica nor a disk is waited for.
    fn is_one_server_alone(&self) -> bool {
        !self.is_cluster() && self.waits.is_none()
    }

    /// Any command, its answer as lines a person can read. It may write, and is not checked: `wheelhouse inspect` reads with it,
    /// and `wheelhouse bench` also empties its own Redis. In a cluster it goes to where its first argument is, which must
    /// be a key then.
    pub async fn query_any(&self, arguments: &[String]) -> Result<Vec<String>, BrokerError> {
        let mut command = redis::Cmd::new();
        for argument in arguments {
            command.arg(argument);
        }
        Ok(to_lines(&self.client.query(&command).await?))
    }

    /// Says in the log where an accepted command may be lost: on a server without an append-only file. For those who
    /// accept and carry out commands, at their start.
    pub fn warn_of_loss(&self) {
        for address in self.client.without_append_only_file() {
            tracing::warn!(
                %address,
                "redis.not_durable: this Redis has no append-only file, so accepted commands, their results, schedules and audit entries on their way to SQL are lost when it restarts. Set `appendonly yes` in redis.conf, or run CONFIG SET appendonly yes"
            );
        }
    }

    /// PING, within the time. In a cluster: whether more than half of the masters say that the cluster is up.
    pub async fn ping(&self, within: Duration) -> Result<(), BrokerError> {
        self.client.ping(within).await
    }
}

fn to_lines(value: &redis::Value) -> Vec<String> {
    use redis::Value;
    match value {
        Value::Nil => Vec::new(),
        Value::Array(items) | Value::Set(items) => items.iter().map(|item| to_lines(item).join("  ")).collect(),
        Value::Map(pairs) => {
            pairs.iter().map(|(k, v)| format!("{}  {}", to_lines(k).join(" "), to_lines(v).join(" "))).collect()
        }
        Value::Int(0) => Vec::new(),
        Value::Int(number) => vec![number.to_string()],
        Value::Double(number) => vec![number.to_string()],
        Value::BulkString(bytes) => vec![String::from_utf8_lossy(bytes).into_owned()],
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => vec![text.clone()],
        other => vec![format!("{other:?}")],
    }
}
