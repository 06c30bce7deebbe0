//! The REST API, health, readiness and metrics: everything over HTTP but the sockets and the console.
//!
//! One filter takes the paths of the table in [`routes`]; each handler gives an answer or a failure, and
//! only `answer.rs` knows how those look.

mod answer;
mod audit;
mod batch;
mod commands;
mod creation;
mod fields;
mod health;
mod input;
mod queue;
mod request;
mod resources;
mod routes;
mod schedules;

use std::convert::Infallible;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

use hyper::StatusCode;
use tokio::sync::Semaphore;
use warp::Filter;
use warp::path::FullPath;
use warp::reply::Response;

use self::answer::{Answer, Failure};
use self::request::Request;
use self::routes::{Endpoint, Found};
use super::Gateway;
use crate::http::server::Routes;
use crate::telemetry::metrics;

/// The description of this API.
pub const OPENAPI: &str = include_str!("openapi.json");

/// Campaigns, and lists of jobs, that are read and made at once: each holds its body of up to 16 MiB and its jobs in memory.
/// More of them wait their turn; their bodies wait in the network.
const LARGE_BODIES: usize = 4;

/// What the handlers share: the gateway, and what only they need.
struct Rest {
    gateway: Gateway,
    large_bodies: Semaphore,
}

impl Deref for Rest {
    type Target = Gateway;
    fn deref(&self) -> &Gateway {
        &self.gateway
    }
}

/// Whether a path is this module's: the rest of `/api/v1` but the sockets, and the operators' three.
fn is_ours(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz" | "/metrics")
        || (path.starts_with("/api/") && !path.starts_with("/api/v1/realtime/ws"))
}

/// Answers every request whose path is this module's, in JSON also where there is no such path or method;
/// passes all others on.
pub fn routes(gateway: &Gateway) -> Routes {
    let rest = Arc::new(Rest { gateway: gateway.clone(), large_bodies: Semaphore::new(LARGE_BODIES) });
    let ours = warp::path::full().and_then(async |path: FullPath| {
        if is_ours(path.as_str()) { Ok(path.as_str().to_owned()) } else { Err(warp::reject::not_found()) }
    });
    let rest = warp::any().map(move || Arc::clone(&rest));
    let answered = async |path: String, request: Request, rest: Arc<Rest>| {
        Ok::<Response, Infallible>(answer(&rest, &path, request).await)
    };
    ours.and(request::filter()).and(rest).and_then(answered).boxed()
}

/// The last filter of all: nobody else has such a path.
pub fn fallback() -> Routes {
    warp::any().map(|| Failure::no_such_path().into_answer().into_response()).boxed()
}

async fn answer(rest: &Rest, path: &str, mut request: Request) -> Response {
    let begun = Instant::now();
    let method = request.method();
    let found = routes::find(method, path);
    let pattern = match &found {
        Found::Route(route, _) => route.pattern,
        _ => "none",
    };
    let result = match found {
        Found::Route(route, segments) => serve(rest, route.endpoint, &segments, &mut request).await,
        Found::WrongMethod(methods) => Err(Failure::wrong_method(&methods)),
        Found::Nothing => Err(Failure::no_such_path()),
    };
    let answer = result.unwrap_or_else(Failure::into_answer);
    request.discard_body().await;
    metrics::http_answered(method, pattern, answer.status.as_u16(), begun.elapsed());
    answer.into_response()
}

async fn serve(rest: &Rest, endpoint: Endpoint, segments: &[&str], request: &mut Request) -> Result<Answer, Failure> {
    let first = segments.first().copied().unwrap_or_default();
    let second = segments.get(1).copied().unwrap_or_default();
    match endpoint {
        Endpoint::Health => Ok(Answer::json(StatusCode::OK, &serde_json::json!({"status": "ok"}))),
        Endpoint::Ready => Ok(health::ready(rest)),
        Endpoint::Metrics => Ok(health::metrics(rest)),
        Endpoint::OpenApi => Ok(Answer::message(StatusCode::OK, OPENAPI.to_owned())),
        Endpoint::Me => audit::me(rest, request).await,
        Endpoint::Workers => audit::workers(rest, request).await,
        Endpoint::Audit => audit::audit(rest, request).await,
        Endpoint::Batch => batch::batch(rest, request).await,
        Endpoint::Schedules => schedules::list(rest, request).await,
        Endpoint::Withdraw => schedules::withdraw(rest, request, first).await,
        Endpoint::Failed => queue::list(rest, request).await,
        Endpoint::FailedCommand => queue::show(rest, request, first).await,
        Endpoint::Requeue => queue::requeue(rest, request, first).await,
        Endpoint::Forget => queue::forget(rest, request, first).await,
        Endpoint::List(kind) => resources::list(rest, request, kind).await,
        Endpoint::Create(kind) => creation::create(rest, request, kind).await,
        Endpoint::AddJobs => creation::add_jobs(rest, request, first).await,
        Endpoint::Close => creation::close(rest, request, first).await,
        Endpoint::Show(kind) => resources::show(rest, request, kind, first).await,
        Endpoint::JobError => resources::error(rest, request, first).await,
        Endpoint::FailedItems => resources::failed_items(rest, request, first).await,
        Endpoint::Command(kind, action) => commands::command(rest, request, kind, action, first).await,
        Endpoint::Result(kind) => commands::result(rest, request, kind, first, second).await,
    }
}
