//! The fields that each answer of a gateway has. All of them are required: what lacks one is no gateway's answer.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::domain::{Action, CommandId, ResourceId, ResourceKind};

/// The id of a command: a UUID, which may also become a part of an address.
fn uuid<'de, D: Deserializer<'de>>(from: D) -> Result<CommandId, D::Error> {
    String::deserialize(from)?.parse().map_err(|_| serde::de::Error::custom("an id that is no UUID"))
}

/// A job, in a list or alone.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct JobRow {
    pub(in crate::cli) id: ResourceId,
    #[serde(rename = "status")]
    _status: String,
    pub(in crate::cli) job_type: String,
    pub(in crate::cli) progress_percent: u8,
    pub(in crate::cli) title: Option<String>,
    pub(in crate::cli) created_at: Option<String>,
    pub(in crate::cli) updated_at: Option<String>,
}

/// A campaign, in a list or alone.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct CampaignRow {
    pub(in crate::cli) id: ResourceId,
    #[serde(rename = "status")]
    _status: String,
    #[serde(rename = "is_active")]
    _is_active: bool,
    pub(in crate::cli) progress_percent: u8,
    pub(in crate::cli) items_total: i64,
    pub(in crate::cli) items_failed: i64,
    pub(in crate::cli) name: Option<String>,
    pub(in crate::cli) created_at: Option<String>,
    pub(in crate::cli) updated_at: Option<String>,
}

/// What a job and a campaign have in common.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct Row {
    pub(in crate::cli) id: ResourceId,
    #[serde(rename = "status")]
    _status: String,
    #[serde(rename = "progress_percent")]
    _progress_percent: u8,
    #[serde(rename = "tenant_id")]
    _tenant_id: String,
}

impl Row {
    /// Whether it is the one that was asked for.
    pub(in crate::cli) fn is_of(&self, id: &ResourceId) -> Result<(), String> {
        if self.id == *id { Ok(()) } else { Err(format!("an answer about {}", self.id)) }
    }
}

/// Jobs that were added to a campaign.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct AddJobsResponse {
    pub(in crate::cli) jobs: Vec<AddedJob>,
}

/// One of them.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct AddedJob {
    #[serde(rename = "id")]
    _id: ResourceId,
}

/// A command that has no result yet.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct WaitingRow {
    #[serde(rename = "command_id", deserialize_with = "uuid")]
    _command_id: CommandId,
    pub(in crate::cli) action: String,
    pub(in crate::cli) state: String,
    pub(in crate::cli) accepted_at: String,
    pub(in crate::cli) user_id: String,
    pub(in crate::cli) reason: Option<String>,
    #[serde(flatten)]
    pub(in crate::cli) target: CommandTarget,
}

/// A command that failed for good.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct FailedRow {
    #[serde(deserialize_with = "uuid")]
    pub(in crate::cli) command_id: CommandId,
    pub(in crate::cli) action: String,
    pub(in crate::cli) user_id: String,
    pub(in crate::cli) error: String,
    pub(in crate::cli) failed_at: String,
    #[serde(flatten)]
    pub(in crate::cli) target: CommandTarget,
}

/// A command that is to run later.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct ScheduleRow {
    #[serde(deserialize_with = "uuid")]
    pub(in crate::cli) schedule_id: CommandId,
    pub(in crate::cli) action: String,
    pub(in crate::cli) run_at: String,
    pub(in crate::cli) user_id: String,
    pub(in crate::cli) reason: Option<String>,
    #[serde(flatten)]
    pub(in crate::cli) target: CommandTarget,
}

/// Something that a job could not do.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct FailedItemRow {
    pub(in crate::cli) item: String,
    pub(in crate::cli) error: String,
}

/// `job_id` or `campaign_id`: what a command is about.
#[derive(Debug, Deserialize)]
pub(in crate::cli) enum CommandTarget {
    #[serde(rename = "job_id")]
    Job(ResourceId),
    #[serde(rename = "campaign_id")]
    Campaign(ResourceId),
}

impl CommandTarget {
    fn is(&self, kind: ResourceKind, asked: &ResourceId) -> bool {
        match self {
            Self::Job(id) => kind == ResourceKind::Job && id == asked,
            Self::Campaign(id) => kind == ResourceKind::Campaign && id == asked,
        }
    }
}

impl std::fmt::Display for CommandTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Job(id) => write!(f, "job {id}"),
            Self::Campaign(id) => write!(f, "campaign {id}"),
        }
    }
}

/// What a command was answered with, or its result.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct CommandResponse {
    #[serde(rename = "type")]
    pub(in crate::cli) kind: String,
    #[serde(flatten)]
    pub(in crate::cli) target: CommandTarget,
    #[serde(deserialize_with = "uuid")]
    pub(in crate::cli) command_id: CommandId,
    pub(in crate::cli) workers_online: Option<i64>,
    pub(in crate::cli) status: Option<String>,
    pub(in crate::cli) error: Option<String>,
    pub(in crate::cli) run_at: Option<String>,
    /// `row` where no worker hosts the work: nothing but its row was changed.
    pub(in crate::cli) control: Option<String>,
}

/// How far a command is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Step {
    Accepted,
    Scheduled,
    Waits,
    Succeeded,
    Failed,
}

impl CommandResponse {
    /// Whether it is an answer to this action on this resource, with what such an answer says.
    pub(in crate::cli) fn is_about(&self, action: Action, kind: ResourceKind, id: &ResourceId) -> Result<(), String> {
        if !self.target.is(kind, id) {
            return Err(format!("an answer about {}", self.target));
        }
        self.step(action).map(|_| ())
    }

    pub(in crate::cli) fn step(&self, action: Action) -> Result<Step, String> {
        let missing = |name: &str| Err(format!("missing field `{name}`"));
        let rest = self.kind.strip_prefix(action.as_str());
        match rest.unwrap_or(&self.kind) {
            "_requested" if self.workers_online.is_none() => missing("workers_online"),
            "_requested" => Ok(Step::Accepted),
            "_scheduled" if self.run_at.is_none() => missing("run_at"),
            "_scheduled" => Ok(Step::Scheduled),
            "_succeeded" if self.status.is_none() => missing("status"),
            "_succeeded" => Ok(Step::Succeeded),
            "_failed" if self.error.is_none() => missing("error"),
            "_failed" => Ok(Step::Failed),
            "pending" => Ok(Step::Waits),
            _ => Err(format!("an answer of type {:?}", self.kind)),
        }
    }
}

/// A scheduled command was taken back.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct WithdrawResponse {
    #[serde(rename = "type")]
    pub(in crate::cli) kind: String,
    #[serde(deserialize_with = "uuid")]
    pub(in crate::cli) schedule_id: CommandId,
    pub(in crate::cli) action: String,
    #[serde(flatten)]
    pub(in crate::cli) target: CommandTarget,
}

/// A failed command was forgotten.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct DropResponse {
    #[serde(deserialize_with = "uuid")]
    pub(in crate::cli) dropped: CommandId,
}

/// What became of a batch.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct Batch {
    #[serde(flatten)]
    pub(in crate::cli) state: BatchState,
    pub(in crate::cli) action: String,
    pub(in crate::cli) total: u64,
    pub(in crate::cli) refused: u64,
    pub(in crate::cli) items: Vec<BatchItem>,
    pub(in crate::cli) more: bool,
}

/// How far it is.
#[derive(Debug, Deserialize)]
#[serde(tag = "type")]
pub(in crate::cli) enum BatchState {
    #[serde(rename = "batch_preview")]
    Preview { accepted: u64, cost: u64 },
    #[serde(rename = "batch_requested")]
    Requested {
        #[serde(deserialize_with = "uuid")]
        batch_id: CommandId,
        accepted: u64,
        workers_online: i64,
    },
    #[serde(rename = "batch_completed")]
    Completed { succeeded: u64, failed: u64 },
}

/// One resource of a batch.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct BatchItem {
    #[serde(flatten)]
    pub(in crate::cli) target: CommandTarget,
    pub(in crate::cli) message: Option<String>,
    pub(in crate::cli) error: Option<String>,
    pub(in crate::cli) status: Option<String>,
    /// Of a job: `live` or `row`.
    pub(in crate::cli) control: Option<String>,
}

/// A page of a list, under the list's name.
#[derive(Debug)]
pub(in crate::cli) struct Page<T> {
    /// Each as it must be, and as it came.
    pub(in crate::cli) rows: Vec<(T, Value)>,
    pub(in crate::cli) next: Option<String>,
}

/// The rows and the cursor of a page; `paged`: there has to be a cursor, if only null.
pub(in crate::cli) fn page<T: serde::de::DeserializeOwned>(
    json: &Value,
    name: &str,
    paged: bool,
) -> Result<Page<T>, String> {
    let rows = json.get(name).ok_or_else(|| format!("missing field `{name}`"))?;
    let rows = rows.as_array().ok_or_else(|| format!("{name}: not a list"))?;
    let typed = |row: &Value| Ok((T::deserialize(row).map_err(|error| format!("{name}: {error}"))?, row.clone()));
    let rows = rows.iter().map(typed).collect::<Result<_, String>>()?;
    let next = match json.get("next") {
        None if paged => return Err("missing field `next`".to_owned()),
        None | Some(Value::Null) => None,
        // It becomes a part of the next address.
        Some(Value::String(next)) if next.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) => {
            Some(next.clone())
        }
        Some(_) => return Err("a `next` that is no cursor".to_owned()),
    };
    Ok(Page { rows, next })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_counts_only_for_what_was_asked_and_with_all_it_says() {
        let command = "0190f3c8-0000-7000-8000-000000000001";
        let whole = json!({"type": "cancel_requested", "job_id": "j1", "command_id": command, "workers_online": 0});
        let id: ResourceId = "j1".parse().expect("id");
        let about = |value: Value| -> Result<(), String> {
            let said: CommandResponse = serde_json::from_value(value).map_err(|error| error.to_string())?;
            said.is_about(Action::Cancel, ResourceKind::Job, &id)
        };
        assert_eq!(about(whole.clone()), Ok(()));
        for (name, value) in [
            ("type", json!("pause_requested")),
            ("type", json!("cancel_done")),
            ("type", json!("cancel_succeeded")),
            ("type", json!("cancel_failed")),
            ("job_id", json!("j2")),
            ("command_id", json!("../../x")),
            ("workers_online", json!(null)),
        ] {
            let mut other = whole.clone();
            other[name] = value;
            assert!(about(other.clone()).is_err(), "{other}");
        }
        let campaign =
            json!({"type": "cancel_requested", "campaign_id": "j1", "command_id": command, "workers_online": 0});
        assert!(about(campaign).is_err());
    }

    #[test]
    fn a_page_has_its_rows_and_its_cursor() {
        let rows = |json: Value| page::<FailedItemRow>(&json, "failed_items", true);
        let good = rows(json!({"failed_items": [{"item": "a", "error": "b"}], "next": "7"})).expect("a page");
        assert_eq!((good.rows.len(), good.next.as_deref()), (1, Some("7")));
        for bad in [
            json!({}),
            json!({"failed_items": []}),
            json!({"failed_items": [{}], "next": null}),
            json!({"failed_items": {}, "next": null}),
            json!({"failed_items": [], "next": "7&x=1"}),
            json!({"failed_items": [], "next": 7}),
        ] {
            assert!(rows(bad.clone()).is_err(), "{bad}");
        }
    }
}
