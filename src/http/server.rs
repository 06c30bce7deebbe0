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
use hyper::header::{CACHE_CONTROL, CONNECTION, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::{HeaderMap, StatusCode};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::addresses::{AddressLimits, AddressPlace};
use super::client_address::{ClientAddress, TrustedProxies};
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
/// How long a connection beyond a limit may be idle.
const REFUSED_IDLE: Duration = Duration::from_secs(2);
/// Connections beyond the limits of an address that get an answer at a time; others are closed without one. So a flood
/// of them costs no more than these.
const REFUSALS: usize = 64;
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
    /// What one address may use.
    pub addresses: AddressLimits,
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
        let refusals = Arc::new(Semaphore::new(REFUSALS));
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
                        capacity => {
                            let refusals = refusals.clone();
                            self.tracker.spawn(connection(self.clone(), stream, peer, capacity, refusals));
                        }
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

    /// Who is at the other end. `None`: it cannot be served. Only a trusted proxy may name somebody else; what anybody
    /// else sends is a request.
    async fn peer(&self, stream: &mut TcpStream, peer: SocketAddr) -> Option<Peer> {
        if !self.proxies.trusts(peer.ip()) {
            return Some(Peer {
                address: peer,
                before: Bytes::new(),
                place: self.addresses.connect(peer.ip()).map(Some),
            });
        }
        if !self.proxy_protocol {
            return Some(Peer { address: peer, before: Bytes::new(), place: Ok(None) });
        }
        match proxy_protocol::read(stream).await {
            Ok((Some(source), before)) if !self.proxies.trusts(source.ip()) => {
                Some(Peer { address: source, before, place: self.addresses.connect(source.ip()).map(Some) })
            }
            Ok((source, before)) => Some(Peer { address: source.unwrap_or(peer), before, place: Ok(None) }),
            Err(error) => {
                tracing::debug!(%error, %peer, "{}.connection_failed", self.role);
                None
            }
        }
    }
}

/// Who is at the other end of a connection.
struct Peer {
    address: SocketAddr,
    /// What has been read of the connection already.
    before: Bytes,
    /// Its place among the connections of the address, or why it gets none. A trusted proxy needs none.
    place: Result<Option<AddressPlace>, Refusal>,
}

/// The client had gone before it was accepted; the listener is well.
fn is_of_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

async fn connection(
    listener: Listener,
    mut stream: TcpStream,
    peer: SocketAddr,
    capacity: Capacity,
    refusals: Arc<Semaphore>,
) {
    let Listener { role, ref stopping, ref killed, keep_alive, .. } = listener;
    // What is sent is mostly small and wanted at once. It fails only where the client has gone already.
    let _ = stream.set_nodelay(true);
    let found = tokio::select! {
        found = listener.peer(&mut stream, peer) => found,
        () = stopping.cancelled() => return,
    };
    let Some(Peer { address: peer, before, place }) = found else { return };
    let (place, refusal, _refusing) = match place {
        Ok(place) => (place, (capacity == Capacity::Crowded).then(crowded), None),
        Err(refusal) => {
            // A handshake would cost more than what is refused.
            let Ok(permit) = refusals.try_acquire_owned() else { return };
            if listener.tls.is_some() {
                return;
            }
            (None, Some(refusal), Some(permit))
        }
    };
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
    let keeps_alive = refusal.is_none();
    let pace = Pace::new(if keeps_alive { keep_alive } else { REFUSED_IDLE }, place);
    let inner = warp::service(listener.routes.clone());
    let paths = listener.paths;
    let proxies = listener.proxies.clone();
    let addresses = listener.addresses.clone();
    let refusal = refusal.map(Arc::new);
    let service = Serving { inner, peer, proxies, addresses, paths, pace: pace.clone(), refusal, is_tls };
    let mut server = http1::Builder::new();
    server.max_buf_size(HEAD_BYTES).keep_alive(keeps_alive);
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

/// Puts the client's address into each request, keeps the connection's time, and refuses where there is no room.
#[derive(Clone)]
struct Serving<S> {
    inner: S,
    peer: SocketAddr,
    proxies: Arc<TrustedProxies>,
    addresses: AddressLimits,
    paths: Paths,
    pace: Pace,
    /// What everything on this connection is refused with, where it is beyond a limit.
    refusal: Option<Arc<Refusal>>,
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
        let is_always_answered = ALWAYS.contains(&request.uri().path());
        if let Some(refusal) = self.refusal.as_ref().filter(|_| !is_always_answered) {
            return std::future::ready(Ok(and_close(refusal))).boxed();
        }
        if !handshake::has_one_host(request.version(), request.uri().authority(), request.headers()) {
            return std::future::ready(Ok(without_host())).boxed();
        }
        let client = self.proxies.client(self.peer.ip(), request.headers());
        if !is_always_answered && let Err(refusal) = self.check_address(client) {
            // What is left of its body is not waited for.
            return std::future::ready(Ok(and_close(&refusal))).boxed();
        }
        request.extensions_mut().insert(client);
        if self.is_tls {
            // As a proxy that ends TLS says it: the scheme of an Origin is compared with this.
            request.headers_mut().insert(&handshake::X_FORWARDED_PROTO, HeaderValue::from_static("https"));
        }
        let answer = self.inner.call(request);
        let pace = self.pace.clone();
        async move {
            let answer = answer.await;
            drop(answering);
            answer.map(|mut answer| {
                if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                    pace.held_for(None);
                    keep_to_itself(answer.headers_mut());
                }
                answer
            })
        }
        .boxed()
    }
}

impl<S> Serving<S> {
    /// Whether the address of a client may have one more request answered. Its place among the connections of that
    /// address is taken where a proxy has passed it on: the connection itself counts for nobody.
    fn check_address(&self, client: ClientAddress) -> Result<(), Refusal> {
        if self.proxies.trusts(client.0) {
            return Ok(());
        }
        self.addresses.request(client.0)?;
        if client.0 != self.peer.ip().to_canonical() {
            self.pace.held_for(Some(self.addresses.place(client.0)?));
        }
        Ok(())
    }
}

/// Whatever answers, and whether or not it thought of it: no browser takes the answer for something else than it says it
/// is, and nobody keeps it who was not told that he may.
fn keep_to_itself(headers: &mut HeaderMap) {
    headers.entry(X_CONTENT_TYPE_OPTIONS).or_insert(HeaderValue::from_static("nosniff"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

/// The refusal of a request that does not say, or says in two ways, to which host it goes (RFC 9112, section 3.2). Two
/// programs that read it could each take another host for the one that is meant.
fn without_host() -> Response {
    let message = "Send the header Host once, with the name or address to which the request goes";
    and_close(&Refusal::new(ErrorCode::InvalidMessage, message))
}

/// The refusal of a client for whom there is no file descriptor.
fn crowded() -> Refusal {
    let message = "This gateway has no room for more connections just now: try again shortly, or another gateway";
    Refusal::new(ErrorCode::Unavailable, message).with_retry_after(5)
}

/// A refusal after which the connection closes.
fn and_close(refusal: &Refusal) -> Response {
    let mut response = refusal.to_response();
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
