//! What goes back: JSON with its status and its headers, and the refusals that only this API has.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, StatusCode};
use serde::Serialize;
use warp::reply::{Reply, Response};

use crate::domain::{IdError, ResourceKind};
use crate::gateway::memory::MemoryShare;
use crate::http::Refusal;
use crate::http::reply::secured;
use crate::protocol::ErrorCode;
use crate::store::StoreError;

const JSON: &str = "application/json";
/// Bytes of a long answer that are given to the connection at a time.
const PIECE: usize = 64 * 1024;

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

    /// As the server sends it. `memory` is held until the client has taken it.
    pub(super) fn into_response(self, memory: Option<MemoryShare>) -> Response {
        let length = self.body.len();
        let mut response = match memory {
            Some(memory) if length > PIECE => in_pieces(self.body.into(), memory),
            _ => Response::new(self.body.into()),
        };
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        secured(response)
    }
}

/// A body that is given out as the client takes it.
fn in_pieces(body: Bytes, mut memory: MemoryShare) -> Response {
    memory.shrink_to(body.len());
    let pieces = futures_util::stream::unfold((body, memory), async |(mut rest, memory)| {
        if rest.is_empty() {
            return None;
        }
        let piece = rest.split_to(PIECE.min(rest.len()));
        Some((Ok::<_, Infallible>(piece), (rest, memory)))
    });
    warp::reply::stream(pieces).into_response()
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
            StoreError::Unprepared(_) => {
                tracing::error!(%error, "http.sql_refused");
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
            StoreError::Unprepared("postgres://u:hunter2@host".into()),
            StoreError::Unavailable("postgres://u:hunter2@host".into()),
        ] {
            assert!(!Refusal::from(error).message.contains("hunter2"));
        }
    }
}
