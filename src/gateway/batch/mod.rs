//! One action on many resources, whichever way it was asked for: who exists (`find`), submission, answer.
//! [`follower`] brings a socket the results; [`waiting`] an HTTP request.

mod find;
pub mod follower;
pub mod waiting;

use std::collections::HashSet;
use std::sync::Arc;

use self::find::{FoundResources, find};
use super::commands::{CONFLICT, CommandSubmitter, PERMISSION_READS, QUEUE_FULL, permission_denied, refusal_of};
use super::drain::Drain;
use crate::auth::{Caller, Policy};
use crate::broker::Broker;
use crate::broker::scripts::batch::{Batch, BatchSubmitted, CHUNK_SIZE, ItemSubmitted};
use crate::broker::scripts::results::CommandResult;
use crate::broker::scripts::submit::{ClientOrigin, SubmitLimits};
use crate::config::Limits;
use crate::domain::{CommandId, IdDerivation, Permission, Resource, ResourceId};
use crate::http::reply::{Refusal, UNAVAILABLE};
use crate::protocol::batch_messages::{self, BatchHeader, BatchItem, ItemState};
use crate::protocol::tenant::resource_not_found;
use crate::protocol::{BatchRequest, ErrorCode};
use crate::store::Store;
use crate::telemetry::metrics;

/// How often a request is taken up again that another gateway took in at the same moment.
const MAX_ATTEMPTS: u32 = 3;

/// What a batch is answered with that is not refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchOutcome {
    /// Each resource has its own outcome; results follow.
    Accepted(AcceptedBatch),
    /// A dry run: the message that says what it would hit.
    Preview(String),
}

/// A batch that was accepted, now or before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedBatch {
    /// What all of its answers say.
    pub head: BatchHeader,
    /// Workers alive for the tenant.
    pub workers_online: i64,
    /// In the order in which they were named or found.
    pub items: Vec<BatchItem>,
    /// Whether the filter would have found others.
    pub more: bool,
    /// Results that are there already.
    pub results: Vec<CommandResult>,
}

impl AcceptedBatch {
    /// The first answer.
    pub fn message(&self) -> String {
        batch_messages::requested(&self.head, self.workers_online, &self.items, self.more)
    }

    /// Every command of it.
    pub fn commands(&self) -> impl Iterator<Item = (Resource, CommandId)> + '_ {
        self.items.iter().filter_map(|item| match item.state {
            ItemState::Accepted(command, _) => Some((self.resource(&item.id), command)),
            _ => None,
        })
    }

    fn resource(&self, id: &ResourceId) -> Resource {
        Resource { tenant: self.head.tenant.clone(), kind: self.head.kind, id: id.clone() }
    }
}

/// Submits batches.
pub struct BatchSubmitter {
    broker: Broker,
    store: Store,
    policy: Policy,
    limits: Limits,
    commands: Arc<CommandSubmitter>,
    drain: Drain,
}

impl BatchSubmitter {
    /// `commands`: with which the commands of a batch share what applies to each command.
    pub fn new(
        broker: Broker,
        store: Store,
        policy: Policy,
        limits: Limits,
        commands: Arc<CommandSubmitter>,
        drain: Drain,
    ) -> Self {
        Self { broker, store, policy, limits, commands, drain }
    }

    /// Carries a request out in a caller's name. `address` is the client's, for the audit trail. Goes on to its end even
    /// if nobody waits any more: a batch is not left half submitted because a socket closed.
    pub async fn ask(
        self: &Arc<Self>,
        caller: &Arc<Caller>,
        request: BatchRequest,
        address: Option<&str>,
    ) -> Result<BatchOutcome, Refusal> {
        let request_id = request.request_id.clone();
        let (of_task, caller, address) = (self.clone(), caller.clone(), address.map(str::to_owned));
        let task = self.drain.tracker.spawn(async move {
            let work = async {
                match request.dry_run {
                    true => of_task.preview(&caller, &request).await.map(BatchOutcome::Preview),
                    false => of_task.submit(&caller, &request, address).await.map(BatchOutcome::Accepted),
                }
            };
            let cut = || Err(Refusal::new(ErrorCode::OutcomeUnknown, INTERRUPTED_MESSAGE));
            let answer = of_task.drain.killed.run_until_cancelled(work).await.unwrap_or_else(cut);
            let answer = of_task.commands.revise_batch(&caller, &request, answer);
            let answer = answer.map_err(|refusal| refusal.with_request_id(request.request_id.as_ref()));
            log(&caller, &request, &answer);
            answer
        });
        task.await.unwrap_or_else(|_| {
            Err(Refusal::new(ErrorCode::OutcomeUnknown, INTERRUPTED_MESSAGE).with_request_id(request_id))
        })
    }

    /// What it would hit. Uses no budget, and takes the right to see the resources beside the right to command them.
    async fn preview(&self, caller: &Caller, request: &BatchRequest) -> Result<String, Refusal> {
        let (action, kind) = (request.action, request.kind);
        if !self.policy.check(caller, &action.permission(kind)).await? {
            return Err(permission_denied(action, kind));
        }
        if !self.policy.check(caller, &Permission::read(kind)).await? {
            return Err(Refusal::forbidden(&format!("read {}", kind.as_str())));
        }
        let found = find(&self.store, caller, request, None).await?;
        let there: HashSet<&ResourceId> = found.there.iter().collect();
        let items = found.asked.iter().map(|id| match there.contains(id) {
            true => BatchItem { id: id.clone(), state: ItemState::Hit },
            false => missing(caller, request, id),
        });
        let items: Vec<BatchItem> = items.collect();
        let head = head(caller, request, CommandId::generate(), &items);
        Ok(batch_messages::preview(&head, found.there.len().div_ceil(CHUNK_SIZE), &items, found.more))
    }

    async fn submit(
        &self,
        caller: &Caller,
        request: &BatchRequest,
        address: Option<String>,
    ) -> Result<AcceptedBatch, Refusal> {
        self.commands.check_health()?;
        let origin = ClientOrigin { address, token_id: caller.token_id.clone() };
        for _ in 0..MAX_ATTEMPTS {
            let known = match &request.request_id {
                Some(id) => self.broker.known_batch(&caller.tenant, &caller.user, id).await,
                None => Ok(None),
            };
            let known = known.map_err(|_| Refusal::unavailable())?;
            let id = known.as_ref().map_or_else(CommandId::generate, |known| known.id);
            let derivation = known.as_ref().map(|known| known.derivation).unwrap_or_default();
            let mut found = find(&self.store, caller, request, known).await?;
            if found.there.is_empty() {
                if self.policy.check(caller, &request.action.permission(request.kind)).await? {
                    let online = self.broker.live_workers(&caller.tenant).await.map_err(|_| Refusal::unavailable())?;
                    let online = i64::try_from(online.len()).unwrap_or(i64::MAX);
                    return Ok(accepted(caller, request, (id, derivation), &found, online, &[]));
                }
                if found.asked.is_empty() {
                    return Err(permission_denied(request.action, request.kind));
                }
                // Whoever may not do this learns that, and not what exists: the submission says so, and counts it.
                found.there.clone_from(&found.asked);
            }
            let batch = Batch {
                id,
                derivation,
                tenant: caller.tenant.clone(),
                kind: request.kind,
                ids: found.there.clone(),
                action: request.action,
                user: caller.user.clone(),
                request: request.request_id.clone(),
                more: found.more,
                body: request.body(),
                reason: request.reason.clone(),
                origin: origin.clone(),
                grant: self.policy.grant(caller, &request.action.permission(request.kind)),
            };
            let a_minute = self.limits.commands_per_minute;
            if batch.cost() > a_minute as usize {
                let message = format!(
                    "A batch of {} uses {} commands of the budget, which has {a_minute} a minute; nothing was done. Send smaller ones",
                    batch.ids.len(),
                    batch.cost()
                );
                return Err(Refusal::new(ErrorCode::InvalidMessage, message));
            }
            match self.deliver(&batch).await? {
                BatchSubmitted::Done { workers_online, items } => {
                    self.follow(&batch, &items);
                    return Ok(accepted(caller, request, (id, derivation), &found, workers_online, &items));
                }
                // Another gateway took the same request in meanwhile, perhaps with other resources.
                BatchSubmitted::KnownAs(_) => {}
                BatchSubmitted::Conflict => return Err(Refusal::new(ErrorCode::RequestConflict, CONFLICT)),
                BatchSubmitted::Denied => return Err(permission_denied(request.action, request.kind)),
                BatchSubmitted::RateLimited { retry_after } => return Err(self.commands.rate_limited(retry_after)),
                BatchSubmitted::TooLate | BatchSubmitted::PermissionsUnknown => break,
            }
        }
        Err(Refusal::unavailable())
    }

    /// Submits, reading the user's permissions from SQL where the cache does not know them.
    async fn deliver(&self, batch: &Batch) -> Result<BatchSubmitted, Refusal> {
        let limits = SubmitLimits::of(&self.limits);
        for _ in 0..=PERMISSION_READS {
            match self.broker.submit_batch(batch, limits).await.map_err(|error| refusal_of(batch.id, error))? {
                BatchSubmitted::PermissionsUnknown => {
                    self.commands.learn_permissions(&batch.tenant, &batch.user, batch.id).await?;
                }
                submitted => return Ok(submitted),
            }
        }
        Err(Refusal::unavailable())
    }

    /// For the metrics.
    fn follow(&self, batch: &Batch, items: &[ItemSubmitted]) {
        for (id, item) in batch.ids.iter().zip(items) {
            metrics::command_received(batch.kind, batch.action);
            match item {
                ItemSubmitted::Accepted { .. } => {
                    let resource = batch.resource(id);
                    self.commands.follow(&resource, batch.action, batch.command(id));
                    tracing::debug!(%resource, batch_id = %batch.id, command_id = %batch.command(id), "websocket.batch_item");
                }
                ItemSubmitted::Repeated { .. } => {}
                other => {
                    if let ItemState::Refused(code, _) = state(batch.id, other) {
                        metrics::command_refused(batch.kind, batch.action, code);
                    }
                }
            }
        }
    }
}

const INTERRUPTED_MESSAGE: &str = "This gateway could not see it through: the batch may have been accepted, in parts or not at all. Send it again with the same request_id to find out";

fn head(caller: &Caller, request: &BatchRequest, batch: CommandId, items: &[BatchItem]) -> BatchHeader {
    BatchHeader {
        batch,
        tenant: caller.tenant.clone(),
        kind: request.kind,
        action: request.action,
        total: items.len(),
        refused: items.iter().filter(|item| matches!(item.state, ItemState::Refused(..))).count(),
        request_id: request.request_id.as_ref().map(ToString::to_string),
    }
}

/// `submitted`: what became of those that are there, in their order.
fn accepted(
    caller: &Caller,
    request: &BatchRequest,
    (id, derivation): (CommandId, IdDerivation),
    found: &FoundResources,
    workers_online: i64,
    submitted: &[ItemSubmitted],
) -> AcceptedBatch {
    let (mut items, mut results) = (Vec::with_capacity(found.asked.len()), Vec::new());
    let mut there = found.there.iter().zip(submitted).peekable();
    for asked in &found.asked {
        // Both are in the same order.
        let Some((_, item)) = there.next_if(|(id, _)| *id == asked) else {
            items.push(missing(caller, request, asked));
            continue;
        };
        let resource = Resource { tenant: caller.tenant.clone(), kind: request.kind, id: asked.clone() };
        let command = id.derive_as(derivation, &resource);
        if let ItemSubmitted::Repeated { result: Some(result), .. } = item {
            results.push(result.clone());
        }
        items.push(BatchItem { id: asked.clone(), state: state(command, item) });
    }
    AcceptedBatch { head: head(caller, request, id, &items), workers_online, items, more: found.more, results }
}

fn state(command: CommandId, item: &ItemSubmitted) -> ItemState {
    let refused = |code, message: &str| ItemState::Refused(code, message.to_owned());
    match item {
        ItemSubmitted::Accepted { control } | ItemSubmitted::Repeated { control, .. } => {
            ItemState::Accepted(command, *control)
        }
        ItemSubmitted::QueueFull => refused(ErrorCode::QueueFull, QUEUE_FULL),
        ItemSubmitted::Unavailable { perhaps_done: false } => refused(ErrorCode::Unavailable, UNAVAILABLE),
        ItemSubmitted::Unavailable { perhaps_done: true } => {
            refused(ErrorCode::OutcomeUnknown, OUTCOME_UNKNOWN_MESSAGE)
        }
    }
}

const OUTCOME_UNKNOWN_MESSAGE: &str = "Redis did not answer in time: the command may have been accepted or not. Send the same batch with the same request_id again to find out";

fn missing(caller: &Caller, request: &BatchRequest, id: &ResourceId) -> BatchItem {
    let resource = Resource { tenant: caller.tenant.clone(), kind: request.kind, id: id.clone() };
    BatchItem { id: id.clone(), state: ItemState::Refused(ErrorCode::NotFound, resource_not_found(&resource)) }
}

/// One line for each batch. Its commands' ids follow from its own, and the audit trail has both.
fn log(caller: &Caller, request: &BatchRequest, answer: &Result<BatchOutcome, Refusal>) {
    let (outcome, head) = match answer {
        Ok(BatchOutcome::Accepted(accepted)) => ("requested", Some(&accepted.head)),
        Ok(BatchOutcome::Preview(_)) => ("previewed", None),
        Err(refusal) => {
            metrics::command_received(request.kind, request.action);
            metrics::command_refused(request.kind, request.action, refusal.code);
            (refusal.code.as_str(), None)
        }
    };
    let batch = head.map(|head| tracing::field::display(head.batch));
    let request_id = request.request_id.as_ref().map(tracing::field::display);
    tracing::info!(
        batch_id = batch, tenant_id = %caller.tenant, user_id = %caller.user, request_id, resource = request.kind.as_str(),
        total = head.map(|head| head.total), refused = head.map(|head| head.refused),
        "websocket.batch_{}_{outcome}", request.action.as_str()
    );
}
