//! Results of commands, as the scripts recorded them.

use super::former;
use super::stored_command::RECORD_VERSION;
use crate::broker::{Broker, BrokerError};
use crate::domain::{Action, CommandId, Control, IdDerivation, Resource};
use crate::protocol::{CommandError, Outcome, server};

/// A command that has its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandResult {
    /// Which command.
    pub command: CommandId,
    /// When it ended, Unix ms by Redis's clock.
    pub ended_at: i64,
    /// How many workers were alive for the tenant when it was accepted.
    pub workers_online: i64,
    /// How it ended.
    pub outcome: Outcome,
    /// Of a job: what the command reached.
    pub control: Option<Control>,
    /// The result message, as everyone gets it.
    pub message: String,
}

/// A result as it stands in `R:results`, in the field `record:` and the command's id.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct StoredResult {
    pub(super) v: u32,
    action: Action,
    outcome: OutcomeKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<StoredError>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    control: Option<Control>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    /// The script writes this and the next one.
    #[serde(skip_serializing)]
    ended_at: i64,
    #[serde(skip_serializing)]
    workers_online: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum OutcomeKind {
    Succeeded,
    Failed,
}

/// An error, or the code of one that only a version after this one knows.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub(super) enum StoredError {
    Known(CommandError),
    Newer { code: String },
}

impl StoredError {
    pub(super) fn into_error(self) -> CommandError {
        match self {
            Self::Known(error) => error,
            Self::Newer { code } => CommandError::Uncoded { message: format!("The command failed ({code})") },
        }
    }
}

impl StoredResult {
    /// The script that records it adds when that was, and how many workers were alive at the acceptance.
    pub(super) fn new(outcome: &Outcome, action: Action, control: Option<Control>, request_id: Option<&str>) -> Self {
        let (kind, status, error) = match outcome {
            Outcome::Succeeded(status) => (OutcomeKind::Succeeded, Some(status.clone()), None),
            Outcome::Failed(error) => (OutcomeKind::Failed, None, Some(StoredError::Known(error.clone()))),
        };
        Self {
            v: RECORD_VERSION,
            action,
            outcome: kind,
            status,
            error,
            control,
            request_id: request_id.map(str::to_owned),
            ended_at: 0,
            workers_online: 0,
        }
    }

    fn into_result(self, command: CommandId, resource: &Resource) -> Option<CommandResult> {
        let outcome = match self.outcome {
            OutcomeKind::Succeeded => Outcome::Succeeded(self.status?),
            OutcomeKind::Failed => Outcome::Failed(self.error?.into_error()),
        };
        let message =
            server::result(&outcome, self.action, resource, command, self.control, self.request_id.as_deref());
        let Self { ended_at, workers_online, control, .. } = self;
        Some(CommandResult { command, ended_at, workers_online, outcome, control, message })
    }
}

/// A result as Redis gave it: its record, and what stands under its id, as version 0.1 writes it.
pub(super) type StoredFields = (Option<String>, Option<String>);

impl CommandResult {
    /// Whether the command was applied.
    pub fn has_succeeded(&self) -> bool {
        matches!(self.outcome, Outcome::Succeeded(_))
    }

    pub(super) fn read((record, under_id): &StoredFields, command: CommandId, resource: &Resource) -> Option<Self> {
        let read = |text: &str| serde_json::from_str::<StoredResult>(text).ok()?.into_result(command, resource);
        if let Some(result) = record.as_deref().and_then(read) {
            return Some(result);
        }
        let stored = under_id.as_deref()?;
        // A version after this one may write the record there.
        read(stored).or_else(|| {
            let former = former::read_result(stored)?;
            Some(Self {
                command,
                ended_at: former.ended_at,
                workers_online: former.workers_online,
                message: former.message.to_owned(),
                outcome: former.outcome,
                control: former.control,
            })
        })
    }
}

/// A stored result that nothing can be read from.
pub(super) struct Unreadable;

impl CommandResult {
    /// The same from the answer of a script, in which what there is not is empty. `None`: there is no result yet.
    pub(super) fn read_answer(
        record: &str,
        under_id: &str,
        command: CommandId,
        resource: &Resource,
    ) -> Result<Option<Self>, Unreadable> {
        let field = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        match (field(record), field(under_id)) {
            (None, None) => Ok(None),
            stored => Self::read(&stored, command, resource).map(Some).ok_or(Unreadable),
        }
    }
}

/// The two fields of a command in `R:results`: of its record, and of what version 0.1 reads.
fn fields(command: &str) -> [String; 2] {
    [format!("record:{command}"), command.to_owned()]
}

impl Broker {
    /// The result message of a recent command; `None` if it has none (yet).
    pub async fn result_of(&self, resource: &Resource, command: CommandId) -> Result<Option<String>, BrokerError> {
        Ok(self.command_result(resource, command).await?.map(|result| result.message))
    }

    /// The result of a recent command; `None` if it has none (yet).
    pub async fn command_result(
        &self,
        resource: &Resource,
        command: CommandId,
    ) -> Result<Option<CommandResult>, BrokerError> {
        let (key, mut read) = (self.keys().results(resource), redis::cmd("HMGET"));
        read.arg(&key).arg(&fields(&command.to_string()));
        let stored: StoredFields = self.client.query_replicated(&read, &key).await?;
        Ok(CommandResult::read(&stored, command, resource))
    }

    /// As [`Self::command_result`], of many commands, 100 to a round trip; in their order.
    pub async fn command_results(
        &self,
        commands: &[(Resource, CommandId)],
    ) -> Result<Vec<Option<CommandResult>>, BrokerError> {
        let mut all = Vec::with_capacity(commands.len());
        for some in commands.chunks(100) {
            // Sent together on one connection to each server.
            let asked = some.iter().map(|(resource, command)| self.command_result(resource, *command));
            all.extend(futures_util::future::try_join_all(asked).await?);
        }
        Ok(all)
    }

    /// The newest results of a resource, oldest first: for a gateway that was cut off for a while.
    pub async fn recent_results(&self, resource: &Resource, limit: usize) -> Result<Vec<CommandResult>, BrokerError> {
        let names = self.keys();
        let newest = isize::try_from(limit).unwrap_or(isize::MAX).max(1) - 1;
        let ids: Vec<String> =
            self.client.query(redis::cmd("LRANGE").arg(names.finished(resource)).arg(0).arg(newest)).await?;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let asked: Vec<String> = ids.iter().flat_map(|id| fields(id)).collect();
        let key = names.results(resource);
        let stored: Vec<Option<String>> =
            self.client.query_replicated(redis::cmd("HMGET").arg(&key).arg(&asked), &key).await?;
        let mut stored = stored.into_iter();
        let mut results = Vec::with_capacity(ids.len());
        for id in &ids {
            let fields = (stored.next().flatten(), stored.next().flatten());
            results.extend(id.parse().ok().and_then(|command| CommandResult::read(&fields, command, resource)));
        }
        results.reverse();
        Ok(results)
    }

    /// Whether a command waits for a worker or for its time, or is being carried out.
    pub async fn is_pending(&self, resource: &Resource, command: CommandId) -> Result<bool, BrokerError> {
        let (names, command) = (self.keys(), command.to_string());
        for key in [names.commands(resource), names.schedules(&resource.tenant)] {
            if self.client.query(redis::cmd("HEXISTS").arg(key).arg(&command)).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The id of the command that follows from another one for a resource, where a version before may have submitted it
    /// already: that one's, if so, and today's otherwise.
    pub async fn derived_command(&self, first: CommandId, resource: &Resource) -> Result<CommandId, BrokerError> {
        let former = first.derive_as(IdDerivation::Fnv, resource);
        let is_known =
            self.is_pending(resource, former).await? || self.command_result(resource, former).await?.is_some();
        Ok(if is_known { former } else { first.derive_for(resource) })
    }
}
