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
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::client_address::TrustedProxies;
use super::descriptors::{Capacity, Descriptors};
use super::handshake;
use super::proxy_protocol;
use super::reply::Refusal;
use super::stream::ClientStream;
use super::tls::TlsServer;
use super::wire::{Pace, Wire};
use crate::config::Settings;
use crate::protocol::ErrorCode;

/// Connections that may wait to be accepted: a burst of reconnecting sockets after the end of another process.
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
/// What is answered even where all other clients are refused: whoever restarts a process that does not answer would
/// only make matters worse.
const ALWAYS: [&str; 3] = ["/healthz", "/readyz", METRICS];
const METRICS: &str = "/metrics";

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

/// A set of routes: each answers, or passes the request on to the next.
pub type Routes = BoxedFilter<(Response,)>;

/// What every connection of a listener is served with; cheap to clone.
#[derive(Clone)]
pub struct Listener {
    /// Begins the names of its log events: `gateway` or `worker`.
    pub role: &'static str,
    /// What is answered.
    pub routes: Routes,
    /// How long a connection may be idle between two requests.
    pub keep_alive: Duration,
    /// Who is believed about the address of a client.
    pub proxies: Arc<TrustedProxies>,
    /// Whether connections of trusted proxies begin with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// Speaks TLS with every client. `None`: plain HTTP.
    pub tls: Option<TlsServer>,
    /// Which paths there are.
    pub paths: Paths,
    /// Owner of the tasks of connections.
    pub tracker: TaskTracker,
    /// Cancelled when nothing new is taken any more; what is under way is finished.
    pub stopping: CancellationToken,
    /// Cancelled when the time for that is over.
    pub killed: CancellationToken,
}

/// Which paths a listener answers, of all that its routes know. Any other is not found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paths {
    /// Every path.
    All,
    /// All but `/metrics`, which another listener answers.
    WithoutMetrics,
    /// Health checks and metrics alone.
    Operators,
}

impl Paths {
    fn has(self, path: &str) -> bool {
        match self {
            Self::All => true,
            Self::WithoutMetrics => path != METRICS,
            Self::Operators => ALWAYS.contains(&path),
        }
    }
}

impl Listener {
    /// Accepts until nothing new is taken; connections go on in tasks of the tracker.
    pub async fn accept(self, listener: TcpListener, settings: &Settings) {
        let role = self.role;
        let descriptors = Descriptors::new(role, settings);
        let mut pause = PAUSE.0;
        loop {
            let accepted = tokio::select! {
                () = self.stopping.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    pause = PAUSE.0;
                    match descriptors.capacity(stream.as_raw_fd()) {
                        Capacity::Full => drop(stream),
                        capacity => drop(self.tracker.spawn(connection(self.clone(), stream, peer, capacity))),
                    }
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "{role}.accept_failed");
                    tokio::select! {
                        () = self.stopping.cancelled() => return,
                        () = tokio::time::sleep(pause) => {}
                    }
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
        }
    }

    /// Who is at the other end, and what has been read of the connection already. `None`: it cannot be served. Only a
    /// trusted proxy may name somebody else; what anybody else sends is a request.
    async fn named(&self, stream: &mut TcpStream, peer: SocketAddr) -> Option<(SocketAddr, Bytes)> {
        if !self.proxy_protocol || !self.proxies.trusts(peer.ip()) {
            return Some((peer, Bytes::new()));
        }
        match proxy_protocol::read(stream).await {
            Ok((source, before)) => Some((source.unwrap_or(peer), before)),
            Err(error) => {
                tracing::debug!(%error, %peer, "{}.connection_failed", self.role);
                None
            }
        }
    }
}

/// The client had gone before it was accepted; the listener is well.
fn is_of_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

async fn connection(listener: Listener, mut stream: TcpStream, peer: SocketAddr, capacity: Capacity) {
    let Listener { role, ref stopping, ref killed, keep_alive, .. } = listener;
    // What is sent is mostly small and wanted at once. It fails only where the client has gone already.
    let _ = stream.set_nodelay(true);
    let named = tokio::select! {
        named = listener.named(&mut stream, peer) => named,
        () = stopping.cancelled() => return,
    };
    let Some((peer, before)) = named else { return };
    let is_tls = listener.tls.is_some();
    let (stream, before) = match &listener.tls {
        None => (ClientStream::Plain(stream), before),
        Some(tls) => {
            let accepted = tokio::select! {
                accepted = tls.accept(stream, before) => accepted,
                () = stopping.cancelled() => return,
            };
            match accepted {
                Ok(stream) => (stream, Bytes::new()),
                Err(error) => {
                    tracing::debug!(%error, %peer, "{role}.connection_failed");
                    return;
                }
            }
        }
    };
    let is_crowded = capacity == Capacity::Crowded;
    let pace = Pace::new(if is_crowded { CROWDED_IDLE } else { keep_alive });
    let inner = warp::service(listener.routes.clone());
    let paths = listener.paths;
    let proxies = listener.proxies.clone();
    let service = Serving { inner, peer, proxies, paths, pace: pace.clone(), is_crowded, is_tls };
    let mut server = http1::Builder::new();
    server.max_buf_size(HEAD_BYTES).keep_alive(!is_crowded);
    let wire = TokioIo::new(Wire::new(stream, before, pace));
    let connection = server.serve_connection(wire, TowerToHyperService::new(service)).with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = stopping.cancelled() => {
            // The request under way is answered; then the connection closes.
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                outcome = connection.as_mut() => outcome,
                () = killed.cancelled() => Ok(()),
            }
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "{role}.connection_failed");
    }
}

/// Puts the client's address into each request, keeps the connection's time, and refuses where there is no capacity.
#[derive(Clone)]
struct Serving<S> {
    inner: S,
    peer: SocketAddr,
    proxies: Arc<TrustedProxies>,
    paths: Paths,
    pace: Pace,
    is_crowded: bool,
    is_tls: bool,
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
        if !self.paths.has(request.uri().path()) {
            let refusal = Refusal::new(ErrorCode::NotFound, "There is nothing at this path of this listener");
            return std::future::ready(Ok(refusal.to_response())).boxed();
        }
        if self.is_crowded && !ALWAYS.contains(&request.uri().path()) {
            return std::future::ready(Ok(crowded())).boxed();
        }
        if !handshake::has_one_host(request.version(), request.headers()) {
            return std::future::ready(Ok(without_host())).boxed();
        }
        let client = self.proxies.client(self.peer.ip(), request.headers());
        request.extensions_mut().insert(client);
        if self.is_tls {
            // As a proxy that ends TLS says it: the scheme of an Origin is compared with this.
            request.headers_mut().insert(&handshake::X_FORWARDED_PROTO, HeaderValue::from_static("https"));
        }
        let answer = self.inner.call(request);
        async move {
            let answer = answer.await;
            drop(answering);
            answer
        }
        .boxed()
    }
}

/// The refusal of a request that does not say, or says in two ways, to which host it goes (RFC 9112, section 3.2). Two
/// programs that read it could each take another host for the one that is meant.
fn without_host() -> Response {
    let message = "Send the header Host once, with the name or address to which the request goes";
    let mut response = Refusal::new(ErrorCode::InvalidMessage, message).to_response();
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The refusal of a client for whom there is no file descriptor.
fn crowded() -> Response {
    let message = "This gateway has no capacity for more connections just now: try again shortly, or another gateway";
    let mut response = Refusal::new(ErrorCode::Unavailable, message).with_retry_after(5).to_response();
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
