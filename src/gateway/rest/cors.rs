//! Pages of other origins (CORS, section 3.2 of the Fetch standard): those of `server.public_origins` may send requests and
//! read the answers; a browser keeps them from all others.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    HeaderMap, HeaderValue, ORIGIN, VARY,
};
use warp::reply::{Reply, Response};

use crate::http::handshake::origin_allowed;

/// The headers that a page may set; every page may set those that are not named here anyway.
const REQUEST_HEADERS: &str = "Authorization, Content-Type";
/// The headers of an answer that a page may read, beside those that it always may.
const ANSWER_HEADERS: &str = "Retry-After";
/// How long a browser may remember the answer to its question, in seconds.
const MAX_AGE: &str = "600";

/// Which pages may use this API.
pub(super) struct Cors {
    pub(super) public_origins: Arc<[String]>,
}

impl Cors {
    /// The answer to a browser's question whether a page may send a request to a path that takes these methods. `None`:
    /// it is no such question, or the page may not.
    pub(super) fn preflight(&self, headers: &HeaderMap, methods: &[&str]) -> Option<Response> {
        if !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            return None;
        }
        self.origin(headers)?;
        let mut response = warp::reply().into_response();
        *response.status_mut() = StatusCode::NO_CONTENT;
        let answer = response.headers_mut();
        answer.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_str(&methods.join(", ")).ok()?);
        answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(REQUEST_HEADERS));
        answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
        Some(response)
    }

    /// Lets the page that asked read the answer, where it may.
    pub(super) fn share(&self, origin: Option<&HeaderValue>, response: &mut Response) {
        let answer = response.headers_mut();
        // A cache must not give one page's answer to another.
        answer.append(VARY, HeaderValue::from_static("Origin"));
        if let Some(origin) = origin {
            answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(ANSWER_HEADERS));
        }
    }

    /// The origin of the page that asks, if it may read answers.
    pub(super) fn origin<'a>(&self, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
        let origin = headers.get(ORIGIN)?;
        origin_allowed(headers, &self.public_origins).then_some(origin)
    }
}
