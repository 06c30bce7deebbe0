//! What goes back: JSON with its status, errors in the one form of CONTRACT section 3, security headers.

use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{HeaderMap, StatusCode};
use serde::Serialize;
use warp::reply::Response;

use crate::auth::{AuthError, PolicyError};
use crate::broker::BrokerError;
use crate::domain::{IdError, ResourceKind};
use crate::http::reply::{Refusal, UNAVAILABLE};
use crate::protocol::ErrorCode;
use crate::protocol::frame::Frame;
use crate::store::StoreError;

const JSON: &str = "application/json";

/// A good answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    content_type: &'static str,
    body: String,
    headers: HeaderMap,
}

impl Answer {
    /// A value as JSON.
    pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Self {
        // Writing fails only for maps whose keys are not texts; there are none.
        Self::message(status, serde_json::to_string(value).unwrap_or_default())
    }

    /// A message of the protocol, which is JSON already.
    pub(super) fn message(status: StatusCode, body: String) -> Self {
        Self { status, content_type: JSON, body, headers: HeaderMap::new() }
    }

    /// Plain text in a format of its own.
    pub(super) fn text(content_type: &'static str, body: String) -> Self {
        Self { status: StatusCode::OK, content_type, body, headers: HeaderMap::new() }
    }

    /// With one more header; a value that cannot stand in one is left out.
    pub(super) fn with(mut self, name: hyper::header::HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    /// As the server sends it.
    pub(super) fn into_response(self) -> Response {
        let mut response = Response::new(self.body.into());
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
        response
    }
}

/// An error on its way to the client: a stable word and plain words that say what to do.
#[derive(Debug)]
pub(super) struct Failure {
    status: u16,
    word: &'static str,
    message: String,
    retry_after: Option<i64>,
    request_id: Option<String>,
    allow: Option<String>,
}

impl Failure {
    /// By its code.
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::other(code.http_status(), code.as_str(), message)
    }

    /// One that only HTTP knows.
    fn other(status: u16, word: &'static str, message: impl Into<String>) -> Self {
        Self { status, word, message: message.into(), retry_after: None, request_id: None, allow: None }
    }

    /// What was sent cannot be understood.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidMessage, message)
    }

    /// `what` completes "Insufficient permissions to …".
    pub(super) fn forbidden(what: &str) -> Self {
        Self::new(ErrorCode::PermissionDenied, format!("Insufficient permissions to {what}"))
    }

    /// A resource that is not there, or is another tenant's.
    pub(super) fn no_such(kind: ResourceKind) -> Self {
        Self::new(ErrorCode::NotFound, format!("No such {}", kind.as_str()))
    }

    /// No such path.
    pub(super) fn no_such_path() -> Self {
        Self::new(ErrorCode::NotFound, "No such path; /api/v1/openapi.json lists those there are")
    }

    /// The path exists, for other methods.
    pub(super) fn wrong_method(methods: &[&str]) -> Self {
        let allow = methods.join(", ");
        let message = format!("This path takes {allow}");
        Self { allow: Some(allow), ..Self::other(405, "method_not_allowed", message) }
    }

    /// The body has too many bytes.
    pub(super) fn too_large(limit: usize) -> Self {
        Self::other(413, "too_large", format!("The body may have {limit} bytes at most"))
    }

    /// The body did not arrive in time.
    pub(super) fn too_slow() -> Self {
        Self::other(408, "timeout", "The body did not arrive in time: send it again")
    }

    /// Redis or SQL is away. What exactly happened is in the log, not in the answer.
    pub(super) fn unavailable() -> Self {
        Self::new(ErrorCode::Unavailable, UNAVAILABLE)
    }

    /// With words in front of its own: where in a long body it is.
    pub(super) fn in_front(mut self, words: &str) -> Self {
        self.message.insert_str(0, words);
        self
    }

    /// When to come again, in whole seconds.
    pub(super) fn retry_after(mut self, seconds: Option<i64>) -> Self {
        self.retry_after = seconds;
        self
    }

    /// The client's name for what it asked.
    pub(super) fn request_id(mut self, request_id: Option<String>) -> Self {
        self.request_id = request_id;
        self
    }

    /// As an answer.
    pub(super) fn into_answer(self) -> Answer {
        let frame = Frame::new("").ascii("error", self.word).text("message", &self.message);
        let frame = match self.retry_after {
            Some(seconds) => frame.number("retry_after", seconds),
            None => frame,
        };
        // An error over HTTP has no type: its status says that it is one.
        let body = frame.request(self.request_id.as_deref()).end().replacen("\"type\":\"\",", "", 1);
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut answer = Answer::message(status, body);
        if let Some(seconds) = self.retry_after {
            answer = answer.with(RETRY_AFTER, &seconds.to_string());
        } else if status == StatusCode::SERVICE_UNAVAILABLE {
            answer = answer.with(RETRY_AFTER, "1");
        }
        if status == StatusCode::UNAUTHORIZED {
            answer = answer.with(hyper::header::WWW_AUTHENTICATE, "Bearer");
        }
        match self.allow {
            Some(allow) => answer.with(ALLOW, &allow),
            None => answer,
        }
    }
}

impl From<AuthError> for Failure {
    fn from(error: AuthError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<IdError> for Failure {
    fn from(error: IdError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<PolicyError> for Failure {
    fn from(error: PolicyError) -> Self {
        tracing::warn!(%error, "http.permissions_unavailable");
        Self::unavailable()
    }
}

impl From<BrokerError> for Failure {
    fn from(error: BrokerError) -> Self {
        tracing::warn!(%error, "http.redis_unavailable");
        match error {
            BrokerError::Unavailable(_) | BrokerError::NotServing(_) => {
                let refusal = Refusal::of_redis(&error);
                Self::new(refusal.code, refusal.message)
            }
            BrokerError::Unknown(_) => Self::unavailable(),
            BrokerError::Refused(_) | BrokerError::Setting(_) => {
                Self::new(ErrorCode::Internal, "Something went wrong here; the log has the details")
            }
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict(words) => Self::new(ErrorCode::Conflict, words),
            StoreError::Unavailable(_) => {
                tracing::warn!(%error, "http.sql_unavailable");
                Self::unavailable()
            }
            StoreError::Refused(_) | StoreError::NotMigrated => {
                tracing::error!(%error, "http.sql_refused");
                Self::new(ErrorCode::Internal, "Something went wrong here; the log has the details")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_one_form_and_their_headers() {
        let failure = Failure::new(ErrorCode::RateLimitExceeded, "Rate \"limit\"").retry_after(Some(17));
        let answer = failure.request_id(Some("r1".into())).into_answer();
        assert_eq!(
            answer.body,
            r#"{"error":"rate_limit_exceeded","message":"Rate \"limit\"","retry_after":17,"request_id":"r1"}"#
        );
        let response = answer.into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "17");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        assert_eq!(response.headers()["cache-control"], "no-store");
        let response = Failure::wrong_method(&["GET", "POST"]).into_answer().into_response();
        assert_eq!(
            (response.status().as_u16(), response.headers()["allow"].to_str().expect("text")),
            (405, "GET, POST")
        );
    }

    #[test]
    fn inner_errors_do_not_leak() {
        for failure in [
            Failure::from(BrokerError::Refused("redis://:hunter2@host".into())),
            Failure::from(BrokerError::Unavailable("redis://:hunter2@host".into())),
            Failure::from(BrokerError::NotServing("NOPERM User hunter2 has no permissions".into())),
            Failure::from(StoreError::Refused("postgres://u:hunter2@host".into())),
            Failure::from(StoreError::Unavailable("postgres://u:hunter2@host".into())),
            Failure::from(PolicyError("hunter2".into())),
        ] {
            assert!(!failure.into_answer().body.contains("hunter2"));
        }
    }
}
