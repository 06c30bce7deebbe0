//! From a message on a reply channel to the recorded result: the message only names the command.

use std::sync::Arc;
use std::time::Duration;

use super::channel::Channel;
use super::lanes::LaneReceiver;
use crate::broker::Broker;
use crate::domain::CommandId;
use crate::gateway::results::follower::ResultFollower;

/// Lookups that travel to Redis together.
const BATCH_SIZE: usize = 256;
/// Between two tries while Redis is away.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// Which command a reply is about: all that is taken from it.
pub(super) fn command_of(payload: &[u8]) -> Option<CommandId> {
    #[derive(serde::Deserialize)]
    struct RawMessage<'a> {
        command_id: &'a str,
    }
    serde_json::from_slice::<RawMessage<'_>>(payload).ok()?.command_id.parse().ok()
}

/// Looks the results of one partition up in the order in which they were heard of, and hands them out. A command without a
/// result in the record has none: the message was forged. While the record cannot be read, it is tried again.
pub(super) async fn look_up(
    broker: Broker,
    results: ResultFollower,
    mut waiting: LaneReceiver<(Arc<Channel>, CommandId)>,
) {
    let mut batch = Vec::new();
    while !batch.is_empty() || waiting.queue.recv_many(&mut batch, BATCH_SIZE).await > 0 {
        let reads = batch.iter().map(|(channel, command)| broker.command_result(&channel.resource, *command));
        let found = futures_util::future::join_all(reads).await;
        let mut unread = Vec::new();
        for ((channel, command), found) in batch.drain(..).zip(found) {
            match found {
                Ok(Some(ended)) => {
                    results.on_result(&ended);
                    channel.deliver(ended);
                }
                Ok(None) => tracing::warn!(resource = %channel.resource, command_id = %command, "gateway.forged_reply"),
                Err(_) => unread.push((channel, command)),
            }
        }
        batch = unread;
        if !batch.is_empty() {
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }
}
