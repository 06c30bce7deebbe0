//! Refusals: one error, with a stable code, whichever way it reaches the client.

use hyper::StatusCode;
use hyper::header::{
    ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, RETRY_AFTER,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use warp::reply::Response;

use crate::auth::{AuthError, PolicyError};
use crate::broker::BrokerError;
use crate::protocol::client::Rejection;
use crate::protocol::frame::Frame;
use crate::protocol::{ErrorCode, server};

/// Why something was not done, in words for the client. Nothing was done, unless the code is `outcome_unknown`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The stable word.
    pub code: ErrorCode,
    /// What happened, and what the client can do about it.
    pub message: String,
    /// Whole seconds until trying again can help.
    pub retry_after: Option<i64>,
    /// What the client called its request.
    pub request_id: Option<String>,
    /// Of a stream of lines that was taken in part: up to which one.
    lines_taken: Option<i64>,
    /// The methods that a path takes, where the request came with another one.
    allow: Option<String>,
}

impl Refusal {
    /// With nothing but its code and its message.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None, request_id: None, lines_taken: None, allow: None }
    }

    /// What was sent cannot be understood.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidMessage, message)
    }

    /// `what` completes "Insufficient permissions to …".
    pub fn forbidden(what: &str) -> Self {
        Self::new(ErrorCode::PermissionDenied, format!("Insufficient permissions to {what}"))
    }

    /// The path exists, for other methods.
    pub fn wrong_method(methods: &[&str]) -> Self {
        let allow = methods.join(", ");
        let message = format!("This path takes {allow}");
        Self { allow: Some(allow), ..Self::new(ErrorCode::MethodNotAllowed, message) }
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

    /// A fault of this program. What exactly happened is in the log, not in the answer.
    pub fn internal() -> Self {
        Self::new(ErrorCode::Internal, "Something went wrong here; the log has the details")
    }

    /// With words in front of its own: where in a long body it is.
    pub fn with_prefix(mut self, words: &str) -> Self {
        self.message.insert_str(0, words);
        self
    }

    /// With the time after which trying again can help, in whole seconds.
    pub fn with_retry_after(mut self, seconds: i64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// With what the client called its request.
    pub fn with_request_id(mut self, request_id: Option<impl ToString>) -> Self {
        self.request_id = request_id.map(|id| id.to_string());
        self
    }

    /// With the last line of a stream of lines up to which everything was done.
    pub fn with_lines_taken(mut self, line: u64) -> Self {
        self.lines_taken = i64::try_from(line).ok();
        self
    }

    /// As a message on a socket.
    pub fn to_message(&self) -> String {
        let request_id = self.request_id.as_deref();
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
    pub fn to_response(&self) -> Response {
        let frame = Frame::beginning_with("error", self.code.as_str()).text("message", &self.message);
        let frame = match self.retry_after {
            // Only a spent budget comes back by the second; what else says when to come again says it in the header.
            Some(seconds) if self.code == ErrorCode::RateLimitExceeded => frame.number("retry_after", seconds),
            _ => frame,
        };
        let frame = match self.lines_taken {
            Some(line) => frame.number("lines_taken", line),
            None => frame,
        };
        // An error over HTTP has no type: its status says that it is one.
        let body = frame.request(self.request_id.as_deref()).end();
        let status = StatusCode::from_u16(self.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = Response::new(body.into());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        } else if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
            // What a body may be instead (RFC 9110, section 15.5.16).
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(allow) = self.allow.as_deref().and_then(|allow| HeaderValue::from_str(allow).ok()) {
            headers.insert(ALLOW, allow);
        }
        secured(response)
    }
}

/// With the headers of every answer that is no page: nobody takes it for something else, keeps it, or shows it in a frame.
pub fn secured(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    response
}

/// The message of [`Refusal::unavailable`].
pub const UNAVAILABLE: &str = "Redis or the database does not serve this just now; nothing was done. Try again shortly";

impl From<BrokerError> for Refusal {
    fn from(error: BrokerError) -> Self {
        tracing::warn!(%error, "http.redis_unavailable");
        match error {
            BrokerError::Unavailable(_) | BrokerError::NotServing(_) | BrokerError::Unknown(_) => {
                Self::of_redis(&error)
            }
            BrokerError::Refused(_) | BrokerError::Setting(_) => Self::internal(),
        }
    }
}

impl From<PolicyError> for Refusal {
    fn from(error: PolicyError) -> Self {
        tracing::warn!(%error, "http.permissions_unavailable");
        Self::unavailable()
    }
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<Rejection> for Refusal {
    fn from(Rejection { code, message, request_id }: Rejection) -> Self {
        Self::new(code, message).with_request_id(request_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_one_form_and_their_headers() {
        let refusal = Refusal::new(ErrorCode::RateLimitExceeded, "Rate \"limit\"").with_retry_after(17);
        let refusal = refusal.with_request_id(Some("r1"));
        let fields = r#""error":"rate_limit_exceeded","message":"Rate \"limit\"","retry_after":17,"request_id":"r1"}"#;
        assert_eq!(refusal.to_message(), format!(r#"{{"type":"error",{fields}"#));
        let response = refusal.to_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "17");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        assert_eq!(response.headers()["cache-control"], "no-store");
        let response = Refusal::wrong_method(&["GET", "POST"]).to_response();
        assert_eq!(
            (response.status().as_u16(), response.headers()["allow"].to_str().expect("text")),
            (405, "GET, POST")
        );
    }

    #[test]
    fn inner_errors_do_not_leak() {
        for refusal in [
            Refusal::from(BrokerError::Refused("redis://:hunter2@host".into())),
            Refusal::from(BrokerError::Unavailable("redis://:hunter2@host".into())),
            Refusal::from(BrokerError::NotServing("NOPERM User hunter2 has no permissions".into())),
            Refusal::from(PolicyError("hunter2".into())),
        ] {
            assert!(!refusal.to_message().contains("hunter2"));
        }
    }
}
