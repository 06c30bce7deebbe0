//! Puts the parts of a gateway together, each with what it uses.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use warp::Filter;

use super::access::Access;
use super::batch::BatchSubmitter;
use super::clock::Clock;
use super::commands::CommandSubmitter;
use super::drain::Drain;
use super::error::GatewayError;
use super::health::Health;
use super::hub::Hub;
use super::job_types::JobTypes;
use super::limits::ConnectionLeases;
use super::memory::MemoryBudget;
use super::rest::{self, RestParts, Totals};
use super::results::follower::ResultFollower;
use super::results::waiter::ResultWaiter;
use super::schedules::Schedules;
use super::session::{Services, Sessions};
use super::snapshot::SnapshotReader;
use super::upgrade::{self, SocketEndpoints};
use super::{audit_backlog, expiry, fleet, interruptions, refusals};
use crate::auth::{Policy, Revocations, Verifier};
use crate::broker::keys::PERMISSIONS_CHANNEL;
use crate::broker::{Broker, Event, Subscriber};
use crate::config::Settings;
use crate::http::server::Routes;
use crate::store::Store;
use crate::telemetry::exporter::Metrics;

/// What a gateway is made of before it serves anybody.
pub(super) struct GatewayParts {
    /// Unique for each start: it names the connection leases of this gateway.
    pub(super) id: String,
    pub(super) access: Access,
    pub(super) health: Health,
    pub(super) drain: Drain,
    broker: Broker,
    store: Store,
    subscriber: Subscriber,
    verifier: Verifier,
    policy: Policy,
    clock: Arc<Clock>,
    results: ResultFollower,
}

impl GatewayParts {
    /// Connects to SQL and Redis. Gives the parts, and what comes of the subscription.
    pub(super) async fn connect(
        settings: &Settings,
        clock_off: Option<&'static AtomicI64>,
        background: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<(Self, mpsc::Receiver<Event>), GatewayError> {
        let store = Store::open(&settings.database).await?;
        if !store.is_migrated().await? {
            return Err(GatewayError::NotMigrated);
        }
        let broker = Broker::connect(&settings.redis).await?;
        let (subscriber, events) = Subscriber::start(&broker, background, stop.clone()).await?;
        subscriber.subscribe(vec![PERMISSIONS_CHANNEL.to_owned()]).await?;
        subscriber.probe_by_pattern().await?;
        broker.warn_of_loss();
        let revocations = Revocations::load(store.clone()).await?;
        background.spawn(revocations.clone().poll(stop.clone()));
        let verifier = Verifier::new(&settings.auth, background, stop.clone()).await?.refusing(revocations.clone());
        let policy = Policy::new(settings.auth.permissions, broker.clone(), store.clone());
        let parts = Self {
            id: format!("g-{}", uuid::Uuid::now_v7().simple()),
            access: Access::new(policy.clone(), store.clone(), settings.auth.permissions, revocations),
            health: Health::new(broker.clone(), store.clone(), subscriber.clone()),
            drain: Drain::default(),
            clock: Arc::new(Clock::new(clock_off)),
            results: ResultFollower::new(broker.clone(), settings.command.ttl),
            broker,
            store,
            subscriber,
            verifier,
            policy,
        };
        Ok((parts, events))
    }

    /// Starts what a gateway does of its own accord. Gives every route, in the order in which they are tried.
    pub(super) fn start(
        self,
        settings: &Settings,
        ping: Duration,
        events: mpsc::Receiver<Event>,
        background: &TaskTracker,
        stop: &CancellationToken,
    ) -> Routes {
        let Self { id, access, health, drain, broker, store, subscriber, verifier, policy, clock, results } = self;
        let (limits, ttl) = (&settings.limits, settings.command.ttl);
        let public_origins = &settings.server.public_origins;
        let metrics = Metrics::install();
        let job_types = Arc::new(JobTypes::new(broker.clone()));
        let snapshots = SnapshotReader::new(broker.clone(), store.clone(), job_types.clone());
        let (heard, told) = ((subscriber, events), (access.clone(), results.clone()));
        let hub = Hub::start(broker.clone(), store.clone(), snapshots.clone(), heard, told, background, stop);
        let leases = ConnectionLeases::new(broker.clone(), id);
        let commands = Arc::new(CommandSubmitter::new(
            broker.clone(),
            store.clone(),
            policy.clone(),
            health.clone(),
            results.clone(),
            limits.clone(),
        ));
        let batches = Arc::new(BatchSubmitter::new(
            broker.clone(),
            store.clone(),
            policy.clone(),
            limits.clone(),
            commands.clone(),
            drain.clone(),
        ));
        let memory = MemoryBudget::new(limits);
        let permissions = settings.auth.permissions;
        let schedules = Arc::new(Schedules::new(broker.clone(), policy.clone(), permissions, commands.clone()));

        background.spawn(health.clone().watch(stop.clone()));
        let (hub_told, by_clock) = (hub.clone(), clock.clone());
        background.spawn(interruptions::watch(health.clone(), hub_told, broker.keys(), by_clock, stop.clone()));
        background.spawn(leases.clone().run(stop.clone()));
        background.spawn(fleet::watch(broker.clone(), access.clone(), stop.clone()));
        background.spawn(fleet::sweep(broker.clone(), stop.clone()));
        background.spawn(refusals::run(broker.clone(), stop.clone()));
        background.spawn(audit_backlog::watch(broker.clone(), stop.clone()));
        background.spawn(access.clone().watch(stop.clone()));
        background.spawn(access.clone().watch_revocations(stop.clone()));
        background.spawn(results.run(stop.clone()));
        background.spawn(schedules.clone().run(stop.clone()));
        background.spawn(expiry::run(broker.clone(), ttl, stop.clone()));
        background.spawn(metrics.clone().upkeep(stop.clone()));
        let totals = Arc::new(Totals::new(store.clone()));
        background.spawn(totals.clone().add_up(stop.clone()));
        background.spawn(clock.clone().watch(access.clone(), stop.clone()));

        let services =
            Services { verifier: verifier.clone(), policy: policy.clone(), schedules: schedules.clone(), clock };
        let sockets = upgrade::routes(SocketEndpoints {
            verifier: verifier.clone(),
            policy: policy.clone(),
            health: health.clone(),
            broker: broker.clone(),
            snapshots: snapshots.clone(),
            hub,
            memory: memory.clone(),
            leases,
            store: store.clone(),
            commands: commands.clone(),
            batches: batches.clone(),
            sessions: Sessions::new(access, drain.clone(), services, ping, limits.messages_per_second),
            limits: limits.clone(),
            public_origins: public_origins.clone(),
            command_ttl: ttl,
            drain: drain.clone(),
        });
        let rest = rest::routes(RestParts {
            verifier,
            policy,
            public_origins: public_origins.clone(),
            health,
            metrics,
            waiter: ResultWaiter::new(broker.clone(), drain.stopping),
            broker,
            store,
            snapshots,
            job_types,
            totals,
            commands,
            batches,
            schedules,
            longest_token: settings.auth.max_token,
            limits: limits.clone(),
            memory,
            body_timeout: settings.server.body,
        });
        sockets
            .or(rest)
            .unify()
            .or(crate::console::routes(settings.oidc.as_ref()))
            .unify()
            .or(rest::fallback())
            .unify()
            .boxed()
    }
}
