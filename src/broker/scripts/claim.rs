//! `lua/claim_command.lua`, `renew_claim.lua`, `complete_command.lua`, `retry_command.lua`: from a
//! waiting command to its one result, fenced.

use std::time::{Duration, Instant};

use super::stored_command::StoredCommand;
use super::{bytes, lua, texts};
use crate::broker::keys::{reply_channel, updates_channel};
use crate::broker::{Broker, BrokerError, Partition};
use crate::domain::{Action, CommandId, IdDerivation, Resource, TenantId, UserId, WorkerId};
use crate::protocol::server;

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
    /// A cancel waits behind this pause or resume, and outranks it.
    pub cancel_waits: bool,
    /// The record, open: what its audit entry begins with.
    pub(crate) record: String,
}

/// What a claim on a resource gave.
#[derive(Debug, Clone)]
pub enum ClaimOutcome {
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
pub enum RenewOutcome {
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
pub enum ResultKind {
    /// Applied.
    Succeeded,
    /// Refused, or given up.
    Failed,
    /// No worker could run it in time.
    Expired,
}

/// What completing gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompleteOutcome {
    /// Recorded and published.
    Done {
        /// More commands wait on this resource: claim again at once.
        more: bool,
    },
    /// The claim was lost: nothing was recorded.
    Lost,
}

/// A command that has its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandResult {
    /// Which.
    pub command: CommandId,
    /// When it ended, Unix ms by Redis's clock.
    pub at: i64,
    /// The result message.
    pub message: String,
}

impl Broker {
    /// Claims the oldest waiting command of a resource.
    pub async fn claim(
        &self,
        resource: &Resource,
        worker: &WorkerId,
        lease: Duration,
    ) -> Result<ClaimOutcome, BrokerError> {
        let names = self.keys();
        let partition = names.partition(&resource.tenant);
        let keys = [
            names.state(resource),
            names.queue(resource),
            names.commands(resource),
            names.ready(&resource.tenant),
            names.tenants_with_ready(partition),
            names.workers(partition),
            names.tenant_workers(&resource.tenant),
            names.backlog(&resource.tenant),
        ];
        let args = [worker.to_string(), lease.as_millis().to_string(), resource.to_string()];
        let asked = Instant::now();
        let answer: Vec<String> = self.client.script(&lua::CLAIM, &texts(&keys), &bytes(&args)).await?;
        let odd = || BrokerError::Refused(format!("claim_command answered {answer:?}"));
        match answer.first().map(String::as_str) {
            Some("nothing") => Ok(ClaimOutcome::Nothing),
            Some("not_ready") => Ok(ClaimOutcome::Later),
            Some("corrupt") => {
                let command_id = answer.get(1).map(String::as_str).unwrap_or_default();
                tracing::error!(%resource, command_id, "broker.command_record_corrupt");
                Ok(ClaimOutcome::Later)
            }
            Some("hosted") => {
                Ok(ClaimOutcome::Hosted(answer.get(1).and_then(|host| host.parse().ok()).ok_or_else(odd)?))
            }
            Some("command") if answer.len() == 8 => {
                let record: StoredCommand = serde_json::from_str(&answer[3]).map_err(|_| odd())?;
                let number = |i: usize| answer[i].parse::<i64>().map_err(|_| odd());
                self.observe_clock(partition, asked, number(6)?);
                Ok(ClaimOutcome::Command(Box::new(Claim {
                    resource: resource.clone(),
                    command: answer[1].parse().map_err(|_| odd())?,
                    action: Action::parse(&record.action).ok_or_else(odd)?,
                    user: record.user_id,
                    request_id: record.request_id,
                    reason: record.reason,
                    accepted_at: number(2)?,
                    claimed_at: number(6)?,
                    attempt: u32::try_from(number(4)?).map_err(|_| odd())?,
                    fence: number(5)?,
                    cancel_waits: !answer[7].is_empty(),
                    record: answer[3].strip_suffix('}').ok_or_else(odd)?.to_owned(),
                })))
            }
            _ => Err(odd()),
        }
    }

    /// Makes the claim last another lease.
    pub async fn renew_claim(&self, claim: &Claim, lease: Duration) -> Result<RenewOutcome, BrokerError> {
        let keys = self.claim_keys(claim);
        let args = [
            claim.command.to_string(),
            claim.fence.to_string(),
            lease.as_millis().to_string(),
            claim.resource.to_string(),
        ];
        let answer: String = self.client.script(&lua::RENEW_CLAIM, &texts(&keys), &bytes(&args)).await?;
        match answer.as_str() {
            "held" => Ok(RenewOutcome::Held { cancel_waiting: false }),
            // A second cancel behind a cancel is nothing to give way to.
            "cancel" => Ok(RenewOutcome::Held { cancel_waiting: claim.action != Action::Cancel }),
            "lost" => Ok(RenewOutcome::Lost),
            _ => Err(BrokerError::Refused(format!("renew_claim answered {answer:?}"))),
        }
    }

    /// Records the result (a message of `protocol::server`), publishes it, and frees the resource. `update`: a message
    /// without its end, as in [`Update`](super::updates::Update), that everyone hears before the result.
    pub async fn complete(
        &self,
        claim: &Claim,
        worker: &WorkerId,
        end: ResultKind,
        message: &str,
        update: Option<&str>,
    ) -> Result<CompleteOutcome, BrokerError> {
        let r = &claim.resource;
        let keys = self.keys().command_keys(r);
        let event = match end {
            ResultKind::Succeeded => "succeeded",
            ResultKind::Failed => "failed",
            ResultKind::Expired => "expired",
        };
        let args = [
            claim.command.to_string(),
            claim.fence.to_string(),
            event.to_owned(),
            message.to_owned(),
            format!("{},\"outcome\":{},\"worker_id\":\"{worker}\"", claim.record, outcome_json(message)),
            reply_channel(r),
            r.to_string(),
            claim.accepted_at.to_string(),
            u8::from(end != ResultKind::Succeeded && !server::is_superseded(message)).to_string(),
            update.map(|_| updates_channel(r)).unwrap_or_default(),
            update.unwrap_or_default().to_owned(),
        ];
        #[cfg(feature = "test-faults")]
        if crate::test_faults::fence_is_off() {
            self.forget_that_it_was_lost(claim).await?;
        }
        let answer: String = self.client.script(&lua::COMPLETE, &texts(&keys), &bytes(&args)).await?;
        match answer.as_str() {
            "more" => Ok(CompleteOutcome::Done { more: true }),
            "done" => Ok(CompleteOutcome::Done { more: false }),
            "lost" => Ok(CompleteOutcome::Lost),
            _ => Err(BrokerError::Refused(format!("complete_command answered {answer:?}"))),
        }
    }

    /// Puts the claim back into Redis as it was when it was made, so that the script cannot see that it was lost.
    #[cfg(feature = "test-faults")]
    async fn forget_that_it_was_lost(&self, claim: &Claim) -> Result<(), BrokerError> {
        let (names, command) = (self.keys(), claim.command.to_string());
        let mut pipeline = redis::pipe();
        let state = pipeline.cmd("HSET").arg(names.state(&claim.resource));
        state.arg("command").arg(&command).arg("fence").arg(claim.fence).ignore();
        let record = pipeline.cmd("HSETNX").arg(names.commands(&claim.resource)).arg(&command);
        record.arg(format!("{}|0|{{}}", claim.accepted_at)).ignore();
        self.client.pipeline(&pipeline).await
    }

    /// Gives the command back, to be claimed by anyone after the delay. `false`: the claim was lost.
    pub async fn retry_later(&self, claim: &Claim, delay: Duration) -> Result<bool, BrokerError> {
        let keys = self.claim_keys(claim);
        let args = [
            claim.command.to_string(),
            claim.fence.to_string(),
            delay.as_millis().to_string(),
            claim.resource.to_string(),
        ];
        self.client.script(&lua::RETRY, &texts(&keys), &bytes(&args)).await
    }

    /// Tenants of a partition of whom something may wait: at most so many, other ones each time.
    pub async fn tenants_with_ready(&self, partition: Partition, limit: usize) -> Result<Vec<TenantId>, BrokerError> {
        let set = self.keys().tenants_with_ready(partition);
        let tenants: Vec<String> = self.client.query(redis::cmd("SRANDMEMBER").arg(set).arg(limit)).await?;
        Ok(tenants.iter().filter_map(|tenant| tenant.parse().ok()).collect())
    }

    /// Resources of a tenant whose next command may be claimed now, and could have been for so long; the longest
    /// waiting first.
    pub async fn ready_resources(
        &self,
        tenant: &TenantId,
        limit: usize,
        for_long: Duration,
    ) -> Result<Vec<Resource>, BrokerError> {
        let names = self.keys();
        let keys = [names.ready(tenant), names.tenants_with_ready(names.partition(tenant))];
        let args = [tenant.to_string(), limit.to_string(), for_long.as_millis().to_string()];
        let members: Vec<String> = self.client.script(&lua::READY_RESOURCES, &texts(&keys), &bytes(&args)).await?;
        Ok(members.iter().filter_map(|member| Resource::parse(member)).collect())
    }

    /// Ends the commands of a resource that have waited longer than `ttl` and were never taken up; gives their ids.
    pub async fn expire(&self, resource: &Resource, ttl: Duration) -> Result<Vec<CommandId>, BrokerError> {
        let names = self.keys();
        let mut keys = names.command_keys(resource);
        keys.extend([names.workers(names.partition(&resource.tenant)), names.tenant_workers(&resource.tenant)]);
        let args =
            [ttl.as_millis().to_string(), resource.to_string(), reply_channel(resource), server::EXPIRED.to_owned()];
        let ended: Vec<String> = self.client.script(&lua::EXPIRE, &texts(&keys), &bytes(&args)).await?;
        Ok(ended.iter().filter_map(|id| id.parse().ok()).collect())
    }

    fn claim_keys(&self, claim: &Claim) -> [String; 3] {
        let (names, tenant) = (self.keys(), &claim.resource.tenant);
        [names.state(&claim.resource), names.ready(tenant), names.tenants_with_ready(names.partition(tenant))]
    }

    /// The result message of a recent command; `None` if it has none (yet).
    pub async fn result_of(&self, resource: &Resource, command: CommandId) -> Result<Option<String>, BrokerError> {
        Ok(self.command_result(resource, command).await?.map(|ended| ended.message))
    }

    /// As [`Self::result_of`], with when it ended.
    pub async fn command_result(
        &self,
        resource: &Resource,
        command: CommandId,
    ) -> Result<Option<CommandResult>, BrokerError> {
        let kept: Option<String> =
            self.client.query(redis::cmd("HGET").arg(self.keys().results(resource)).arg(command.to_string())).await?;
        Ok(kept.and_then(parse_stored_result).map(|(at, message)| CommandResult { command, at, message }))
    }

    /// Whether a command waits for a worker or for its time, or is being carried out.
    pub async fn is_pending(&self, resource: &Resource, command: CommandId) -> Result<bool, BrokerError> {
        let (names, command) = (self.keys(), command.to_string());
        for key in [names.commands(resource), names.schedules(&resource.tenant)] {
            if self.client.query(redis::cmd("HEXISTS").arg(key).arg(&command)).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The id of the command that follows from another one for a resource, where a version before may have submitted it
    /// already: that one's, if so, and today's otherwise.
    pub async fn derived_command(&self, first: CommandId, resource: &Resource) -> Result<CommandId, BrokerError> {
        let former = first.derive_as(IdDerivation::Fnv, resource);
        let is_known =
            self.is_pending(resource, former).await? || self.command_result(resource, former).await?.is_some();
        Ok(if is_known { former } else { first.derive_for(resource) })
    }

    /// As [`Self::command_result`], of many commands, 100 to a round trip; in their order.
    pub async fn command_results(
        &self,
        commands: &[(Resource, CommandId)],
    ) -> Result<Vec<Option<CommandResult>>, BrokerError> {
        let mut all = Vec::with_capacity(commands.len());
        for some in commands.chunks(100) {
            // Sent together on one connection to each server.
            let asked = some.iter().map(|(resource, command)| self.command_result(resource, *command));
            all.extend(futures_util::future::try_join_all(asked).await?);
        }
        Ok(all)
    }

    /// The newest results of a resource, oldest first: for a gateway that was cut off for a while.
    pub async fn recent_results(&self, resource: &Resource, limit: usize) -> Result<Vec<CommandResult>, BrokerError> {
        let names = self.keys();
        let newest = isize::try_from(limit).unwrap_or(isize::MAX).max(1) - 1;
        let ids: Vec<String> =
            self.client.query(redis::cmd("LRANGE").arg(names.finished(resource)).arg(0).arg(newest)).await?;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let kept: Vec<Option<String>> =
            self.client.query(redis::cmd("HMGET").arg(names.results(resource)).arg(&ids)).await?;
        let pairs = ids.iter().zip(kept).filter_map(|(id, kept)| {
            let (at, message) = parse_stored_result(kept?)?;
            Some(CommandResult { command: id.parse().ok()?, at, message })
        });
        let mut pairs: Vec<_> = pairs.collect();
        pairs.reverse();
        Ok(pairs)
    }
}

/// A kept result is `ended_ms|workers|message`.
fn parse_stored_result(kept: String) -> Option<(i64, String)> {
    let mut parts = kept.splitn(3, '|');
    let at = parts.next()?.parse().ok()?;
    Some((at, parts.nth(1)?.to_owned()))
}

/// The status reached or the error's words, as JSON, from a result message.
fn outcome_json(message: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(message).unwrap_or_default();
    let words = value.get("status").or_else(|| value.get("error")).cloned();
    words.unwrap_or_default().to_string()
}
