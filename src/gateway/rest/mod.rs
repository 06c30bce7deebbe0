//! The REST API, health, readiness and metrics: everything over HTTP but the sockets and the console.
//!
//! One filter takes the paths of the table in [`routes`]; each handler gives an answer or a failure, and
//! only `answer.rs` knows how those look.

mod answer;
mod audit;
mod batch;
mod callers;
mod commands;
mod cors;
mod creation;
mod fields;
mod health;
mod input;
mod job_lines;
mod job_writer;
mod line_ids;
mod lines;
mod list_query;
mod output;
mod query;
mod queue;
mod request;
mod rerun;
mod resources;
mod revocations;
mod routes;
mod schedules;
mod summary;
mod totals;
mod weight;
mod workers;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use warp::Filter;
use warp::path::FullPath;
use warp::reply::Response;

use self::answer::{Answer, no_such_path};
use self::audit::AuditApi;
use self::batch::BatchApi;
use self::callers::{CallerLimits, Callers};
use self::commands::CommandApi;
use self::cors::Cors;
use self::creation::CreationApi;
use self::output::OutputApi;
use self::queue::QueueApi;
use self::request::Request;
use self::rerun::RerunApi;
use self::resources::ResourceApi;
use self::revocations::RevocationApi;
use self::routes::{Endpoint, OPENAPI, RouteMatch};
use self::schedules::ScheduleApi;
use self::summary::SummaryApi;
pub use self::totals::Totals;
use self::workers::WorkerApi;
use super::batch::BatchSubmitter;
use super::commands::CommandSubmitter;
use super::health::Health;
use super::job_types::JobTypes;
use super::memory::MemoryBudget;
use super::results::waiter::ResultWaiter;
use super::schedules::Schedules;
use super::snapshot::SnapshotReader;
use crate::auth::{Policy, Verifier};
use crate::broker::Broker;
use crate::config::Limits;
use crate::http::Refusal;
use crate::http::server::Routes;
use crate::store::Store;
use crate::telemetry::exporter::Metrics;
use crate::telemetry::metrics;

/// The parts of a gateway that the API is put together from.
pub struct RestParts {
    /// Checks tokens.
    pub verifier: Verifier,
    /// Checks permissions.
    pub policy: Policy,
    /// Origins whose pages may use this API, beside the gateway's own.
    pub public_origins: Vec<String>,
    /// What `/readyz` says.
    pub health: Health,
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// Redis.
    pub broker: Broker,
    /// SQL.
    pub store: Store,
    /// Reads the state of one resource.
    pub snapshots: SnapshotReader,
    /// Which types of job live workers know.
    pub job_types: Arc<JobTypes>,
    /// Counts jobs by status.
    pub totals: Arc<Totals>,
    /// Takes commands.
    pub commands: Arc<CommandSubmitter>,
    /// Takes batches.
    pub batches: Arc<BatchSubmitter>,
    /// Takes scheduled commands back.
    pub schedules: Arc<Schedules>,
    /// The longest lifetime of a token, where there is one.
    pub longest_token: Option<Duration>,
    /// Waits for results.
    pub waiter: ResultWaiter,
    /// What one user may use up.
    pub limits: Limits,
    /// The memory that requests may take.
    pub memory: MemoryBudget,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
}

/// The handlers, each with the parts that it uses.
struct Api {
    audit: AuditApi,
    workers: WorkerApi,
    summary: SummaryApi,
    batch: BatchApi,
    schedules: ScheduleApi,
    queue: QueueApi,
    rerun: RerunApi,
    output: OutputApi,
    resources: ResourceApi,
    revocations: RevocationApi,
    creation: CreationApi,
    commands: CommandApi,
    cors: Cors,
    health: Health,
    metrics: Metrics,
}

/// Whether a path is this module's: the rest of `/api/v1` but the sockets, and the operators' three.
fn is_api_path(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz" | "/metrics")
        || (path.starts_with("/api/") && !path.starts_with("/api/v1/realtime/ws"))
}

/// Answers every request whose path is this module's, in JSON also where there is no such path or method;
/// passes all others on.
pub fn routes(parts: RestParts) -> Routes {
    let requests = request::filter(parts.body_timeout);
    let api = Arc::new(Api::new(parts));
    let ours = warp::path::full().and_then(async |path: FullPath| {
        if is_api_path(path.as_str()) { Ok(path.as_str().to_owned()) } else { Err(warp::reject::not_found()) }
    });
    let api = warp::any().map(move || Arc::clone(&api));
    let answered = async |path: String, request: Request, api: Arc<Api>| {
        Ok::<Response, Infallible>(api.answer(&path, request).await)
    };
    ours.and(requests).and(api).and_then(answered).boxed()
}

/// The last filter of all: nobody else has such a path.
pub fn fallback() -> Routes {
    warp::any().map(|| no_such_path().to_response()).boxed()
}

impl Api {
    fn new(parts: RestParts) -> Self {
        let RestParts { health, metrics, broker, store, commands, waiter, .. } = parts;
        let public_origins: Arc<[String]> = parts.public_origins.into();
        let cors = Cors { public_origins: public_origins.clone() };
        let limits = Arc::new(CallerLimits::new(parts.memory, &parts.limits));
        let callers = Callers { verifier: parts.verifier, policy: parts.policy, public_origins, limits };
        Self {
            audit: AuditApi { callers: callers.clone(), store: store.clone() },
            workers: WorkerApi { callers: callers.clone(), broker: broker.clone(), store: store.clone() },
            summary: SummaryApi { callers: callers.clone(), store: store.clone() },
            batch: BatchApi { callers: callers.clone(), batches: parts.batches, waiter: waiter.clone() },
            schedules: ScheduleApi { callers: callers.clone(), broker: broker.clone(), schedules: parts.schedules },
            queue: QueueApi { callers: callers.clone(), broker: broker.clone(), commands: commands.clone() },
            rerun: RerunApi { callers: callers.clone(), broker: broker.clone(), store: store.clone() },
            output: OutputApi { callers: callers.clone(), store: store.clone() },
            resources: ResourceApi {
                callers: callers.clone(),
                store: store.clone(),
                snapshots: parts.snapshots,
                job_types: parts.job_types,
                totals: parts.totals,
            },
            revocations: RevocationApi { callers: callers.clone(), store: store.clone(), longest: parts.longest_token },
            creation: CreationApi::new(callers.clone(), broker.clone(), store.clone()),
            commands: CommandApi { callers, broker, store, commands, waiter },
            cors,
            health,
            metrics,
        }
    }

    async fn answer(&self, path: &str, mut request: Request) -> Response {
        let begun = Instant::now();
        let method = request.method();
        let found = routes::find(method, path);
        let pattern = match &found {
            RouteMatch::Route(route, _) => route.pattern,
            _ => "none",
        };
        let result = match found {
            RouteMatch::Route(route, segments) => {
                request.weigh(|query| route.endpoint.weight(query));
                let answer = self.serve(route.endpoint, &segments, &mut request).await;
                let memory = request.take_memory();
                answer.map(|answer| answer.into_response(memory))
            }
            RouteMatch::WrongMethod(methods) => {
                let preflight =
                    if method == "OPTIONS" { self.cors.preflight(request.headers(), &methods) } else { None };
                preflight.ok_or_else(|| Refusal::wrong_method(&methods))
            }
            RouteMatch::Nothing => Err(no_such_path()),
        };
        let mut response = result.unwrap_or_else(|refusal| refusal.to_response());
        self.cors.share(self.cors.origin(request.headers()), &mut response);
        request.discard_body().await;
        metrics::http_answered(method, pattern, response.status().as_u16(), begun.elapsed());
        response
    }

    async fn serve(&self, endpoint: Endpoint, segments: &[&str], request: &mut Request) -> Result<Answer, Refusal> {
        let first = segments.first().copied().unwrap_or_default();
        let second = segments.get(1).copied().unwrap_or_default();
        match endpoint {
            Endpoint::Health => Ok(Answer::json(StatusCode::OK, &serde_json::json!({"status": "ok"}))),
            Endpoint::Ready => Ok(health::ready(&self.health)),
            Endpoint::Metrics => Ok(health::metrics(&self.health, &self.metrics)),
            Endpoint::OpenApi => Ok(Answer::message(StatusCode::OK, OPENAPI.to_owned())),
            Endpoint::Me => self.audit.me(request).await,
            Endpoint::Workers => self.workers.list(request).await,
            Endpoint::Names => self.summary.names(request).await,
            Endpoint::Throughput => self.summary.throughput(request).await,
            Endpoint::Audit => self.audit.audit(request).await,
            Endpoint::VerifyAudit => self.audit.verify(request).await,
            Endpoint::Revoke => self.revocations.revoke(request).await,
            Endpoint::Batch => self.batch.batch(request).await,
            Endpoint::Schedules => self.schedules.list(request).await,
            Endpoint::Withdraw => self.schedules.withdraw(request, first).await,
            Endpoint::Waiting => self.queue.waiting(request).await,
            Endpoint::Failed => self.queue.list(request).await,
            Endpoint::FailedCommand => self.queue.show(request, first).await,
            Endpoint::Requeue => self.queue.requeue(request, first).await,
            Endpoint::Forget => self.queue.forget(request, first).await,
            Endpoint::List(kind) => self.resources.list(request, kind).await,
            Endpoint::Create(kind) => self.creation.create(request, kind).await,
            Endpoint::Rerun => self.rerun.one(request, first).await,
            Endpoint::RerunMany => self.rerun.many(request).await,
            Endpoint::Output => self.output.output(request, first).await,
            Endpoint::AddJobs => self.creation.add_jobs(request, first).await,
            Endpoint::Close => self.creation.close(request, first).await,
            Endpoint::Show(kind) => self.resources.show(request, kind, first).await,
            Endpoint::JobError => self.resources.error(request, first).await,
            Endpoint::FailedItems => self.resources.failed_items(request, first).await,
            Endpoint::Command(kind, action) => self.commands.command(request, kind, action, first).await,
            Endpoint::Result(kind) => self.commands.result(request, kind, first, second).await,
        }
    }
}
