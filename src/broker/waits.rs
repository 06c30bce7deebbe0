//! What an answer waits for before it is told: replicas (`redis.replicas_to_wait`, by WAIT) and disks (`redis.fsyncs_to_wait`, by WAITAOF).
//!
//! The stream to the replicas and the append-only file are in order, so a write that is made after an answer was received lies behind
//! everything that the answer speaks of. When that write is where it has to be, all of that is.

use std::time::Duration;

use redis::RedisResult;
use redis::aio::MultiplexedConnection;
use tokio::time::Instant;

use super::keys::replication_marker_beside;

/// Longest wait for replicas alone, and where disks are waited for. Whoever asked then learns that the outcome is unknown, and asks again.
const REPLICAS_TIMEOUT: Duration = Duration::from_millis(1_000);
const DISKS_TIMEOUT: Duration = Duration::from_millis(1_600);
/// How long one WAITAOF waits where the master says it by itself.
const MASTER_STEP: Duration = Duration::from_millis(400);
/// And where replicas have to say it: they do so when they are asked, and else only once a second. So they are asked again and again.
const REPLICAS_STEP: Duration = Duration::from_millis(20);
/// Waits for disks under way at once.
const LANES: usize = 16;

/// What is waited for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Waits {
    /// `redis.replicas_to_wait`.
    pub(super) replicas: u32,
    /// `redis.fsyncs_to_wait`.
    pub(super) fsyncs: u32,
}

impl Waits {
    pub(super) fn of(settings: &crate::config::Redis) -> Self {
        Self { replicas: settings.replicas_to_wait, fsyncs: settings.fsyncs_to_wait }
    }

    pub(super) fn is_none(self) -> bool {
        self == Self::default()
    }

    /// How many waits may be under way at once, each on a connection of its own. A replica has everything within a moment; with
    /// `appendfsync everysec` a disk takes up to a second, and whoever comes just after a wait has begun would have to wait for two.
    pub(super) fn lanes(self) -> usize {
        if self.fsyncs > 0 { LANES } else { 1 }
    }

    /// Asks for nothing. A right that is missing shows here, and not with the first command.
    pub(super) async fn try_on(self, connection: &mut MultiplexedConnection) -> RedisResult<()> {
        let _: u32 = redis::cmd("WAIT").arg(0).arg(1).query_async(connection).await?;
        if self.fsyncs > 0 {
            let tried: RedisResult<redis::Value> =
                redis::cmd("WAITAOF").arg(0).arg(0).arg(1).query_async(connection).await;
            // A server that does not know it is told of where servers are looked at.
            if let Err(error) = tried
                && error.code() == Some("NOPERM")
            {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Whether all that was answered until now is where it has to be: in the memory of so many replicas, and on so many disks, the
    /// master's among them. Nothing else may be sent on the connection meanwhile. `key`: one that lies on this server.
    pub(super) async fn are_met(self, connection: &mut MultiplexedConnection, key: &str) -> RedisResult<bool> {
        let (begun, timeout) = (Instant::now(), if self.fsyncs > 0 { DISKS_TIMEOUT } else { REPLICAS_TIMEOUT });
        let mut marker = redis::pipe();
        marker.cmd("INCR").arg(replication_marker_beside(key)).ignore();
        marker.cmd("WAIT").arg(self.replicas).arg(timeout.as_millis() as u64);
        let (have_it,): (u32,) = marker.query_async(connection).await?;
        if have_it < self.replicas || self.fsyncs == 0 {
            return Ok(have_it >= self.replicas);
        }
        let replicas = self.fsyncs - 1;
        let step = if replicas > 0 { REPLICAS_STEP } else { MASTER_STEP };
        loop {
            let left = timeout.saturating_sub(begun.elapsed());
            // None at all would be for ever.
            let step = step.min(left).max(Duration::from_millis(1));
            let mut wait = redis::cmd("WAITAOF");
            wait.arg(1).arg(replicas).arg(step.as_millis() as u64);
            let (master, others): (u32, u32) = wait.query_async(connection).await?;
            if master >= 1 && others >= replicas {
                return Ok(true);
            }
            if left.is_zero() {
                return Ok(false);
            }
        }
    }

    /// What it means that they were waited for in vain.
    pub(super) fn in_vain(self) -> &'static str {
        match self.fsyncs {
            0 => "too few replicas have it (redis.replicas_to_wait)",
            _ => "it is not on as many disks in time as redis.fsyncs_to_wait says",
        }
    }
}
