//! The life of a gateway: it starts, serves until it is asked to leave, and drains.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::drain;
use super::error::GatewayError;
use super::parts::GatewayParts;
use crate::config::Settings;
use crate::doctor;
use crate::http::addresses::AddressLimits;
use crate::http::server::{Listener, Paths};
use crate::http::tls::TlsServer;
use crate::http::{self, TrustedProxies};

/// What is fixed for users and set otherwise by tests only.
#[derive(Debug, Clone, Copy)]
pub struct Tuning {
    /// The time between two WebSocket pings.
    pub ping: Duration,
    /// Milliseconds by which the wall clock is off, where a test moves it.
    pub clock_off: Option<&'static AtomicI64>,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { ping: Duration::from_secs(30), clock_off: None }
    }
}

/// Runs a gateway until `stop` asks it to leave and it has drained. `ready` hears the address it listens on.
pub async fn serve(
    settings: Settings,
    ready: Option<oneshot::Sender<SocketAddr>>,
    stop: impl Into<drain::Stop>,
) -> Result<(), GatewayError> {
    serve_tuned(settings, Tuning::default(), ready, stop).await
}

/// As [`serve`], with what only tests set.
pub async fn serve_tuned(
    settings: Settings,
    tuning: Tuning,
    ready: Option<oneshot::Sender<SocketAddr>>,
    stop: impl Into<drain::Stop>,
) -> Result<(), GatewayError> {
    let stop = stop.into();
    doctor::warn_at_start(&settings, doctor::Program::Gateway);
    // What serves the sockets ends after them.
    let (background, background_stop) = (TaskTracker::new(), CancellationToken::new());
    let _ends_background = background_stop.clone().drop_guard();
    let connecting = GatewayParts::connect(&settings, tuning.clock_off, &background, &background_stop);
    let (parts, events) = Box::pin(connecting).await?;
    let server = &settings.server;
    let tls = server.tls.clone().map(TlsServer::new).transpose().map_err(GatewayError::Tls)?;
    let (listener, address) = listen("server.listen", server.listen)?;
    let admin = server.admin_listen.map(|address| listen("server.admin_listen", address)).transpose()?;
    let gateway_id = parts.id.clone();
    let (access, health, drain) = (parts.access.clone(), parts.health.clone(), parts.drain.clone());
    let routes = parts.start(&settings, tuning.ping, events, &background, &background_stop);
    tracing::info!(gateway_id, %address, "gateway.started");
    if let Some(ready) = ready {
        // Nobody waits any more: no reason not to serve.
        let _ = ready.send(address);
    }
    if let Some(tls) = tls.clone() {
        background.spawn(tls.keep_fresh(background_stop.clone()));
    }
    let accepting = Listener {
        role: "gateway",
        routes: routes.clone(),
        keep_alive: server.keep_alive,
        proxies: Arc::new(TrustedProxies::new(server)),
        proxy_protocol: server.proxy_protocol,
        tls,
        addresses: AddressLimits::new(&settings.limits),
        paths: if admin.is_some() { Paths::WithoutMetrics } else { Paths::All },
        tracker: drain.tracker.clone(),
        stopping: drain.stopping.clone(),
        killed: drain.killed.clone(),
    };
    if let Some((listener, address)) = admin {
        tracing::info!(gateway_id, %address, "gateway.admin_started");
        // Inside the house: no TLS and no proxy in front. It answers until the end, so that one can watch the others leave.
        let admin = Listener {
            routes,
            proxy_protocol: false,
            tls: None,
            paths: Paths::Operators,
            tracker: background.clone(),
            stopping: background_stop.clone(),
            killed: background_stop.clone(),
            ..accepting.clone()
        };
        let settings = settings.clone();
        background.spawn(async move { admin.accept(listener, &settings).await });
    }
    tokio::join!(
        accepting.accept(listener, &settings),
        drain.announce(&gateway_id, &health, server.drain_notice, &stop)
    );
    // The listener is closed: whoever comes now is refused by the system and goes to another gateway.
    drain.finish(&access, server.drain).await;
    background_stop.cancel();
    background.close();
    background.wait().await;
    tracing::info!(gateway_id, "gateway.stopped");
    Ok(())
}

/// Listens on the address of a setting; gives the port that the system chose, where it is to choose one.
fn listen(setting: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), GatewayError> {
    let listened = http::server::listen(address).and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (address, listener) = listened.map_err(|error| GatewayError::Listen { setting, address, error })?;
    Ok((listener, address))
}
