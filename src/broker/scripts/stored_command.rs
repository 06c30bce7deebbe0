//! What Redis keeps of a command until it has its result: JSON, and what each of its audit entries begins with.
//! `lua/lib/stored_command.lua` reads it, too.

use super::submission::Submission;
use crate::domain::{RequestId, UserId};

/// Open: the scripts add what they alone know, or close it.
pub(super) fn stored_command_json(s: &Submission) -> String {
    #[derive(serde::Serialize)]
    struct StoredCommandFields<'a> {
        tenant_id: &'a str,
        user_id: &'a str,
        resource_kind: &'a str,
        resource_id: &'a str,
        action: &'a str,
        command_id: &'a str,
        request_id: Option<&'a str>,
        reason: Option<&'a str>,
        address: Option<&'a str>,
        token_id: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        batch_id: Option<String>,
    }
    let record = StoredCommandFields {
        tenant_id: s.resource.tenant.as_str(),
        user_id: s.user.as_str(),
        resource_kind: s.resource.kind.as_str(),
        resource_id: s.resource.id.as_str(),
        action: s.action.as_str(),
        command_id: &s.command.to_string(),
        request_id: s.request.as_ref().map(RequestId::as_str),
        reason: s.reason.as_deref(),
        address: s.origin.address.as_deref(),
        token_id: s.origin.token_id.as_deref(),
        batch_id: s.batch.map(|batch| batch.to_string()),
    };
    let mut bytes = Vec::with_capacity(512);
    // Texts only: nothing in it can fail to be written.
    let _ = serde_json::to_writer(&mut bytes, &record);
    bytes.pop();
    String::from_utf8(bytes).unwrap_or_default()
}

/// What [`stored_command_json`] wrote, as it is read again.
#[derive(serde::Deserialize)]
pub(super) struct StoredCommand {
    pub(super) action: String,
    pub(super) user_id: UserId,
    pub(super) request_id: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) address: Option<String>,
    pub(super) token_id: Option<String>,
}
