//! Commands that were accepted and have no result yet, as operators see them who have not sent them. Nothing is changed, and
//! no two of the reads are one: a command that ends meanwhile is left out or shown for the last time.

use futures_util::{StreamExt, TryStreamExt, future, stream};

use super::stored_command::StoredCommand;
use crate::broker::{Broker, BrokerError};
use crate::domain::{Action, CommandId, Resource, TenantId, UserId};

/// Commands of one resource that are shown: its next ones. More than a few wait there only if somebody sends them in a loop.
const MAX_COMMANDS: usize = 10;
/// Resources that are asked about at the same time.
const CONCURRENT_READS: usize = 32;

/// One of them.
#[derive(Debug, Clone, PartialEq)]
pub struct WaitingCommand {
    /// The command.
    pub command: CommandId,
    /// What it is about.
    pub resource: Resource,
    /// What is to be done.
    pub action: Action,
    /// Who asked.
    pub user: UserId,
    /// Why it was asked.
    pub reason: Option<String>,
    /// When it was accepted, Unix ms by Redis's clock.
    pub accepted_at: i64,
    /// Whether a worker has claimed it: otherwise none has taken it up yet.
    pub is_claimed: bool,
}

impl Broker {
    /// Resources of a tenant that have commands without a result; those whose next command could have been claimed for the
    /// longest time come first.
    pub async fn resources_with_commands(&self, tenant: &TenantId, limit: usize) -> Result<Vec<Resource>, BrokerError> {
        let mut oldest = redis::cmd("ZRANGE");
        oldest.arg(self.keys().ready(tenant)).arg(0).arg(limit.max(1) - 1);
        let members: Vec<String> = self.client.query(&oldest).await?;
        Ok(members.iter().filter_map(|member| Resource::parse(member)).collect())
    }

    /// The commands of these resources that have no result yet, the next one of each resource first.
    pub async fn waiting_commands(&self, resources: &[Resource]) -> Result<Vec<WaitingCommand>, BrokerError> {
        let each: Vec<_> = resources.iter().map(|resource| self.waiting_commands_of(resource)).collect();
        let found: Vec<_> = stream::iter(each).buffered(CONCURRENT_READS).try_collect().await?;
        Ok(found.concat())
    }

    async fn waiting_commands_of(&self, resource: &Resource) -> Result<Vec<WaitingCommand>, BrokerError> {
        let names = self.keys();
        let (mut queue, mut claim) = (redis::cmd("LRANGE"), redis::cmd("HGET"));
        queue.arg(names.queue(resource)).arg(0).arg(MAX_COMMANDS - 1);
        claim.arg(names.state(resource)).arg("command");
        let (ids, claimed): (Vec<String>, Option<String>) =
            future::try_join(self.client.query(&queue), self.client.query(&claim)).await?;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut records = redis::cmd("HMGET");
        records.arg(names.commands(resource)).arg(&ids);
        let stored: Vec<Option<String>> = self.client.query(&records).await?;
        let read = |(id, stored): (&String, Option<String>)| {
            let StoredCommand { action, user_id: user, reason, accepted_at, .. } = StoredCommand::read(&stored?)?;
            let (command, is_claimed) = (id.parse().ok()?, claimed.as_ref() == Some(id));
            Some(WaitingCommand {
                command,
                resource: resource.clone(),
                action,
                user,
                reason,
                accepted_at: accepted_at?,
                is_claimed,
            })
        };
        Ok(ids.iter().zip(stored).filter_map(read).collect())
    }
}
