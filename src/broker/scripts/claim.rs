//! `lua/claim_command.lua`, `renew_claim.lua`, `complete_command.lua`, `retry_command.lua`: from a
//! waiting command to its one result, fenced.

use std::time::Duration;

use crate::broker::{Broker, BrokerError, Partition};
use crate::domain::{Action, CommandId, Resource, UserId, WorkerId};

/// The right to carry out one command, until the lease ends.
#[derive(Debug, Clone)]
pub struct Claim {
    /// What it is about.
    pub resource: Resource,
    /// Which command.
    pub command: CommandId,
    /// What to do.
    pub action: Action,
    /// Who asked.
    pub user: UserId,
    /// The client's name for it.
    pub request_id: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// When it was accepted, Unix ms by Redis's clock.
    pub accepted_at: i64,
    /// Redis's clock at the claim, Unix ms.
    pub claimed_at: i64,
    /// 1 at the first try.
    pub attempt: u32,
    /// Grows with every claim on the resource, even if Redis lost its data: Unix µs by Redis's clock, or
    /// one more than the last. Nothing with an older fence may change anything.
    pub fence: i64,
}

/// What a claim on a resource gave.
#[derive(Debug, Clone)]
pub enum Claimed {
    /// The oldest command of the resource is this worker's.
    Command(Box<Claim>),
    /// None waits.
    Nothing,
    /// Another worker holds it, or it waits for a retry.
    Later,
    /// The job runs inside that worker, which is alive: only it may claim.
    Hosted(WorkerId),
}

/// Whether a claim still stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewed {
    /// It does.
    Held {
        /// A cancel waits behind this pause or resume, and outranks it.
        cancel_waiting: bool,
    },
    /// The lease ended and another worker has it: stop, change nothing, answer nothing.
    Lost,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Applied.
    Succeeded,
    /// Refused, or given up.
    Failed,
    /// No worker could run it in time.
    Expired,
}

/// What completing gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completed {
    /// Recorded and published.
    Done {
        /// More commands wait on this resource: claim again at once.
        more: bool,
    },
    /// The claim was lost: nothing was recorded.
    Lost,
}

impl Broker {
    /// Claims the oldest waiting command of a resource.
    pub async fn claim(
        &self,
        _resource: &Resource,
        _worker: &WorkerId,
        _lease: Duration,
    ) -> Result<Claimed, BrokerError> {
        unimplemented!()
    }

    /// Makes the claim last another lease.
    pub async fn renew_claim(&self, _claim: &Claim, _lease: Duration) -> Result<Renewed, BrokerError> {
        unimplemented!()
    }

    /// Records the result (a message of `protocol::server`), publishes it, and frees the resource.
    pub async fn complete(
        &self,
        _claim: &Claim,
        _worker: &WorkerId,
        _end: End,
        _message: &str,
    ) -> Result<Completed, BrokerError> {
        unimplemented!()
    }

    /// Gives the command back, to be claimed by anyone after the delay. `false`: the claim was lost.
    pub async fn retry_later(&self, _claim: &Claim, _delay: Duration) -> Result<bool, BrokerError> {
        unimplemented!()
    }

    /// Resources of a partition whose next command may be claimed now, longest waiting first.
    pub async fn due(&self, _partition: Partition, _limit: usize) -> Result<Vec<Resource>, BrokerError> {
        unimplemented!()
    }

    /// The result message of a recent command; `None` if it has none (yet).
    pub async fn result_of(&self, _resource: &Resource, _command: CommandId) -> Result<Option<String>, BrokerError> {
        unimplemented!()
    }

    /// The newest results of a resource, oldest first: for a gateway that was cut off for a while.
    pub async fn recent_results(
        &self,
        _resource: &Resource,
        _limit: usize,
    ) -> Result<Vec<(CommandId, String)>, BrokerError> {
        unimplemented!()
    }
}
