//! The front: sockets, the HTTP API and the operator's page.
//!
//! A gateway keeps nothing of its own. Any number of them share Redis, and a socket may come back to any.
//!
//! [`http`](crate::http) accepts; [`upgrade`] lets clients in and [`session`] serves each socket; [`hub`] passes results and updates on to the [`outbox`] of each; [`rest`] answers plain requests;
//! [`commands`] is the one way in for a command and [`batch`] for many at once, [`schedules`] brings in those that were
//! to come later and [`expiry`] ends those that nobody took up; [`limits`] and [`access`] say who may stay;
//! [`drain`] sends everyone away at the end.

pub mod access;
mod backlog;
pub mod batch;
pub mod clock;
pub mod commands;
pub mod drain;
pub mod expiry;
mod fleet;
pub mod health;
pub mod hub;
pub mod job_types;
pub mod limits;
pub mod outbox;
pub mod rest;
pub mod results;
pub mod schedules;
pub mod session;
pub mod snapshot;
pub mod upgrade;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use warp::Filter;

use crate::auth::{Policy, SetupError, Verifier};
use crate::broker::keys::PERMISSIONS_CHANNEL;
use crate::broker::{Broker, BrokerError, Subscriber};
use crate::config::Settings;
use crate::http::server::{Listener, Routes};
use crate::http::{self, TrustedProxies};
use crate::store::{Store, StoreError};
use crate::telemetry::exporter::Metrics;

use access::Access;
use clock::Clock;
use hub::Hub;
use job_types::JobTypes;
use limits::Leases;

pub use health::Health;
pub use results::Results;

/// Sockets that are taken down at the same time.
const LEAVING_AT_ONCE: usize = 32;

/// Why a gateway could not start: one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// Redis.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// SQL.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// SQL is there, its tables are not.
    #[error("the database has not been migrated: run `wheelhouse migrate` first")]
    NotMigrated,
    /// The keys of tokens.
    #[error(transparent)]
    Auth(#[from] SetupError),
    /// The address.
    #[error("setting server.listen: cannot listen on {address}: {error}; is another program using it?")]
    Listen {
        /// Which one.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
}

/// What is fixed for users and set otherwise by tests only.
#[derive(Debug, Clone, Copy)]
pub struct Tuning {
    /// Between two WebSocket pings.
    pub ping: Duration,
    /// Milliseconds by which the wall clock is off, where a test moves it.
    pub clock_off: Option<&'static AtomicI64>,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { ping: Duration::from_secs(30), clock_off: None }
    }
}

/// What every part of a gateway shares; cheap to clone.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

struct Inner {
    id: String,
    settings: Settings,
    tuning: Tuning,
    broker: Broker,
    store: Store,
    verifier: Verifier,
    policy: Policy,
    health: Health,
    clock: Clock,
    hub: Hub,
    leases: Leases,
    access: Access,
    metrics: Metrics,
    results: Results,
    job_types: JobTypes,
    /// Turns of the sockets that end.
    leaving: Semaphore,
    /// Connections and sockets.
    tracker: TaskTracker,
    /// Take nothing new, finish what is under way.
    stopping: CancellationToken,
    /// The time for that is over.
    killed: CancellationToken,
}

impl Gateway {
    /// Unique for each start: it names this gateway's connection leases.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// What only tests set.
    pub fn tuning(&self) -> Tuning {
        self.0.tuning
    }

    /// Redis.
    pub fn broker(&self) -> &Broker {
        &self.0.broker
    }

    /// SQL.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Checks tokens.
    pub fn verifier(&self) -> &Verifier {
        &self.0.verifier
    }

    /// Answers who may do what.
    pub fn policy(&self) -> &Policy {
        &self.0.policy
    }

    /// What works just now.
    pub fn health(&self) -> &Health {
        &self.0.health
    }

    /// The wall clock, by which tokens end.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// What `/metrics` shows.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Follows accepted commands to their results.
    pub fn results(&self) -> &Results {
        &self.0.results
    }

    /// Which types of job live workers know.
    pub fn job_types(&self) -> &JobTypes {
        &self.0.job_types
    }

    /// Fan-out.
    pub fn hub(&self) -> &Hub {
        &self.0.hub
    }

    /// Limits on open sockets.
    pub fn leases(&self) -> &Leases {
        &self.0.leases
    }

    /// Who has a socket open.
    pub fn access(&self) -> &Access {
        &self.0.access
    }

    /// Owner of the tasks that `serve` waits for at its end: connections, sockets, requests.
    pub fn tracker(&self) -> &TaskTracker {
        &self.0.tracker
    }

    /// Turns of the sockets that end: taking one down costs more than noticing that it is gone.
    pub fn leaving(&self) -> &Semaphore {
        &self.0.leaving
    }

    /// Cancelled when the gateway begins to leave: take nothing new, finish what is under way.
    pub fn stopping(&self) -> &CancellationToken {
        &self.0.stopping
    }

    /// Cancelled when the time to leave is over.
    pub fn killed(&self) -> &CancellationToken {
        &self.0.killed
    }
}

/// Every route of a gateway, in the order in which they are tried.
fn routes(gateway: &Gateway) -> Routes {
    let known = upgrade::routes(gateway).or(rest::routes(gateway)).unify();
    known.or(crate::console::routes()).unify().or(rest::fallback()).unify().boxed()
}

/// The front of a gateway's listener.
fn accepting(gateway: &Gateway) -> Listener {
    let server = &gateway.settings().server;
    Listener {
        role: "gateway",
        routes: routes(gateway),
        keep_alive: server.keep_alive,
        proxies: Arc::new(TrustedProxies::new(server)),
        proxy_protocol: server.proxy_protocol,
        tracker: gateway.tracker().clone(),
        stopping: gateway.stopping().clone(),
        killed: gateway.killed().clone(),
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
    // What serves the sockets ends after them.
    let (background, background_stop) = (TaskTracker::new(), CancellationToken::new());
    let _ends_background = background_stop.clone().drop_guard();
    let store = Store::open(&settings.database).await?;
    if !store.is_migrated().await? {
        return Err(GatewayError::NotMigrated);
    }
    let broker = Broker::connect(&settings.redis).await?;
    let (subscriber, events) =
        Subscriber::start(&settings.redis, &broker, &background, background_stop.clone()).await?;
    subscriber.subscribe(vec![PERMISSIONS_CHANNEL.to_owned()]).await?;
    subscriber.probe_by_pattern().await?;
    broker.warn_of_loss();
    let verifier = Verifier::new(&settings.auth, &background, background_stop.clone()).await?;
    let address = settings.server.listen;
    let listener = http::server::listen(address).map_err(|error| GatewayError::Listen { address, error })?;
    let address = listener.local_addr().map_err(|error| GatewayError::Listen { address, error })?;

    let id = format!("g-{}", uuid::Uuid::now_v7().simple());
    let results = Results::new(broker.clone(), settings.command.ttl);
    let policy = Policy::new(settings.auth.permissions, broker.clone(), store.clone());
    let access = Access::new(policy.clone(), store.clone(), settings.auth.permissions);
    let heard = (subscriber.clone(), events);
    let told = (access.clone(), results.clone());
    let hub = Hub::start(broker.clone(), store.clone(), heard, told, &background, &background_stop);
    let gateway = Gateway(Arc::new(Inner {
        access,
        leases: Leases::new(broker.clone(), id.clone()),
        id,
        policy,
        hub,
        health: Health::new(broker.clone(), store.clone(), subscriber.clone()),
        clock: Clock::new(tuning.clock_off),
        metrics: Metrics::install(),
        results,
        verifier,
        broker,
        store,
        job_types: JobTypes::default(),
        leaving: Semaphore::new(LEAVING_AT_ONCE),
        tracker: TaskTracker::new(),
        stopping: CancellationToken::new(),
        killed: CancellationToken::new(),
        settings,
        tuning,
    }));
    background.spawn(gateway.health().clone().watch(background_stop.clone()));
    background.spawn(gateway.leases().clone().keep(background_stop.clone()));
    background.spawn(fleet::watch(gateway.clone(), background_stop.clone()));
    background.spawn(backlog::watch(gateway.broker().clone(), background_stop.clone()));
    background.spawn(gateway.access().clone().watch(background_stop.clone()));
    background.spawn(gateway.results().clone().run(background_stop.clone()));
    background.spawn(schedules::keep(gateway.clone(), background_stop.clone()));
    background.spawn(expiry::run(gateway.clone(), background_stop.clone()));
    background.spawn(gateway.metrics().clone().upkeep(background_stop.clone()));
    tracing::info!(gateway_id = gateway.id(), %address, "gateway.started");
    if let Some(ready) = ready {
        // Nobody waits any more: no reason not to serve.
        let _ = ready.send(address);
    }
    background.spawn({
        let (gateway, stop) = (gateway.clone(), background_stop.clone());
        async move { gateway.clock().watch(gateway.access(), stop).await }
    });
    tokio::join!(accepting(&gateway).accept(listener, gateway.settings()), drain::announce(&gateway, &stop));
    // The listener is closed: whoever comes now is refused by the system and goes to another gateway.
    gateway.tracker().close();
    let leaving = async { tokio::join!(drain::send_away(&gateway), gateway.tracker().wait()) };
    if tokio::time::timeout(gateway.settings().server.drain, leaving).await.is_err() {
        gateway.killed().cancel();
        gateway.tracker().wait().await;
    }
    background_stop.cancel();
    background.close();
    background.wait().await;
    tracing::info!(gateway_id = gateway.id(), "gateway.stopped");
    Ok(())
}
