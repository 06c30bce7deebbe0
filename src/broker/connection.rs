//! The multiplexed connection to one server, and taking a new one when it dies.
//!
//! deadpool is the factory only: one connection is taken from it and cloned for every use, because
//! checking one out for each command costs a PING and stops pipelining. A dead connection is known at
//! once (the client library pushes `Disconnection`, or a command fails on it, or is not answered), so that
//! from then on commands are refused without being sent, until a new connection stands.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Cmd, ConnectionAddr, Pipeline, PushInfo, PushKind, RedisError, RedisResult, Value};
use tokio::sync::watch;

use super::discovery::Discovery;
use super::error::{BrokerError, words_of};
use super::mastership::{until_not_master, why_not_master};
use super::replication::{ReplicationGate, run_id_of};
use super::transport_mismatch;
use super::version::RedisVersion;
use super::waits::Waits;
use crate::domain::fnv1a;

/// Longest wait for one answer. One that takes longer means a hung server or a line that swallows everything:
/// the connection is given up.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(1_000);
/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Wait before the second try to connect; it doubles up to [`MAX_RECONNECT_DELAY`].
const MIN_RECONNECT_DELAY: Duration = Duration::from_millis(20);
const MAX_RECONNECT_DELAY: Duration = Duration::from_millis(400);
/// A connection that lasted less goes on with the waits of the one before.
const STABLE_AFTER: Duration = Duration::from_secs(2);

/// A handle on the connection; cheap to clone. The connection is given up when the last one is dropped.
#[derive(Clone)]
pub(super) struct Connection {
    shared: Arc<ConnectionShared>,
}

#[derive(Clone)]
struct LiveConnection {
    connection: MultiplexedConnection,
    generation: u64,
    /// To where.
    server: ConnectionAddr,
    /// Where answers wait for replicas, if they are to.
    gate: Option<ReplicationGate>,
}

struct ConnectionShared {
    /// The connection, `None` from the moment it is known dead.
    current: watch::Sender<Option<LiveConnection>>,
    /// Number of the newest connection tried.
    generation: AtomicU64,
    /// Number of the newest connection known dead: it may die before it is in `current`.
    dead: AtomicU64,
    /// Number of the newest connection known to lead to a deposed master: what it still answers counts for nothing.
    deposed: AtomicU64,
    /// The clock below counts from here: a monotonic one, which nobody sets.
    origin: Instant,
    /// The server's clock minus the time since `origin`, µs.
    clock_offset: AtomicI64,
    /// Why there is no connection, as it was last found.
    trouble: Mutex<Option<String>>,
    /// Of the `run_id` of the server that was last connected.
    server: AtomicU64,
    /// Since when it has been that one.
    server_since: Mutex<Option<Instant>>,
    waits: Waits,
    /// The server has no append-only file.
    forgets: AtomicBool,
    /// Where it is, for people.
    address: String,
}

impl ConnectionShared {
    fn new(address: &Discovery, waits: Waits) -> Arc<Self> {
        Arc::new(Self {
            current: watch::Sender::new(None),
            generation: AtomicU64::new(0),
            dead: AtomicU64::new(0),
            deposed: AtomicU64::new(0),
            origin: Instant::now(),
            clock_offset: AtomicI64::new(this_machine_us()),
            trouble: Mutex::default(),
            server: AtomicU64::new(0),
            server_since: Mutex::default(),
            waits,
            forgets: AtomicBool::new(false),
            address: address.to_string(),
        })
    }

    fn mark_dead(&self, generation: u64) {
        self.dead.fetch_max(generation, Ordering::SeqCst);
        self.current.send_if_modified(|current| {
            let it = current.as_ref().is_some_and(|live| live.generation <= generation);
            if it {
                *current = None;
            }
            it
        });
    }

    /// Its server is not the master any more, or may not be.
    fn depose(&self, generation: u64, why: String) {
        tracing::warn!(address = self.address, why, "redis.master_left");
        self.is_new_trouble(Some(why));
        self.deposed.fetch_max(generation, Ordering::SeqCst);
        self.mark_dead(generation);
    }

    fn mark_up(&self, live: LiveConnection) {
        let generation = live.generation;
        self.current.send_replace(Some(live));
        if self.dead.load(Ordering::SeqCst) >= generation {
            self.mark_dead(generation);
        }
    }

    /// Notes why there is no connection; whether that is new.
    fn is_new_trouble(&self, trouble: Option<String>) -> bool {
        let mut known = self.trouble.lock();
        let new = *known != trouble;
        *known = trouble;
        new
    }

    fn note_server(&self, server: u64) {
        let mut since = self.server_since.lock();
        if self.server.swap(server, Ordering::Relaxed) != server || since.is_none() {
            *since = Some(Instant::now());
        }
    }

    fn elapsed_us(&self) -> i64 {
        i64::try_from(self.origin.elapsed().as_micros()).unwrap_or(i64::MAX)
    }

    fn learn_clock(&self, redis_us: i64) {
        self.clock_offset.store(redis_us - self.elapsed_us(), Ordering::Relaxed);
    }
}

impl Connection {
    /// Connects, and checks that the server is one that the design can rely on. Later connections are made by a
    /// task that lives as long as a handle does.
    pub(super) async fn connect(address: Discovery, waits: Waits) -> Result<Self, BrokerError> {
        let shared = ConnectionShared::new(&address, waits);
        let mut live = match open(&address, &shared).await {
            Ok(live) => live,
            Err(error) => return Err(explained(&address, &error).await),
        };
        check_server(&mut live, &shared)
            .await
            .map_err(|error| BrokerError::of_connecting(&address, &error))?
            .map_or(Ok(()), |problem| Err(BrokerError::Refused(format!("{address}: {problem}"))))?;
        shared.mark_up(live);
        Ok(Self::with_reconnect(address, shared))
    }

    /// Connects by itself, as soon as the server can be reached.
    pub(super) fn start(address: Discovery, waits: Waits) -> Self {
        let shared = ConnectionShared::new(&address, waits);
        Self::with_reconnect(address, shared)
    }

    fn with_reconnect(address: Discovery, shared: Arc<ConnectionShared>) -> Self {
        let node = Self { shared };
        // Not in a TaskTracker: it ends by itself when the last handle is gone.
        tokio::spawn(run_reconnect(address, Arc::downgrade(&node.shared), node.shared.current.subscribe()));
        node
    }

    /// Whether the connection is believed to be up.
    pub(super) fn is_up(&self) -> bool {
        self.shared.current.borrow().is_some()
    }

    /// Waits until a connection stands, at most so long.
    pub(super) async fn wait_up(&self, within: Duration) -> bool {
        let mut current = self.shared.current.subscribe();
        tokio::time::timeout(within, current.wait_for(Option::is_some)).await.is_ok_and(|r| r.is_ok())
    }

    /// As [`Self::send`], and holds the answer until what it speaks of is where the settings want it, on replicas and on disks.
    /// Where it is not in time, the answer counts as lost. `key`: one that lies on this server.
    pub(super) async fn send_replicated(&self, command: &Cmd, asking: bool, key: &str) -> RedisResult<Value> {
        if self.shared.waits.is_none() {
            return self.send(command, asking).await;
        }
        let live = self.live()?;
        let answer = self.send_on(live.clone(), command, asking).await?;
        let passed = match &live.gate {
            Some(gate) => gate.is_passed(key).await,
            None => false,
        };
        // The connection is well, and its server may have been deposed while it was waited for.
        if passed && self.shared.dead.load(Ordering::SeqCst) < live.generation {
            return Ok(answer);
        }
        Err(std::io::Error::new(std::io::ErrorKind::TimedOut, self.shared.waits.in_vain()).into())
    }

    /// Sends one command. `asking`: for a slot that is on its way to this node of a cluster.
    pub(super) async fn send(&self, command: &Cmd, asking: bool) -> RedisResult<Value> {
        self.send_on(self.live()?, command, asking).await
    }

    async fn send_on(&self, mut live: LiveConnection, command: &Cmd, asking: bool) -> RedisResult<Value> {
        let answer = if asking {
            let mut pipeline = redis::pipe();
            pipeline.cmd("ASKING").add_command(command.clone());
            let answers = live.connection.req_packed_commands(&pipeline, 1, 1).await;
            answers.and_then(|answers| answers.into_iter().next().unwrap_or(Value::Nil).extract_error())
        } else {
            command.query_async(&mut live.connection).await
        };
        self.judged(live.generation, answer)
    }

    /// Sends several commands in one go, and waits for all answers.
    pub(super) async fn send_all(&self, pipeline: &Pipeline) -> RedisResult<()> {
        let mut live = self.live()?;
        let answer = pipeline.exec_async(&mut live.connection).await;
        self.judged(live.generation, answer)
    }

    /// What an answer is worth, now that it is here: what a deposed master did is lost, or will be.
    fn judged<T>(&self, generation: u64, answer: RedisResult<T>) -> RedisResult<T> {
        match answer {
            Ok(_) if self.shared.deposed.load(Ordering::Relaxed) >= generation => Err(std::io::Error::new(
                std::io::ErrorKind::ConnectionReset,
                "the server that answered is not the master any more",
            )
            .into()),
            answer => answer.inspect_err(|error| self.note(generation, error)),
        }
    }

    /// This moment by the server's clock as far as known, Unix µs.
    pub(super) fn now_us(&self) -> i64 {
        self.shared.elapsed_us() + self.shared.clock_offset.load(Ordering::Relaxed)
    }

    /// The server said what time it is.
    pub(super) fn learn_clock(&self, redis_us: i64) {
        self.shared.learn_clock(redis_us);
    }

    fn live(&self) -> RedisResult<LiveConnection> {
        self.shared.current.borrow().clone().ok_or_else(|| {
            let trouble = self.shared.trouble.lock();
            trouble.as_deref().map_or_else(not_connected, not_connected_because)
        })
    }

    /// Which process was connected last: another number for each.
    pub(super) fn server(&self) -> u64 {
        self.shared.server.load(Ordering::Relaxed)
    }

    /// Since when that is the same process. `None`: none was connected yet.
    pub(super) fn server_since(&self) -> Option<Instant> {
        *self.shared.server_since.lock()
    }

    /// Where it is, if it is up and has no append-only file.
    pub(super) fn without_append_only_file(&self) -> Option<String> {
        (self.is_up() && self.shared.forgets.load(Ordering::Relaxed)).then(|| self.shared.address.clone())
    }

    /// Whether an error is the end of its connection.
    fn note(&self, generation: u64, error: &RedisError) {
        // READONLY: the server has become a replica, and the master is another. Until a connection stands again, that is
        // why there is none: it was reached, and said so.
        let is_replica = error.code() == Some("READONLY");
        if is_replica {
            self.shared.is_new_trouble(Some(format!("{}: {}", self.shared.address, words_of(error))));
        }
        if is_replica || error.is_unrecoverable_error() || error.is_io_error() {
            self.shared.mark_dead(generation);
        }
    }
}

/// Unix µs by this machine's clock: a guess, until the server has said what time it is.
pub(super) fn this_machine_us() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_micros()).unwrap_or(i64::MAX)
}

/// Nothing was sent. Of the kind that a refused connection is, which means the same.
pub(super) fn not_connected() -> RedisError {
    not_connected_because("no connection")
}

fn not_connected_because(trouble: &str) -> RedisError {
    std::io::Error::new(std::io::ErrorKind::ConnectionRefused, trouble).into()
}

async fn open(address: &Discovery, shared: &Arc<ConnectionShared>) -> Result<LiveConnection, RedisError> {
    let info = address.resolve().await?;
    let server = info.addr().clone();
    let generation = shared.generation.fetch_add(1, Ordering::Relaxed) + 1;
    let watched = Arc::downgrade(shared);
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT))
        .set_push_sender(move |push: PushInfo| {
            if push.kind == PushKind::Disconnection
                && let Some(shared) = watched.upgrade()
            {
                shared.mark_dead(generation);
            }
            Ok::<(), redis::aio::SendError>(())
        });
    let resp3 = info.redis_settings().clone().set_protocol(redis::ProtocolVersion::RESP3);
    let info = info.set_redis_settings(resp3);
    let manager = deadpool_redis::Manager::new_with_config(info.clone(), config)?;
    let pool = deadpool_redis::Pool::builder(manager).max_size(1).build().map_err(|e| client_error(&e))?;
    let taken = pool.get().await.map_err(|error| match error {
        deadpool_redis::PoolError::Backend(error) => error,
        other => client_error(&other),
    })?;
    let mut connection = deadpool_redis::Connection::take(taken);
    let (seconds, micros): (i64, i64) = redis::cmd("TIME").query_async(&mut connection).await?;
    if let Some(opinion) = address.opinion()
        && let Some(why) = why_not_master(&mut connection, &opinion).await?
    {
        return Err(std::io::Error::new(std::io::ErrorKind::ConnectionRefused, format!("{server}: {why}")).into());
    }
    let gate = match shared.waits {
        waits if waits.is_none() => None,
        waits => {
            let (run_id, watched) = (run_id_of(&mut connection).await?, Arc::downgrade(shared));
            let lost = move || {
                if let Some(shared) = watched.upgrade() {
                    shared.mark_dead(generation);
                }
            };
            Some(ReplicationGate::open(info, &run_id, waits, lost).await?)
        }
    };
    shared.learn_clock(seconds * 1_000_000 + micros);
    Ok(LiveConnection { connection, generation, server, gate })
}

fn client_error(error: &dyn std::fmt::Display) -> RedisError {
    RedisError::from((redis::ErrorKind::Client, "no connection", error.to_string()))
}

/// A first connection that failed, with what to do about it.
pub(super) async fn explained(address: &Discovery, error: &RedisError) -> BrokerError {
    let hint = match (hint(error), BrokerError::of_connecting(address, error)) {
        ("", BrokerError::Unavailable(_)) => transport_mismatch::explain(address).await.unwrap_or_default(),
        ("", error) => return error,
        (hint, _) => hint.to_owned(),
    };
    match hint.as_str() {
        "" => BrokerError::of_connecting(address, error),
        hint => BrokerError::Unavailable(format!("{address}: {error}{hint}")),
    }
}

/// What to do about a first connection that failed, where the library's words do not say it.
fn hint(error: &RedisError) -> &'static str {
    let text = error.to_string();
    if text.contains("UnknownIssuer") || text.contains("BadSignature") {
        ". The server's certificate is not signed by an authority that is trusted here: name its CA's certificate in redis.ca_file"
    } else if text.contains("UnknownCA") || text.contains("BadCertificate") {
        ". The server does not take this program's certificate: redis.client_cert_file and redis.client_key_file have to name one that is signed by an authority that the server trusts"
    } else if text.contains("xpired") || text.contains("not valid yet") {
        ". The time of a certificate is over or has not begun, or the clock of one of the two is wrong: renew it. A program reads redis.ca_file, redis.client_cert_file and redis.client_key_file when it starts"
    } else if text.contains("not valid for name") {
        ". The server's certificate is not for the host in redis.url: use a name that stands in it"
    } else if text.contains("CertificateRequired") {
        ". The server asks for a certificate: name yours in redis.client_cert_file and redis.client_key_file"
    } else {
        ""
    }
}

/// Replaces dead connections, until nobody holds the node any more.
async fn run_reconnect(
    address: Discovery,
    shared: Weak<ConnectionShared>,
    mut current: watch::Receiver<Option<LiveConnection>>,
) {
    let (mut wait, mut since) = (MIN_RECONNECT_DELAY, Instant::now());
    loop {
        let live = current.borrow().clone();
        tokio::select! {
            gone = current.wait_for(Option::is_none) => if gone.is_err() { return },
            why = until_deposed(&address, live.as_ref()) => {
                if let (Some(shared), Some(live)) = (shared.upgrade(), live) {
                    shared.depose(live.generation, format!("{}: {why}", live.server));
                }
            }
        }
        tracing::warn!(%address, "redis.disconnected");
        if since.elapsed() > STABLE_AFTER {
            wait = MIN_RECONNECT_DELAY;
        } else {
            // A server that takes connections and drops them must not be asked as fast as it can refuse.
            tokio::time::sleep(jittered(wait)).await;
        }
        loop {
            let Some(shared) = shared.upgrade() else { return };
            match open(&address, &shared).await {
                Ok(mut live) => {
                    tracing::info!(%address, "redis.connected");
                    // Another server than at the start, perhaps. Better this one than none, but not in silence.
                    if let Ok(Some(problem)) = check_server(&mut live, &shared).await {
                        tracing::error!(%address, problem, "redis.unfit");
                    }
                    shared.is_new_trouble(None);
                    shared.mark_up(live);
                    since = Instant::now();
                    break;
                }
                Err(error) => {
                    let error = BrokerError::of_connecting(&address, &error);
                    let words = match &error {
                        BrokerError::Unavailable(words) | BrokerError::NotServing(words) => words.clone(),
                        other => other.to_string(),
                    };
                    // Once for each reason, and not for each of many tries.
                    if shared.is_new_trouble(Some(words)) {
                        tracing::warn!(%error, "redis.reconnect_failed");
                    } else {
                        tracing::debug!(%error, "redis.reconnect_failed");
                    }
                }
            }
            drop(shared);
            tokio::time::sleep(jittered(wait)).await;
            wait = (wait * 2).min(MAX_RECONNECT_DELAY);
        }
        wait = (wait * 2).min(MAX_RECONNECT_DELAY);
    }
}

/// Returns when the server is not the master any more, and why; never where there is no connection.
async fn until_deposed(address: &Discovery, live: Option<&LiveConnection>) -> &'static str {
    match live {
        Some(live) => until_not_master(address, &live.server, live.connection.clone()).await,
        None => std::future::pending().await,
    }
}

fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(0.5 + fastrand::f64())
}

/// What the design relies on: scripts with `#!lua`, and nothing evicted. Gives the problem. Notes whether the server
/// has an append-only file.
async fn check_server(live: &mut LiveConnection, shared: &ConnectionShared) -> RedisResult<Option<String>> {
    let mut asked = redis::pipe();
    asked.cmd("INFO").arg("server").cmd("INFO").arg("memory").cmd("INFO").arg("persistence");
    let (server, memory, persistence): (String, String, String) = asked.query_async(&mut live.connection).await?;
    let field = |text: &str, name: &str| text.lines().find_map(|l| l.strip_prefix(name)).map(|v| v.trim().to_owned());
    let forgets = field(&persistence, "aof_enabled:").as_deref() == Some("0");
    shared.forgets.store(forgets, Ordering::Relaxed);
    shared.note_server(fnv1a(&field(&server, "run_id:").unwrap_or_default()));
    let version = field(&server, "redis_version:").unwrap_or_else(|| "0".to_owned());
    if RedisVersion::parse(&version).is_none_or(|number| number < RedisVersion::OLDEST) {
        return Ok(Some(format!("Redis {version} is too old: 7.0 or newer is needed")));
    }
    if let Some(problem) = why_no_disk_can_be_waited_for(shared.waits, &version, forgets) {
        return Ok(Some(problem));
    }
    let policy = field(&memory, "maxmemory_policy:").unwrap_or_default();
    if policy != "noeviction" && !policy.is_empty() {
        return Ok(Some(format!(
            "maxmemory-policy is {policy}: eviction would forget limits and commands. Set it to noeviction (CONFIG SET maxmemory-policy noeviction)"
        )));
    }
    Ok(None)
}

/// What has to be changed before `redis.fsyncs_to_wait` can be kept. `forgets`: there is no append-only file.
fn why_no_disk_can_be_waited_for(waits: Waits, version: &str, forgets: bool) -> Option<String> {
    if waits.fsyncs == 0 {
        return None;
    }
    if RedisVersion::parse(version).is_none_or(|number| number < RedisVersion::WITH_WAITAOF) {
        return Some(format!(
            "redis.fsyncs_to_wait needs Redis 7.2 or newer, and this is {version}: install a newer one, or set it to 0 and let Redis wait for the disk by itself (appendfsync always)"
        ));
    }
    forgets.then(|| {
        "redis.fsyncs_to_wait waits for the append-only file, and this Redis has none: set appendonly yes (CONFIG SET appendonly yes), or redis.fsyncs_to_wait = 0".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_disks_from_being_waited_for_is_said_with_what_to_do() {
        let waits = Waits { replicas: 0, fsyncs: 1 };
        let old = why_no_disk_can_be_waited_for(waits, "7.0.15", false).expect("too old");
        assert!(old.contains("7.2 or newer") && old.contains("7.0.15") && old.contains("set it to 0"), "{old}");
        let off = why_no_disk_can_be_waited_for(waits, "8.2.3", true).expect("no file");
        assert!(off.contains("appendonly yes"), "{off}");
        assert_eq!(why_no_disk_can_be_waited_for(waits, "7.2.0", false), None);
        assert_eq!(why_no_disk_can_be_waited_for(Waits::default(), "7.0.15", true), None);
    }
}
