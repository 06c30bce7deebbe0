//! `lua/submit_command.lua`: the one round trip in which a command is accepted or refused.

use super::idempotent_call::{DeadlinePassed, IdempotentCall};
use super::lua;
use super::results::CommandResult;
use super::stored_command::stored_command_json;
pub use super::submission::{ClientOrigin, Grant, Submission};
use crate::broker::keys::{RequestPlace, control_channel, refusals_member, request_name};
use crate::broker::{Broker, BrokerError, Keys};
use crate::config;
use crate::domain::{Action, CommandId, Control, RequestId, Resource, UserId, When, fnv1a, sha256};
use crate::protocol::control;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The limits in force.
#[derive(Debug, Clone, Copy)]
pub struct SubmitLimits {
    /// Commands of one user in any 60 s.
    pub commands_per_minute: u32,
    /// Commands without a result, per tenant.
    pub backlog_per_tenant: u32,
    /// Scheduled commands, per tenant.
    pub schedules_per_tenant: u32,
}

impl SubmitLimits {
    /// Those of the settings.
    pub fn of(limits: &config::Limits) -> Self {
        Self {
            commands_per_minute: limits.commands_per_minute,
            backlog_per_tenant: limits.backlog_per_tenant,
            schedules_per_tenant: limits.schedules_per_tenant,
        }
    }
}

/// What became of a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubmitOutcome {
    /// Recorded, queued, published.
    Accepted {
        /// Workers alive for this tenant just now.
        workers_online: i64,
        /// What a command on this job reaches just now; `None` for a campaign.
        control: Option<Control>,
    },
    /// The same `request_id` (or the same command id) was accepted before; nothing was done now.
    Repeated {
        /// The command of the first time.
        command: CommandId,
        /// Workers alive when it was first accepted.
        workers_online: i64,
        /// What it reached when it was first accepted, where that is known.
        control: Option<Control>,
        /// Its result, if it has one.
        result: Option<CommandResult>,
    },
    /// Kept for later (or was before, by the same `request_id`).
    Scheduled {
        /// Its id, also as a command once its time has come.
        command: CommandId,
        /// When it will be submitted, Unix ms.
        run_at: i64,
        /// Its result, if it has run and has one.
        result: Option<CommandResult>,
    },
    /// It was scheduled before by the same `request_id`, and has been taken back: it never runs. Nothing was done now.
    Withdrawn {
        /// What its id was.
        command: CommandId,
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
    /// The tenant has too many commands waiting (or scheduled); nothing was done.
    QueueFull,
    /// A scheduled command that was withdrawn, or has run already; nothing was done.
    Gone,
    /// It reached Redis after its deadline; nothing was done.
    TooLate,
}

impl Broker {
    /// Submits a command. Reads the clock of Redis; safe to call again with the same submission.
    /// Answers within about 1.8 s: reconnects and asks again where the first answer was lost.
    /// [`BrokerError::Unavailable`] and [`SubmitOutcome::TooLate`] mean that it was not accepted and never will be.
    pub async fn submit(&self, submission: &Submission, limits: SubmitLimits) -> Result<SubmitOutcome, BrokerError> {
        let prepared = prepare(self.keys(), submission, limits, self.former_programs.may_run());
        let answer = self.call_idempotent(prepared, |answer| read(answer, &submission.resource)).await?;
        Ok(answer.unwrap_or(SubmitOutcome::TooLate))
    }
}

/// The very words that [`Broker::submit`] sends, with no deadline: for the yardstick of `wheelhouse bench`, which lets
/// `redis-benchmark` send them.
pub fn words(names: Keys, submission: &Submission, limits: SubmitLimits) -> Vec<String> {
    prepare(names, submission, limits, false).words()
}

/// `with_former`: programs of the version before may run, and are to find what is remembered.
fn prepare(names: Keys, s: &Submission, limits: SubmitLimits, with_former: bool) -> IdempotentCall {
    let (r, user) = (&s.resource, &s.user);
    let partition = names.partition(&r.tenant);
    let request = request_key(names, r, user, s.request.as_ref().map(RequestId::as_str), s.command);
    let mut keys = names.command_keys(r);
    keys.extend([
        names.rate(&r.tenant, user),
        names.permissions(&r.tenant, user),
        names.min_permission_version(partition, user),
        names.workers(partition),
        names.tenant_workers(&r.tenant),
        request,
        names.schedule(partition),
        names.schedules(&r.tenant),
        names.refusals(partition),
        names.refusals_due(partition),
    ]);
    let body = BodyDigest::of(s);
    let named = s.request.as_ref().map(|id| {
        let name = request_name(r, user, id.as_str());
        let place = RequestPlace::of(&name);
        keys.extend(names.requests(partition, &place));
        keys.extend(names.former_requests(partition, &name));
        [name, place.field().to_owned(), body.short(s), u8::from(with_former).to_string()]
    });
    let permission = s.action.permission(r.kind).granted_by();
    let [permission, area, all] = permission;
    let (when, number) = match s.when {
        When::Now => ("now", 0),
        When::At(ms) => ("at", ms),
        When::After(seconds) => ("in", i64::from(seconds) * 1_000),
        When::Due => ("due", 0),
    };
    let mut args = Vec::from([
        String::new(), // The deadline, set on the way.
        s.command.to_string(),
        body.long(s),
        u8::from(s.request.is_some()).to_string(),
        s.grant.as_str().to_owned(),
        permission,
        area,
        all,
        limits.commands_per_minute.to_string(),
        limits.backlog_per_tenant.to_string(),
        stored_command_json(s),
        control_channel(&r.tenant, r.kind),
        control_message(s),
        r.to_string(),
        s.action.as_str().to_owned(),
        when.to_owned(),
        number.to_string(),
        limits.schedules_per_tenant.to_string(),
        former_digest(s),
        refusals_member(&r.tenant, user),
    ]);
    args.extend(named.into_iter().flatten());
    IdempotentCall::new(&lua::SUBMIT, keys, args)
}

/// Where the first answer is kept. Without a request id a denial is remembered by the command's own: one whose answer was lost is not
/// counted twice.
pub(super) fn request_key(
    names: Keys,
    r: &Resource,
    user: &UserId,
    request: Option<&str>,
    command: CommandId,
) -> String {
    match request {
        Some(id) => names.request(r, user, id),
        None => names.denial(r, command),
    }
}

/// What makes a repeat of a `request_id` the same request: action, reason and time. The reason by its SHA-256; `None` without one.
struct BodyDigest(Option<[u8; 32]>);

impl BodyDigest {
    fn of(s: &Submission) -> Self {
        Self(s.reason.as_deref().filter(|reason| !reason.is_empty()).map(sha256))
    }

    fn long(&self, s: &Submission) -> String {
        digest_with(s, &self.0.map_or_else(|| "-".to_owned(), hex::encode))
    }

    /// As it is kept among many: 96 bits of the SHA-256, so that the whole answer has room in the 64 bytes of a listpack's field.
    /// Only the very user who has chosen the `request_id` could look for two reasons that have them in common.
    fn short(&self, s: &Submission) -> String {
        let action = match s.action {
            Action::Cancel => "c",
            Action::Pause => "p",
            Action::Resume => "r",
        };
        let reason = self.0.map(|reason| URL_SAFE_NO_PAD.encode(&reason[..12])).unwrap_or_default();
        [action, &reason, &time_of(s)].concat()
    }
}

/// The same as a version before stored it, and as it is found in Redis for a day after an upgrade: with 16 hexadecimal
/// digits of FNV, so that no digest of one form equals one of the other.
fn former_digest(s: &Submission) -> String {
    digest_with(s, &format!("{:016x}", fnv1a(s.reason.as_deref().unwrap_or(""))))
}

fn digest_with(s: &Submission, reason: &str) -> String {
    [s.action.as_str(), ".", reason, &time_of(s)].concat()
}

fn time_of(s: &Submission) -> String {
    match s.when {
        When::Now | When::Due => String::new(),
        When::At(ms) => format!(".at{ms}"),
        When::After(seconds) => format!(".in{seconds}"),
    }
}

/// What wakes the workers.
pub(super) fn control_message(s: &Submission) -> String {
    control::message(s.action, &s.resource, &s.user, s.command, &jiff::Timestamp::now().to_string())
}

fn read(answer: &[String], resource: &Resource) -> Result<Result<SubmitOutcome, DeadlinePassed>, BrokerError> {
    let odd = || BrokerError::Refused(format!("submit_command answered {answer:?}"));
    let number = |i: usize| answer.get(i).and_then(|n| n.parse::<i64>().ok()).ok_or_else(odd);
    let command = || answer.get(1).and_then(|id| id.parse().ok()).ok_or_else(odd);
    let control = |i: usize| answer.get(i).and_then(|word| Control::parse(word));
    // Its record, then what version 0.1 reads.
    let result = |i: usize| -> Result<Option<CommandResult>, BrokerError> {
        let stored = answer.get(i..i + 2).ok_or_else(odd)?;
        CommandResult::read_answer(&stored[0], &stored[1], command()?, resource).map_err(|_| odd())
    };
    Ok(Ok(match answer.first().map_or("", String::as_str) {
        "accepted" => SubmitOutcome::Accepted { workers_online: number(1)?, control: control(2) },
        "repeated" => {
            let result = result(4)?;
            // What the ack said; where nobody has kept that, the result has it.
            let workers_online = number(2).or_else(|odd| result.as_ref().map(|r| r.workers_online).ok_or(odd))?;
            let control = control(3).or(result.as_ref().and_then(|result| result.control));
            SubmitOutcome::Repeated { command: command()?, workers_online, control, result }
        }
        "scheduled" => SubmitOutcome::Scheduled { command: command()?, run_at: number(2)?, result: result(3)? },
        "withdrawn" => SubmitOutcome::Withdrawn { command: command()? },
        "denied" => SubmitOutcome::Denied,
        "conflict" => SubmitOutcome::Conflict,
        "limited" => SubmitOutcome::RateLimited { retry_after: number(1)? },
        "unknown" => SubmitOutcome::PermissionsUnknown,
        "full" => SubmitOutcome::QueueFull,
        "late" => return Ok(Err(DeadlinePassed)),
        "gone" => SubmitOutcome::Gone,
        _ => return Err(odd()),
    }))
}
