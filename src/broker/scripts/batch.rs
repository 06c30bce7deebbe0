//! `lua/submit_batch.lua`: one action on many resources of a tenant, 100 to a round trip.

use super::former;
use super::idempotent_call::{DeadlinePassed, IdempotentCall};
use super::lua;
use super::results::CommandResult;
use super::stored_command::{RECORD_VERSION, StoredCommandFields, json, stored_command_json};
use super::submit::{ClientOrigin, Grant, Submission, SubmitLimits, control_message};
use crate::broker::keys::{control_channel, refusals_member};
use crate::broker::{Broker, BrokerError};
use crate::domain::{
    Action, CommandId, Control, IdDerivation, RequestId, Resource, ResourceId, ResourceKind, TenantId, UserId, When,
    fnv1a, sha256_hex,
};

/// Resources in one round trip, and in one unit of the budget.
pub const CHUNK_SIZE: usize = 100;
/// How long a batch with a `request_id` is remembered, in seconds.
const REQUEST_SECONDS: u32 = 86_400;
/// How long one without is, in seconds: its sender may ask again after a lost answer.
const LOST_ANSWER_SECONDS: u32 = 10;

/// Length of the digest that versions before stored: 64 bits of FNV. Today's has 64 hexadecimal digits.
const FORMER_DIGEST_LENGTH: usize = 16;

/// One action on many resources.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Made by the caller. The commands' ids follow from it, so that submitting the same again is safe.
    pub id: CommandId,
    /// How they follow from it: as for the first time, where the request was made before.
    pub derivation: IdDerivation,
    /// The tenant whose jobs the batch is about.
    pub tenant: TenantId,
    /// Jobs or campaigns.
    pub kind: ResourceKind,
    /// On which ones: each once.
    pub ids: Vec<ResourceId>,
    /// What to do.
    pub action: Action,
    /// Who asks.
    pub user: UserId,
    /// The client's name for the whole.
    pub request: Option<RequestId>,
    /// Whether there were others that it left out: remembered with it.
    pub more: bool,
    /// What the client asked for, as text: a repeat of the request with another one is a conflict.
    pub body: String,
    /// What the user gave as the reason, if anything.
    pub reason: Option<String>,
    /// From where, for the audit trail.
    pub origin: ClientOrigin,
    /// How the permission is known; never [`Grant::Internal`].
    pub grant: Grant,
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchSubmitted {
    /// Each resource has its own outcome.
    Done {
        /// Workers alive for this tenant just now.
        workers_online: i64,
        /// In the order of the ids.
        items: Vec<ItemSubmitted>,
    },
    /// The request was made before, as the batch of this id: submit with that one.
    KnownAs(CommandId),
    /// The same `request_id` came with another body before; nothing was done.
    Conflict,
    /// Not permitted. Uses budget the first time.
    Denied,
    /// The whole would be over the budget; nothing was done.
    RateLimited {
        /// Whole seconds until the whole would be accepted, 1 to 60.
        retry_after: i64,
    },
    /// The cache holds nothing for this user: read SQL, fill, submit again.
    PermissionsUnknown,
    /// It reached Redis after its deadline; nothing was done.
    TooLate,
}

/// What became of one resource of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemSubmitted {
    /// Recorded, queued, published.
    Accepted {
        /// What a command on this job reaches just now; `None` for a campaign.
        control: Option<Control>,
    },
    /// An earlier try of the same batch did that.
    Repeated {
        /// What it reached, or would reach now where it has no result yet.
        control: Option<Control>,
        /// Its result, if it has one.
        result: Option<CommandResult>,
    },
    /// The tenant has too many commands waiting; nothing was done.
    QueueFull,
    /// Redis went away after an earlier part. `false`: nothing was done; `true`: nobody knows.
    Unavailable {
        /// Whether it may have been accepted.
        perhaps_done: bool,
    },
}

/// A batch that was asked for before under a request id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBatch {
    /// Its id.
    pub id: CommandId,
    /// How the ids of its commands follow from that.
    pub derivation: IdDerivation,
    /// What it was about.
    pub ids: Vec<ResourceId>,
    /// Whether there were others that it left out.
    pub more: bool,
}

impl Batch {
    /// Units of the budget: one for each 100 resources or part of 100.
    pub fn cost(&self) -> usize {
        self.ids.len().div_ceil(CHUNK_SIZE)
    }

    /// The command that this batch is for one of its resources.
    pub fn command(&self, id: &ResourceId) -> CommandId {
        self.id.derive_as(self.derivation, &self.resource(id))
    }

    /// One of its resources.
    pub fn resource(&self, id: &ResourceId) -> Resource {
        Resource { tenant: self.tenant.clone(), kind: self.kind, id: id.clone() }
    }

    fn item(&self, id: &ResourceId) -> Submission {
        Submission {
            command: self.command(id),
            resource: self.resource(id),
            action: self.action,
            user: self.user.clone(),
            request: self.request.clone(),
            reason: self.reason.clone(),
            origin: self.origin.clone(),
            grant: self.grant,
            when: When::Now,
            batch: Some(self.id),
        }
    }

    /// The audit entry of a batch that is refused as a whole.
    fn refused_entry(&self) -> String {
        #[derive(serde::Serialize)]
        struct RefusedEntry<'a> {
            #[serde(flatten)]
            first: StoredCommandFields<'a>,
            outcome: String,
        }
        let first = Submission { command: self.id, ..self.item(&self.ids[0]) };
        let outcome = format!("a batch of {}, of which this is the first", self.ids.len());
        json(&RefusedEntry { first: StoredCommandFields::of(&first), outcome })
    }

    /// What is remembered of it where it is accepted.
    fn remembered(&self) -> String {
        json(&StoredRequest {
            v: RECORD_VERSION,
            body: sha256_hex(&self.body),
            outcome: "accepted".to_owned(),
            batch_id: self.id.to_string(),
            // Without a request id nobody asks what it was about.
            ids: if self.request.is_some() { self.ids.clone() } else { Vec::new() },
            more: self.more,
        })
    }
}

/// The first answer to a batch as it stands in `U:batch:…`.
#[derive(serde::Serialize, serde::Deserialize)]
struct StoredRequest {
    v: u32,
    body: String,
    outcome: String,
    batch_id: String,
    #[serde(default)]
    ids: Vec<ResourceId>,
    #[serde(default)]
    more: bool,
}

impl StoredBatch {
    pub(super) fn read(stored: &str) -> Option<Self> {
        if let Ok(read) = serde_json::from_str::<StoredRequest>(stored) {
            let (id, derivation) = (read.batch_id.parse().ok()?, IdDerivation::Uuid5);
            return (!read.ids.is_empty()).then_some(Self { id, derivation, ids: read.ids, more: read.more });
        }
        let [body, _, id, ids, more] = former::split_batch(stored)?;
        // A version that stored the digest in its former form gave the ids in the former way.
        let derivation = match body.len() {
            FORMER_DIGEST_LENGTH => IdDerivation::Fnv,
            _ => IdDerivation::Uuid5,
        };
        let ids = ids.split(',').map(str::parse).collect::<Result<_, _>>().ok()?;
        Some(Self { id: id.parse().ok()?, derivation, ids, more: more == "more" })
    }
}

impl Broker {
    /// What was asked for before under this request id, if it was a batch. Its items may then be repeated exactly,
    /// also where they came from a filter that would find other ones by now.
    pub async fn known_batch(
        &self,
        tenant: &TenantId,
        user: &UserId,
        request: &RequestId,
    ) -> Result<Option<StoredBatch>, BrokerError> {
        let key = self.keys().batch(tenant, user, request.as_str());
        let stored: Option<String> = self.client.query(redis::cmd("GET").arg(key)).await?;
        Ok(stored.and_then(|stored| StoredBatch::read(&stored)))
    }

    /// Submits a batch, part by part. The first part pays for all and decides on the whole; if a later one cannot
    /// be delivered, its resources say so and the earlier ones stand. Safe to call again with the same batch.
    pub async fn submit_batch(&self, batch: &Batch, limits: SubmitLimits) -> Result<BatchSubmitted, BrokerError> {
        let mut all = Vec::with_capacity(batch.ids.len());
        let mut online = 0;
        for part in batch.ids.chunks(CHUNK_SIZE) {
            let first = all.is_empty();
            let delivery = prepare(self, batch, part, first, limits);
            match self.call_idempotent(delivery, |answer| read(answer, batch, part)).await {
                Ok(Ok(BatchSubmitted::Done { workers_online, items })) => {
                    online = workers_online;
                    all.extend(items);
                }
                Ok(Ok(refused)) if first => return Ok(refused),
                Ok(Err(DeadlinePassed)) if first => return Ok(BatchSubmitted::TooLate),
                Err(error) if first => return Err(error),
                later => {
                    let perhaps_done = matches!(later, Err(BrokerError::Unknown(_)));
                    all.extend(part.iter().map(|_| ItemSubmitted::Unavailable { perhaps_done }));
                }
            }
        }
        Ok(BatchSubmitted::Done { workers_online: online, items: all })
    }
}

fn prepare(broker: &Broker, batch: &Batch, part: &[ResourceId], first: bool, limits: SubmitLimits) -> IdempotentCall {
    let (names, tenant, user) = (broker.keys(), &batch.tenant, &batch.user);
    let partition = names.partition(tenant);
    let (known, seconds) = match &batch.request {
        Some(request) => (names.batch(tenant, user, request.as_str()), REQUEST_SECONDS),
        None => (names.batch_by_id(tenant, user, batch.id), LOST_ANSWER_SECONDS),
    };
    let mut keys = names.tenant_command_keys(tenant).to_vec();
    keys.extend([
        names.rate(tenant, user),
        names.permissions(tenant, user),
        names.min_permission_version(partition, user),
        names.workers(partition),
        names.tenant_workers(tenant),
        known,
        names.refusals(partition),
        names.refusals_due(partition),
    ]);
    let [permission, area, all] = batch.action.permission(batch.kind).granted_by();
    let mut args = vec![
        String::new(), // The deadline, set on the way.
        batch.id.to_string(),
        sha256_hex(&batch.body),
        seconds.to_string(),
        batch.grant.as_str().to_owned(),
        permission,
        area,
        all,
        limits.commands_per_minute.to_string(),
        limits.backlog_per_tenant.to_string(),
        if first { batch.cost() } else { 0 }.to_string(),
        batch.action.as_str().to_owned(),
        control_channel(tenant, batch.kind),
        if first { batch.remembered() } else { String::new() },
        batch.refused_entry(),
        format!("{:016x}", fnv1a(&batch.body)),
        refusals_member(tenant, user),
    ];
    for id in part {
        let item = batch.item(id);
        keys.extend(names.resource_command_keys(&item.resource));
        args.extend([
            item.command.to_string(),
            item.resource.to_string(),
            stored_command_json(&item),
            control_message(&item),
        ]);
    }
    IdempotentCall::new(&lua::SUBMIT_BATCH, keys, args)
}

fn read(
    answer: &[String],
    batch: &Batch,
    part: &[ResourceId],
) -> Result<Result<BatchSubmitted, DeadlinePassed>, BrokerError> {
    let odd = || BrokerError::Refused(format!("submit_batch answered {answer:?}"));
    let number = |i: usize| answer.get(i).and_then(|n| n.parse::<i64>().ok()).ok_or_else(odd);
    Ok(Ok(match answer.first().map_or("", String::as_str) {
        "done" if answer.len() == 3 + 4 * part.len() => {
            let item = |(n, id): (usize, &ResourceId)| {
                let at = 2 + 4 * n;
                let control = Control::parse(&answer[at + 1]);
                Ok(match answer[at].as_str() {
                    "accepted" => ItemSubmitted::Accepted { control },
                    "full" => ItemSubmitted::QueueFull,
                    "repeated" => {
                        let (resource, command) = (batch.resource(id), batch.command(id));
                        let read = CommandResult::read_answer(&answer[at + 2], &answer[at + 3], command, &resource);
                        let result = read.map_err(|_| odd())?;
                        ItemSubmitted::Repeated { control: result.as_ref().map_or(control, |r| r.control), result }
                    }
                    _ => return Err(odd()),
                })
            };
            BatchSubmitted::Done {
                workers_online: number(1)?,
                items: part.iter().enumerate().map(item).collect::<Result<_, BrokerError>>()?,
            }
        }
        "known" => BatchSubmitted::KnownAs(answer.get(1).and_then(|id| id.parse().ok()).ok_or_else(odd)?),
        "denied" => BatchSubmitted::Denied,
        "conflict" => BatchSubmitted::Conflict,
        "limited" => BatchSubmitted::RateLimited { retry_after: number(1)? },
        "unknown" => BatchSubmitted::PermissionsUnknown,
        "late" => return Ok(Err(DeadlinePassed)),
        _ => return Err(odd()),
    }))
}
