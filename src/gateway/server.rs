//! The listener and its connections: our own accept loop around hyper, so that slow clients, a full table
//! of file descriptors and the end of the process are handled here and not left to chance.

use std::net::SocketAddr;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::{Gateway, Routes};

/// Connections that may wait to be accepted: a burst of reconnecting sockets after another gateway's end.
const BACKLOG: u32 = 4_096;
/// Bytes of a socket that the kernel may keep for a slow reader (it doubles this).
const SEND_BUFFER: u32 = 64 * 1024;
/// Longest time for a request's headers to arrive, and for a kept-alive connection to sit idle.
const HEADERS: Duration = Duration::from_secs(10);
/// Longest head of a request; a token in the address may have 8 KiB.
const HEAD_BYTES: usize = 32 * 1024;
/// First and longest pause after `accept` failed: the table of file descriptors is full, most likely.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));

/// Who is at the other end of the connection; in the extensions of every request.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Binds the address.
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    // Accepted sockets inherit it. The kernel would otherwise keep megabytes for each client that does not read.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts until the gateway is told to stop; connections go on in tasks of its tracker.
pub async fn accept(gateway: &Gateway, listener: TcpListener, routes: Routes) {
    let mut pause = PAUSE.0;
    loop {
        let accepted = tokio::select! {
            () = gateway.stopping().cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = PAUSE.0;
                gateway.tracker().spawn(connection(gateway.clone(), stream, peer, routes.clone()));
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

async fn connection(gateway: Gateway, stream: TcpStream, peer: SocketAddr, routes: Routes) {
    // Acks and results are small and wanted at once. It fails only where the client has gone already.
    let _ = stream.set_nodelay(true);
    let service = TowerToHyperService::new(WithPeer { inner: warp::service(routes), peer: Peer(peer) });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(HEAD_BYTES);
    let connection = server.serve_connection(TokioIo::new(stream), service).with_upgrades();
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

/// Puts the peer's address into each request.
#[derive(Clone)]
struct WithPeer<S> {
    inner: S,
    peer: Peer,
}

impl<S, B> tower_service::Service<hyper::Request<B>> for WithPeer<S>
where
    S: tower_service::Service<hyper::Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: hyper::Request<B>) -> Self::Future {
        request.extensions_mut().insert(self.peer);
        self.inner.call(request)
    }
}
