//! Waiting for the results of a batch without a socket.

use std::collections::HashMap;
use std::time::Duration;

use super::AcceptedBatch;
use crate::broker::scripts::results::CommandResult;
use crate::domain::CommandId;
use crate::gateway::results::waiter::ResultWaiter;
use crate::protocol::batch_messages::{self, BatchCounts, BatchItem, ItemState};

/// The summary with what became of each resource; `None` if the time is up or the gateway leaves.
pub async fn completed(waiter: &ResultWaiter, accepted: &AcceptedBatch, wait: Duration) -> Option<String> {
    let mut results: HashMap<CommandId, CommandResult> =
        accepted.results.iter().cloned().map(|result| (result.command, result)).collect();
    let missing = accepted.commands().filter(|(_, command)| !results.contains_key(command));
    let found = waiter.wait_for_batch(missing.collect::<Vec<_>>(), wait).await;
    results.extend(found);
    let is_complete = accepted.commands().all(|(_, command)| results.contains_key(&command));
    is_complete.then(|| summary(accepted, &results))
}

fn summary(accepted: &AcceptedBatch, results: &HashMap<CommandId, CommandResult>) -> String {
    let (action, kind) = (accepted.head.action, accepted.head.kind);
    let items = accepted.items.iter().map(|item| match &item.state {
        ItemState::Accepted(command, _) => {
            let state = results
                .get(command)
                .map(|result| ItemState::ended(*command, &result.outcome, result.control, action, kind));
            BatchItem { id: item.id.clone(), state: state.unwrap_or_else(|| item.state.clone()) }
        }
        _ => item.clone(),
    });
    let items: Vec<BatchItem> = items.collect();
    let count = |fits: fn(&ItemState) -> bool| items.iter().filter(|item| fits(&item.state)).count();
    let counts = BatchCounts {
        succeeded: count(|state| matches!(state, ItemState::Succeeded(..))),
        failed: count(|state| matches!(state, ItemState::Failed(..))),
        unknown: 0,
    };
    batch_messages::completed(&accepted.head, counts, Some((&items, accepted.more)))
}
