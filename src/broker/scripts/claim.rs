//! `lua/claim_command.lua`, `renew_claim.lua`, `complete_command.lua`, `retry_command.lua`: from a
//! waiting command to its one result, fenced.

use std::time::{Duration, Instant};

use super::failed::open_failed;
use super::former;
use super::results::StoredResult;
use super::stored_command::{StoredCommand, open_json};
use super::{bytes, lua, texts};
use crate::broker::keys::updates_channel;
use crate::broker::{Broker, BrokerError, Partition};
use crate::domain::{Action, CommandId, Control, Resource, TenantId, UserId, WorkerId};
use crate::protocol::{CommandError, Outcome, server};

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
    /// What the user gave as the reason, if anything.
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
    /// What its audit entry begins with.
    pub(super) stored: StoredCommand,
    /// The same as JSON, as it stood in Redis.
    json: String,
}

impl Claim {
    /// By what SQL knows the request again: a command and a batch may have been asked for under the same name, and are two
    /// requests. No name holds a `:`.
    pub fn request_name(&self) -> Option<String> {
        let id = self.request_id.as_deref()?;
        Some(if self.stored.batch_id.is_some() { format!("batch:{id}") } else { id.to_owned() })
    }

    /// What SQL keeps of the command until its end is in the audit trail: a JSON object with all that is known of it, and who
    /// carries it out, at which try.
    pub fn record(&self, worker: &WorkerId) -> String {
        // Ids need no escaping.
        let open = self.json.trim_end().strip_suffix('}').unwrap_or("{");
        format!("{open},\"worker_id\":\"{worker}\",\"attempts\":{}}}", self.attempt)
    }
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
        let answer: Vec<String> = self.client.script_replicated(&lua::CLAIM, &texts(&keys), &bytes(&args)).await?;
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
            Some("command") if answer.len() == 7 => {
                let stored = StoredCommand::read(&answer[2]).ok_or_else(odd)?;
                let number = |i: usize| answer[i].parse::<i64>().map_err(|_| odd());
                let claimed_at = number(5)?;
                self.observe_clock(partition, asked, claimed_at);
                Ok(ClaimOutcome::Command(Box::new(Claim {
                    resource: resource.clone(),
                    command: answer[1].parse().map_err(|_| odd())?,
                    action: stored.action,
                    user: stored.user_id.clone(),
                    request_id: stored.request_id.clone(),
                    reason: stored.reason.clone(),
                    // Later than now: Redis's clock has been set back since.
                    accepted_at: stored.accepted_at.ok_or_else(odd)?.min(claimed_at),
                    claimed_at,
                    attempt: u32::try_from(number(3)?).map_err(|_| odd())?,
                    fence: number(4)?,
                    cancel_waits: !answer[6].is_empty(),
                    json: former::split_command(&answer[2]).2.to_owned(),
                    stored,
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

    /// Records the result, publishes it, and frees the resource. `control`: of a job, what the command reached. `update`: a
    /// message without its end, as in [`Update`](super::updates::Update), that everyone hears before the result.
    pub async fn complete(
        &self,
        claim: &Claim,
        worker: &WorkerId,
        outcome: &Outcome,
        control: Option<Control>,
        update: Option<&str>,
    ) -> Result<CompleteOutcome, BrokerError> {
        let r = &claim.resource;
        let keys = self.keys().command_keys(r);
        let request = claim.request_id.as_deref();
        let (event, said, failed) = match outcome {
            Outcome::Succeeded(status) => ("succeeded", status.clone(), String::new()),
            Outcome::Failed(error) => {
                let event = if *error == CommandError::Expired { "expired" } else { "failed" };
                // Nobody will want to ask again for what a cancel has made void.
                let failed = match error {
                    CommandError::Superseded => String::new(),
                    error => open_failed(&claim.stored, event, error),
                };
                (event, error.message(claim.action, r.kind).into_owned(), failed)
            }
        };
        let args = [
            claim.command.to_string(),
            claim.fence.to_string(),
            event.to_owned(),
            server::result(outcome, claim.action, r, claim.command, control, request),
            open_json(&StoredResult::new(outcome, claim.action, control, request)),
            open_json(&EndedEntry { command: &claim.stored, outcome: &said, worker_id: worker.as_str() }),
            failed,
            r.to_string(),
            claim.accepted_at.to_string(),
            claim.stored.workers_online.unwrap_or_default().to_string(),
            update.map(|_| updates_channel(r)).unwrap_or_default(),
            update.unwrap_or_default().to_owned(),
        ];
        #[cfg(feature = "test-faults")]
        if crate::test_faults::fence_is_off() {
            self.forget_that_it_was_lost(claim).await?;
        }
        let answer: String = self.client.script_replicated(&lua::COMPLETE, &texts(&keys), &bytes(&args)).await?;
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
        let args = [ttl.as_millis().to_string(), resource.to_string()];
        let ended: Vec<String> = self.client.script(&lua::EXPIRE, &texts(&keys), &bytes(&args)).await?;
        Ok(ended.iter().filter_map(|id| id.parse().ok()).collect())
    }

    fn claim_keys(&self, claim: &Claim) -> [String; 3] {
        let (names, tenant) = (self.keys(), &claim.resource.tenant);
        [names.state(&claim.resource), names.ready(tenant), names.tenants_with_ready(names.partition(tenant))]
    }
}

/// The audit entry of a command that a worker has ended. The script appends how many tries it took, and how long.
#[derive(serde::Serialize)]
struct EndedEntry<'a> {
    #[serde(flatten)]
    command: &'a StoredCommand,
    outcome: &'a str,
    worker_id: &'a str,
}
