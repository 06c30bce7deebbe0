//! `lua/due_schedules.lua`, `withdraw_schedule.lua`: commands that were scheduled for later. They are put there, and
//! brought in when their time has come, by `submit_command`.

use std::time::Instant;

use super::former;
use super::idempotent_call::{DeadlinePassed, IdempotentCall};
use super::lua;
use super::stored_command::{StoredCommand, stored_command_json};
use super::submit::{ClientOrigin, Grant, Submission, request_key};
use crate::broker::keys::{read_schedule_member, schedule_member};
use crate::broker::{Broker, BrokerError, Partition};
use crate::domain::{Action, CommandId, Resource, TenantId, UserId, When};

/// A command that waits for its time.
#[derive(Debug, Clone, PartialEq)]
pub struct Scheduled {
    /// Its id, also as a command once its time has come.
    pub command: CommandId,
    /// What it is about.
    pub resource: Resource,
    /// What to do.
    pub action: Action,
    /// Who asked.
    pub user: UserId,
    /// The client's name for it.
    pub request_id: Option<String>,
    /// What the user gave as the reason, if anything.
    pub reason: Option<String>,
    /// From where it was asked.
    pub origin: ClientOrigin,
    /// When it was asked, Unix ms by Redis's clock.
    pub asked_at: i64,
    /// When it will be submitted, Unix ms by Redis's clock.
    pub run_at: i64,
}

/// What is due in a partition.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DueSchedules {
    /// Longest due first.
    pub due: Vec<(Resource, CommandId)>,
    /// Milliseconds until the next one after them.
    pub next_in_ms: Option<i64>,
    /// What time it is there, Unix ms.
    pub now: i64,
}

/// What taking one back gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithdrawOutcome {
    /// It never runs.
    Done,
    /// There is none: somebody else took it back, or its time has come.
    Gone,
}

impl Scheduled {
    pub(super) fn read(command: CommandId, stored: &str) -> Option<Self> {
        /// As it stands in `{tenant}:schedules`.
        #[derive(serde::Deserialize)]
        struct StoredSchedule {
            #[serde(flatten)]
            command: StoredCommand,
            run_at: Option<i64>,
            asked_at: Option<i64>,
        }
        let (run_at, asked_at, json) = former::split_schedule(stored);
        let read: StoredSchedule = serde_json::from_str(json).ok()?;
        let (resource, origin) = (read.command.resource()?, read.command.origin());
        let StoredCommand { action, user_id: user, request_id, reason, .. } = read.command;
        let (asked_at, run_at) = (read.asked_at.or(asked_at)?, read.run_at.or(run_at)?);
        Some(Self { command, resource, action, user, request_id, reason, origin, asked_at, run_at })
    }

    /// What is submitted when its time has come: the very command that was asked for, by the same user.
    pub fn submission(&self, grant: Grant) -> Submission {
        Submission {
            command: self.command,
            resource: self.resource.clone(),
            action: self.action,
            user: self.user.clone(),
            request: self.request_id.as_deref().and_then(|id| id.parse().ok()),
            reason: self.reason.clone(),
            origin: self.origin.clone(),
            grant,
            when: When::Due,
            batch: None,
        }
    }
}

impl Broker {
    /// Scheduled commands of a partition whose time has come.
    pub async fn due_schedules(&self, partition: Partition, limit: usize) -> Result<DueSchedules, BrokerError> {
        let (schedule, asked) = (self.keys().schedule(partition), Instant::now());
        let mut answer: Vec<String> =
            self.client.script(&lua::DUE_SCHEDULES, &[&schedule], &[limit.to_string().as_bytes()]).await?;
        let odd = || BrokerError::Refused("due_schedules answered oddly".to_owned());
        let now: i64 = answer.pop().and_then(|now| now.parse().ok()).ok_or_else(odd)?;
        self.observe_clock(partition, asked, now);
        let next = answer.pop().ok_or_else(odd)?.parse::<i64>().ok();
        let due = answer.iter().filter_map(|member| read_schedule_member(member)).collect();
        Ok(DueSchedules { due, next_in_ms: next.map(|at| at - now), now })
    }

    /// Asks what time it is where this partition is, so that a step of that clock is noticed
    /// ([`Broker::ttl_adjusted_for_clock_steps`]).
    /// Unix ms.
    pub async fn read_clock(&self, partition: Partition) -> Result<i64, BrokerError> {
        Ok(self.due_schedules(partition, 0).await?.now)
    }

    /// A tenant's scheduled command; `None`: there is none by that id (any more).
    pub async fn scheduled(&self, tenant: &TenantId, command: CommandId) -> Result<Option<Scheduled>, BrokerError> {
        let kept: Option<String> =
            self.client.query(redis::cmd("HGET").arg(self.keys().schedules(tenant)).arg(command.to_string())).await?;
        Ok(kept.and_then(|kept| Scheduled::read(command, &kept)))
    }

    /// Takes one off the list of what is due of which nothing can be read: it would be found there for ever.
    pub async fn remove_unreadable_schedule(&self, resource: &Resource, command: CommandId) -> Result<(), BrokerError> {
        let schedule = self.keys().schedule(self.keys().partition(&resource.tenant));
        let member = schedule_member(resource, command);
        self.client.query::<i64>(redis::cmd("ZREM").arg(schedule).arg(member)).await.map(|_| ())
    }

    /// All of a tenant's scheduled commands, the next to run first. As many as `limits.schedules_per_tenant` at most.
    pub async fn schedules(&self, tenant: &TenantId) -> Result<Vec<Scheduled>, BrokerError> {
        let kept: std::collections::HashMap<String, String> =
            self.client.query(redis::cmd("HGETALL").arg(self.keys().schedules(tenant))).await?;
        let read = |(id, kept): (&String, &String)| Scheduled::read(id.parse().ok()?, kept);
        let mut all: Vec<Scheduled> = kept.iter().filter_map(read).collect();
        all.sort_by_key(|scheduled| (scheduled.run_at, scheduled.command));
        Ok(all)
    }

    /// Takes a scheduled command back, in somebody's name. Answers within about 1.8 s: asks again where the first
    /// answer was lost. [`BrokerError::Unavailable`] means that it was not taken back and never will be by this.
    pub async fn withdraw(
        &self,
        scheduled: &Scheduled,
        by: &UserId,
        origin: &ClientOrigin,
        reason: Option<&str>,
    ) -> Result<WithdrawOutcome, BrokerError> {
        let (names, r) = (self.keys(), &scheduled.resource);
        let partition = names.partition(&r.tenant);
        let keys = [
            names.schedule(partition),
            names.schedules(&r.tenant),
            names.audit(partition),
            names.withdrawn(&r.tenant, scheduled.command),
            request_key(names, r, &scheduled.user, scheduled.request_id.as_deref(), scheduled.command),
        ];
        let entry = Submission {
            user: by.clone(),
            origin: origin.clone(),
            reason: reason.map(str::to_owned),
            ..scheduled.submission(Grant::Internal)
        };
        let args = [
            String::new(), // The deadline, set on the way.
            scheduled.command.to_string(),
            r.to_string(),
            format!("{},\"run_at\":{}}}", stored_command_json(&entry), scheduled.run_at),
            CommandId::generate().to_string(),
        ];
        let delivery = IdempotentCall::new(&lua::WITHDRAW_SCHEDULE, keys.into(), args.into());
        let late = |_| BrokerError::Unavailable("it reached Redis too late".to_owned());
        self.call_idempotent(delivery, read).await?.map_err(late)
    }
}

fn read(answer: &[String]) -> Result<Result<WithdrawOutcome, DeadlinePassed>, BrokerError> {
    match answer.first().map_or("", String::as_str) {
        "withdrawn" => Ok(Ok(WithdrawOutcome::Done)),
        "gone" => Ok(Ok(WithdrawOutcome::Gone)),
        "late" => Ok(Err(DeadlinePassed)),
        _ => Err(BrokerError::Refused(format!("withdraw_schedule answered {answer:?}"))),
    }
}
