//! Waiting for the results of a batch without a socket: the record is asked until all are there.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Accepted;
use crate::broker::Broker;
use crate::broker::scripts::results::CommandResult;
use crate::domain::{CommandId, Resource};
use crate::protocol::batch_messages::{self, BatchCounts, BatchItem, ItemState};

/// First and longest pause between two looks.
const LOOKS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));

/// The summary with what became of each resource; `None`: the time is up, or the gateway leaves.
pub async fn completed(
    broker: &Broker,
    stopping: &CancellationToken,
    accepted: &Accepted,
    wait: Duration,
) -> Option<String> {
    let until = Instant::now() + wait;
    let mut pause = LOOKS.0;
    let by_id = |result: CommandResult| (result.command, result);
    let mut results: HashMap<CommandId, CommandResult> = accepted.results.iter().cloned().map(by_id).collect();
    loop {
        let missing: Vec<(Resource, CommandId)> =
            accepted.commands().filter(|(_, command)| !results.contains_key(command)).collect();
        // What cannot be read just now is read the next time.
        let found = broker.command_results(&missing).await.unwrap_or_default();
        results.extend(found.into_iter().flatten().map(by_id));
        if missing.iter().all(|(_, command)| results.contains_key(command)) {
            return Some(summary(accepted, &results));
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        tokio::select! {
            () = stopping.cancelled() => return None,
            () = tokio::time::sleep(pause.min(left)) => {}
        }
        pause = (pause * 2).min(LOOKS.1);
    }
}

fn summary(accepted: &Accepted, results: &HashMap<CommandId, CommandResult>) -> String {
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
