//! Answers that are held until replicas have what they speak of (`redis.replicas_to_wait`).
//!
//! The stream to the replicas is in order, so a write made after an answer was received lies behind everything that the answer
//! speaks of. Such a write is made on a connection beside, and waited for with WAIT, which would hold up every other command of
//! the connection that it is sent on. Answers that come while it waits are waited for together, by the next one.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionInfo, RedisResult};
use tokio::sync::{mpsc, oneshot};

use super::fsyncs::{open_lanes, wait_for_disks};
use super::keys::replication_marker_beside;
use super::waits::{CAPACITY, Held, Waits};

/// Longest wait for the replicas. Whoever asked then learns that the outcome is unknown, and asks again.
const WAIT_TIMEOUT: Duration = Duration::from_millis(1_000);
/// For an answer to WAIT: more than it waits.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(2_000);
/// Longest wait for the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_500);

/// The way to the task that waits; cheap to clone. It ends when the last clone is gone.
#[derive(Clone)]
pub(super) struct ReplicationGate {
    held: mpsc::Sender<Held>,
}

impl ReplicationGate {
    /// Beside a connection to this server, whose `run_id` this is. `lost`: what to do when the connection breaks.
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
        let mut beside = client.get_multiplexed_async_connection_with_config(&config).await?;
        if run_id_of(&mut beside).await? != run_id {
            return Err((redis::ErrorKind::Io, "another server answers at this address by now").into());
        }
        // A right that is missing shows here, and not with the first command.
        let _: u32 = redis::cmd("WAIT").arg(0).arg(1).query_async(&mut beside).await?;
        let lanes = if waits.fsyncs > 0 { open_lanes(&client, &config).await? } else { Vec::new() };
        let (held, waiting) = mpsc::channel(CAPACITY);
        // Not in a TaskTracker: it ends by itself when the last gate is gone.
        tokio::spawn(async move {
            match lanes.is_empty() {
                true => wait_for_replicas(beside, waiting, waits.replicas).await,
                false => wait_for_disks(lanes, waiting, waits).await,
            }
            lost();
        });
        Ok(Self { held })
    }

    /// Whether the replicas have all that has been answered on the connection until now. `key`: one that lies there.
    pub(super) async fn is_passed(&self, key: &str) -> bool {
        let (may_go, heard) = oneshot::channel();
        if self.held.send(Held { key: key.to_owned(), may_go }).await.is_err() {
            return false;
        }
        heard.await.unwrap_or(false)
    }
}

/// Until the connection breaks, or nobody holds the gate any more.
async fn wait_for_replicas(mut beside: MultiplexedConnection, mut held: mpsc::Receiver<Held>, replicas: u32) {
    let mut together = Vec::new();
    while held.recv_many(&mut together, CAPACITY).await > 0 {
        let mut marker = redis::pipe();
        marker.cmd("INCR").arg(replication_marker_beside(&together[0].key)).ignore();
        marker.cmd("WAIT").arg(replicas).arg(WAIT_TIMEOUT.as_millis() as u64);
        let answer: RedisResult<(u32,)> = marker.query_async(&mut beside).await;
        let passed = matches!(answer, Ok((have_it,)) if have_it >= replicas);
        for held in together.drain(..) {
            let _ = held.may_go.send(passed); // Whoever has given up need not know.
        }
        match answer {
            Ok((have_it,)) if !passed => tracing::debug!(have_it, replicas, "redis.not_replicated_in_time"),
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "redis.replication_not_known");
                if error.is_io_error() || error.is_unrecoverable_error() {
                    return;
                }
            }
        }
    }
}

/// Which process answers.
pub(super) async fn run_id_of(connection: &mut MultiplexedConnection) -> RedisResult<String> {
    let info: String = redis::cmd("INFO").arg("server").query_async(connection).await?;
    let id = info.lines().find_map(|line| line.strip_prefix("run_id:"));
    Ok(id.unwrap_or_default().trim().to_owned())
}
