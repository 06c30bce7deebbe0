//! The two socket endpoints: every check before the upgrade (CONTRACT section 3), and the upgrade, by hand,
//! because the ready-made one keeps 128 KiB of buffer for every idle socket.

use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderMap;
use hyper::upgrade::OnUpgrade;
use warp::Filter;
use warp::reply::Response;

use super::handshake::{self, Unfit};
use super::outbox::Outbox;
use super::reply::Refusal;
use super::session::{self, Admitted};
use super::socket::Socket;
use super::{Gateway, Peer, Routes, snapshot};
use crate::auth::{self, Caller};
use crate::broker::scripts::connections::Opened;
use crate::domain::{Permission, Resource, ResourceKind};
use crate::protocol::ErrorCode;
use crate::telemetry::metrics;

/// Longest wait for a resource's state.
const READ: Duration = Duration::from_secs(2);

/// `/api/v1/realtime/ws/jobs/{id}` and `/api/v1/realtime/ws/campaigns/{id}`.
pub fn routes(gateway: &Gateway) -> Routes {
    endpoint(gateway, ResourceKind::Job).or(endpoint(gateway, ResourceKind::Campaign)).unify().boxed()
}

fn endpoint(gateway: &Gateway, kind: ResourceKind) -> Routes {
    let gateway = gateway.clone();
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    warp::path!("api" / "v1" / "realtime" / "ws" / String / String)
        .and_then(move |plural: String, id: String| async move {
            if plural == kind.plural() { Ok(id) } else { Err(warp::reject::not_found()) }
        })
        .and(warp::get())
        .and(query)
        .and(warp::header::headers_cloned())
        .and(warp::ext::get::<Peer>())
        .and(warp::ext::optional::<OnUpgrade>())
        .then(move |id: String, query: String, headers: HeaderMap, peer: Peer, upgrade: Option<OnUpgrade>| {
            let gateway = gateway.clone();
            async move {
                let request = Request { kind, id, query, headers, peer, upgrade };
                match admit(&gateway, request).await {
                    Ok(response) => response,
                    Err(why) => refused(why),
                }
            }
        })
        .boxed()
}

struct Request {
    kind: ResourceKind,
    id: String,
    query: String,
    headers: HeaderMap,
    peer: Peer,
    upgrade: Option<OnUpgrade>,
}

/// Why a request does not become a socket.
enum Refused {
    /// It may not.
    Refusal(Refusal),
    /// It is not of the form that can.
    Unfit(Unfit),
}

impl<T: Into<Refusal>> From<T> for Refused {
    fn from(refusal: T) -> Self {
        Self::Refusal(refusal.into())
    }
}

fn refused(refused: Refused) -> Response {
    match refused {
        Refused::Refusal(refusal) => {
            metrics::connection_refused(refusal.code);
            refusal.response()
        }
        Refused::Unfit(unfit) => {
            metrics::connection_refused(ErrorCode::InvalidMessage);
            unfit.response()
        }
    }
}

async fn admit(gateway: &Gateway, request: Request) -> Result<Response, Refused> {
    let presented = auth::present(Some(&request.query), &request.headers);
    let token = presented.as_ref().map_or("", |p| p.token.as_str());
    let caller = gateway.verifier().verify(token).await?;
    let resource = resource_of(&caller, request.kind, &request.id)?;
    if !handshake::origin_allowed(&request.headers, &gateway.settings().server.public_origins) {
        let message = "Pages of this origin may not open sockets here: add it to server.public_origins";
        return Err(Refusal::new(ErrorCode::Forbidden, message).into());
    }
    let health = gateway.health();
    if gateway.stopping().is_cancelled() || !health.redis() || !health.sql() {
        return Err(Refusal::unavailable().into());
    }
    let read = Permission::read(request.kind);
    if !gateway.policy().check(&caller, &read).await.map_err(|_| Refusal::unavailable())? {
        let message = format!("Insufficient permissions: {} is needed", read.as_str());
        return Err(Refusal::new(ErrorCode::PermissionDenied, message).into());
    }
    // Subscribed before the row is read: nothing that happens from here on is missed, and all that can fail
    // has been done before the client is told that it is in.
    let outbox = Arc::new(Outbox::new(gateway.settings().limits.outbox_messages));
    let seat = gateway.hub().join(&resource, outbox.clone()).await.map_err(|_| Refusal::unavailable())?;
    let reading = snapshot::read(gateway.broker(), gateway.store(), &resource);
    let Ok(Ok(state)) = tokio::time::timeout(READ, reading).await else { return Err(Refusal::unavailable().into()) };
    let Some(state) = state else { return Err(not_found(request.kind).into()) };
    outbox.set_floor(state.seq());
    let accept = handshake::check(&request.headers).map_err(Refused::Unfit)?;
    let Some(upgrade) = request.upgrade else { return Err(Refused::Unfit(Unfit::NotAnUpgrade)) };
    let opened = gateway.leases().open(&caller, &gateway.settings().limits).await;
    let lease = opened.map_err(|_| Refusal::unavailable())?.map_err(too_many)?;
    let admitted = Admitted {
        caller: Arc::new(caller),
        resource,
        address: request.peer.0.ip().to_string().into(),
        outbox,
        seat,
        lease,
        snapshot: state.socket_message(),
    };
    gateway.tracker().spawn(run(gateway.clone(), upgrade, admitted));
    Ok(handshake::switching(&request.headers, accept))
}

/// After the 101 is out; if the client is gone by then, what it was given is given back.
async fn run(gateway: Gateway, upgrade: OnUpgrade, admitted: Admitted) {
    let Ok(upgraded) = upgrade.await else { return };
    let Some(socket) = Socket::take_over(upgraded).await else { return };
    session::run(gateway, socket, admitted).await;
}

fn resource_of(caller: &Caller, kind: ResourceKind, id: &str) -> Result<Resource, Refusal> {
    // The same answer as for a resource that is not there: an id that is none cannot be anyone's.
    let id = id.parse().map_err(|_| not_found(kind))?;
    Ok(Resource { tenant: caller.tenant.clone(), kind, id })
}

fn not_found(kind: ResourceKind) -> Refusal {
    Refusal::new(ErrorCode::NotFound, format!("There is no such {} in your tenant", kind.word()))
}

fn too_many(full: Opened) -> Refusal {
    let whose = if full == Opened::TenantFull { "your tenant" } else { "you" };
    let mut refusal = Refusal::new(
        ErrorCode::TooManyConnections,
        format!("Too many sockets are open for {whose}: close some and try again"),
    );
    refusal.retry_after = Some(5);
    refusal
}
