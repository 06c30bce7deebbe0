//! What a worker answers on `worker.listen`: how it is, and the sockets of foreign workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::upgrade::OnUpgrade;
use warp::Filter;
use warp::reply::{Reply, Response};

use super::messages::OpenSocket;
use super::shared::Shared;
use super::socket;
use crate::auth::{AuthError, extract_for_protocol};
use crate::http::Refusal;
use crate::http::handshake;
use crate::http::server::Routes;
use crate::http::socket::Socket;
use crate::protocol::ErrorCode;
use crate::protocol::worker::{MAX_WORKER_FRAME, WORKER_PROTOCOL};
use crate::telemetry::exporter::Metrics;
use crate::telemetry::metrics::foreign_workers;

/// Between two looks at SQL, and every so many of them a write is tried: on SQLite it waits for its turn.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
const CHECKS_PER_WRITE: u64 = 5;
/// Longest wait for SQL's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest message to a client: a resume point as long as a client can send, and the rest of `attached`.
const MAX_SENT: usize = 2 * MAX_WORKER_FRAME;
/// Whole seconds after which a client that found no room may try again.
const RETRY_AFTER: i64 = 5;

/// Whether SQL takes what commands write.
#[derive(Clone)]
pub(crate) struct SqlHealth(Arc<AtomicBool>);

impl SqlHealth {
    /// It is believed to work until seen otherwise: the start has just used it.
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    fn is_good(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Looks until the worker ends.
    pub(crate) async fn watch(self, shared: Arc<Shared>) {
        for look in 0_u64.. {
            let store = &shared.ctx.store;
            let read = store.ping(ANSWER_TIMEOUT).await;
            let due = look.is_multiple_of(CHECKS_PER_WRITE) || !self.is_good();
            match read {
                Err(_) => self.0.store(false, Ordering::Relaxed),
                Ok(()) if due => {
                    // Where others are writing all the time nothing has been found out.
                    if let Some(written) = store.prove_updates(ANSWER_TIMEOUT).await {
                        self.0.store(written.is_ok(), Ordering::Relaxed);
                    }
                }
                Ok(()) => {}
            }
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
    }
}

/// Every route.
pub(crate) fn routes(shared: &Arc<Shared>, sql: &SqlHealth, metrics: &Metrics) -> Routes {
    let healthz =
        warp::path!("healthz").and(warp::get()).map(|| json(StatusCode::OK, &serde_json::json!({"status": "ok"})));
    let readyz = {
        let (shared, sql) = (shared.clone(), sql.clone());
        warp::path!("readyz").and(warp::get()).map(move || ready(&shared, &sql))
    };
    let metrics = {
        let (shared, metrics) = (shared.clone(), metrics.clone());
        warp::path!("metrics").and(warp::get()).map(move || {
            foreign_workers(
                shared.sockets.load(Ordering::Relaxed),
                shared.runs.len().saturating_sub(shared.runs.held()),
            );
            let mut response = metrics.render().into_response();
            let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, text);
            response
        })
    };
    let socket = {
        let shared = shared.clone();
        warp::path!("api" / "v1" / "worker" / "ws")
            .and(warp::get())
            .and(warp::header::headers_cloned())
            .and(warp::ext::optional::<OnUpgrade>())
            .then(move |headers: HeaderMap, upgrade: Option<OnUpgrade>| {
                let shared = shared.clone();
                async move { admit(&shared, &headers, upgrade).await.unwrap_or_else(|refusal| refusal.to_response()) }
            })
    };
    let nothing = warp::any().map(|| {
        let message =
            "There is /healthz, /readyz, /metrics and the socket /api/v1/worker/ws here; the API is at the address of a gateway \
             (a command takes it from --url, else from WHEELHOUSE_URL)";
        Refusal::new(ErrorCode::NotFound, message).to_response()
    });
    healthz.or(readyz).unify().or(metrics).unify().or(socket).unify().or(nothing).unify().boxed()
}

fn json(status: StatusCode, body: &serde_json::Value) -> Response {
    let mut response = body.to_string().into_response();
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn ready(shared: &Shared, sql: &SqlHealth) -> Response {
    let (problem, sql, draining) = (shared.redis_problem(), sql.is_good(), shared.ctx.stop.is_cancelled());
    let status = match problem.is_none() && sql && !draining {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut body = serde_json::json!({"redis": problem.is_none(), "sql": sql, "draining": draining});
    if let Some(word) = problem {
        body["redis_reason"] = word.into();
    }
    if shared.runs.is_full.load(Ordering::Relaxed) {
        // It goes on with what it has, and with commands; jobs that wait are for others.
        body["takes_jobs"] = false.into();
        body["held_jobs"] = shared.runs.held().into();
    }
    let not_served = shared.partitions_not_served();
    if !not_served.is_empty() {
        body["partitions_not_served"] = serde_json::json!(not_served);
    }
    json(status, &body)
}

/// Every check before the upgrade, and the upgrade.
async fn admit(shared: &Arc<Shared>, headers: &HeaderMap, upgrade: Option<OnUpgrade>) -> Result<Response, Refusal> {
    let token = extract_for_protocol(headers, WORKER_PROTOCOL).unwrap_or_default();
    let caller = shared.verifier.verify_worker(&token, shared.ctx.settings.worker.max_token).await.map_err(
        |error| match error {
            AuthError::Missing => Refusal::new(
                ErrorCode::Unauthorized,
                format!(
                    "No token: send the WebSocket protocols {WORKER_PROTOCOL}, bearer.…, or Authorization: Bearer …"
                ),
            ),
            other => Refusal::from(other),
        },
    )?;
    let unfit =
        |_| Refusal::new(ErrorCode::InvalidMessage, "This address is a WebSocket: connect with a WebSocket client");
    let accept = handshake::check(headers).map_err(unfit)?;
    let upgrade = upgrade.ok_or(()).map_err(unfit_request)?;
    if shared.ctx.stop.is_cancelled() {
        return Err(Refusal::new(ErrorCode::Unavailable, "This worker is leaving: connect to another one"));
    }
    if !shared.ctx.broker.is_up() {
        return Err(Refusal::unavailable());
    }
    let Some(open) = OpenSocket::new(shared) else {
        let message =
            "This worker has as many sockets open as it may (worker.max_connections): try again shortly, or another";
        let mut refusal = Refusal::new(ErrorCode::TooManyConnections, message);
        refusal.retry_after = Some(RETRY_AFTER);
        return Err(refusal);
    };
    let task = {
        let shared = shared.clone();
        async move {
            // If the client is gone by now, its place is free again.
            let Ok(upgraded) = upgrade.await else { return };
            let Some(socket) = Socket::take_over(upgraded, (MAX_WORKER_FRAME, MAX_SENT)).await else { return };
            socket::serve(shared, socket, caller, open).await;
        }
    };
    shared.ctx.spawn(task);
    Ok(handshake::switching(headers, accept, WORKER_PROTOCOL))
}

fn unfit_request((): ()) -> Refusal {
    Refusal::new(ErrorCode::InvalidMessage, "This address is a WebSocket: connect with a WebSocket client")
}
