//! Commands that failed for good, kept for a week (the newest 1,000 of each tenant) so that somebody can look at them
//! and ask again. `complete_command` and `expire_commands` put them there; `lua/delete_failed.lua` takes them out.

use super::former;
use super::results::StoredError;
use super::stored_command::{StoredCommand, open_json};
use super::{bytes, lua, texts};
use crate::broker::{Broker, BrokerError};
use crate::domain::{Action, CommandId, Resource, TenantId, UserId};
use crate::protocol::CommandError;

/// One of them.
#[derive(Debug, Clone, PartialEq)]
pub struct FailedCommand {
    /// The command that failed or expired.
    pub command: CommandId,
    /// What it was about.
    pub resource: Resource,
    /// What was to be done.
    pub action: Action,
    /// Who asked.
    pub user: UserId,
    /// Why it was asked.
    pub reason: Option<String>,
    /// `failed` or `expired`.
    pub event: String,
    /// What went wrong, in words.
    pub error: String,
    /// When it ended, Unix ms by Redis's clock.
    pub failed_at: i64,
}

/// A failed command as it stands in `{tenant}:failed`: the command, and why and when it failed.
#[derive(serde::Deserialize)]
struct StoredFailure {
    #[serde(flatten)]
    command: StoredCommand,
    event: Option<String>,
    error: Option<StoredError>,
    failed_at: Option<i64>,
}

/// The same as a worker writes it, open: the script appends when that was.
pub(super) fn open_failed(command: &StoredCommand, event: &str, error: &CommandError) -> String {
    #[derive(serde::Serialize)]
    struct Fields<'a> {
        #[serde(flatten)]
        command: &'a StoredCommand,
        event: &'a str,
        error: &'a CommandError,
    }
    open_json(&Fields { command, event, error })
}

impl FailedCommand {
    pub(super) fn read(command: CommandId, stored: &str) -> Option<Self> {
        let (head, json) = former::split_failed(stored);
        let read: StoredFailure = serde_json::from_str(json).ok()?;
        let (event, error, failed_at) = match (read.event, read.error, read.failed_at) {
            (Some(event), Some(error), Some(failed_at)) => (event, error.into_error(), failed_at),
            _ => head.map(|head| (head.event, head.error, head.failed_at))?,
        };
        let resource = read.command.resource()?;
        let StoredCommand { action, user_id: user, reason, .. } = read.command;
        let error = error.message(action, resource.kind).into_owned();
        Some(Self { command, resource, action, user, reason, event, error, failed_at })
    }
}

impl Broker {
    /// A tenant's failed commands, newest first, from `offset` on.
    pub async fn failed(
        &self,
        tenant: &TenantId,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<FailedCommand>, BrokerError> {
        let names = self.keys();
        let mut newest = redis::cmd("ZREVRANGE");
        newest.arg(names.failed_by_time(tenant)).arg(offset).arg(offset + limit.max(1) - 1);
        let ids: Vec<String> = self.client.query(&newest).await?;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let kept: Vec<Option<String>> =
            self.client.query(redis::cmd("HMGET").arg(names.failed(tenant)).arg(&ids)).await?;
        let read = |(id, kept): (&String, Option<String>)| FailedCommand::read(id.parse().ok()?, &kept?);
        Ok(ids.iter().zip(kept).filter_map(read).collect())
    }

    /// One of them; `None`: there is none by that id (any more).
    pub async fn failed_command(
        &self,
        tenant: &TenantId,
        command: CommandId,
    ) -> Result<Option<FailedCommand>, BrokerError> {
        let kept: Option<String> =
            self.client.query(redis::cmd("HGET").arg(self.keys().failed(tenant)).arg(command.to_string())).await?;
        Ok(kept.and_then(|kept| FailedCommand::read(command, &kept)))
    }

    /// Forgets one. `false`: there was none by that id.
    pub async fn drop_failed(&self, tenant: &TenantId, command: CommandId) -> Result<bool, BrokerError> {
        let keys = [self.keys().failed(tenant), self.keys().failed_by_time(tenant)];
        self.client.script(&lua::DELETE_FAILED, &texts(&keys), &bytes(&[command.to_string()])).await
    }
}
