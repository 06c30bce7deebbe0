//! The HTTP API.

use warp::Filter;
use warp::reply::Reply;

use super::{Gateway, Routes};

/// Everything under `/api/v1` that is not a socket, `/healthz`, `/readyz` and `/metrics`.
pub fn routes(_gateway: &Gateway) -> Routes {
    warp::path!("healthz").and(warp::get()).map(|| "ok\n".into_response()).boxed()
}
