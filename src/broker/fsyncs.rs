//! Answers that are held until what they speak of is on disks (`redis.fsyncs_to_wait`), by WAITAOF.
//!
//! As with replicas (`replication.rs`) a write is made behind the answers, and waited for on a connection beside. With `appendfsync
//! everysec` that takes up to a second, so several such waits are under way at once, each on a connection of its own. A replica
//! says what is on its disk when it is asked, and else only once a second: so it is asked again and again.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisResult};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::keys::replication_marker_beside;
use super::waits::{CAPACITY, Held, Waits};

/// Waits under way at once.
const LANES: usize = 16;
/// While one is under way, another begins after this: sixteen of them are a second and more.
const SPACING: Duration = Duration::from_millis(100);
/// Longest wait for the disks. Whoever asked then learns that the outcome is unknown, and asks again.
const WAIT_TIMEOUT: Duration = Duration::from_millis(1_600);
/// How long one WAITAOF waits where replicas have to say it, and where the master says it by itself.
const REPLICAS_STEP: Duration = Duration::from_millis(20);
const MASTER_STEP: Duration = Duration::from_millis(400);

/// Connections to wait on. A right that is missing shows here, and not with the first command.
pub(super) async fn open_lanes(
    client: &redis::Client,
    config: &AsyncConnectionConfig,
) -> RedisResult<Vec<MultiplexedConnection>> {
    let mut lanes = Vec::with_capacity(LANES);
    for _ in 0..LANES {
        lanes.push(client.get_multiplexed_async_connection_with_config(config).await?);
    }
    let tried: RedisResult<redis::Value> = redis::cmd("WAITAOF").arg(0).arg(0).arg(1).query_async(&mut lanes[0]).await;
    match tried {
        Err(error) if error.code() == Some("NOPERM") => Err(error),
        // A server that does not know it is told of where servers are looked at.
        _ => Ok(lanes),
    }
}

/// Until a connection breaks, or nobody holds the gate any more.
pub(super) async fn wait_for_disks(lanes: Vec<MultiplexedConnection>, mut held: mpsc::Receiver<Held>, waits: Waits) {
    let count = lanes.len();
    // `None`: the connection is broken.
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
            let answer = are_on_disks(&mut lane, &batch[0].key, waits).await;
            let passed = matches!(answer, Ok(true));
            for held in batch {
                let _ = held.may_go.send(passed); // Whoever has given up need not know.
            }
            let mut lane = Some(lane);
            match answer {
                Ok(true) => {}
                Ok(false) => tracing::debug!(fsyncs = waits.fsyncs, "redis.not_on_disks_in_time"),
                Err(error) => {
                    tracing::warn!(%error, "redis.fsyncs_not_known");
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

/// Whether all that was written until now is on as many disks as it has to be, the master's among them, and in the memory of as
/// many replicas.
async fn are_on_disks(lane: &mut MultiplexedConnection, key: &str, waits: Waits) -> RedisResult<bool> {
    let (begun, replicas) = (Instant::now(), waits.fsyncs - 1);
    let _: i64 = redis::cmd("INCR").arg(replication_marker_beside(key)).query_async(lane).await?;
    if waits.replicas > replicas {
        let wait = redis::cmd("WAIT").arg(waits.replicas).arg(WAIT_TIMEOUT.as_millis() as u64).to_owned();
        let have_it: u32 = wait.query_async(lane).await?;
        if have_it < waits.replicas {
            return Ok(false);
        }
    }
    let step = if replicas > 0 { REPLICAS_STEP } else { MASTER_STEP };
    loop {
        let left = WAIT_TIMEOUT.saturating_sub(begun.elapsed());
        // None at all would be for ever.
        let step = step.min(left).max(Duration::from_millis(1));
        let mut wait = redis::cmd("WAITAOF");
        wait.arg(1).arg(replicas).arg(step.as_millis() as u64);
        let (master, others): (u32, u32) = wait.query_async(lane).await?;
        if master >= 1 && others >= replicas {
            return Ok(true);
        }
        if left.is_zero() {
            return Ok(false);
        }
    }
}
