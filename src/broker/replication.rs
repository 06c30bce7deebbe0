//! Answers that are held until what they speak of is where the settings want it ([`Waits`]), on replicas and on disks.
//!
//! A wait holds up every other command of the connection that it is sent on, so it has connections beside, the lanes. Answers that
//! come while all lanes wait are waited for together, by the next one.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionInfo, RedisResult};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use super::waits::Waits;

/// Answers that may be held; more of them wait for room, as commands do that are on their way to Redis.
const CAPACITY: usize = 8_192;
/// While a wait is under way, another begins after this: as many as there may be are a second and more.
const SPACING: Duration = Duration::from_millis(100);
/// For an answer to WAIT or WAITAOF: more than it waits.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(2_000);
/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_500);

/// An answer that is held: a key that lies on the same server, and who hears whether it may go.
struct Held {
    key: String,
    may_go: oneshot::Sender<bool>,
}

/// The way to the task that waits; cheap to clone. It ends when the last clone is gone.
#[derive(Clone)]
pub(super) struct ReplicationGate {
    held: mpsc::Sender<Held>,
}

impl ReplicationGate {
    /// Beside a connection to this server, whose `run_id` this is. `lost`: what to do when a connection breaks.
    pub(super) async fn open(
        info: ConnectionInfo,
        run_id: &str,
        waits: Waits,
        lost: impl FnOnce() + Send + 'static,
    ) -> RedisResult<Self> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT));
        let client = redis::Client::open(info)?;
        let mut lanes = Vec::with_capacity(waits.lanes());
        for _ in 0..waits.lanes() {
            let mut lane = client.get_multiplexed_async_connection_with_config(&config).await?;
            // What another server has on its disk says nothing.
            if run_id_of(&mut lane).await? != run_id {
                return Err((redis::ErrorKind::Io, "another server answers at this address by now").into());
            }
            lanes.push(lane);
        }
        waits.try_on(&mut lanes[0]).await?;
        let (held, waiting) = mpsc::channel(CAPACITY);
        // Not in a TaskTracker: it ends by itself when the last gate is gone.
        tokio::spawn(async move {
            let_go(lanes, waiting, waits).await;
            lost();
        });
        Ok(Self { held })
    }

    /// Whether all that has been answered on the connection until now is where it has to be. `key`: one that lies there.
    pub(super) async fn is_passed(&self, key: &str) -> bool {
        let (may_go, heard) = oneshot::channel();
        if self.held.send(Held { key: key.to_owned(), may_go }).await.is_err() {
            return false;
        }
        heard.await.unwrap_or(false)
    }
}

/// Until a lane breaks, or nobody holds the gate any more.
async fn let_go(lanes: Vec<MultiplexedConnection>, mut held: mpsc::Receiver<Held>, waits: Waits) {
    let count = lanes.len();
    // `None`: the lane is broken.
    let (free, mut free_lanes) = mpsc::channel::<Option<MultiplexedConnection>>(count);
    for lane in lanes {
        let _ = free.try_send(Some(lane)); // There is a place for each.
    }
    let (returned, mut begun) = (Arc::new(Notify::new()), Instant::now());
    let mut together = Vec::new();
    while held.recv_many(&mut together, CAPACITY).await > 0 {
        while free_lanes.len() < count && begun.elapsed() < SPACING {
            tokio::select! {
                () = tokio::time::sleep_until(begun + SPACING) => {}
                () = returned.notified() => {}
            }
        }
        let Some(Some(mut lane)) = free_lanes.recv().await else { return };
        // What came meanwhile goes along.
        while together.len() < CAPACITY
            && let Ok(one) = held.try_recv()
        {
            together.push(one);
        }
        begun = Instant::now();
        let (batch, free, returned) = (std::mem::take(&mut together), free.clone(), returned.clone());
        // Not in a TaskTracker: it ends by itself within the longest wait.
        tokio::spawn(async move {
            let answer = waits.are_met(&mut lane, &batch[0].key).await;
            let passed = matches!(answer, Ok(true));
            for held in batch {
                let _ = held.may_go.send(passed); // Whoever has given up need not know.
            }
            let mut lane = Some(lane);
            match answer {
                Ok(true) => {}
                Ok(false) => {
                    tracing::debug!(replicas = waits.replicas, fsyncs = waits.fsyncs, "redis.wait_in_vain");
                }
                Err(error) => {
                    tracing::warn!(%error, "redis.wait_failed");
                    if error.is_io_error() || error.is_unrecoverable_error() {
                        lane = None;
                    }
                }
            }
            let _ = free.try_send(lane);
            returned.notify_one();
        });
    }
}

/// Which process answers.
pub(super) async fn run_id_of(connection: &mut MultiplexedConnection) -> RedisResult<String> {
    let info: String = redis::cmd("INFO").arg("server").query_async(connection).await?;
    let id = info.lines().find_map(|line| line.strip_prefix("run_id:"));
    Ok(id.unwrap_or_default().trim().to_owned())
}
