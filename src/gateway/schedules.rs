//! Scheduled commands: who may take one back, and bringing in those whose time has come.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::commands::CommandSubmitter;
use crate::auth::{Caller, Policy};
use crate::broker::scripts::schedules::{DueSchedules, Scheduled, WithdrawOutcome};
use crate::broker::scripts::submit::{ClientOrigin, Grant, SubmitOutcome};
use crate::broker::{Broker, BrokerError, Partition};
use crate::config::PermissionSource;
use crate::domain::{CommandId, Resource};
use crate::http::Refusal;
use crate::protocol::ErrorCode;

/// Longest time between two looks: what another gateway scheduled is found by then.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Between two looks while something is due that cannot be brought in.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// Shortest time between two looks.
const MIN_POLL_INTERVAL: Duration = Duration::from_millis(1);
/// Schedules of one partition that are submitted at one poll.
const BATCH_SIZE: usize = 128;

/// The scheduled commands of all tenants.
pub struct Schedules {
    broker: Broker,
    policy: Policy,
    permissions: PermissionSource,
    commands: Arc<CommandSubmitter>,
}

impl Schedules {
    /// `permissions`: where the permissions of users are written down.
    pub fn new(broker: Broker, policy: Policy, permissions: PermissionSource, commands: Arc<CommandSubmitter>) -> Self {
        Self { broker, policy, permissions, commands }
    }

    /// Takes a scheduled command back in a caller's name: their own, or one that they may command. `on`: only one of that
    /// resource.
    pub async fn withdraw(
        &self,
        caller: &Caller,
        schedule: CommandId,
        on: Option<&Resource>,
        address: Option<&str>,
    ) -> Result<Scheduled, Refusal> {
        let broker = &self.broker;
        let found = broker.scheduled(&caller.tenant, schedule).await.map_err(|_| Refusal::unavailable())?;
        let found =
            found.filter(|found| on.is_none_or(|resource| found.resource == *resource)).ok_or_else(not_scheduled)?;
        if found.user != caller.user {
            let permission = found.action.permission(found.resource.kind);
            if !self.policy.check(caller, &permission).await? {
                let message = format!("Insufficient permissions: {} is needed", permission.as_str());
                return Err(Refusal::new(ErrorCode::PermissionDenied, message));
            }
        }
        let origin = ClientOrigin { address: address.map(str::to_owned), token_id: caller.token_id.clone() };
        let taken = broker.withdraw(&found, &caller.user, &origin, None).await.map_err(|error| match error {
            // It was sent, and may have been done.
            BrokerError::Unknown(_) => Refusal::new(ErrorCode::OutcomeUnknown, WITHDRAWAL_UNKNOWN_MESSAGE),
            _ => Refusal::unavailable(),
        })?;
        if taken == WithdrawOutcome::Gone {
            return Err(not_scheduled());
        }
        tracing::info!(
            command_id = %schedule, resource = %found.resource, tenant_id = %caller.tenant, user_id = %caller.user,
            "websocket.schedule_withdrawn"
        );
        Ok(found)
    }

    /// Brings in what is due until told to stop. Every gateway does this: whoever is first does it. Each partition has a
    /// round of its own: a server that is away holds up its own tenants' commands and nobody else's.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let keeping = self.broker.keys().partitions().map(async |partition| {
            loop {
                let pause = self.poll(partition).await;
                tokio::time::sleep(pause).await;
            }
        });
        stop.run_until_cancelled(join_all(keeping)).await;
    }

    /// One look at a partition; gives the time until the next.
    async fn poll(&self, partition: Partition) -> Duration {
        let Ok(found) = self.broker.due_schedules(partition, BATCH_SIZE).await else { return POLL_INTERVAL };
        let mut worst = SubmitDueOutcome::In;
        for (resource, command) in &found.due {
            worst = worst.max(self.submit_due(resource, *command).await);
        }
        pause_after(&found, worst)
    }

    async fn submit_due(&self, resource: &Resource, command: CommandId) -> SubmitDueOutcome {
        let Ok(found) = self.broker.scheduled(&resource.tenant, command).await else { return SubmitDueOutcome::Not };
        let Some(scheduled) = found else {
            // Another gateway was first, or somebody has changed the record by hand.
            let forgotten = self.broker.remove_unreadable_schedule(resource, command).await;
            return if forgotten.is_ok() { SubmitDueOutcome::In } else { SubmitDueOutcome::Not };
        };
        let grant = match self.permissions {
            PermissionSource::Database => Grant::Database,
            // The token said so when it was asked; there is none to ask now.
            PermissionSource::Token => Grant::Token(true),
        };
        let submission = scheduled.submission(grant);
        let (user_id, tenant_id) = (&scheduled.user, &resource.tenant);
        match self.commands.deliver(&submission).await {
            Ok(SubmitOutcome::Accepted { .. }) => {
                tracing::info!(command_id = %command, %resource, %tenant_id, %user_id, "websocket.schedule_submitted");
                self.commands.follow(resource, scheduled.action, command);
                SubmitDueOutcome::In
            }
            Ok(SubmitOutcome::Denied) => {
                tracing::info!(command_id = %command, %resource, %tenant_id, %user_id, "websocket.schedule_denied");
                SubmitDueOutcome::In
            }
            Ok(SubmitOutcome::Gone) => SubmitDueOutcome::In,
            Ok(SubmitOutcome::QueueFull) => SubmitDueOutcome::Full,
            Ok(_) | Err(_) => SubmitDueOutcome::Not,
        }
    }
}

const WITHDRAWAL_UNKNOWN_MESSAGE: &str =
    "Redis did not answer in time: the command may have been taken back or not. Ask again, or list what is scheduled";

fn not_scheduled() -> Refusal {
    let message = "There is no such scheduled command: it was withdrawn, or its time has come";
    Refusal::new(ErrorCode::NotFound, message)
}

/// What became of a schedule that was due, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum SubmitDueOutcome {
    /// It is a command now, or over.
    In,
    /// Too many commands of its tenant wait: the script has put it a second later.
    Full,
    /// It has to be tried again.
    Not,
}

/// From a look at one partition to the next.
fn pause_after(found: &DueSchedules, worst: SubmitDueOutcome) -> Duration {
    match worst {
        SubmitDueOutcome::Not => return RETRY_DELAY,
        // More are due by now. Not where a tenant is full: its thousand would be asked about over and over.
        SubmitDueOutcome::In if found.due.len() >= BATCH_SIZE => return MIN_POLL_INTERVAL,
        SubmitDueOutcome::In | SubmitDueOutcome::Full => {}
    }
    let next = found.next_in_ms.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis);
    next.unwrap_or(POLL_INTERVAL).clamp(MIN_POLL_INTERVAL, POLL_INTERVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(due: usize, next_in_ms: Option<i64>) -> DueSchedules {
        let one = (Resource::parse("acme:job:j1").expect("resource"), CommandId::generate());
        DueSchedules { due: vec![one; due], next_in_ms, now: 0 }
    }

    #[test]
    fn a_look_that_found_as_many_as_it_may_is_followed_by_the_next_at_once() {
        assert_eq!(pause_after(&found(BATCH_SIZE, Some(60_000)), SubmitDueOutcome::In), MIN_POLL_INTERVAL);
        assert_eq!(pause_after(&found(BATCH_SIZE - 1, Some(60_000)), SubmitDueOutcome::In), POLL_INTERVAL);
        assert_eq!(pause_after(&found(0, None), SubmitDueOutcome::In), POLL_INTERVAL);
        assert_eq!(pause_after(&found(1, Some(120)), SubmitDueOutcome::In), Duration::from_millis(120));
        assert_eq!(pause_after(&found(1, Some(0)), SubmitDueOutcome::In), MIN_POLL_INTERVAL);
    }

    #[test]
    fn what_cannot_be_brought_in_is_not_asked_about_without_a_pause() {
        assert_eq!(pause_after(&found(BATCH_SIZE, None), SubmitDueOutcome::Full), POLL_INTERVAL);
        assert_eq!(pause_after(&found(BATCH_SIZE, None), SubmitDueOutcome::Not), RETRY_DELAY);
        assert_eq!(pause_after(&found(1, Some(1)), SubmitDueOutcome::Not), RETRY_DELAY);
    }
}
