//! From a message on a reply channel to the recorded result: the message only names the command.

use std::sync::Arc;
use std::time::Duration;

use super::channel::Channel;
use super::lanes::LaneReceiver;
use crate::broker::Broker;
use crate::domain::{CommandId, Resource};
use crate::gateway::results::follower::ResultFollower;

/// Lookups that travel to Redis together.
const BATCH_SIZE: usize = 256;
/// Between two tries while Redis is away.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// So long after the keys of a tenant came to another server a reply may be about a result that this one never had.
const LOSS_WINDOW: Duration = Duration::from_secs(60);

/// Which command a reply is about: all that is taken from it.
pub(super) fn command_of(payload: &[u8]) -> Option<CommandId> {
    #[derive(serde::Deserialize)]
    struct RawMessage<'a> {
        command_id: &'a str,
    }
    serde_json::from_slice::<RawMessage<'_>>(payload).ok()?.command_id.parse().ok()
}

/// Looks the results of one partition up in the order in which they were heard of, and hands them out. A command without a
/// result in the record has none. While the record cannot be read, it is tried again.
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
                Ok(None) => log_unrecorded(&broker, &channel.resource, command),
                Err(_) => unread.push((channel, command)),
            }
        }
        batch = unread;
        if !batch.is_empty() {
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }
}

/// Says that a reply came whose command has no result in the record. A master that was lost, or cut off, may have recorded and published
/// it, and the one after it never got it: the command is there to be carried out once more, or was lost with it. Otherwise the reply
/// was forged.
pub(super) fn log_unrecorded(broker: &Broker, resource: &Resource, command: CommandId) {
    match broker.has_changed_server(&resource.tenant, LOSS_WINDOW) {
        true => tracing::info!(%resource, command_id = %command, "gateway.reply_without_record"),
        false => tracing::warn!(%resource, command_id = %command, "gateway.forged_reply"),
    }
}
