//! Heartbeats: a worker says again and again that it is alive.

use std::sync::Arc;
use std::time::Duration;

use super::audit_shipper::PartitionAssignment;
use crate::broker::BrokerError;
use crate::broker::scripts::heartbeats::HEARTBEAT_TTL;
use crate::worker::context::WorkerContext;

const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) struct Heartbeat {
    ctx: Arc<WorkerContext>,
    /// Redis answers a heartbeat with the live workers, and these share the partitions of the audit trail out.
    partitions: Arc<PartitionAssignment>,
}

impl Heartbeat {
    pub(crate) fn new(ctx: Arc<WorkerContext>, partitions: Arc<PartitionAssignment>) -> Self {
        Self { ctx, partitions }
    }

    /// Sends heartbeats until everything ends.
    pub(crate) async fn run(&self) {
        loop {
            if let Err(error) = self.send().await {
                tracing::debug!(%error, "worker.heartbeat_delayed");
            }
            tokio::time::sleep(HEARTBEAT_INTERVAL).await;
        }
    }

    /// Sends one heartbeat.
    pub(crate) async fn send(&self) -> Result<(), BrokerError> {
        let WorkerContext { id, tenants, broker, .. } = &*self.ctx;
        let beat = broker.heartbeat(id, tenants.as_deref(), HEARTBEAT_TTL);
        // Beside each other: the server whose clock is asked may be the one that is away.
        let (clock, alive) = tokio::join!(broker.learn_now(), beat);
        if let Err(error) = clock {
            tracing::debug!(%error, "worker.clock_not_read");
        }
        let alive = alive?;
        if tenants.is_none() {
            self.partitions.assign(id, alive.into_iter());
        }
        Ok(())
    }
}
