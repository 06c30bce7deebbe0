//! The socket endpoints: every check before the upgrade (CONTRACT section 3), and the upgrade, by hand,
//! because the ready-made one keeps 128 KiB of buffer for every idle socket.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderMap;
use hyper::upgrade::OnUpgrade;
use warp::Filter;
use warp::reply::Response;

use super::access::{ReadableKinds, WatchKind};
use super::batch::BatchSubmitter;
use super::commands::CommandSubmitter;
use super::drain::Drain;
use super::health::Health;
use super::hub::{FeedSubscriber, Hub};
use super::limits::{ConnectionLeaseGuard, ConnectionLeases};
use super::memory::{MemoryBudget, READ_SNAPSHOT};
use super::outbox::Outbox;
use super::session::output::OutputFollower;
use super::session::resource::ResourceSession;
use super::session::tenant::TenantSession;
use super::session::{AdmittedSession, Channel, Sessions};
use super::snapshot::{MAX_SNAPSHOT, SnapshotReader};
use crate::auth::{self, Caller, Policy, Verifier, WEBSOCKET_PROTOCOL};
use crate::broker::Broker;
use crate::broker::scripts::connections::OpenOutcome;
use crate::config::Limits;
use crate::domain::{Permission, Resource, ResourceId, ResourceKind};
use crate::http::ClientAddress;
use crate::http::Refusal;
use crate::http::close::Close;
use crate::http::handshake::{self, Unfit};
use crate::http::server::Routes;
use crate::http::socket::Socket;
use crate::protocol::{ErrorCode, MAX_BATCH_FRAME, MAX_FRAME, server, tenant};
use crate::store::Store;
use crate::telemetry::metrics;

/// Longest wait for a resource's state.
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// A socket for everything of a tenant may leave so many times as much waiting as one of a single resource, but no
/// more than the second number.
const TENANT_OUTBOX: (usize, usize) = (16, 65_536);

/// The socket endpoints, with the parts of a gateway that they use.
pub struct SocketEndpoints {
    /// Checks tokens.
    pub verifier: Verifier,
    /// Checks permissions.
    pub policy: Policy,
    /// Whether anyone can be served just now.
    pub health: Health,
    /// Counts workers and, for the tenant-wide socket, looks results up.
    pub broker: Broker,
    /// The first state of a resource.
    pub snapshots: SnapshotReader,
    /// Hands on what comes from Redis.
    pub hub: Hub,
    /// The memory that states on their way to clients may take.
    pub memory: MemoryBudget,
    /// Limits on open sockets.
    pub leases: ConnectionLeases,
    /// SQL, for what jobs print.
    pub store: Store,
    /// Takes commands.
    pub commands: Arc<CommandSubmitter>,
    /// Takes batches.
    pub batches: Arc<BatchSubmitter>,
    /// Serves the sockets that are let in.
    pub sessions: Sessions,
    /// Owner of the tasks of open sockets.
    pub drain: Drain,
    /// The limits in force.
    pub limits: Limits,
    /// Origins whose pages may open sockets, beside the gateway's own.
    pub public_origins: Vec<String>,
    /// How long an accepted command waits for a worker.
    pub command_ttl: Duration,
}

/// `/api/v1/realtime/ws/jobs/{id}`, `/api/v1/realtime/ws/campaigns/{id}` and `/api/v1/realtime/ws`.
pub fn routes(endpoints: SocketEndpoints) -> Routes {
    let endpoints = Arc::new(endpoints);
    let one = endpoint(&endpoints, ResourceKind::Job).or(endpoint(&endpoints, ResourceKind::Campaign)).unify();
    one.or(tenant_endpoint(&endpoints)).unify().boxed()
}

fn endpoint(endpoints: &Arc<SocketEndpoints>, kind: ResourceKind) -> Routes {
    let endpoints = endpoints.clone();
    warp::path!("api" / "v1" / "realtime" / "ws" / String / String)
        .and_then(move |plural: String, id: String| async move {
            if plural == kind.plural() { Ok(id) } else { Err(warp::reject::not_found()) }
        })
        .and(request())
        .then(move |id: String, request: Request| {
            let endpoints = endpoints.clone();
            async move {
                let told = RefusalSocket::wanted_by(&request);
                let admitted = endpoints.admit_to_resource(request, kind, &id).await;
                admitted.unwrap_or_else(|error| endpoints.refuse(error, told))
            }
        })
        .boxed()
}

fn tenant_endpoint(endpoints: &Arc<SocketEndpoints>) -> Routes {
    let endpoints = endpoints.clone();
    warp::path!("api" / "v1" / "realtime" / "ws")
        .and(request())
        .then(move |request: Request| {
            let endpoints = endpoints.clone();
            async move {
                let told = RefusalSocket::wanted_by(&request);
                let admitted = endpoints.admit_to_tenant(request).await;
                admitted.unwrap_or_else(|error| endpoints.refuse(error, told))
            }
        })
        .boxed()
}

struct Request {
    query: String,
    headers: HeaderMap,
    client: ClientAddress,
    upgrade: Option<OnUpgrade>,
}

impl Request {
    /// Whether this stands in the address.
    fn asks_for(&self, pair: &str) -> bool {
        self.query.split('&').any(|given| given == pair)
    }
}

fn request() -> impl Filter<Extract = (Request,), Error = warp::Rejection> + Clone + Send + Sync + 'static {
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    warp::get()
        .and(query)
        .and(warp::header::headers_cloned())
        .and(warp::ext::get::<ClientAddress>())
        .and(warp::ext::optional::<OnUpgrade>())
        .map(|query, headers, client, upgrade| Request { query, headers, client, upgrade })
}

/// Why a request does not become a socket.
enum UpgradeError {
    /// It may not.
    Refusal(Refusal),
    /// It is not of the form that can.
    Unfit(Unfit),
}

impl<T: Into<Refusal>> From<T> for UpgradeError {
    fn from(refusal: T) -> Self {
        Self::Refusal(refusal.into())
    }
}

/// A socket that is opened only to be closed with the reason of a refusal: the script of a page cannot see with which
/// status an upgrade was refused, but it sees a close code. Asked for with `?reject=close`.
struct RefusalSocket {
    upgrade: OnUpgrade,
    switching: Response,
}

impl RefusalSocket {
    /// `None`: the client has not asked for it, or its request cannot become a socket.
    fn wanted_by(request: &Request) -> Option<Self> {
        if !request.asks_for("reject=close") {
            return None;
        }
        let accept = handshake::check(&request.headers).ok()?;
        let switching = handshake::switching(&request.headers, accept, WEBSOCKET_PROTOCOL);
        Some(Self { upgrade: request.upgrade.clone()?, switching })
    }
}

impl SocketEndpoints {
    fn refuse(&self, error: UpgradeError, told: Option<RefusalSocket>) -> Response {
        let refusal = match error {
            UpgradeError::Refusal(refusal) => refusal,
            UpgradeError::Unfit(unfit) => {
                metrics::connection_refused(ErrorCode::InvalidMessage);
                return unfit.response();
            }
        };
        metrics::connection_refused(refusal.code);
        match (told, Close::refused(&refusal)) {
            (Some(RefusalSocket { upgrade, switching }), Some(close)) => {
                self.drain.tracker.spawn(async move {
                    let Ok(upgraded) = upgrade.await else { return };
                    let Some(mut socket) = Socket::take_over(upgraded, (MAX_FRAME, MAX_FRAME)).await else { return };
                    socket.close(&close).await;
                });
                switching
            }
            _ => refusal.to_response(),
        }
    }

    async fn admit_to_resource(
        self: &Arc<Self>,
        request: Request,
        kind: ResourceKind,
        id: &str,
    ) -> Result<Response, UpgradeError> {
        let caller = self.caller(&request).await?;
        // The same answer as for a resource that is not there: an id that is none cannot be anyone's.
        let id: ResourceId = id.parse().map_err(|_| not_found(kind))?;
        let resource = Resource { tenant: caller.tenant.clone(), kind, id };
        self.check_place(&request)?;
        let read = Permission::read(kind);
        if !self.policy.check(&caller, &read).await? {
            return Err(denied(read.as_str()).into());
        }
        // Subscribed before the row is read: nothing that happens from here on is missed, and all that can fail
        // has been done before the client is told that it is in.
        let outbox = Arc::new(outbox(self.limits.outbox_messages, &request));
        let subscription = self.hub.join(&resource, outbox.clone()).await?;
        let mut memory = self.memory.reserve(&caller, READ_SNAPSHOT).await?;
        let reading = self.snapshots.read(&resource);
        let counting = self.broker.live_workers(&resource.tenant);
        let both = async { tokio::join!(reading, counting) };
        let Ok((Ok(state), workers)) = tokio::time::timeout(READ_TIMEOUT, both).await else {
            return Err(Refusal::unavailable().into());
        };
        let workers_online = workers.ok().map(|alive| alive.len());
        let Some(state) = state else { return Err(not_found(kind).into()) };
        let state = self.snapshots.explain(state).await;
        outbox.set_min_seq(state.seq());
        if let Some(online) = workers_online {
            outbox.greeted_with_workers(online);
        }
        let state = state.greeting(workers_online);
        memory.shrink_to(state.len());
        let greeting = (VecDeque::from([server::subscribed(&resource).into(), state.into()]), Some(memory));
        let wants_output = kind == ResourceKind::Job && request.asks_for("output=true");
        let output = wants_output.then(|| OutputFollower::new(self.store.clone(), resource.clone()));
        self.admit(request, caller, MAX_FRAME, |caller, address, lease| AdmittedSession {
            caller,
            channel: ResourceSession::new(resource, subscription, self.commands.clone()).with_output(output),
            watching: WatchKind::One(kind),
            address,
            outbox,
            lease,
            greeting,
        })
        .await
    }

    async fn admit_to_tenant(self: &Arc<Self>, request: Request) -> Result<Response, UpgradeError> {
        let caller = self.caller(&request).await?;
        self.check_place(&request)?;
        let readable = Arc::new(ReadableKinds::default());
        for kind in ResourceKind::ALL {
            readable.set(kind, self.policy.check(&caller, &Permission::read(kind)).await?);
        }
        if !readable.any() {
            return Err(denied("jobs.read or campaigns.read").into());
        }
        let (times, most) = TENANT_OUTBOX;
        let outbox = Arc::new(outbox((self.limits.outbox_messages * times).min(most), &request));
        let subscriber = Arc::new(FeedSubscriber::new(outbox.clone(), readable.clone()));
        let tenant = caller.tenant.clone();
        let subscription = self.hub.subscribe_tenant(&tenant, subscriber.clone()).await?;
        let counted = tokio::time::timeout(READ_TIMEOUT, self.broker.live_workers(&tenant)).await;
        let workers_online = counted.ok().and_then(Result::ok).map(|alive| alive.len());
        if let Some(online) = workers_online {
            outbox.greeted_with_workers(online);
        }
        let greeting = (VecDeque::from([tenant::subscribed(&tenant, workers_online).into()]), None);
        let (broker, commands, batches) = (self.broker.clone(), self.commands.clone(), self.batches.clone());
        self.admit(request, caller, MAX_BATCH_FRAME, |caller, address, lease| AdmittedSession {
            caller,
            channel: TenantSession::new(
                tenant,
                (subscriber, subscription),
                (broker, self.snapshots.clone(), self.memory.clone()),
                commands,
                batches,
                self.command_ttl,
            ),
            watching: WatchKind::All(readable),
            address,
            outbox,
            lease,
            greeting,
        })
        .await
    }

    /// Whose token it is.
    async fn caller(&self, request: &Request) -> Result<Caller, UpgradeError> {
        let presented = auth::extract(Some(&request.query), &request.headers);
        let token = presented.as_ref().map_or("", |p| p.token.as_str());
        Ok(self.verifier.verify(token).await?)
    }

    /// Whether the page may be here at all, and the gateway can serve anyone.
    fn check_place(&self, request: &Request) -> Result<(), Refusal> {
        if !handshake::origin_allowed(&request.headers, &self.public_origins) {
            let message = "Pages of this origin may not open sockets here: add it to server.public_origins";
            return Err(Refusal::new(ErrorCode::Forbidden, message));
        }
        if self.drain.stopping.is_cancelled() {
            return Err(Refusal::unavailable());
        }
        self.health.refusal().map_or(Ok(()), Err)
    }

    /// The last checks, and the upgrade. `longest`: bytes of one message of the client.
    async fn admit<S: Channel>(
        self: &Arc<Self>,
        request: Request,
        caller: Caller,
        longest: usize,
        with: impl FnOnce(Arc<Caller>, Box<str>, ConnectionLeaseGuard) -> AdmittedSession<S>,
    ) -> Result<Response, UpgradeError> {
        let accept = handshake::check(&request.headers).map_err(UpgradeError::Unfit)?;
        let Some(upgrade) = request.upgrade else { return Err(UpgradeError::Unfit(Unfit::NotAnUpgrade)) };
        let opened = self.leases.open(&caller, &self.limits).await;
        let lease = opened?.map_err(too_many)?;
        let admitted = with(Arc::new(caller), request.client.0.to_string().into(), lease);
        let endpoints = self.clone();
        self.drain.tracker.spawn(async move { endpoints.run(upgrade, longest, admitted).await });
        Ok(handshake::switching(&request.headers, accept, WEBSOCKET_PROTOCOL))
    }

    /// After the 101 is out; if the client is gone by then, what it was given is given back.
    async fn run<S: Channel>(&self, upgrade: OnUpgrade, longest: usize, admitted: AdmittedSession<S>) {
        let Ok(upgraded) = upgrade.await else { return };
        let Some(socket) = Socket::take_over(upgraded, (longest, MAX_SNAPSHOT)).await else { return };
        self.sessions.run(socket, admitted).await;
    }
}

/// `limit` messages may wait for this client.
fn outbox(limit: usize, request: &Request) -> Outbox {
    Outbox::new(limit).telling_interruptions(request.asks_for("interruptions=true"))
}

fn denied(needed: &str) -> Refusal {
    Refusal::new(ErrorCode::PermissionDenied, format!("Insufficient permissions: {needed} is needed"))
}

fn not_found(kind: ResourceKind) -> Refusal {
    Refusal::new(ErrorCode::NotFound, format!("There is no such {} in your tenant", kind.as_str()))
}

fn too_many(full: OpenOutcome) -> Refusal {
    let whose = if full == OpenOutcome::TenantFull { "your tenant" } else { "you" };
    let message = format!("Too many sockets are open for {whose}: close some and try again");
    Refusal::new(ErrorCode::TooManyConnections, message).with_retry_after(5)
}
