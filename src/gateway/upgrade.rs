//! The two socket endpoints: every check before the upgrade (CONTRACT section 3), and the upgrade, by hand,
//! because the ready-made one keeps 128 KiB of buffer for every idle socket.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use warp::Filter;
use warp::reply::{Reply, Response};

use super::outbox::Outbox;
use super::reply::Refusal;
use super::session::{self, Admitted};
use super::{Gateway, Peer, Routes, snapshot};
use crate::auth::{self, Caller};
use crate::broker::scripts::connections::Opened;
use crate::domain::{Permission, Resource, ResourceKind};
use crate::protocol::{ErrorCode, MAX_FRAME};
use crate::telemetry::metrics;

/// Read and write buffers of a socket, in bytes; messages larger than this still pass.
const BUFFER: usize = 4 * 1024;
/// Most that may wait in the library's own write buffer: a message at a time is written and flushed.
const WRITE_LIMIT: usize = 1024 * 1024;

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
                    Err(refusal) => {
                        metrics::connection_refused(refusal.code);
                        refused(&refusal)
                    }
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

/// An answer with the status of its code; a request that is no upgrade is told so with 426.
fn refused(refusal: &Refusal) -> Response {
    let mut response = refusal.response();
    if refusal.message == NO_UPGRADE {
        *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
        response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    }
    response
}

const NO_UPGRADE: &str = "This is a WebSocket endpoint: connect with a WebSocket client, version 13";

async fn admit(gateway: &Gateway, request: Request) -> Result<Response, Refusal> {
    let presented = auth::present(Some(&request.query), &request.headers);
    let token = presented.as_ref().map_or("", |p| p.token.as_str());
    let caller = gateway.verifier().verify(token).await?;
    let resource = resource_of(&caller, request.kind, &request.id)?;
    check_origin(gateway, &request.headers)?;
    let health = gateway.health();
    if health.draining() || !health.redis() || !health.sql() {
        return Err(Refusal::unavailable());
    }
    let read = Permission::read(request.kind);
    if !gateway.policy().check(&caller, &read).await.map_err(|_| Refusal::unavailable())? {
        let message = format!("Insufficient permissions: {} is needed", read.as_str());
        return Err(Refusal::new(ErrorCode::PermissionDenied, message));
    }
    if snapshot::read(gateway.broker(), gateway.store(), &resource).await?.is_none() {
        return Err(not_found(request.kind));
    }
    let key = upgrade_key(&request)?;
    let Some(upgrade) = request.upgrade else { return Err(Refusal::new(ErrorCode::InvalidMessage, NO_UPGRADE)) };
    let opened = gateway.leases().open(&caller, &gateway.settings().limits).await;
    let lease = match opened.map_err(|_| Refusal::unavailable())? {
        Ok(lease) => lease,
        Err(full) => return Err(too_many(full)),
    };
    let admitted = Admitted {
        outbox: Arc::new(Outbox::new(gateway.settings().limits.outbox_messages)),
        caller: Arc::new(caller),
        resource,
        address: request.peer.0.ip().to_string(),
        lease,
    };
    gateway.tracker().spawn(run(gateway.clone(), upgrade, admitted));
    Ok(switching(&key, auth::offers_protocol(&request.headers)))
}

/// After the 101 is out.
async fn run(gateway: Gateway, upgrade: OnUpgrade, admitted: Admitted) {
    let Ok(stream) = upgrade.await else { return };
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_LIMIT)
        .max_message_size(Some(MAX_FRAME))
        .max_frame_size(Some(MAX_FRAME));
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(stream), Role::Server, Some(config)).await;
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

/// Browsers send the page's origin: only the gateway's own pages and those in the settings may open sockets.
fn check_origin(gateway: &Gateway, headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or_default();
    let own = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let is_own = origin.split_once("://").is_some_and(|(_, host)| !host.is_empty() && host.eq_ignore_ascii_case(own));
    let allowed = &gateway.settings().server.public_origins;
    if is_own || allowed.iter().any(|one| one.trim_end_matches('/').eq_ignore_ascii_case(origin)) {
        return Ok(());
    }
    let message = "Pages of this origin may not open sockets here: add it to server.public_origins";
    Err(Refusal::new(ErrorCode::Forbidden, message))
}

/// The client's key, if this is an upgrade to WebSocket version 13 (RFC 6455, section 4.2.1).
fn upgrade_key(request: &Request) -> Result<HeaderValue, Refusal> {
    let has = |name: HeaderName, word: &str| {
        let values = request.headers.get_all(name);
        let mut words = values.iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
        words.any(|w| w.trim().eq_ignore_ascii_case(word))
    };
    let is_upgrade = has(header::UPGRADE, "websocket")
        && has(header::CONNECTION, "upgrade")
        && has(header::SEC_WEBSOCKET_VERSION, "13");
    let key = request.headers.get(header::SEC_WEBSOCKET_KEY).filter(|key| is_key(key.as_bytes()));
    match key {
        Some(key) if is_upgrade => Ok(key.clone()),
        _ => Err(Refusal::new(ErrorCode::InvalidMessage, NO_UPGRADE)),
    }
}

/// 16 bytes in base64.
fn is_key(key: &[u8]) -> bool {
    key.len() == 24
        && key.ends_with(b"==")
        && key[..22].iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
}

fn switching(key: &HeaderValue, with_protocol: bool) -> Response {
    let mut response = warp::reply().into_response();
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if with_protocol {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(auth::WEBSOCKET_PROTOCOL));
    }
    response
}
