//! What a client sends, as it is read from JSON. `read.rs` checks what the types alone do not say.

use serde::{Deserialize, Deserializer};

use crate::domain::{JsonText, ResourceId, TenantId, UserId};

/// One message of a client.
#[derive(Debug, Clone, PartialEq)]
pub enum FromClient {
    /// The first message on each socket.
    Hello(Hello),
    /// It is about to begin a job, or holds a run of it.
    Attach(NamedJob),
    /// What an order has led to.
    Reached(Reached),
    /// The newest figures.
    Progress(Figures),
    /// An item that could not be done.
    FailedItem(FailedItem),
    /// A resume point.
    Save(Save),
    /// The work has ended by itself.
    End(End),
    /// Lines for the job's output.
    Log(LogLines),
    /// The job has been published and has not begun.
    Expect(NamedJob),
}

/// `hello`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    #[serde(rename = "type")]
    _kind: Kind,
    /// The version that the client speaks.
    pub v: u32,
    /// The client's name for people.
    pub worker: String,
    /// New in each process.
    pub session: ResourceId,
    /// The machine or container that it runs on, for people.
    pub host: Option<String>,
    /// What it is, for people.
    pub software: Option<String>,
    /// The process, for the log.
    pub pid: Option<u64>,
}

/// A job that a client names: with `attach` it is about to begin it, or holds a run of it; with `expect` it has been
/// published and has not begun.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedJob {
    #[serde(rename = "type")]
    _kind: Kind,
    /// The client's number of the job.
    #[serde(rename = "ref")]
    pub reference: u64,
    /// Whose job.
    pub tenant_id: TenantId,
    /// Which job.
    pub job_id: ResourceId,
    /// What kind of work it is.
    pub job_type: Option<String>,
    /// For people.
    pub title: Option<String>,
    /// The campaign that it belongs to.
    pub campaign_id: Option<ResourceId>,
    /// What the job was given.
    pub parameters: Option<JsonText>,
    /// How long it may run, in seconds, without the time that it is paused.
    pub timeout_seconds: Option<u32>,
    /// How often the row becomes pending again after a failure.
    pub max_retries: Option<u32>,
    /// On whose behalf it was published.
    pub created_by: Option<UserId>,
    /// Only in `attach`: the run that the session holds since an earlier socket.
    pub run: Option<i64>,
    /// Only in `expect`: when it is to begin.
    #[serde(default, deserialize_with = "time")]
    pub run_after: Option<jiff::Timestamp>,
}

/// `reached`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reached {
    #[serde(rename = "type")]
    _kind: Kind,
    /// The client's number of the job.
    #[serde(rename = "ref")]
    pub reference: u64,
    /// Which order.
    pub order: i64,
    /// What it has led to.
    pub state: ReachedState,
    /// With `refused`: why.
    pub error: Option<String>,
}

/// What an order has led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReachedState {
    /// Nothing of the work runs on.
    #[serde(rename = "still")]
    Held,
    /// Nothing of the work is left.
    Ended,
    /// The work goes on as before.
    Refused,
}

/// `progress`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figures {
    #[serde(rename = "type")]
    _kind: Kind,
    /// The client's number of the job.
    #[serde(rename = "ref")]
    pub reference: u64,
    /// All items.
    pub items_total: Option<u64>,
    /// Items that are done, in whatever way.
    pub items_processed: Option<u64>,
    /// Items that are done well.
    pub items_succeeded: Option<u64>,
    /// Items that could not be done.
    pub items_failed: Option<u64>,
    /// From 0 to 100.
    pub progress_percent: Option<f64>,
    /// What the work is at. The outer `None`: as before.
    #[serde(default, deserialize_with = "present")]
    pub current_item: Option<Option<String>>,
}

/// `failed_item`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailedItem {
    #[serde(rename = "type")]
    _kind: Kind,
    /// The client's number of the job.
    #[serde(rename = "ref")]
    pub reference: u64,
    /// Which item.
    pub item: String,
    /// What went wrong, in words for the operator.
    pub error: String,
}

/// `save`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Save {
    #[serde(rename = "type")]
    _kind: Kind,
    /// The client's number of the job.
    #[serde(rename = "ref")]
    pub reference: u64,
    /// Grows by one with each.
    pub n: u64,
    /// Where the job goes on in its next run.
    pub point: JsonText,
}

/// `log`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogLines {
    #[serde(rename = "type")]
    _kind: Kind,
    /// The client's number of the job.
    #[serde(rename = "ref")]
    pub reference: u64,
    /// Where they come from.
    #[serde(default)]
    pub stream: LogStream,
    /// In their order, without their ends.
    pub lines: Vec<String>,
}

/// Where lines of a client come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// The work's standard output.
    Stdout,
    /// Its standard error.
    Stderr,
    /// What it says for the log.
    #[default]
    Log,
}

/// `end`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    #[serde(rename = "type")]
    _kind: Kind,
    /// The client's number of the job.
    #[serde(rename = "ref")]
    pub reference: u64,
    /// How it ended.
    pub how: EndedHow,
    /// With `completed`.
    pub result: Option<JsonText>,
    /// With `failed`: why. With `handed_back`: why this try has failed, where the client's own queue tries again.
    pub error: Option<String>,
    /// With `failed`: trying again would not help.
    pub permanent: Option<bool>,
    /// With `handed_back`: when it is to go on.
    #[serde(default, deserialize_with = "time")]
    pub run_after: Option<jiff::Timestamp>,
}

/// How work has ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndedHow {
    /// Well.
    Completed,
    /// Badly.
    Failed,
    /// It chose to end as cancelled.
    Cancelled,
    /// It goes on later, in a new run.
    HandedBack,
}

/// The word that chose the type of a message, and nothing more.
#[derive(Debug, Clone, PartialEq, Default)]
struct Kind;

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(from).map(|_| Self)
    }
}

/// A field that is there, be it null.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// A time as RFC 3339 writes it.
fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Option<jiff::Timestamp>, D::Error> {
    let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
    let wrong = |_| serde::de::Error::custom("it must be a time of the years up to 9998 such as 2026-01-02T03:04:05Z");
    text.parse().map(Some).map_err(wrong)
}

impl FromClient {
    /// Which job it is about.
    pub fn reference(&self) -> Option<u64> {
        match self {
            Self::Hello(_) => None,
            Self::Attach(NamedJob { reference, .. })
            | Self::Reached(Reached { reference, .. })
            | Self::Progress(Figures { reference, .. })
            | Self::FailedItem(FailedItem { reference, .. })
            | Self::Save(Save { reference, .. })
            | Self::Log(LogLines { reference, .. })
            | Self::End(End { reference, .. })
            | Self::Expect(NamedJob { reference, .. }) => Some(*reference),
        }
    }
}
