//! What a client may send on the tenant-wide socket.

use serde::Deserialize;

use super::batch::{self, BatchRequest};
use super::client::{CommandRequest, CommonMessage, ParsedObject, Rejection, command_message_type};
use super::error::ErrorCode;
use super::feed::FeedFilter;
use super::frame::Frame;
use super::server::format_time;
use crate::domain::{RequestId, Resource, ResourceId, ResourceKind, TenantId};

/// Resources whose state one `subscribe` may ask for.
pub const MAX_SNAPSHOTS: usize = 100;

/// One message of a client.
#[derive(Debug, Clone, PartialEq)]
pub enum TenantMessage {
    /// Cancel, pause or resume one resource.
    Command(ResourceKind, ResourceId, CommandRequest),
    /// The same with many.
    Batch(BatchRequest),
    /// Which messages are wanted from now on.
    Subscribe {
        /// As understood.
        filter: FeedFilter,
        /// The resources whose state is to follow the answer.
        snapshots: Vec<(ResourceKind, ResourceId)>,
        /// The client's name for this request.
        request_id: Option<RequestId>,
    },
    /// What every socket takes.
    Common(CommonMessage),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Subscribe {
    #[serde(rename = "type")]
    _type: String,
    filter: Option<serde_json::Value>,
    #[serde(default)]
    snapshot: bool,
    #[serde(rename = "request_id")]
    _request_id: Option<String>,
}

/// Reads one text frame.
pub fn parse_tenant(text: &str) -> Result<TenantMessage, Rejection> {
    let parsed = ParsedObject::read(text)?;
    if let Some(common) = parsed.common()? {
        return Ok(TenantMessage::Common(common));
    }
    if parsed.message_type == "subscribe" {
        let raw: Subscribe =
            serde_json::from_str(text).map_err(|error| parsed.invalid(format!("subscribe: {error}")))?;
        let filter = FeedFilter::read(raw.filter.as_ref()).map_err(|message| parsed.invalid(message))?;
        let snapshots = if raw.snapshot { filter.named_resources() } else { Vec::new() };
        if raw.snapshot && !(1..=MAX_SNAPSHOTS).contains(&snapshots.len()) {
            let message = format!(
                "With \"snapshot\", the filter names 1 to {MAX_SNAPSHOTS} resources in job_ids and campaign_ids, not {}",
                snapshots.len()
            );
            return Err(parsed.invalid(message));
        }
        return Ok(TenantMessage::Subscribe { filter, snapshots, request_id: parsed.request_id });
    }
    if let Some((action, kind)) = batch::batch_message_type(&parsed.message_type) {
        return Ok(TenantMessage::Batch(batch::read(&parsed, text, action, kind)?));
    }
    let Some((action, kind)) = command_message_type(&parsed.message_type) else {
        return Err(parsed.rejection(ErrorCode::UnknownType, UNKNOWN_TYPE_MESSAGE.to_owned()));
    };
    let field = kind.id_field();
    let Some(serde_json::Value::String(id)) = parsed.id(kind) else {
        return Err(parsed.invalid(format!("{} needs a {field:?} on this socket", parsed.message_type)));
    };
    let id = id.parse().map_err(|error| parsed.invalid(format!("{field}: {error}")))?;
    Ok(TenantMessage::Command(kind, id, parsed.command(action, kind)?))
}

/// Reads the body of `POST /api/v1/batch`: a batch as it is sent on the socket.
pub fn parse_batch(text: &str) -> Result<BatchRequest, Rejection> {
    let parsed = ParsedObject::read(text)?;
    match batch::batch_message_type(&parsed.message_type) {
        Some((action, kind)) => batch::read(&parsed, text, action, kind),
        None => Err(parsed.rejection(ErrorCode::UnknownType, format!("Unknown type; this path takes {BATCH_TYPES}"))),
    }
}

const BATCH_TYPES: &str =
    "cancel_jobs, pause_jobs, resume_jobs, cancel_campaigns, pause_campaigns and resume_campaigns";
const UNKNOWN_TYPE_MESSAGE: &str = "Unknown type; this socket takes cancel_jobs, pause_jobs, resume_jobs (with job_ids or a filter), cancel_job, pause_job, resume_job (with a job_id), the same of campaigns, subscribe, cancel_scheduled, ping and refresh_token";

/// First message on the socket; with the number of workers alive for the tenant, where that is known.
pub fn subscribed(tenant: &TenantId, workers_online: Option<usize>) -> String {
    let frame = Frame::new("subscribed").ascii("channel", tenant.as_str()).ascii("tenant_id", tenant.as_str());
    match workers_online {
        Some(online) => frame.json("workers_online", &online),
        None => frame,
    }
    .end()
}

/// On every socket of the tenant: the last of the workers alive for it is gone (0), or there are some again.
pub fn workers_online(tenant: &TenantId, online: usize) -> String {
    Frame::new("workers_online").ascii("tenant_id", tenant.as_str()).json("workers_online", &online).end()
}

/// On every socket of the tenant that asked for it: from `since` (Unix ms) on, what it shows may be old, because of what `reason` names.
pub fn feed_interrupted(tenant: &TenantId, reason: &str, since: i64) -> String {
    let frame = Frame::new("feed_interrupted").ascii("tenant_id", tenant.as_str()).ascii("reason", reason);
    frame.ascii("since", &format_time(since)).end()
}

/// On the same sockets: everything comes again. What was missed is to be read again.
pub fn feed_resumed(tenant: &TenantId) -> String {
    Frame::new("feed_resumed").ascii("tenant_id", tenant.as_str()).end()
}

/// The answer to `subscribe`: what comes after it is as the filter says.
pub fn subscription(filter: &FeedFilter, request_id: Option<&str>) -> String {
    Frame::new("subscription").json("filter", &filter.to_json()).request(request_id).end()
}

/// In place of a snapshot: there is no such resource in the tenant, or none that the user may read.
pub fn no_snapshot(resource: &Resource) -> String {
    Frame::new("error")
        .ascii("error", ErrorCode::NotFound.as_str())
        .json("message", &resource_not_found(resource))
        .ascii(resource.kind.id_field(), resource.id.as_str())
        .end()
}

/// Messages were missed: list again what you show.
pub fn resynchronize(tenant: &TenantId) -> String {
    Frame::new("resynchronize").ascii("tenant_id", tenant.as_str()).end()
}

/// No such resource, in the answer to a command or an item of a batch.
pub fn resource_not_found(resource: &Resource) -> String {
    format!("There is no {} {} in your tenant", resource.kind.as_str(), resource.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Action, When};

    #[test]
    fn single_commands_name_their_resource() {
        let text = r#"{"type":"pause_job","job_id":"j1","request_id":"r","delay_seconds":5}"#;
        let Ok(TenantMessage::Command(kind, id, command)) = parse_tenant(text) else { panic!("not a command") };
        assert_eq!((kind, id.as_str(), command.action), (ResourceKind::Job, "j1", Action::Pause));
        assert_eq!(command.when, When::After(5));
        assert!(matches!(
            parse_tenant(r#"{"type":"cancel_campaign","campaign_id":"c"}"#),
            Ok(TenantMessage::Command(ResourceKind::Campaign, ..))
        ));
        for (text, part) in [
            (r#"{"type":"cancel_job"}"#, "needs a \"job_id\""),
            (r#"{"type":"cancel_job","campaign_id":"c"}"#, "needs a \"job_id\""),
            (r#"{"type":"cancel_job","job_id":"a*"}"#, "job_id: an id must be"),
            (r#"{"type":"cancel_job","job_id":"a","campaign_id":"c"}"#, "Unknown field \"campaign_id\""),
            (r#"{"type":"cancel_job","job_id":"a","dry_run":true}"#, "Unknown field \"dry_run\""),
        ] {
            let message = parse_tenant(text).expect_err("refused").message;
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    #[test]
    fn a_subscription_is_answered_as_it_was_understood() {
        let text = r#"{"type":"subscribe","filter":{"campaign_id":"c1","status":["running"]},"request_id":"r"}"#;
        let Ok(TenantMessage::Subscribe { filter, request_id, .. }) = parse_tenant(text) else { panic!("refused") };
        assert_eq!(
            subscription(&filter, request_id.as_ref().map(RequestId::as_str)),
            r#"{"type":"subscription","filter":{"campaign_id":"c1","kinds":["job"],"status":["running"]},"request_id":"r"}"#
        );
        assert!(matches!(parse_tenant(r#"{"type":"subscribe"}"#), Ok(TenantMessage::Subscribe { .. })));
        let text = r#"{"type":"subscribe","snapshot":true,"filter":{"job_ids":["b","a"],"campaign_ids":["c"]}}"#;
        let Ok(TenantMessage::Subscribe { snapshots, .. }) = parse_tenant(text) else { panic!("refused") };
        let named: Vec<_> = snapshots.iter().map(|(kind, id)| (*kind, id.as_str())).collect();
        assert_eq!(named, [(ResourceKind::Job, "a"), (ResourceKind::Job, "b"), (ResourceKind::Campaign, "c")]);
        let message = parse_tenant(r#"{"type":"subscribe","snapshot":true}"#).expect_err("refused").message;
        assert!(message.contains("1 to 100 resources"), "{message}");
        let message = parse_tenant(r#"{"type":"subscribe","job_ids":["a"]}"#).expect_err("refused").message;
        assert!(message.contains("unknown field `job_ids`"), "{message}");
    }

    #[test]
    fn what_no_socket_of_this_kind_takes_is_an_unknown_type() {
        for text in [r#"{"type":"cancel"}"#, r#"{"type":"stop_jobs"}"#, r#"{"type":"cancel_things"}"#] {
            assert_eq!(parse_tenant(text).expect_err("refused").code, ErrorCode::UnknownType, "{text}");
        }
        assert_eq!(parse_tenant(r#"{"type":"ping"}"#), Ok(TenantMessage::Common(CommonMessage::Ping)));
        assert_eq!(parse_batch(r#"{"type":"ping"}"#).expect_err("refused").code, ErrorCode::UnknownType);
        let t = "T".parse().expect("tenant");
        assert_eq!(subscribed(&t, None), r#"{"type":"subscribed","channel":"T","tenant_id":"T"}"#);
        let counted = r#"{"type":"subscribed","channel":"T","tenant_id":"T","workers_online":2}"#;
        assert_eq!(subscribed(&t, Some(2)), counted);
        assert_eq!(workers_online(&t, 0), r#"{"type":"workers_online","tenant_id":"T","workers_online":0}"#);
        assert_eq!(resynchronize(&t), r#"{"type":"resynchronize","tenant_id":"T"}"#);
        let since = "1970-01-01T00:00:01.5Z";
        let interrupted =
            format!(r#"{{"type":"feed_interrupted","tenant_id":"T","reason":"redis","since":"{since}"}}"#);
        assert_eq!(feed_interrupted(&t, "redis", 1_500), interrupted);
        assert_eq!(feed_resumed(&t), r#"{"type":"feed_resumed","tenant_id":"T"}"#);
    }
}
