//! The multiplexed connection to Redis, and taking a new one when it dies.
//!
//! deadpool is the factory only: one connection is taken from it and cloned for every use, because
//! checking one out for each command costs a PING and stops pipelining. A dead connection is known at
//! once (the client library pushes `Disconnection`), so that from then on commands are refused without
//! being sent, until a new connection stands.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Cmd, FromRedisValue, IntoConnectionInfo, Pipeline, PushInfo, PushKind, RedisError};
use secrecy::ExposeSecret;
use tokio::sync::{mpsc, watch};

use super::error::BrokerError;
use super::scripts::lua::LuaScript;

/// Longest wait for one answer.
const RESPONSE: Duration = Duration::from_millis(1_000);
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_millis(1_500);

/// A handle on the connection; cheap to clone. The connection is given up when the last one is dropped.
#[derive(Clone)]
pub struct Link {
    current: watch::Receiver<Option<Live>>,
    shared: Arc<Shared>,
}

#[derive(Clone)]
struct Live {
    connection: MultiplexedConnection,
    generation: u64,
}

struct Shared {
    /// Redis's clock minus this machine's, µs.
    clock_offset: AtomicI64,
    generation: AtomicU64,
    /// Generations found dead by their users; a full queue already holds one, which is enough.
    dead: mpsc::Sender<u64>,
}

impl Link {
    /// First connection. Later ones are made by a task that lives as long as a handle does.
    pub async fn connect(settings: &crate::config::Redis) -> Result<Self, BrokerError> {
        let info = connection_info(settings)?;
        let (dead, hear_dead) = mpsc::channel(16);
        let shared = Arc::new(Shared { clock_offset: AtomicI64::new(0), generation: AtomicU64::new(0), dead });
        let first = open(&info, &shared).await.map_err(|e| BrokerError::Unavailable(describe(&info, &e)))?;
        let (set, current) = watch::channel(Some(first));
        let link = Self { current, shared };
        check_server(&link).await?;
        // Not in a TaskTracker: it ends by itself when the last handle is gone.
        tokio::spawn(keep(info, Arc::downgrade(&link.shared), set, hear_dead));
        Ok(link)
    }

    /// Whether the connection is believed to be up.
    pub fn is_up(&self) -> bool {
        self.current.borrow().is_some()
    }

    /// Waits until a connection stands, at most so long.
    pub(crate) async fn wait_up(&self, within: Duration) -> bool {
        let mut current = self.current.clone();
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
        local_now_us() + self.shared.clock_offset.load(Ordering::Relaxed)
    }

    /// Redis said what time it is.
    pub(crate) fn learn_clock(&self, redis_us: i64) {
        self.shared.clock_offset.store(redis_us - local_now_us(), Ordering::Relaxed);
    }

    fn live(&self) -> Result<Live, BrokerError> {
        self.current.borrow().clone().ok_or_else(|| BrokerError::Unavailable("no connection".to_owned()))
    }

    /// What an error means for the caller and for the connection.
    fn failed(&self, generation: u64, error: &RedisError) -> BrokerError {
        let read_only = error.code() == Some("READONLY");
        if error.is_unrecoverable_error() || error.is_io_error() && !error.is_timeout() || read_only {
            let _ = self.shared.dead.try_send(generation);
        }
        if read_only || matches!(error.code(), Some("LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "MISCONF" | "OOM")) {
            return BrokerError::Unavailable(error.to_string());
        }
        if error.is_connection_refusal() {
            return BrokerError::Unavailable(error.to_string());
        }
        if error.is_io_error() || error.is_timeout() || error.is_connection_dropped() {
            return BrokerError::Unknown(error.to_string());
        }
        BrokerError::Refused(error.to_string())
    }
}

fn local_now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX))
}

/// The address in the settings, in the client library's terms.
pub(super) fn connection_info(settings: &crate::config::Redis) -> Result<redis::ConnectionInfo, BrokerError> {
    let url = settings.url.expose_secret();
    for later in ["redis+sentinel://", "redis+cluster://"] {
        if url.starts_with(later) {
            return Err(BrokerError::Refused(format!(
                "{later} addresses are not supported yet: use redis:// or rediss://"
            )));
        }
    }
    let info = url.into_connection_info().map_err(|e| BrokerError::Refused(format!("redis.url: {e}")))?;
    Ok(info.set_tcp_settings(TcpSettings::default().set_nodelay(true)))
}

/// An error with the address it is about, never with the password.
fn describe(info: &redis::ConnectionInfo, error: &RedisError) -> String {
    format!("{}: {error}", info.addr())
}

async fn open(info: &redis::ConnectionInfo, shared: &Arc<Shared>) -> Result<Live, RedisError> {
    let generation = shared.generation.fetch_add(1, Ordering::Relaxed) + 1;
    let dead = shared.dead.clone();
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT))
        .set_response_timeout(Some(RESPONSE))
        .set_push_sender(move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                let _ = dead.try_send(generation);
            }
            Ok::<(), redis::aio::SendError>(())
        });
    let resp3 = info.redis_settings().clone().set_protocol(redis::ProtocolVersion::RESP3);
    let manager = deadpool_redis::Manager::new_with_config(info.clone().set_redis_settings(resp3), config)?;
    let pool = deadpool_redis::Pool::builder(manager).max_size(1).build().map_err(|e| client_error(&e))?;
    let taken = pool.get().await.map_err(|error| match error {
        deadpool_redis::PoolError::Backend(error) => error,
        other => client_error(&other),
    })?;
    let mut connection = deadpool_redis::Connection::take(taken);
    let (seconds, micros): (i64, i64) = redis::cmd("TIME").query_async(&mut connection).await?;
    shared.clock_offset.store(seconds * 1_000_000 + micros - local_now_us(), Ordering::Relaxed);
    Ok(Live { connection, generation })
}

fn client_error(error: &dyn std::fmt::Display) -> RedisError {
    RedisError::from((redis::ErrorKind::Client, "no connection", error.to_string()))
}

/// Replaces dead connections, until nobody holds the link any more.
async fn keep(
    info: redis::ConnectionInfo,
    shared: std::sync::Weak<Shared>,
    set: watch::Sender<Option<Live>>,
    mut hear_dead: mpsc::Receiver<u64>,
) {
    loop {
        let died = tokio::select! {
            () = set.closed() => return,
            died = hear_dead.recv() => died,
        };
        let Some(died) = died else { return };
        if set.borrow().as_ref().is_none_or(|live| live.generation != died) {
            continue; // An older one; it has been replaced.
        }
        set.send_replace(None);
        tracing::warn!(address = %info.addr(), "redis.disconnected");
        let mut wait = Duration::from_millis(20);
        loop {
            let Some(shared) = shared.upgrade() else { return };
            match open(&info, &shared).await {
                Ok(live) => {
                    tracing::info!(address = %info.addr(), "redis.connected");
                    set.send_replace(Some(live));
                    break;
                }
                Err(error) => tracing::debug!(%error, "redis.reconnect_failed"),
            }
            drop(shared);
            tokio::time::sleep(wait.mul_f64(0.5 + fastrand::f64())).await;
            wait = (wait * 2).min(Duration::from_millis(400));
            if set.is_closed() {
                return;
            }
        }
    }
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
