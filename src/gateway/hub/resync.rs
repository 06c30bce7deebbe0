//! After a gap in the subscription: results that were missed are handed out, and where the state has moved
//! on, it is said.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::Semaphore;

use super::channel::{Channel, RECENT};
use super::channels::Channels;
use super::lanes::LaneReceiver;
use crate::broker::Broker;
use crate::gateway::outbox::Push;
use crate::gateway::snapshot::{SnapshotError, SnapshotReader};

/// Resources of one partition that are read at once, and states of resources, in all partitions together.
const BATCH_SIZE: usize = 16;
pub(super) const MAX_READS: usize = 16;
/// Between two tries while Redis or SQL is away.
const RETRY_DELAY: Duration = Duration::from_millis(250);
/// Longest time for one resource.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How often a resource is read whose stream goes on while it is read.
const MAX_ATTEMPTS: u32 = 5;

/// Reads what is marked as stale in one partition, whenever something is.
pub(super) async fn run(
    broker: Broker,
    snapshots: SnapshotReader,
    channels: Channels,
    reads: Arc<Semaphore>,
    lane: LaneReceiver<()>,
) {
    loop {
        lane.missed.notified().await;
        loop {
            let failed = futures_util::stream::iter(channels.take_stale(lane.partition))
                .map(|channel| {
                    let (broker, snapshots, channels, reads) = (&broker, &snapshots, &channels, &reads);
                    async move {
                        let read = tokio::time::timeout(TIMEOUT, resource(broker, snapshots, reads, &channel)).await;
                        let done = matches!(read, Ok(Ok(true)));
                        if !done {
                            channels.mark_stale(&channel);
                        }
                        !done
                    }
                })
                .buffer_unordered(BATCH_SIZE)
                // All of them, even if one has failed.
                .fold(false, |any, failed| async move { any | failed })
                .await;
            if !failed {
                break;
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }
}

/// Reads it, and tells those who were told that news might not come. `false`: it goes on faster than it can be read, and has to be
/// read once more a little later.
async fn resource(
    broker: &Broker,
    snapshots: &SnapshotReader,
    reads: &Semaphore,
    channel: &Channel,
) -> Result<bool, SnapshotError> {
    // Asked first: what was read before the feed went on may lack something.
    let is_resuming = channel.is_resuming();
    let is_read = hand_out(broker, snapshots, reads, channel).await?;
    if is_read && is_resuming {
        channel.resume();
    }
    Ok(is_read)
}

async fn hand_out(
    broker: &Broker,
    snapshots: &SnapshotReader,
    reads: &Semaphore,
    channel: &Channel,
) -> Result<bool, SnapshotError> {
    if !channel.opened.initialized() {
        // Its first reader is about to read everything anyway.
        return Ok(true);
    }
    for ended in broker.recent_results(&channel.resource, RECENT).await? {
        channel.deliver(ended);
    }
    // Only now: this partition's server has just answered, so that no turn is lost to one that is away.
    let _turn = reads.acquire().await;
    for _ in 0..MAX_ATTEMPTS {
        let before = channel.seq();
        let Some(state) = snapshots.read_state(&channel.resource).await? else {
            return Ok(true);
        };
        let seq = state.seq();
        if before == Some(seq) {
            return Ok(true);
        }
        let pushes = [
            Push::Status { seq: Some(seq), text: state.status_message().into() },
            Push::Progress {
                resource: channel.resource.clone(),
                seq: Some(seq),
                text: state.progress_message().into(),
            },
        ];
        if channel.deliver_snapshot(before, seq, &pushes) {
            return Ok(true);
        }
    }
    Ok(false)
}
