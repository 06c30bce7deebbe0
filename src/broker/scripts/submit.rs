//! `lua/submit_command.lua`: the one round trip in which a command is accepted or refused.

use std::time::{Duration, Instant};

use super::lua;
use crate::broker::keys::{control_channel, reply_channel};
use crate::broker::{Broker, BrokerError};
use crate::domain::{Action, CommandId, RequestId, Resource, UserId};
use crate::protocol::{control, server};

/// A command on its way in.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Made by the caller, so that submitting the same again after a lost answer is safe.
    pub command: CommandId,
    /// What it is about.
    pub resource: Resource,
    /// What to do.
    pub action: Action,
    /// Who asks.
    pub user: UserId,
    /// The client's name for it.
    pub request: Option<RequestId>,
    /// Why.
    pub reason: Option<String>,
    /// From where, for the audit trail.
    pub origin: Origin,
    /// How the permission is known.
    pub grant: Grant,
}

/// From where a command came.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Origin {
    /// The client's address.
    pub address: Option<String>,
    /// The token's `jti`.
    pub token_id: Option<String>,
}

/// How the permission for a command is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// By the cached rows of SQL.
    Database,
    /// By the token: allowed or not.
    Token(bool),
    /// Follows from another command (a cancelled campaign cancels its running jobs): no check, no budget.
    Internal,
}

/// The limits in force.
#[derive(Debug, Clone, Copy)]
pub struct SubmitLimits {
    /// Commands of one user in any 60 s.
    pub commands_per_minute: u32,
    /// Commands without a result, per tenant.
    pub backlog_per_tenant: u32,
}

/// What became of a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submitted {
    /// Recorded, queued, published.
    Accepted {
        /// Workers alive for this tenant just now.
        workers_online: i64,
    },
    /// The same `request_id` (or the same command id) was accepted before; nothing was done now.
    Repeated {
        /// The command of the first time.
        command: CommandId,
        /// Workers alive when it was first accepted.
        workers_online: i64,
        /// Its result message, if it has one, and when (Unix ms by Redis's clock).
        result: Option<(String, i64)>,
    },
    /// The same `request_id` came with another body before; nothing was done.
    Conflict,
    /// Not permitted; also the answer to a repeat of a denied request. Uses budget the first time.
    Denied,
    /// Over the budget; nothing was done.
    RateLimited {
        /// Whole seconds until a command would be accepted, 1 to 60.
        retry_after: i64,
    },
    /// The cache holds nothing for this user: read SQL, fill, submit again.
    PermissionsUnknown,
    /// The tenant has too many commands waiting; nothing was done.
    QueueFull,
    /// It reached Redis after its deadline; nothing was done.
    TooLate,
}

/// Longest time that a submission may take, all tries together.
const PATIENCE: Duration = Duration::from_millis(1_800);
/// After this, by Redis's clock, it is not accepted any more: what was reported as not done never runs later.
const DEADLINE_US: i64 = 1_500_000;

impl Broker {
    /// Submits a command. Reads the clock of Redis; safe to call again with the same submission.
    /// Answers within about 1.8 s: reconnects and asks again where the first answer was lost.
    /// [`BrokerError::Unavailable`] and [`Submitted::TooLate`] mean that it was not accepted and never will be.
    pub async fn submit(&self, submission: &Submission, limits: SubmitLimits) -> Result<Submitted, BrokerError> {
        let begun = Instant::now();
        let mut prepared = Prepared::new(self, submission, limits);
        let (mut sent, mut clock_corrected) = (false, false);
        loop {
            let left = PATIENCE.saturating_sub(begun.elapsed());
            let outcome = match tokio::time::timeout(left, prepared.send(self)).await {
                Ok(Ok(answer)) => match read(self, &prepared.keys[0], &answer)? {
                    // Our idea of Redis's clock was wrong, and the answer brought the right one.
                    Submitted::TooLate if !sent && !clock_corrected => {
                        clock_corrected = true;
                        prepared.set_deadline(self, begun);
                        continue;
                    }
                    outcome => return Ok(outcome),
                },
                Ok(Err(error @ BrokerError::Refused(_))) if !sent => return Err(error),
                Ok(Err(error)) => error,
                Err(_) => BrokerError::Unknown("no answer in time".to_owned()),
            };
            sent |= matches!(outcome, BrokerError::Unknown(_));
            // Nothing was ever sent: the caller may know at once. Else asking again finds out what became of it.
            let left = PATIENCE.saturating_sub(begun.elapsed());
            if !sent || left.is_zero() || !self.link.wait_up(&prepared.keys[0], left).await {
                return Err(if sent { BrokerError::Unknown(outcome.to_string()) } else { outcome });
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Everything that travels, made once: a repeat must be the same to the byte.
struct Prepared {
    keys: Vec<String>,
    args: Vec<Vec<u8>>,
}

impl Prepared {
    fn new(broker: &Broker, s: &Submission, limits: SubmitLimits) -> Self {
        let names = broker.keys();
        let (r, user) = (&s.resource, &s.user);
        let partition = names.partition(&r.tenant);
        let state = names.state(r);
        // Without a request id the command's own stands in: a denial whose answer was lost is not counted twice.
        let request = match &s.request {
            Some(id) => names.request(r, user, id.as_str()),
            None => names.request(r, user, &s.command.to_string()),
        };
        let keys = vec![
            state,
            names.queue(r),
            names.commands(r),
            names.results(r),
            names.finished(r),
            names.ready(partition),
            names.backlog(&r.tenant),
            names.audit(partition),
            names.rate(&r.tenant, user),
            names.permissions(&r.tenant, user),
            names.permission_floor(partition, user),
            names.workers(partition),
            names.tenant_workers(&r.tenant),
            request,
        ];
        let permission = s.action.permission(r.kind).granted_by();
        let issued_at = jiff::Timestamp::now().to_string();
        let grant = match s.grant {
            Grant::Database => "database",
            Grant::Token(true) => "allowed",
            Grant::Token(false) => "denied",
            Grant::Internal => "internal",
        };
        let audit = audit_open(s);
        let record = serde_json::json!({
            "action": s.action.word(),
            "user_id": user.as_str(),
            "request_id": s.request.as_ref().map(|id| id.as_str()),
            "reason": s.reason,
            "failed": failed_open(s),
            "audit": audit,
        });
        let [permission, area, all] = permission;
        let digest =
            format!("{}.{:016x}", s.action.word(), crate::broker::keys::fnv1a(s.reason.as_deref().unwrap_or("")));
        let args = [
            deadline(broker, &keys[0], Duration::ZERO),
            s.command.to_string(),
            digest,
            u8::from(s.request.is_some()).to_string(),
            grant.to_owned(),
            permission,
            area,
            all,
            limits.commands_per_minute.to_string(),
            limits.backlog_per_tenant.to_string(),
            record.to_string(),
            audit,
            control_channel(&r.tenant, r.kind),
            control::message(s.action, r, user, s.command, &issued_at),
            r.to_string(),
            s.action.word().to_owned(),
            reply_channel(r),
        ];
        Self { keys, args: args.into_iter().map(String::into_bytes).collect() }
    }

    fn set_deadline(&mut self, broker: &Broker, begun: Instant) {
        self.args[0] = deadline(broker, &self.keys[0], begun.elapsed()).into_bytes();
    }

    async fn send(&self, broker: &Broker) -> Result<Vec<String>, BrokerError> {
        let keys: Vec<&str> = self.keys.iter().map(String::as_str).collect();
        let args: Vec<&[u8]> = self.args.iter().map(Vec::as_slice).collect();
        broker.link.script(&lua::SUBMIT, &keys, &args).await
    }
}

/// Unix µs by the clock of the Redis that has the key.
fn deadline(broker: &Broker, key: &str, since_begun: Duration) -> String {
    let spent = i64::try_from(since_begun.as_micros()).unwrap_or(DEADLINE_US);
    (broker.link.now_us(key) + DEADLINE_US - spent).to_string()
}

/// The audit entry without its end: the scripts add what they alone know.
fn audit_open(s: &Submission) -> String {
    let entry = serde_json::json!({
        "tenant_id": s.resource.tenant.as_str(),
        "user_id": s.user.as_str(),
        "resource_kind": s.resource.kind.word(),
        "resource_id": s.resource.id.as_str(),
        "action": s.action.word(),
        "command_id": s.command.to_string(),
        "request_id": s.request.as_ref().map(|id| id.as_str()),
        "reason": s.reason,
        "address": s.origin.address,
        "token_id": s.origin.token_id,
    });
    let mut text = entry.to_string();
    text.pop();
    text
}

/// `{"type":"pause_failed",…` up to the error, for the script that supersedes a waiting command.
fn failed_open(s: &Submission) -> String {
    let whole = server::failed(s.action, &s.resource, s.command, "", None);
    whole.strip_suffix(",\"error\":\"\"}").unwrap_or_default().to_owned()
}

fn read(broker: &Broker, key: &str, answer: &[String]) -> Result<Submitted, BrokerError> {
    let odd = || BrokerError::Refused(format!("submit_command answered {answer:?}"));
    let number = |i: usize| answer.get(i).and_then(|n| n.parse::<i64>().ok()).ok_or_else(odd);
    broker.link.learn_clock(key, number(answer.len().wrapping_sub(1))?);
    Ok(match answer[0].as_str() {
        "accepted" => Submitted::Accepted { workers_online: number(1)? },
        "repeated" => {
            let command = answer.get(1).and_then(|id| id.parse().ok()).ok_or_else(odd)?;
            let result = answer.get(4).filter(|message| !message.is_empty() && answer.len() == 6);
            let result = match result {
                Some(message) => Some((message.clone(), number(3)?)),
                None => None,
            };
            Submitted::Repeated { command, workers_online: number(2)?, result }
        }
        "denied" => Submitted::Denied,
        "conflict" => Submitted::Conflict,
        "limited" => Submitted::RateLimited { retry_after: number(1)? },
        "unknown" => Submitted::PermissionsUnknown,
        "full" => Submitted::QueueFull,
        "late" => Submitted::TooLate,
        _ => return Err(odd()),
    })
}
