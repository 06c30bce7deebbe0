//! Commands that failed for good, kept for a week (the newest 1,000 of each tenant) so that somebody can look at them
//! and ask again. `complete_command` and `expire_commands` put them there; `lua/delete_failed.lua` takes them out.

use super::stored_command::StoredCommand;
use super::{bytes, lua, texts};
use crate::broker::{Broker, BrokerError};
use crate::domain::{Action, CommandId, Resource, TenantId, UserId};

/// One of them.
#[derive(Debug, Clone, PartialEq)]
pub struct FailedCommand {
    /// Which.
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

impl FailedCommand {
    /// `ended_ms|event|resource|message`, a line break, the record.
    fn read(command: CommandId, kept: &str) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct FailureMessage {
            error: String,
        }
        let (head, record) = kept.split_once('\n')?;
        let mut parts = head.splitn(4, '|');
        let failed_at = parts.next()?.parse().ok()?;
        let event = parts.next()?.to_owned();
        let resource = Resource::parse(parts.next()?)?;
        let message: FailureMessage = serde_json::from_str(parts.next()?).ok()?;
        let record: StoredCommand = serde_json::from_str(record).ok()?;
        Some(Self {
            command,
            resource,
            action: Action::parse(&record.action)?,
            user: record.user_id,
            reason: record.reason,
            event,
            error: message.error,
            failed_at,
        })
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
