//! The message on `{tenant}:job:control` and `{tenant}:campaign:control` (CONTRACT section 6).
//! It wakes workers; the record in Redis is what they act on.

use super::frame::Frame;
use crate::domain::{Action, CommandId, Resource, ResourceKind, UserId};

/// The control message of one command; `issued_at` in RFC 3339.
pub fn message(action: Action, resource: &Resource, user: &UserId, command: CommandId, issued_at: &str) -> String {
    Frame::beginning_with("action", action.as_str())
        .resource(resource)
        .text("user_id", user.as_str())
        .ascii("command_id", &command.to_string())
        .ascii("reply_to", &format!("{resource}:reply"))
        .ascii("issued_at", issued_at)
        .end()
}

/// Which resource a control message is about: all that a worker takes from it. `channel` must fit. A message without an
/// `action` is none: the updates of a job with the id `control` come on the same channel.
pub fn resource_of(channel: &str, payload: &str) -> Option<Resource> {
    #[derive(serde::Deserialize)]
    struct RawControlMessage {
        action: String,
        job_id: Option<String>,
        campaign_id: Option<String>,
    }
    let (tenant, rest) = channel.split_once(':')?;
    let kind = ResourceKind::parse(rest.strip_suffix(":control")?)?;
    let raw: RawControlMessage = serde_json::from_str(payload).ok()?;
    Action::parse(&raw.action)?;
    let id = match kind {
        ResourceKind::Job => raw.job_id?,
        ResourceKind::Campaign => raw.campaign_id?,
    };
    Some(Resource { tenant: tenant.parse().ok()?, kind, id: id.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_message_stands_as_in_the_contract_and_is_read_back() {
        let resource = Resource::parse("T:job:ID").expect("resource");
        let command = "0190f3c8-0000-7000-8000-000000000001".parse().expect("uuid");
        let text = message(Action::Cancel, &resource, &"U\"1".parse().expect("user"), command, "2026-01-01T00:00:00Z");
        assert_eq!(
            text,
            r#"{"action":"cancel","job_id":"ID","tenant_id":"T","user_id":"U\"1","command_id":"0190f3c8-0000-7000-8000-000000000001","reply_to":"T:job:ID:reply","issued_at":"2026-01-01T00:00:00Z"}"#
        );
        assert_eq!(resource_of("T:job:control", &text), Some(resource));
        for (channel, payload) in [
            ("T:job", text.as_str()),
            ("T:job:control", "{}"),
            ("T:job:control", "x"),
            ("a*:job:control", &text),
            ("T:campaign:control", &text),
            ("T:job:control", r#"{"type":"job_status","job_id":"control","tenant_id":"T","status":"running","seq":1}"#),
            ("T:job:control", r#"{"action":"fly","job_id":"ID"}"#),
        ] {
            assert_eq!(resource_of(channel, payload), None, "{channel} {payload}");
        }
    }
}
