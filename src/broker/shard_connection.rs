//! Connections on which sharded channels are heard: one to each server of a cluster of which a partition is heard, shared by its
//! partitions, and looked at all the time.
//!
//! A connection is never mended, only replaced: whoever uses it sees that it is gone, and asks for another.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{AsyncConnectionConfig, ConnectionInfo, PushInfo, PushKind, RedisError, RedisResult, Value};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::events::{NODE_TIMEOUT, PING_TIMEOUT};

/// What a message is given to: the sharded channel, and the payload.
pub(super) type OnMessage = Arc<dyn Fn(&[u8], &[u8]) + Send + Sync>;

/// A server that could not be connected to is not tried again for so long: many partitions ask for the same one.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// Between two looks whether a server answers: each program has a connection to each.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// Longest wait for an answer to SSUBSCRIBE.
const ANSWER: Duration = Duration::from_secs(1);

/// The connections that are in use, by the names of their servers.
pub(super) struct ShardConnections {
    servers: Mutex<HashMap<String, Arc<Slot>>>,
    on_message: OnMessage,
    tracker: TaskTracker,
}

/// Locked while its connection is made: those that ask for the same server wait for the one that makes it.
type Slot = tokio::sync::Mutex<ServerSlot>;

#[derive(Default)]
struct ServerSlot {
    connection: Weak<ShardConnection>,
    failed: Option<(Instant, RedisError)>,
}

impl ShardConnections {
    pub(super) fn new(on_message: OnMessage, tracker: TaskTracker) -> Self {
        Self { servers: Mutex::default(), on_message, tracker }
    }

    /// The connection to a server, a new one where there is none that is well.
    pub(super) async fn to(&self, server: &str, info: ConnectionInfo) -> RedisResult<Arc<ShardConnection>> {
        let slot = Arc::clone(self.servers.lock().entry(server.to_owned()).or_default());
        let mut slot = slot.lock().await;
        if let Some(connection) = slot.connection.upgrade().filter(|connection| !connection.is_gone()) {
            return Ok(connection);
        }
        if let Some((at, error)) = &slot.failed
            && at.elapsed() < RETRY_DELAY
        {
            return Err(error.clone());
        }
        let late = |_| Err((redis::ErrorKind::Io, "no answer in time").into());
        let opening = ShardConnection::open(server, info, self.on_message.clone());
        match tokio::time::timeout(NODE_TIMEOUT, opening).await.unwrap_or_else(late) {
            Ok(connection) => {
                let connection = Arc::new(connection);
                self.tracker.spawn(watch(Arc::downgrade(&connection), connection.gone.clone()));
                *slot = ServerSlot { connection: Arc::downgrade(&connection), failed: None };
                Ok(connection)
            }
            Err(error) => {
                if slot.failed.as_ref().is_none_or(|(_, known)| known.to_string() != error.to_string()) {
                    tracing::warn!(server, %error, "redis.shard_not_heard");
                }
                slot.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }
}

/// One of them.
pub(super) struct ShardConnection {
    /// The server's name in the cluster.
    pub(super) server: String,
    connection: MultiplexedConnection,
    /// Cancelled when it is of no use any more.
    gone: CancellationToken,
    /// Channels that are being given up: what the server takes away by itself is not among them.
    leaving: Arc<Mutex<HashSet<Vec<u8>>>>,
}

impl ShardConnection {
    async fn open(server: &str, info: ConnectionInfo, on_message: OnMessage) -> RedisResult<Self> {
        let (gone, leaving) = (CancellationToken::new(), Arc::<Mutex<HashSet<Vec<u8>>>>::default());
        let (lost, left) = (gone.clone(), leaving.clone());
        let hear = move |push: PushInfo| {
            match (push.kind, push.data.as_slice()) {
                (PushKind::SMessage, [Value::BulkString(channel), Value::BulkString(payload)]) => {
                    on_message(channel, payload);
                }
                // A slot has gone to another server. The library would take this word for the answer to something else.
                (PushKind::SUnsubscribe, [Value::BulkString(channel), ..]) if !left.lock().remove(channel) => {
                    lost.cancel();
                }
                (PushKind::Disconnection, _) => lost.cancel(),
                _ => {}
            }
            Ok::<(), redis::aio::SendError>(())
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(NODE_TIMEOUT))
            .set_response_timeout(Some(ANSWER))
            .set_push_sender(hear);
        let resp3 = info.redis_settings().clone().set_protocol(redis::ProtocolVersion::RESP3);
        let client = redis::Client::open(info.set_redis_settings(resp3))?;
        let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        Ok(Self { server: server.to_owned(), connection, gone, leaving })
    }

    /// Whether it is of no use any more.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.is_cancelled()
    }

    /// Waits until it is.
    pub(super) async fn gone(&self) {
        self.gone.cancelled().await;
    }

    /// Subscribes to each of these channels; gives Redis's word for those that it refused.
    pub(super) async fn subscribe(&self, channels: &[String]) -> RedisResult<Vec<(String, RedisError)>> {
        self.forget_leaving(channels);
        let mut refused = Vec::new();
        for some in channels.chunks(500) {
            let answers = self.ask_for_each("SSUBSCRIBE", some).await?;
            let errors = some
                .iter()
                .zip(answers)
                .filter_map(|(channel, answer)| answer.extract_error().err().map(|error| (channel.clone(), error)));
            refused.extend(errors);
        }
        Ok(refused)
    }

    /// Gives channels up.
    pub(super) async fn unsubscribe(&self, channels: &[String]) -> RedisResult<()> {
        self.leaving.lock().extend(channels.iter().map(|channel| channel.clone().into_bytes()));
        for some in channels.chunks(500) {
            self.ask_for_each("SUNSUBSCRIBE", some).await?;
        }
        // Also where Redis does not permit it: a later word about one of them is Redis's own.
        self.forget_leaving(channels);
        Ok(())
    }

    fn forget_leaving(&self, channels: &[String]) {
        let mut leaving = self.leaving.lock();
        for channel in channels {
            leaving.remove(channel.as_bytes());
        }
    }

    /// One command for each channel: each is confirmed by a message of its own, which the library takes for its answer.
    async fn ask_for_each(&self, command: &str, channels: &[String]) -> RedisResult<Vec<Value>> {
        let mut pipeline = redis::pipe();
        for channel in channels {
            pipeline.cmd(command).arg(channel);
        }
        let answers = self.connection.clone().req_packed_commands(&pipeline, 0, channels.len()).await;
        let answers = answers.inspect_err(|_| self.gone.cancel())?;
        if self.is_gone() {
            // The answers may belong to other questions by now.
            return Err((redis::ErrorKind::Io, "the connection is lost").into());
        }
        Ok(answers)
    }

    /// Whether the slot of this key, which nobody writes, is on its way to another server: what is published there is not heard here.
    pub(super) async fn is_on_its_way(&self, key: &str) -> RedisResult<bool> {
        match redis::cmd("EXISTS").arg(key).query_async::<i64>(&mut self.connection.clone()).await {
            Ok(_) => Ok(false),
            Err(error) if error.kind() == redis::ErrorKind::Server(redis::ServerErrorKind::Ask) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

impl Drop for ShardConnection {
    fn drop(&mut self) {
        self.gone.cancel();
    }
}

/// Looks whether the server answers, as long as the connection is used.
async fn watch(watched: Weak<ShardConnection>, gone: CancellationToken) {
    while gone.run_until_cancelled(tokio::time::sleep(PING_INTERVAL)).await.is_some() {
        let Some(shard) = watched.upgrade() else { return };
        let mut connection = shard.connection.clone();
        let ping = redis::cmd("PING");
        let answer = tokio::time::timeout(PING_TIMEOUT, ping.query_async::<Value>(&mut connection)).await;
        if !matches!(answer, Ok(Ok(_))) {
            gone.cancel();
        }
    }
}
