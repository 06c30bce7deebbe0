//! Waiting for the results of commands on behalf of a request.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::awaited::{AwaitedResults, look_up};
use crate::broker::Broker;
use crate::broker::scripts::results::CommandResult;
use crate::domain::{CommandId, Resource};

/// Shortest and longest pause between two questions about one command: most results come within milliseconds, and a
/// minute of waiting must not cost thousands of questions.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));
/// The same for the commands of a batch, of which there are many.
const BATCH_PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));

/// Waits for results; cheap to clone.
#[derive(Clone)]
pub struct ResultWaiter {
    broker: Broker,
    stopping: CancellationToken,
}

impl ResultWaiter {
    /// `stopping`: cancelled when nobody is to wait any more.
    pub fn new(broker: Broker, stopping: CancellationToken) -> Self {
        Self { broker, stopping }
    }

    /// The result of one command; `None` if the time is up or the gateway leaves.
    pub async fn wait(&self, resource: &Resource, command: CommandId, wait: Duration) -> Option<CommandResult> {
        self.wait_for_all([(resource.clone(), command)], PAUSES, wait).await.remove(&command)
    }

    /// The results of the commands of a batch; not all of them if the time is up or the gateway leaves.
    pub async fn wait_for_batch(
        &self,
        commands: impl IntoIterator<Item = (Resource, CommandId)>,
        wait: Duration,
    ) -> HashMap<CommandId, CommandResult> {
        self.wait_for_all(commands, BATCH_PAUSES, wait).await
    }

    async fn wait_for_all(
        &self,
        commands: impl IntoIterator<Item = (Resource, CommandId)>,
        pauses: (Duration, Duration),
        wait: Duration,
    ) -> HashMap<CommandId, CommandResult> {
        let end = Instant::now() + wait;
        let mut results = HashMap::new();
        let mut awaited = AwaitedResults::new(pauses);
        for (resource, command) in commands {
            awaited.expect(resource, command, (), Duration::ZERO);
        }
        let mut is_last_round = wait.is_zero();
        loop {
            // The record is asked, not the channel: a message that was lost costs nothing here.
            let now = Instant::now();
            loop {
                let due = awaited.take_due(now);
                if due.is_empty() {
                    break;
                }
                for result in look_up(&self.broker, &due).await {
                    awaited.remove(result.command);
                    results.insert(result.command, result);
                }
            }
            let Some(next_poll) = awaited.next_poll().filter(|_| !is_last_round) else { return results };
            tokio::select! {
                () = self.stopping.cancelled() => return results,
                () = tokio::time::sleep_until(next_poll.min(end)) => {}
            }
            if Instant::now() >= end {
                is_last_round = true;
                awaited.poll_soon();
            }
        }
    }
}
