//! What Redis keeps of a command until it has its result, and what each of its audit entries begins with.
//! `lua/lib/stored_command.lua` reads it, too.

use super::former;
use super::submission::{ClientOrigin, Submission};
use crate::domain::{Action, RequestId, Resource, ResourceKind, UserId};

/// The version that this program writes into each record.
pub(super) const RECORD_VERSION: u32 = 1;

/// A stored command, as JSON. `resource_kind` and the ids are written for the audit trail, and for scripts.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct StoredCommand {
    /// 0 where a version wrote it that had no such field.
    #[serde(default)]
    pub(super) v: u32,
    pub(super) tenant_id: String,
    pub(super) user_id: UserId,
    pub(super) resource_kind: String,
    pub(super) resource_id: String,
    pub(super) action: Action,
    pub(super) command_id: String,
    pub(super) request_id: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) address: Option<String>,
    pub(super) token_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) batch_id: Option<String>,
    /// Unix ms by Redis's clock; the script that accepts it writes this and the next one. Not there while it is scheduled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) accepted_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) workers_online: Option<i64>,
}

impl StoredCommand {
    /// Reads it as it stands in `R:commands`.
    pub(super) fn read(stored: &str) -> Option<Self> {
        let (accepted, workers, json) = former::split_command(stored);
        let read: Self = serde_json::from_str(json).ok()?;
        Some(Self {
            accepted_at: read.accepted_at.or(accepted),
            workers_online: read.workers_online.or(workers),
            ..read
        })
    }

    /// What it is about.
    pub(super) fn resource(&self) -> Option<Resource> {
        let kind = ResourceKind::parse(&self.resource_kind)?;
        Some(Resource { tenant: self.tenant_id.parse().ok()?, kind, id: self.resource_id.parse().ok()? })
    }

    /// From where it came.
    pub(super) fn origin(&self) -> ClientOrigin {
        ClientOrigin { address: self.address.clone(), token_id: self.token_id.clone() }
    }
}

/// A submission as it is stored: a [`StoredCommand`] without copies.
#[derive(serde::Serialize)]
pub(super) struct StoredCommandFields<'a> {
    v: u32,
    tenant_id: &'a str,
    user_id: &'a str,
    resource_kind: &'a str,
    resource_id: &'a str,
    action: Action,
    command_id: String,
    request_id: Option<&'a str>,
    reason: Option<&'a str>,
    address: Option<&'a str>,
    token_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_id: Option<String>,
}

impl<'a> StoredCommandFields<'a> {
    pub(super) fn of(s: &'a Submission) -> Self {
        Self {
            v: RECORD_VERSION,
            tenant_id: s.resource.tenant.as_str(),
            user_id: s.user.as_str(),
            resource_kind: s.resource.kind.as_str(),
            resource_id: s.resource.id.as_str(),
            action: s.action,
            command_id: s.command.to_string(),
            request_id: s.request.as_ref().map(RequestId::as_str),
            reason: s.reason.as_deref(),
            address: s.origin.address.as_deref(),
            token_id: s.origin.token_id.as_deref(),
            batch_id: s.batch.map(|batch| batch.to_string()),
        }
    }
}

/// A submission as it is stored, open: the scripts append what Redis alone knows, or close it.
pub(super) fn stored_command_json(s: &Submission) -> String {
    open_json(&StoredCommandFields::of(s))
}

/// A record without its closing brace, for a script that appends fields to it.
pub(super) fn open_json(record: &impl serde::Serialize) -> String {
    let mut json = json(record);
    json.pop();
    json
}

/// A record whole.
pub(super) fn json(record: &impl serde::Serialize) -> String {
    let mut bytes = Vec::with_capacity(512);
    // Texts and numbers only: nothing in it can fail to be written.
    let _ = serde_json::to_writer(&mut bytes, record);
    String::from_utf8(bytes).unwrap_or_default()
}
