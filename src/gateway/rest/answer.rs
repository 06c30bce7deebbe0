//! What goes back: JSON with its status and its headers, and the refusals that only this API has.

use std::time::Duration;

use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, StatusCode};
use serde::Serialize;
use warp::reply::Response;

use crate::domain::{IdError, ResourceKind};
use crate::http::Refusal;
use crate::http::reply::secured;
use crate::protocol::ErrorCode;
use crate::store::StoreError;

const JSON: &str = "application/json";

/// Longest wait for a read.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// A read that has to come in time.
pub(super) async fn with_timeout<T>(read: impl Future<Output = Result<T, StoreError>>) -> Result<T, Refusal> {
    let late = |_| Refusal::from(StoreError::Unavailable("no answer in time".to_owned()));
    Ok(tokio::time::timeout(READ_TIMEOUT, read).await.map_err(late)??)
}

/// A good answer.
#[derive(Debug)]
pub(super) struct Answer {
    status: StatusCode,
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
    pub(super) fn with(mut self, name: HeaderName, value: &str) -> Self {
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
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        secured(response)
    }
}

/// A resource that is not there, or is another tenant's.
pub(super) fn no_such(kind: ResourceKind) -> Refusal {
    Refusal::new(ErrorCode::NotFound, format!("No such {}", kind.as_str()))
}

/// No such path.
pub(super) fn no_such_path() -> Refusal {
    Refusal::new(ErrorCode::NotFound, "No such path; /api/v1/openapi.json lists those there are")
}

impl From<IdError> for Refusal {
    fn from(error: IdError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict(words) => Self::new(ErrorCode::Conflict, words),
            StoreError::Unavailable(_) => {
                tracing::warn!(%error, "http.sql_unavailable");
                Self::unavailable()
            }
            StoreError::Refused(_) | StoreError::NotMigrated | StoreError::MissingFile(_) => {
                tracing::error!(%error, "http.sql_refused");
                Self::internal()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_errors_do_not_leak() {
        for error in [
            StoreError::Refused("postgres://u:hunter2@host".into()),
            StoreError::Unavailable("postgres://u:hunter2@host".into()),
        ] {
            assert!(!Refusal::from(error).message.contains("hunter2"));
        }
    }
}
