//! The end of a gateway: first it says so and goes on serving, so that load balancers send nobody any more; then it
//! listens no longer, and every socket is sent away, in batches, each with a pause of its own.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::access::Access;
use super::health::Health;
use crate::http::close::Close;

/// Batches; and the part of `server.drain` over which they are spread, so that the clients' own closes and
/// the commands under way have the rest.
const BATCHES: u32 = 20;
const SPREAD_SHARE: f64 = 0.4;
/// No longer than this, however long the drain may take.
const MAX_SPREAD: Duration = Duration::from_secs(5);
/// Sockets that make a batch worth a pause.
const MIN_BATCH: usize = 25;

/// What asks a gateway to leave.
#[derive(Debug, Clone)]
pub struct Stop {
    /// Cancelled once it is asked.
    pub asked: CancellationToken,
    /// Cancelled before `asked` where nobody has to be given notice: a person waits for the end at a terminal, and
    /// behind a load balancer gateways are stopped by a process manager.
    pub without_notice: CancellationToken,
}

impl From<CancellationToken> for Stop {
    fn from(asked: CancellationToken) -> Self {
        Self { asked, without_notice: CancellationToken::new() }
    }
}

/// How far this gateway is on its way out, and the tasks that are waited for at its end; cheap to clone.
#[derive(Clone, Default)]
pub struct Drain {
    /// Owner of those tasks: connections, sockets, batches.
    pub tracker: TaskTracker,
    /// Cancelled when the gateway begins to leave: take nothing new, finish what is under way.
    pub stopping: CancellationToken,
    /// Cancelled when the time to leave is over.
    pub killed: CancellationToken,
}

impl Drain {
    /// Waits until the gateway is told to stop; then says so for the time of the `notice`, while everything is still
    /// served, and only then takes nothing new.
    pub async fn announce(&self, gateway_id: &str, health: &Health, notice: Duration, stop: &Stop) {
        stop.asked.cancelled().await;
        health.start_draining();
        let notice = if stop.without_notice.is_cancelled() { Duration::ZERO } else { notice };
        tracing::info!(gateway_id, notice_seconds = notice.as_secs(), "gateway.draining");
        tokio::time::sleep(notice).await;
        self.stopping.cancel();
    }

    /// Ends everything that is under way, within the time given: what has not ended by then is cut off.
    pub async fn finish(&self, access: &Access, time: Duration) {
        self.tracker.close();
        let leaving = async { tokio::join!(close_sessions(access, time), self.tracker.wait()) };
        if tokio::time::timeout(time, leaving).await.is_err() {
            self.killed.cancel();
            self.tracker.wait().await;
        }
    }
}

/// Asks every socket to close; a command under way is answered first.
async fn close_sessions(access: &Access, time: Duration) {
    let sockets = access.outboxes();
    let size = sockets.len().div_ceil(BATCHES as usize).max(MIN_BATCH);
    let pause = time.mul_f64(SPREAD_SHARE).min(MAX_SPREAD) / BATCHES;
    for (n, batch) in sockets.chunks(size).enumerate() {
        if n > 0 {
            tokio::time::sleep(pause).await;
        }
        for outbox in batch {
            outbox.close(Close::drain());
        }
    }
}
