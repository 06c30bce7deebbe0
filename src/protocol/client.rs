//! What a client may send on a socket.

use serde::Deserialize;

use super::error::ErrorCode;
use crate::domain::{Action, RequestId, ResourceKind};

/// Longest text frame (and longest message put together from fragments), in bytes.
pub const MAX_FRAME: usize = 16 * 1024;
/// Longest `reason`, in characters.
pub const MAX_REASON: usize = 500;

/// One message of a client.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientMessage {
    /// Cancel, pause or resume the socket's resource.
    Command(CommandRequest),
    /// Answered with `pong`.
    Ping,
    /// A fresh token for the same user and tenant.
    RefreshToken(String),
}

/// A command as the client asked for it.
#[derive(Debug, Clone, PartialEq)]
pub struct CommandRequest {
    /// What to do.
    pub action: Action,
    /// The client's name for it.
    pub request_id: Option<RequestId>,
    /// Why, for the audit trail.
    pub reason: Option<String>,
}

/// Why a message was not understood; nothing was done.
#[derive(Debug, Clone, PartialEq)]
pub struct Rejection {
    /// `invalid_message` or `unknown_type`.
    pub code: ErrorCode,
    /// What to do about it, in words.
    pub message: String,
    /// Echoed where the message had a valid one.
    pub request_id: Option<RequestId>,
}

#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "type")]
    kind: Option<serde_json::Value>,
    request_id: Option<serde_json::Value>,
    reason: Option<serde_json::Value>,
    run_at: Option<serde_json::Value>,
    delay_seconds: Option<serde_json::Value>,
    token: Option<serde_json::Value>,
}

/// Reads one text frame on a socket of the given kind.
pub fn parse(text: &str, kind: ResourceKind) -> Result<ClientMessage, Rejection> {
    let invalid = |message: String| Rejection { code: ErrorCode::InvalidMessage, message, request_id: None };
    if !text.trim_start().starts_with('{') {
        return Err(invalid("Send one JSON object with a \"type\"".to_owned()));
    }
    let raw: Raw =
        serde_json::from_str(text).map_err(|e| invalid(format!("Not a JSON object with a \"type\": {e}")))?;
    let request_id = match raw.request_id {
        None | Some(serde_json::Value::Null) => None,
        Some(serde_json::Value::String(id)) => Some(id.parse::<RequestId>().map_err(|e| invalid(e.to_string()))?),
        Some(_) => return Err(invalid("request_id must be a text".to_owned())),
    };
    let reject = |code, message: String| Rejection { code, message, request_id: request_id.clone() };
    let invalid = |message: &str| reject(ErrorCode::InvalidMessage, message.to_owned());
    let word = match &raw.kind {
        Some(serde_json::Value::String(word)) => word.as_str(),
        Some(_) => return Err(invalid("\"type\" must be a text")),
        None => return Err(invalid("\"type\" is missing")),
    };
    match word {
        "ping" => return Ok(ClientMessage::Ping),
        "refresh_token" => {
            return match raw.token {
                Some(serde_json::Value::String(token)) => Ok(ClientMessage::RefreshToken(token)),
                _ => Err(invalid("refresh_token needs a \"token\"")),
            };
        }
        _ => {}
    }
    let Some((action, on)) = command_word(word) else {
        return Err(reject(
            ErrorCode::UnknownType,
            format!(
                "Unknown type; this socket takes {0}_{1}, {2}_{1}, {3}_{1}, ping and refresh_token",
                "cancel",
                kind.word(),
                "pause",
                "resume"
            ),
        ));
    };
    if on != kind {
        return Err(reject(
            ErrorCode::UnknownType,
            format!("This is a {}'s socket: send {}_{} here", kind.word(), action.word(), kind.word()),
        ));
    }
    let reason = match raw.reason {
        None | Some(serde_json::Value::Null) => None,
        Some(serde_json::Value::String(reason)) if reason.chars().count() <= MAX_REASON => Some(reason),
        Some(serde_json::Value::String(_)) => {
            return Err(invalid("reason may have 500 characters at most"));
        }
        Some(_) => return Err(invalid("reason must be a text")),
    };
    if raw.run_at.is_some() || raw.delay_seconds.is_some() {
        // Running it now would be the opposite of what was asked.
        return Err(invalid("Scheduled commands (run_at, delay_seconds) are not available yet; nothing was done"));
    }
    Ok(ClientMessage::Command(CommandRequest { action, request_id, reason }))
}

fn command_word(word: &str) -> Option<(Action, ResourceKind)> {
    let (action, kind) = word.split_once('_')?;
    Some((Action::from_word(action)?, ResourceKind::from_word(kind)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ResourceKind::{Campaign, Job};

    #[test]
    fn the_six_commands_are_read_on_their_own_kind_of_socket() {
        for kind in ResourceKind::ALL {
            for action in Action::ALL {
                let text =
                    format!(r#"{{"type": "{}_{}", "request_id":"r-1", "reason":"x"}}"#, action.word(), kind.word());
                let expected =
                    CommandRequest { action, request_id: Some("r-1".parse().expect("id")), reason: Some("x".into()) };
                assert_eq!(parse(&text, kind), Ok(ClientMessage::Command(expected)));
            }
        }
    }

    #[test]
    fn what_is_not_understood_gets_a_code_and_the_request_id_back() {
        let code = |text: &str| parse(text, Job).expect_err("rejected").code;
        let long_reason = format!(r#"{{"type":"cancel_job","reason":"{}"}}"#, "x".repeat(501));
        for text in [
            "",
            "{",
            "[]",
            "null",
            "\"ping\"",
            "[\"ping\"]",
            "{}",
            r#"{"type":7}"#,
            r#"{"type":"cancel_job","request_id":7}"#,
            r#"{"type":"cancel_job","request_id":"a:b"}"#,
            r#"{"type":"cancel_job","reason":7}"#,
            long_reason.as_str(),
            r#"{"type":"refresh_token"}"#,
            r#"{"type":"cancel_job","delay_seconds":5}"#,
        ] {
            assert_eq!(code(text), ErrorCode::InvalidMessage, "{text}");
        }
        for text in [r#"{"type":"stop"}"#, r#"{"type":"cancel_campaign"}"#, r#"{"type":"cancel"}"#, r#"{"type":""}"#] {
            assert_eq!(code(text), ErrorCode::UnknownType, "{text}");
        }
        let rejection = parse(r#"{"type":"cancel_job","request_id":"r1"}"#, Campaign).expect_err("rejected");
        assert_eq!(rejection.request_id.expect("echoed").as_str(), "r1");
    }
}
