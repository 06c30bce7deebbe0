//! The listener and its connections: our own accept loop around hyper, so that slow clients, a full table
//! of file descriptors and the end of the process are handled here and not left to chance.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use warp::reply::Response;

use super::client_address::TrustedProxies;
use super::descriptors::{Descriptors, Room};
use super::wire::{Pace, Wire};
use super::{Gateway, Refusal, Routes, proxy_protocol};
use crate::protocol::ErrorCode;

/// Connections that may wait to be accepted: a burst of reconnecting sockets after another gateway's end.
const BACKLOG: u32 = 4_096;
/// Bytes of a socket that the kernel may keep for a slow reader (it doubles this).
const SEND_BUFFER: u32 = 64 * 1024;
/// Bytes that the kernel takes before it has sent them. With more, a ping would wait behind them unseen, and a client
/// that takes a little at a time would look like one that takes nothing.
const NOT_SENT: u32 = 16 * 1024;
/// How long a connection beyond the limit of descriptors may be idle.
const CROWDED_IDLE: Duration = Duration::from_secs(2);
/// Longest head of a request; a token in the address may have 8 KiB.
const HEAD_BYTES: usize = 32 * 1024;
/// First and longest pause after `accept` failed: the system has no file descriptors or no memory left, most likely.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));
/// What is answered even where all other clients are refused: whoever restarts a gateway that does not answer would
/// only make matters worse.
const ALWAYS: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// Binds the address.
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    // Accepted sockets inherit both. The kernel would otherwise keep megabytes for each client that does not read.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket2::SockRef::from(&socket).set_tcp_notsent_lowat(NOT_SENT)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// What every connection is served with.
#[derive(Clone)]
struct Front {
    gateway: Gateway,
    routes: Routes,
    proxies: Arc<TrustedProxies>,
}

/// Accepts until the gateway takes nothing new; connections go on in tasks of its tracker.
pub async fn accept(gateway: &Gateway, listener: TcpListener, routes: Routes) {
    let descriptors = Descriptors::new(gateway.settings());
    let proxies = Arc::new(TrustedProxies::new(&gateway.settings().server));
    let front = Front { gateway: gateway.clone(), routes, proxies };
    let mut pause = PAUSE.0;
    loop {
        let accepted = tokio::select! {
            () = gateway.stopping().cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = PAUSE.0;
                match descriptors.room(stream.as_raw_fd()) {
                    Room::Full => drop(stream),
                    room => drop(gateway.tracker().spawn(connection(front.clone(), stream, peer, room))),
                }
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "gateway.accept_failed");
                tokio::select! {
                    () = gateway.stopping().cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(PAUSE.1);
            }
        }
    }
}

/// The client had gone before it was accepted; the listener is well.
fn is_of_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

async fn connection(front: Front, mut stream: TcpStream, peer: SocketAddr, room: Room) {
    let gateway = front.gateway.clone();
    // Acks and results are small and wanted at once. It fails only where the client has gone already.
    let _ = stream.set_nodelay(true);
    let named = tokio::select! {
        named = front.named(&mut stream, peer) => named,
        () = gateway.stopping().cancelled() => return,
    };
    let Some((peer, before)) = named else { return };
    let is_crowded = room == Room::Crowded;
    let pace = Pace::new(if is_crowded { CROWDED_IDLE } else { gateway.settings().server.keep_alive });
    let inner = warp::service(front.routes);
    let service = Serving { inner, peer, proxies: front.proxies, pace: pace.clone(), is_crowded };
    let mut server = http1::Builder::new();
    server.max_buf_size(HEAD_BYTES).keep_alive(!is_crowded);
    let wire = TokioIo::new(Wire::new(stream, before, pace));
    let connection = server.serve_connection(wire, TowerToHyperService::new(service)).with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = gateway.stopping().cancelled() => {
            // The request under way is answered; then the connection closes.
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                outcome = connection.as_mut() => outcome,
                () = gateway.killed().cancelled() => Ok(()),
            }
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "gateway.connection_failed");
    }
}

impl Front {
    /// Who is at the other end, and what has been read of the connection already. `None`: it cannot be served. Only a
    /// trusted proxy may name somebody else; what anybody else sends is a request.
    async fn named(&self, stream: &mut TcpStream, peer: SocketAddr) -> Option<(SocketAddr, Bytes)> {
        if !self.gateway.settings().server.proxy_protocol || !self.proxies.trusts(peer.ip()) {
            return Some((peer, Bytes::new()));
        }
        match proxy_protocol::read(stream).await {
            Ok((source, before)) => Some((source.unwrap_or(peer), before)),
            Err(error) => {
                tracing::debug!(%error, %peer, "gateway.connection_failed");
                None
            }
        }
    }
}

/// Puts the client's address into each request, keeps the connection's time, and refuses where there is no room.
#[derive(Clone)]
struct Serving<S> {
    inner: S,
    peer: SocketAddr,
    proxies: Arc<TrustedProxies>,
    pace: Pace,
    is_crowded: bool,
}

impl<S, B> tower_service::Service<hyper::Request<B>> for Serving<S>
where
    S: tower_service::Service<hyper::Request<B>, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: hyper::Request<B>) -> Self::Future {
        let answering = self.pace.answering();
        if self.is_crowded && !ALWAYS.contains(&request.uri().path()) {
            return std::future::ready(Ok(crowded())).boxed();
        }
        let client = self.proxies.client(self.peer.ip(), request.headers());
        request.extensions_mut().insert(client);
        let answer = self.inner.call(request);
        async move {
            let answer = answer.await;
            drop(answering);
            answer
        }
        .boxed()
    }
}

/// The refusal of a client for whom there is no file descriptor.
fn crowded() -> Response {
    let message = "This gateway has no room for more connections just now: try again shortly, or another gateway";
    let mut refusal = Refusal::new(ErrorCode::Unavailable, message);
    refusal.retry_after = Some(5);
    let mut response = refusal.response();
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
