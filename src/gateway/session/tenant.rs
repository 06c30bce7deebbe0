//! The tenant-wide socket: commands on any resource, batches, and a feed of everything the user may read.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::channel::{Channel, RequestContext, RequestOutcome};
use crate::auth::{Caller, Policy};
use crate::broker::Broker;
use crate::broker::scripts::results::CommandResult;
use crate::broker::scripts::submit::Grant;
use crate::domain::{CommandId, Permission, RequestId, Resource, ResourceId, ResourceKind, TenantId};
use crate::gateway::batch::follower::{BatchFollower, FollowerEvent, MAX_AWAITED};
use crate::gateway::batch::{BatchOutcome, BatchSubmitter};
use crate::gateway::commands::{AcceptedCommand, CommandSubmitter};
use crate::gateway::hub::{FeedSubscriber, FeedSubscription};
use crate::gateway::memory::{MemoryBudget, MemoryShare, READ_SNAPSHOT};
use crate::gateway::results::awaited::look_up;
use crate::gateway::snapshot::{MAX_SNAPSHOT, SnapshotError, SnapshotReader};
use crate::http::Refusal;
use crate::protocol::batch::{MAX_BATCH, Target};
use crate::protocol::client::Rejection;
use crate::protocol::tenant::{no_snapshot, subscription};
use crate::protocol::{BatchRequest, CommandRequest, ErrorCode, TenantMessage, parse_tenant};

/// Longest wait for the states that a `subscribe` asks for.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Everything of one tenant.
pub struct TenantSession {
    tenant: TenantId,
    subscriber: Arc<FeedSubscriber>,
    /// The place in the fan-out.
    _subscription: FeedSubscription,
    broker: Broker,
    snapshots: SnapshotReader,
    memory: MemoryBudget,
    commands: Arc<CommandSubmitter>,
    batches: Arc<BatchSubmitter>,
    follower: BatchFollower,
    /// A look at the record that is under way.
    looking: Option<BoxFuture<'static, Vec<CommandResult>>>,
}

/// What came of a message.
pub enum PendingAnswer {
    /// A command on one resource.
    Command(Resource, CommandRequest, Result<AcceptedCommand, Refusal>),
    /// A batch.
    Batch(Result<BatchOutcome, Refusal>),
    /// The states that were asked for, and what is held for them, or why some could not be read.
    Snapshots(Vec<String>, Result<MemoryShare, Refusal>),
}

impl TenantSession {
    /// For a tenant that is subscribed to. `ttl`: how long a command may wait for a worker.
    pub fn new(
        tenant: TenantId,
        (subscriber, subscription): (Arc<FeedSubscriber>, FeedSubscription),
        (broker, snapshots, memory): (Broker, SnapshotReader, MemoryBudget),
        commands: Arc<CommandSubmitter>,
        batches: Arc<BatchSubmitter>,
        ttl: Duration,
    ) -> Self {
        let follower = BatchFollower::new(subscriber.clone(), ttl);
        let (_subscription, looking) = (subscription, None);
        Self { tenant, subscriber, _subscription, broker, snapshots, memory, commands, batches, follower, looking }
    }

    /// Whether so many more results can be waited for.
    fn check_room(&self, more: usize, request_id: Option<&RequestId>) -> Result<(), Rejection> {
        if self.follower.has_room(more) {
            return Ok(());
        }
        let message = format!(
            "This socket waits for {MAX_AWAITED} results at most; nothing was done. Wait for some, or open another"
        );
        Err(Rejection { code: ErrorCode::QueueFull, message, request_id: request_id.cloned() })
    }

    fn command(
        &self,
        resource: Resource,
        request: CommandRequest,
        context: &RequestContext<'_>,
    ) -> BoxFuture<'static, PendingAnswer> {
        let (commands, caller) = (self.commands.clone(), context.caller.clone());
        let address = context.address.to_owned();
        Box::pin(async move {
            let answer = match commands.missing(&caller, &resource, &request).await {
                Some(refusal) => Err(refusal.with_request_id(request.request_id.as_ref())),
                None => commands.submit(&caller, &resource, &request, Some(&address)).await,
            };
            PendingAnswer::Command(resource, request, answer)
        })
    }

    /// One state after the other; what cannot be read within the time is refused as a whole.
    fn read_snapshots(
        &self,
        wanted: Vec<(ResourceKind, ResourceId)>,
        request_id: Option<RequestId>,
        context: &RequestContext<'_>,
    ) -> BoxFuture<'static, PendingAnswer> {
        let (memory, caller) = (self.memory.clone(), context.caller.clone());
        let (tenant, reader, subscriber) = (self.tenant.clone(), self.snapshots.clone(), self.subscriber.clone());
        Box::pin(async move {
            let refused = |refusal: Refusal| Err(refusal.with_request_id(request_id.as_ref()));
            let mut memory = match memory.reserve(&caller, READ_SNAPSHOT).await {
                Ok(memory) => memory,
                Err(refusal) => return PendingAnswer::Snapshots(Vec::new(), refused(refusal)),
            };
            let mut messages = Vec::new();
            let mut room = MAX_SNAPSHOT;
            let reading = async {
                for (kind, id) in wanted {
                    let resource = Resource { tenant: tenant.clone(), kind, id };
                    let state = if subscriber.readable().may(kind) { reader.read(&resource).await? } else { None };
                    let message = match state {
                        Some(state) => reader.explain(state).await.message_within(room),
                        None => no_snapshot(&resource),
                    };
                    room = room.saturating_sub(message.len());
                    messages.push(message);
                }
                Ok::<_, SnapshotError>(())
            };
            let read = tokio::time::timeout(READ_TIMEOUT, reading).await;
            memory.shrink_to(messages.iter().map(String::len).sum());
            let held = if matches!(read, Ok(Ok(()))) { Ok(memory) } else { refused(Refusal::unavailable()) };
            PendingAnswer::Snapshots(messages, held)
        })
    }

    fn batch(&self, request: BatchRequest, context: &RequestContext<'_>) -> BoxFuture<'static, PendingAnswer> {
        let (batches, caller) = (self.batches.clone(), context.caller.clone());
        let address = context.address.to_owned();
        Box::pin(async move { PendingAnswer::Batch(batches.ask(&caller, request, Some(&address)).await) })
    }
}

impl Channel for TenantSession {
    type Done = PendingAnswer;

    fn label(&self) -> &'static str {
        "tenant"
    }

    fn name(&self) -> String {
        self.tenant.to_string()
    }

    fn resource(&self) -> Option<&Resource> {
        None
    }

    fn handle_request(
        &mut self,
        text: &str,
        context: &RequestContext<'_>,
    ) -> Result<RequestOutcome<PendingAnswer>, Rejection> {
        Ok(match parse_tenant(text)? {
            TenantMessage::Common(common) => RequestOutcome::Common(common),
            TenantMessage::Subscribe { filter, snapshots, request_id } => {
                let answer = subscription(&filter, request_id.as_ref().map(RequestId::as_str));
                // Subscribed before the states are read: nothing that happens from here on is missed.
                self.subscriber.subscribe(filter, answer.into());
                if snapshots.is_empty() {
                    RequestOutcome::Done
                } else {
                    RequestOutcome::Work(self.read_snapshots(snapshots, request_id, context))
                }
            }
            TenantMessage::Command(kind, id, request) => {
                self.check_room(1, request.request_id.as_ref())?;
                let resource = Resource { tenant: self.tenant.clone(), kind, id };
                RequestOutcome::Work(self.command(resource, request, context))
            }
            TenantMessage::Batch(request) => {
                let count = match &request.target {
                    _ if request.dry_run => 0,
                    Target::Ids(ids) => ids.len(),
                    Target::Filter(_) => MAX_BATCH,
                };
                self.check_room(count, request.request_id.as_ref())?;
                RequestOutcome::Work(self.batch(request, context))
            }
        })
    }

    fn answer(&mut self, done: PendingAnswer, out: &mut VecDeque<Utf8Bytes>) -> Option<MemoryShare> {
        match done {
            PendingAnswer::Command(resource, request, Ok(accepted)) => {
                out.push_back(accepted.message(&resource, &request).into());
                // What is kept for later is not awaited: the feed tells of it.
                if !accepted.is_for_later() {
                    self.follower.one(resource, accepted.command, accepted.result.as_ref(), out);
                }
            }
            PendingAnswer::Command(_, _, Err(refusal)) | PendingAnswer::Batch(Err(refusal)) => {
                out.push_back(refusal.to_message().into());
            }
            PendingAnswer::Batch(Ok(BatchOutcome::Accepted(accepted))) => {
                out.push_back(accepted.message().into());
                self.follower.batch(&accepted, out);
            }
            PendingAnswer::Batch(Ok(BatchOutcome::Preview(message))) => out.push_back(message.into()),
            PendingAnswer::Snapshots(messages, held) => {
                out.extend(messages.into_iter().map(Utf8Bytes::from));
                match held {
                    Ok(memory) => return Some(memory),
                    Err(refusal) => out.push_back(refusal.to_message().into()),
                }
            }
        }
        None
    }

    fn delivers(&mut self, command: CommandId, succeeded: bool, out: &mut VecDeque<Utf8Bytes>) -> bool {
        match self.follower.heard(command, succeeded) {
            FollowerEvent::Already => false,
            FollowerEvent::Now(summary) => {
                out.extend(summary.map(Utf8Bytes::from));
                true
            }
        }
    }

    fn still_permitted(&self, policy: &Policy, caller: &Caller) -> bool {
        let readable = self.subscriber.readable();
        for kind in ResourceKind::ALL {
            // Where SQL decides, whoever watches over everyone's access has said so already.
            if let Grant::Token(may) = policy.grant(caller, &Permission::read(kind)) {
                readable.set(kind, may);
            }
        }
        readable.any()
    }

    fn on_gap(&mut self) {
        self.follower.poll_soon();
    }

    fn poll(&mut self, cx: &mut Context<'_>, out: &mut VecDeque<Utf8Bytes>) -> Poll<()> {
        let now = Instant::now();
        if self.looking.is_none() && self.follower.next_poll().is_some_and(|at| at <= now) {
            let (broker, due) = (self.broker.clone(), self.follower.take_due(now, out));
            self.looking = Some(Box::pin(async move { look_up(&broker, &due).await }));
        }
        if let Some(looking) = &mut self.looking
            && let Poll::Ready(found) = looking.as_mut().poll(cx)
        {
            self.looking = None;
            for ended in found {
                self.follower.found(&ended, out);
            }
        }
        if out.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }

    fn next_poll(&self) -> Option<Instant> {
        // One that is under way wakes the task by itself.
        if self.looking.is_some() { None } else { self.follower.next_poll() }
    }
}
