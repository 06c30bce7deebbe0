//! The multiplexed connection to Redis, and taking a new one when it dies.
//!
//! deadpool is the factory only: one connection is taken from it and cloned for every use, because
//! checking one out for each command costs a PING and stops pipelining. A dead connection is known at
//! once (the client library pushes `Disconnection`, or a command fails on it, or is not answered), so that
//! from then on commands are refused without being sent, until a new connection stands.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, FromRedisValue, Pipeline, PushInfo, PushKind, RedisError};
use tokio::sync::watch;

use super::address::Address;
use super::error::BrokerError;
use super::scripts::lua::LuaScript;

/// Longest wait for one answer. One that takes longer means a hung server or a line that swallows everything:
/// the connection is given up.
const RESPONSE: Duration = Duration::from_millis(1_000);
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_millis(1_500);
/// Wait before the second try to connect; it doubles up to [`LAST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(20);
const LAST_WAIT: Duration = Duration::from_millis(400);
/// A connection that lasted less goes on with the waits of the one before.
const LASTED: Duration = Duration::from_secs(2);

/// Server errors after which nothing was done, and which pass: the caller may come again.
const PASSING: [&str; 9] =
    ["READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MISCONF", "OOM", "NOREPLICAS", "BUSY"];

/// A handle on the connection; cheap to clone. The connection is given up when the last one is dropped.
#[derive(Clone)]
pub struct Link {
    shared: Arc<Shared>,
}

#[derive(Clone)]
struct Live {
    connection: MultiplexedConnection,
    generation: u64,
}

struct Shared {
    /// The connection, `None` from the moment it is known dead.
    current: watch::Sender<Option<Live>>,
    /// Number of the newest connection tried.
    generation: AtomicU64,
    /// Number of the newest connection known dead: it may die before it is in `current`.
    dead: AtomicU64,
    /// The clock below counts from here: a monotonic one, which nobody sets.
    origin: Instant,
    /// Redis's clock minus the time since `origin`, µs.
    clock_offset: AtomicI64,
}

impl Shared {
    fn died(&self, generation: u64) {
        self.dead.fetch_max(generation, Ordering::SeqCst);
        self.current.send_if_modified(|current| {
            let it = current.as_ref().is_some_and(|live| live.generation <= generation);
            if it {
                *current = None;
            }
            it
        });
    }

    fn stands(&self, live: Live) {
        let generation = live.generation;
        self.current.send_replace(Some(live));
        if self.dead.load(Ordering::SeqCst) >= generation {
            self.died(generation);
        }
    }

    fn elapsed_us(&self) -> i64 {
        i64::try_from(self.origin.elapsed().as_micros()).unwrap_or(i64::MAX)
    }

    fn learn_clock(&self, redis_us: i64) {
        self.clock_offset.store(redis_us - self.elapsed_us(), Ordering::Relaxed);
    }
}

impl Link {
    /// First connection. Later ones are made by a task that lives as long as a handle does.
    pub async fn connect(settings: &crate::config::Redis) -> Result<Self, BrokerError> {
        let address = Address::of(settings)?;
        let shared = Arc::new(Shared {
            current: watch::Sender::new(None),
            generation: AtomicU64::new(0),
            dead: AtomicU64::new(0),
            origin: Instant::now(),
            clock_offset: AtomicI64::new(0),
        });
        let first = open(&address, &shared).await;
        shared.stands(first.map_err(|error| BrokerError::Unavailable(format!("{address}: {error}")))?);
        let link = Self { shared };
        check_server(&link).await?;
        // Not in a TaskTracker: it ends by itself when the last handle is gone.
        tokio::spawn(keep(address, Arc::downgrade(&link.shared), link.shared.current.subscribe()));
        Ok(link)
    }

    /// Whether the connection is believed to be up.
    pub fn is_up(&self) -> bool {
        self.shared.current.borrow().is_some()
    }

    /// Waits until a connection stands, at most so long.
    pub(crate) async fn wait_up(&self, within: Duration) -> bool {
        let mut current = self.shared.current.subscribe();
        tokio::time::timeout(within, current.wait_for(Option::is_some)).await.is_ok_and(|r| r.is_ok())
    }

    /// PING, within the time.
    pub async fn ping(&self, within: Duration) -> Result<(), BrokerError> {
        let ping = redis::cmd("PING");
        match tokio::time::timeout(within, self.query::<String>(&ping)).await {
            Ok(answer) => answer.map(|_| ()),
            Err(_) => Err(BrokerError::Unknown("no answer to PING".to_owned())),
        }
    }

    /// Sends one command.
    pub(crate) async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, BrokerError> {
        let mut live = self.live()?;
        let answer = command.query_async(&mut live.connection).await;
        answer.map_err(|e| self.failed(live.generation, &e))
    }

    /// Sends several commands in one go.
    pub(crate) async fn pipeline<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T, BrokerError> {
        let mut live = self.live()?;
        let answer = pipeline.query_async(&mut live.connection).await;
        answer.map_err(|e| self.failed(live.generation, &e))
    }

    /// Runs a script, loading it where Redis does not have it (yet, or after a restart).
    pub(crate) async fn script<T: FromRedisValue>(
        &self,
        script: &LuaScript,
        keys: &[&str],
        args: &[&[u8]],
    ) -> Result<T, BrokerError> {
        let mut live = self.live()?;
        let answer = script.run(&mut live.connection, keys, args).await;
        answer.map_err(|e| self.failed(live.generation, &e))
    }

    /// This moment by Redis's clock as far as known, Unix µs.
    pub(crate) fn redis_now_us(&self) -> i64 {
        self.shared.elapsed_us() + self.shared.clock_offset.load(Ordering::Relaxed)
    }

    /// Redis said what time it is.
    pub(crate) fn learn_clock(&self, redis_us: i64) {
        self.shared.learn_clock(redis_us);
    }

    fn live(&self) -> Result<Live, BrokerError> {
        self.shared.current.borrow().clone().ok_or_else(|| BrokerError::Unavailable("no connection".to_owned()))
    }

    /// What an error means for the caller and for the connection.
    fn failed(&self, generation: u64, error: &RedisError) -> BrokerError {
        let code = error.code();
        // READONLY: the server has become a replica, and the master is another.
        if error.is_unrecoverable_error() || error.is_io_error() || code == Some("READONLY") {
            self.shared.died(generation);
        }
        if code.is_some_and(|code| PASSING.contains(&code)) || error.is_connection_refusal() {
            return BrokerError::Unavailable(error.to_string());
        }
        if error.is_io_error() || error.is_unrecoverable_error() {
            return BrokerError::Unknown(error.to_string());
        }
        BrokerError::Refused(error.to_string())
    }
}

async fn open(address: &Address, shared: &Arc<Shared>) -> Result<Live, RedisError> {
    let info = address.resolve().await?;
    let generation = shared.generation.fetch_add(1, Ordering::Relaxed) + 1;
    let watched = Arc::downgrade(shared);
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT))
        .set_response_timeout(Some(RESPONSE))
        .set_push_sender(move |push: PushInfo| {
            if push.kind == PushKind::Disconnection
                && let Some(shared) = watched.upgrade()
            {
                shared.died(generation);
            }
            Ok::<(), redis::aio::SendError>(())
        });
    let resp3 = info.redis_settings().clone().set_protocol(redis::ProtocolVersion::RESP3);
    let manager = deadpool_redis::Manager::new_with_config(info.set_redis_settings(resp3), config)?;
    let pool = deadpool_redis::Pool::builder(manager).max_size(1).build().map_err(|e| client_error(&e))?;
    let taken = pool.get().await.map_err(|error| match error {
        deadpool_redis::PoolError::Backend(error) => error,
        other => client_error(&other),
    })?;
    let mut connection = deadpool_redis::Connection::take(taken);
    let (seconds, micros): (i64, i64) = redis::cmd("TIME").query_async(&mut connection).await?;
    shared.learn_clock(seconds * 1_000_000 + micros);
    Ok(Live { connection, generation })
}

fn client_error(error: &dyn std::fmt::Display) -> RedisError {
    RedisError::from((redis::ErrorKind::Client, "no connection", error.to_string()))
}

/// Replaces dead connections, until nobody holds the link any more.
async fn keep(address: Address, shared: Weak<Shared>, mut current: watch::Receiver<Option<Live>>) {
    let (mut wait, mut since) = (FIRST_WAIT, Instant::now());
    loop {
        if current.wait_for(Option::is_none).await.is_err() {
            return;
        }
        tracing::warn!(%address, "redis.disconnected");
        if since.elapsed() > LASTED {
            wait = FIRST_WAIT;
        } else {
            // A server that takes connections and drops them must not be asked as fast as it can refuse.
            tokio::time::sleep(jittered(wait)).await;
        }
        loop {
            let Some(shared) = shared.upgrade() else { return };
            match open(&address, &shared).await {
                Ok(live) => {
                    tracing::info!(%address, "redis.connected");
                    shared.stands(live);
                    since = Instant::now();
                    break;
                }
                Err(error) => tracing::debug!(%error, "redis.reconnect_failed"),
            }
            drop(shared);
            tokio::time::sleep(jittered(wait)).await;
            wait = (wait * 2).min(LAST_WAIT);
        }
        wait = (wait * 2).min(LAST_WAIT);
    }
}

fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(0.5 + fastrand::f64())
}

/// What the design relies on: scripts with `#!lua`, and nothing evicted.
async fn check_server(link: &Link) -> Result<(), BrokerError> {
    let info: String = link.query(redis::cmd("INFO").arg("server")).await?;
    let version = info.lines().find_map(|l| l.strip_prefix("redis_version:")).unwrap_or("0").trim().to_owned();
    let major: u32 = version.split('.').next().and_then(|m| m.parse().ok()).unwrap_or(0);
    if major < 7 {
        return Err(BrokerError::Refused(format!("Redis {version} is too old: 7.0 or newer is needed")));
    }
    let memory: String = link.query(redis::cmd("INFO").arg("memory")).await?;
    let field = |name: &str| memory.lines().find_map(|l| l.strip_prefix(name)).map(|v| v.trim().to_owned());
    let policy = field("maxmemory_policy:").unwrap_or_default();
    if policy != "noeviction" && !policy.is_empty() {
        return Err(BrokerError::Refused(format!(
            "Redis has maxmemory-policy {policy}: eviction would forget limits and commands. Set it to noeviction (CONFIG SET maxmemory-policy noeviction)"
        )));
    }
    Ok(())
}
