//! Refusals over HTTP: `{"error":"<code>","message":"…"}` with the status that goes with the code.

use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use warp::reply::{Reply, Response};

use crate::auth::AuthError;
use crate::broker::BrokerError;
use crate::protocol::frame::Frame;
use crate::protocol::{ErrorCode, server};

/// A refusal, in words for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The stable word.
    pub code: ErrorCode,
    /// What to do about it.
    pub message: String,
    /// Whole seconds until trying again can help.
    pub retry_after: Option<i64>,
}

impl Refusal {
    /// Without a time to wait.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None }
    }

    /// Redis or SQL does not serve, and it is not known here which and why.
    pub fn unavailable() -> Self {
        Self::new(ErrorCode::Unavailable, UNAVAILABLE)
    }

    /// What a client may be told of an error of Redis that left nothing done: Redis's own one word for it. What else it
    /// said holds names of users, keys and servers, and is for the log.
    pub fn of_redis(problem: &BrokerError) -> Self {
        match (problem, problem.code()) {
            (BrokerError::NotServing(_), Some(code)) => Self::new(
                ErrorCode::Unavailable,
                format!("Redis refuses commands just now ({code}); nothing was done. The operators' log says why"),
            ),
            (BrokerError::Unavailable(_), _) => Self::new(
                ErrorCode::Unavailable,
                "Redis cannot be reached just now; nothing was done. Try again shortly",
            ),
            _ => Self::unavailable(),
        }
    }

    /// SQL does not answer.
    pub fn without_sql() -> Self {
        let message = "The database does not answer just now; nothing was done. Try again shortly";
        Self::new(ErrorCode::Unavailable, message)
    }

    /// As a message on a socket.
    pub fn message_for(&self, request_id: Option<&str>) -> String {
        match self.retry_after {
            Some(seconds) => Frame::new("error")
                .ascii("error", self.code.as_str())
                .text("message", &self.message)
                .number("retry_after", seconds)
                .request(request_id)
                .end(),
            None => server::error(self.code, &self.message, request_id),
        }
    }

    /// As an HTTP answer.
    pub fn response(&self) -> Response {
        let body = serde_json::json!({"error": self.code.as_str(), "message": self.message});
        let status = StatusCode::from_u16(self.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = body.to_string().into_response();
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(hyper::header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// The words of `unavailable`.
pub const UNAVAILABLE: &str = "Redis or the database does not serve this just now; nothing was done. Try again shortly";

/// On a socket's or a batch's way in, where a failed question to Redis has left nothing done.
impl From<BrokerError> for Refusal {
    fn from(error: BrokerError) -> Self {
        tracing::warn!(%error, "gateway.redis_failed");
        Self::of_redis(&error)
    }
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
