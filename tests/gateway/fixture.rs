//! Gateways inside the test over one Redis and one database, and a worker played by the test.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wheelhouse::broker::scripts::claim::{Claim, ClaimOutcome, CompleteOutcome};
use wheelhouse::broker::scripts::updates::Update;
use wheelhouse::domain::{Control, Resource, WorkerId};
use wheelhouse::gateway::{GatewayError, Tuning, serve_tuned};
use wheelhouse::protocol::{Outcome, server};
use wheelhouse::store::{NewCampaign, NewJob};

use crate::support::base::Base;
use crate::support::socket::Socket;

/// Redis, a database with the job `j1`, the campaign `c1` and the user `ann` of the tenant `acme`, who may
/// do everything.
pub struct GatewayFixture {
    base: Base,
}

impl std::ops::Deref for GatewayFixture {
    type Target = Base;
    fn deref(&self) -> &Base {
        &self.base
    }
}

impl std::ops::DerefMut for GatewayFixture {
    fn deref_mut(&mut self) -> &mut Base {
        &mut self.base
    }
}

/// One gateway; it ends when dropped.
pub struct Running {
    pub address: SocketAddr,
    pub stop: CancellationToken,
    serving: JoinHandle<Result<(), GatewayError>>,
}

impl Running {
    /// Tells it to leave, and waits until it has.
    pub async fn leave(mut self) {
        self.stop.cancel();
        let left = tokio::time::timeout(Duration::from_secs(30), &mut self.serving).await.expect("it leaves");
        left.expect("no panic").expect("no error");
    }

    /// Waits until one that was told to has left.
    pub async fn left(mut self) {
        let left = tokio::time::timeout(Duration::from_secs(30), &mut self.serving).await.expect("it leaves");
        left.expect("no panic").expect("no error");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl GatewayFixture {
    /// With the usual settings.
    pub async fn new() -> Self {
        Self::with(&[]).await
    }

    /// With these beside them.
    pub async fn with(settings: &[(&str, &str)]) -> Self {
        let fixture = Self { base: Base::start(settings).await };
        fixture.grant("ann", &["*"]).await;
        fixture.job("j1").await;
        let campaign = NewCampaign {
            id: "c1".parse().expect("id"),
            tenant: "acme".parse().expect("id"),
            name: Some("Spring".to_owned()),
            created_by: None,
            jobs: Vec::new(),
        };
        fixture.store.create_campaign(&campaign).await.expect("campaign");
        fixture
    }

    /// A job of acme.
    pub async fn job(&self, id: &str) {
        self.store.create_job(&new_job(id)).await.expect("job");
    }

    pub async fn gateway(&self) -> Running {
        self.gateway_tuned(Tuning::default()).await
    }

    pub async fn gateway_tuned(&self, tuning: Tuning) -> Running {
        let stop = CancellationToken::new();
        let (ready, listens) = tokio::sync::oneshot::channel();
        let serving = tokio::spawn(serve_tuned(self.settings.clone(), tuning, Some(ready), stop.clone()));
        let Ok(address) = listens.await else {
            panic!("the gateway did not start: {:?}", serving.await);
        };
        Running { address, stop, serving }
    }

    pub fn token(&self, user: &str, tenant: &str) -> String {
        self.token_for(user, tenant, 600, None)
    }

    /// Ann's address of a resource (`jobs/j1`).
    pub fn url(&self, gateway: &Running, path: &str) -> String {
        self.url_of(gateway, path, &self.token("ann", "acme"))
    }

    pub fn url_of(&self, gateway: &Running, path: &str, token: &str) -> String {
        format!("ws://{}/api/v1/realtime/ws/{path}?token={token}", gateway.address)
    }

    /// Opens Ann's socket and reads up to the snapshot.
    pub async fn socket(&self, gateway: &Running, path: &str) -> Socket {
        self.socket_of(gateway, path, &self.token("ann", "acme")).await
    }

    pub async fn socket_of(&self, gateway: &Running, path: &str, token: &str) -> Socket {
        let mut socket = Socket::open(&self.url_of(gateway, path, token)).await;
        assert_eq!(socket.next().await["type"], "subscribed");
        let snapshot = socket.next().await;
        assert!(snapshot["type"].as_str().is_some_and(|t| t.ends_with("_snapshot")), "{snapshot}");
        socket
    }

    /// Opens Ann's tenant-wide socket.
    pub async fn tenant_socket(&self, gateway: &Running) -> Socket {
        self.tenant_socket_of(gateway, &self.token("ann", "acme")).await
    }

    pub async fn tenant_socket_of(&self, gateway: &Running, token: &str) -> Socket {
        let mut socket = Socket::open(&self.tenant_url(gateway, token)).await;
        let first = socket.next().await;
        assert_eq!((&first["type"], &first["channel"]), (&"subscribed".into(), &first["tenant_id"]), "{first}");
        socket
    }

    pub fn tenant_url(&self, gateway: &Running, token: &str) -> String {
        format!("ws://{}/api/v1/realtime/ws?token={token}", gateway.address)
    }

    /// Publishes anything, as somebody with access to Redis can.
    pub async fn publish(&self, channel: &str, message: &str) {
        let words = ["PUBLISH", channel, message].map(str::to_owned);
        self.broker.query_any(&words).await.expect("publish");
    }

    /// Claims the next command of a resource, as a worker does.
    pub async fn claim(&self, resource: &Resource) -> Claim {
        match self.broker.claim(resource, &worker(), Duration::from_secs(30)).await.expect("claim") {
            ClaimOutcome::Command(claim) => *claim,
            other => panic!("nothing to claim: {other:?}"),
        }
    }

    /// Answers it with success; gives the result message.
    pub async fn succeed(&self, claim: &Claim) -> String {
        let status = match claim.action.as_str() {
            "cancel" => "cancelled",
            "pause" => "paused",
            _ => "running",
        };
        let request = claim.request_id.as_deref();
        let control = Control::of(claim.resource.kind, false);
        let outcome = Outcome::Succeeded(status.to_owned());
        let done = self.broker.complete(claim, &worker(), &outcome, control, None).await.expect("complete");
        assert!(matches!(done, CompleteOutcome::Done { .. }));
        server::succeeded(claim.action, &claim.resource, claim.command, status, control, request)
    }

    /// Publishes a change of a job's state; gives its number.
    pub async fn status(&self, job: &Resource, status: &str) -> i64 {
        let status = wheelhouse::domain::JobStatus::parse(status).expect("status");
        let update = Update { message: server::job_status(job, status, None), desired: None };
        self.broker.publish_update(job, &update).await.expect("publish")
    }

    /// A plain GET of the gateway, its status and body.
    pub async fn get(&self, gateway: &Running, path: &str) -> (u16, String) {
        let (address, path) = (gateway.address.to_string(), path.to_owned());
        let got = tokio::task::spawn_blocking(move || crate::support::fleet::http_get(&address, &path));
        got.await.expect("no panic").expect("an answer")
    }
}

/// A job of acme that is not in SQL yet.
pub fn new_job(id: &str) -> NewJob {
    NewJob::new("acme".parse().expect("tenant"), id.parse().expect("id"), "demo")
}

pub fn worker() -> WorkerId {
    "w-test".parse().expect("worker id")
}

pub fn job(id: &str) -> Resource {
    Resource::parse(&format!("acme:job:{id}")).expect("resource")
}
