//! What a client may send on a socket.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::error::ErrorCode;
use crate::domain::{Action, CommandId, RequestId, ResourceId, ResourceKind, When};

/// Longest text frame (and longest message put together from fragments), in bytes.
pub const MAX_FRAME: usize = 16 * 1024;
/// The same on the tenant-wide socket, and the longest body of a batch: a thousand ids of 128 characters fit.
pub const MAX_BATCH_FRAME: usize = 192 * 1024;
/// Longest `reason`, in characters.
pub const MAX_REASON: usize = 500;
/// Furthest that a command can be scheduled ahead, in seconds: 366 days.
pub const MAX_DELAY: u32 = 366 * 86_400;

/// One message of a client on the socket of a resource.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientMessage {
    /// Cancel, pause or resume the socket's resource.
    Command(CommandRequest),
    /// What every socket takes.
    Common(CommonMessage),
}

/// A message that every socket takes.
#[derive(Debug, Clone, PartialEq)]
pub enum CommonMessage {
    /// Take back a command that was scheduled.
    CancelScheduled {
        /// The scheduled command that is taken back.
        schedule: CommandId,
        /// The client's name for this request.
        request_id: Option<RequestId>,
    },
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
    /// When it shall run.
    pub when: When,
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

/// Reads one text frame on the socket of a resource. A command may name that resource again, and no other.
pub fn parse(text: &str, kind: ResourceKind, id: &ResourceId) -> Result<ClientMessage, Rejection> {
    let parsed = ParsedObject::read(text)?;
    if let Some(common) = parsed.common()? {
        return Ok(ClientMessage::Common(common));
    }
    let unknown = |message: String| parsed.rejection(ErrorCode::UnknownType, message);
    let Some((action, on)) = command_message_type(&parsed.message_type) else {
        let kind = kind.as_str();
        return Err(unknown(format!(
            "Unknown type; this socket takes cancel_{kind}, pause_{kind}, resume_{kind}, cancel_scheduled, ping and refresh_token"
        )));
    };
    if on != kind {
        let (kind, action) = (kind.as_str(), action.as_str());
        return Err(unknown(format!("This is a {kind}'s socket: send {action}_{kind} here")));
    }
    let (given, field) = (parsed.id(kind), kind.id_field());
    if given.is_some_and(|given| given.as_str() != Some(id.as_str())) {
        return Err(parsed.invalid(format!(
            "{field} is not the one of this address, which is {id}: leave it out, or send the command to the other's"
        )));
    }
    Ok(ClientMessage::Command(parsed.command(action, kind)?))
}

/// A message with its type and its `request_id` read, on the way to be understood.
pub(super) struct ParsedObject {
    pub(super) message_type: String,
    pub(super) request_id: Option<RequestId>,
    pub(super) raw: RawClientMessage,
}

#[derive(Deserialize)]
pub(super) struct RawClientMessage {
    #[serde(rename = "type")]
    kind: Option<serde_json::Value>,
    request_id: Option<serde_json::Value>,
    reason: Option<serde_json::Value>,
    run_at: Option<serde_json::Value>,
    delay_seconds: Option<serde_json::Value>,
    schedule_id: Option<serde_json::Value>,
    token: Option<serde_json::Value>,
    job_id: Option<serde_json::Value>,
    campaign_id: Option<serde_json::Value>,
    /// What belongs to no message of these, by name.
    #[serde(flatten)]
    others: BTreeMap<String, serde::de::IgnoredAny>,
}

impl ParsedObject {
    /// One JSON object with a type.
    pub(super) fn read(text: &str) -> Result<Self, Rejection> {
        let invalid = |message: String| Rejection { code: ErrorCode::InvalidMessage, message, request_id: None };
        if !text.trim_start().starts_with('{') {
            return Err(invalid("Send one JSON object with a \"type\"".to_owned()));
        }
        let raw: RawClientMessage =
            serde_json::from_str(text).map_err(|e| invalid(format!("Not a JSON object with a \"type\": {e}")))?;
        let request_id = match &raw.request_id {
            None | Some(serde_json::Value::Null) => None,
            Some(serde_json::Value::String(id)) => Some(id.parse::<RequestId>().map_err(|e| invalid(e.to_string()))?),
            Some(_) => return Err(invalid("request_id must be a text".to_owned())),
        };
        let mut parsed = Self { message_type: String::new(), request_id, raw };
        parsed.message_type = match &parsed.raw.kind {
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(_) => return Err(parsed.invalid("\"type\" must be a text")),
            None => return Err(parsed.invalid("\"type\" is missing")),
        };
        Ok(parsed)
    }

    pub(super) fn rejection(&self, code: ErrorCode, message: String) -> Rejection {
        Rejection { code, message, request_id: self.request_id.clone() }
    }

    pub(super) fn invalid(&self, message: impl Into<String>) -> Rejection {
        self.rejection(ErrorCode::InvalidMessage, message.into())
    }

    /// As what every socket takes; `None`: it is something else.
    pub(super) fn common(&self) -> Result<Option<CommonMessage>, Rejection> {
        let text = |value: &Option<serde_json::Value>| value.as_ref()?.as_str().map(str::to_owned);
        Ok(Some(match self.message_type.as_str() {
            "ping" => CommonMessage::Ping,
            "refresh_token" => {
                let token = text(&self.raw.token);
                CommonMessage::RefreshToken(token.ok_or_else(|| self.invalid("refresh_token needs a \"token\""))?)
            }
            "cancel_scheduled" => {
                self.only(&["schedule_id", "request_id"])?;
                let schedule = text(&self.raw.schedule_id).and_then(|id| id.parse().ok());
                let needed = "cancel_scheduled needs the \"schedule_id\" that the answer to the command named";
                let schedule = schedule.ok_or_else(|| self.invalid(needed))?;
                CommonMessage::CancelScheduled { schedule, request_id: self.request_id.clone() }
            }
            _ => return Ok(None),
        }))
    }

    /// The id that the message names for a resource of this kind.
    pub(super) fn id(&self, kind: ResourceKind) -> Option<&serde_json::Value> {
        match kind {
            ResourceKind::Job => self.raw.job_id.as_ref(),
            ResourceKind::Campaign => self.raw.campaign_id.as_ref(),
        }
    }

    /// Refuses a message with any other field beside its type: whoever wrote it meant something that would not be done.
    fn only(&self, known: &[&str]) -> Result<(), Rejection> {
        let raw = &self.raw;
        let given = [
            ("request_id", raw.request_id.is_some()),
            ("reason", raw.reason.is_some()),
            ("run_at", raw.run_at.is_some()),
            ("delay_seconds", raw.delay_seconds.is_some()),
            ("schedule_id", raw.schedule_id.is_some()),
            ("token", raw.token.is_some()),
            ("job_id", raw.job_id.is_some()),
            ("campaign_id", raw.campaign_id.is_some()),
        ];
        let given = given.into_iter().filter_map(|(name, is_given)| is_given.then_some(name));
        let mut all = given.chain(raw.others.keys().map(String::as_str));
        match all.find(|name| !known.contains(name)) {
            None => Ok(()),
            Some(odd) => {
                Err(self.invalid(format!("Unknown field {odd:?}; {} takes: {}", self.message_type, known.join(", "))))
            }
        }
    }

    /// What a command may carry.
    pub(super) fn command(&self, action: Action, kind: ResourceKind) -> Result<CommandRequest, Rejection> {
        self.only(&["request_id", "reason", "run_at", "delay_seconds", kind.id_field()])?;
        let reason = match &self.raw.reason {
            None | Some(serde_json::Value::Null) => None,
            Some(serde_json::Value::String(reason)) => Some(reason.clone()),
            Some(_) => return Err(self.invalid("reason must be a text")),
        };
        short_reason(reason.as_deref()).map_err(|message| self.invalid(message))?;
        let when =
            parse_when(self.raw.run_at.as_ref(), self.raw.delay_seconds.as_ref()).map_err(|e| self.invalid(e))?;
        Ok(CommandRequest { action, request_id: self.request_id.clone(), reason, when })
    }
}

/// Whether a reason is short enough.
pub(super) fn short_reason(reason: Option<&str>) -> Result<(), &'static str> {
    match reason {
        Some(reason) if reason.chars().count() > MAX_REASON => Err("reason may have 500 characters at most"),
        _ => Ok(()),
    }
}

/// Reads `run_at` or `delay_seconds`.
fn parse_when(run_at: Option<&serde_json::Value>, delay: Option<&serde_json::Value>) -> Result<When, &'static str> {
    let given = |value: Option<&serde_json::Value>| value.filter(|value| !value.is_null()).cloned();
    match (given(run_at), given(delay)) {
        (None, None) => Ok(When::Now),
        (Some(_), Some(_)) => Err("Give run_at or delay_seconds, not both"),
        (Some(at), None) => {
            at.as_str().ok_or(MISSING_TIME_MESSAGE).and_then(parse_time).map(|at| When::At(at.as_millisecond()))
        }
        (None, Some(delay)) => whole_number(&delay)
            .filter(|seconds| *seconds <= MAX_DELAY)
            .map(When::After)
            .ok_or("delay_seconds must be whole seconds, 31622400 (366 days) at most"),
    }
}

/// A number without a fraction, also where it is written with one (`5.0`, `1e3`): JSON knows one kind of numbers.
fn whole_number(number: &serde_json::Value) -> Option<u32> {
    let number = number.as_f64().filter(|number| number.fract() == 0.0)?;
    // Every u32 is an f64, exactly.
    (0.0..=f64::from(u32::MAX)).contains(&number).then_some(number as u32)
}

const MISSING_TIME_MESSAGE: &str =
    "run_at must be an RFC 3339 time with its zone, as in 2026-01-31T22:00:00Z or 2026-01-31T22:00:00+01:00";

/// What is said of a time that lies further ahead than anybody plans.
pub const TOO_FAR_AHEAD_MESSAGE: &str = "run_at may lie 366 days ahead at most; nothing was done";

/// An RFC 3339 time. The library reads more than that (`20260131T22Z`, zones a day away from UTC, names of zones), but
/// what is written so is more likely a mistake, and a command at the wrong hour is worse than none.
fn parse_time(text: &str) -> Result<jiff::Timestamp, &'static str> {
    let is_zone = |zone: &[u8]| match zone {
        b"Z" | b"z" => true,
        [b'+' | b'-', hour @ .., b':', _, _] => hour.len() == 2 && hour < b"24".as_slice(),
        _ => false,
    };
    let (seconds, rest) = text.as_bytes().split_at_checked("2026-01-31T22:00:00".len()).ok_or(MISSING_TIME_MESSAGE)?;
    let is_date_and_time = seconds.iter().enumerate().all(|(at, byte)| match at {
        4 | 7 => *byte == b'-',
        10 => matches!(byte, b'T' | b't' | b' '),
        13 | 16 => *byte == b':',
        _ => byte.is_ascii_digit(),
    });
    let zone_at = match rest.strip_prefix(b".") {
        Some(fraction) => 1 + fraction.iter().take_while(|byte| byte.is_ascii_digit()).count(),
        None => 0,
    };
    if !is_date_and_time || !is_zone(&rest[zone_at..]) {
        return Err(MISSING_TIME_MESSAGE);
    }
    text.parse().map_err(|_| match text.strip_prefix("9999") {
        // Its last moments are too much for the library; in another year they are a time like any other.
        Some(rest) if format!("1999{rest}").parse::<jiff::Timestamp>().is_ok() => TOO_FAR_AHEAD_MESSAGE,
        _ => MISSING_TIME_MESSAGE,
    })
}

pub(super) fn command_message_type(text: &str) -> Option<(Action, ResourceKind)> {
    let (action, kind) = text.split_once('_')?;
    Some((Action::parse(action)?, ResourceKind::parse(kind)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ResourceKind::{Campaign, Job};

    fn id() -> ResourceId {
        "ID".parse().expect("id")
    }

    #[test]
    fn a_command_names_its_own_resource_or_none_and_has_no_field_that_would_be_passed_over() {
        for text in [
            r#"{"type":"cancel_job"}"#,
            r#"{"type":"cancel_job","job_id":"ID","reason":"x"}"#,
            r#"{"type":"ping","sent":7}"#,
            r#"{"type":"refresh_token","token":"a.b.c","sent":7}"#,
        ] {
            assert!(parse(text, Job, &id()).is_ok(), "{text}");
        }
        for (text, part) in [
            (r#"{"type":"cancel_job","job_id":"other"}"#, "job_id is not the one of this address, which is ID"),
            (r#"{"type":"cancel_job","job_id":7}"#, "job_id is not the one"),
            (r#"{"type":"cancel_job","campaign_id":"ID"}"#, "Unknown field \"campaign_id\""),
            (r#"{"type":"cancel_job","jobid":"other"}"#, "Unknown field \"jobid\""),
            (r#"{"type":"cancel_job","tenant_id":"other"}"#, "Unknown field \"tenant_id\""),
            (r#"{"type":"cancel_job","dry_run":true}"#, "Unknown field \"dry_run\""),
            (r#"{"type":"cancel_job","job_ids":["a"]}"#, "Unknown field \"job_ids\""),
            (r#"{"type":"cancel_job","token":"a"}"#, "Unknown field \"token\""),
            (
                r#"{"type":"cancel_scheduled","schedule_id":"01a22353-a34f-760b-9e0f-c6c0100e8026","job_id":"x"}"#,
                "job_id",
            ),
        ] {
            let rejection = parse(text, Job, &id()).expect_err("refused");
            assert!(rejection.message.to_string().contains(part), "{text}: {}", rejection.message);
            assert_eq!(rejection.code, ErrorCode::InvalidMessage, "{text}");
        }
    }

    #[test]
    fn the_six_commands_are_read_on_their_own_kind_of_socket() {
        for kind in ResourceKind::ALL {
            for action in Action::ALL {
                let text =
                    format!(r#"{{"type": "{}_{}", "request_id":"r-1", "reason":"x"}}"#, action.as_str(), kind.as_str());
                let expected = CommandRequest {
                    action,
                    request_id: Some("r-1".parse().expect("id")),
                    reason: Some("x".into()),
                    when: When::Now,
                };
                assert_eq!(parse(&text, kind, &id()), Ok(ClientMessage::Command(expected)));
            }
        }
    }

    #[test]
    fn what_is_not_understood_gets_a_code_and_the_request_id_back() {
        let code = |text: &str| parse(text, Job, &id()).expect_err("rejected").code;
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
            r#"{"type":"cancel_job","delay_seconds":-5}"#,
            r#"{"type":"cancel_job","delay_seconds":1.5}"#,
            r#"{"type":"cancel_job","delay_seconds":-1.0}"#,
            r#"{"type":"cancel_job","delay_seconds":1e300}"#,
            r#"{"type":"cancel_job","delay_seconds":31622401}"#,
            r#"{"type":"cancel_job","delay_seconds":"5"}"#,
            r#"{"type":"cancel_job","run_at":"tomorrow"}"#,
            r#"{"type":"cancel_job","run_at":"2026-01-31T22:00:00"}"#,
            r#"{"type":"cancel_job","run_at":1760000000}"#,
            r#"{"type":"cancel_job","run_at":""}"#,
            r#"{"type":"cancel_job","run_at":"20260131T220000Z"}"#,
            r#"{"type":"cancel_job","run_at":"2026-01-31T22:00Z"}"#,
            r#"{"type":"cancel_job","run_at":"2026-02-30T22:00:00Z"}"#,
            r#"{"type":"cancel_job","run_at":"2026-01-31T24:00:00Z"}"#,
            r#"{"type":"cancel_job","run_at":"2026-01-31T22:00:00+25:00"}"#,
            r#"{"type":"cancel_job","run_at":"2026-01-31T22:00:00+01"}"#,
            r#"{"type":"cancel_job","run_at":"2026-01-31T22:00:00.Z"}"#,
            r#"{"type":"cancel_job","run_at":"2026-01-31T22:00:00+01:00[Europe/Berlin]"}"#,
            r#"{"type":"cancel_job","run_at":"-002026-01-31T22:00:00Z"}"#,
            r#"{"type":"cancel_job","run_at":"2026-01-31T22:00:00Z","delay_seconds":5}"#,
            r#"{"type":"cancel_scheduled"}"#,
            r#"{"type":"cancel_scheduled","schedule_id":"s1"}"#,
        ] {
            assert_eq!(code(text), ErrorCode::InvalidMessage, "{text}");
        }
        for text in [r#"{"type":"stop"}"#, r#"{"type":"cancel_campaign"}"#, r#"{"type":"cancel"}"#, r#"{"type":""}"#] {
            assert_eq!(code(text), ErrorCode::UnknownType, "{text}");
        }
        let rejection = parse(r#"{"type":"cancel_job","request_id":"r1"}"#, Campaign, &id()).expect_err("rejected");
        assert_eq!(rejection.request_id.expect("echoed").as_str(), "r1");
    }

    #[test]
    fn a_time_that_cannot_be_is_told_from_one_that_lies_too_far_ahead() {
        let message = |time: &str| {
            let text = format!(r#"{{"type":"cancel_job","run_at":"{time}"}}"#);
            parse(&text, Job, &id()).expect_err("rejected").message.to_string()
        };
        for time in ["9999-12-31T23:59:59Z", "9999-12-31T23:59:59.999+00:00", "9999-12-31T23:59:59-12:00"] {
            assert_eq!(message(time), TOO_FAR_AHEAD_MESSAGE, "{time}");
        }
        for time in ["9999-12-32T23:59:59Z", "9999-02-29T00:00:00Z", "9999-12-31T23:59:59+01:99", "9999-12-31"] {
            assert_eq!(message(time), MISSING_TIME_MESSAGE, "{time}");
        }
    }

    #[test]
    fn a_command_may_be_scheduled_and_taken_back() {
        let when = |rest: &str| match parse(&format!(r#"{{"type":"cancel_job",{rest}}}"#), Job, &id()) {
            Ok(ClientMessage::Command(request)) => request.when,
            other => panic!("{other:?}"),
        };
        assert_eq!(when(r#""delay_seconds":0"#), When::After(0));
        assert_eq!(when(r#""delay_seconds":90,"run_at":null"#), When::After(90));
        for whole in ["1000.0", "1e3", "1000"] {
            assert_eq!(when(&format!(r#""delay_seconds":{whole}"#)), When::After(1_000));
        }
        for time in [
            "1970-01-01T01:00:01+01:00",
            "1970-01-01T00:00:01Z",
            "1970-01-01t00:00:01.000z",
            "1970-01-01 00:00:01.000999999-00:00",
            "1969-12-31T10:00:01-14:00",
        ] {
            assert_eq!(when(&format!(r#""run_at":"{time}""#)), When::At(1_000), "{time}");
        }
        let text = r#"{"type":"cancel_scheduled","schedule_id":"0190f3c8-0000-7000-8000-000000000001"}"#;
        assert!(matches!(
            parse(text, Job, &id()),
            Ok(ClientMessage::Common(CommonMessage::CancelScheduled { request_id: None, .. }))
        ));
    }
}
