//! The messages between a foreign worker process and a Wheelhouse worker (`docs/worker-protocol.md`,
//! `schema/worker.schema.json`).

use serde::{Deserialize, Serialize};

use crate::domain::text::{MAX_LONG_TEXT, excerpt};
use crate::domain::{JobStatus, JsonText, ResourceId, TenantId, UserId};

/// The subprotocol of the socket.
pub const WORKER_PROTOCOL: &str = "wheelhouse-worker.1";
/// The version in `hello` and `welcome`.
pub const VERSION: u32 = 1;
/// Longest frame of a client, in bytes.
pub const MAX_WORKER_FRAME: usize = 256 * 1024;
/// The type of a job for which none is given.
pub const FOREIGN_TYPE: &str = "foreign";

/// Largest number that every JSON reader holds exactly.
const MAX_NUMBER: u64 = (1 << 53) - 1;
const MAX_NAME: usize = 255;
const MAX_TITLE: usize = 500;
const MAX_ITEM: usize = 1_000;

/// One message of a client.
#[derive(Debug, Clone, PartialEq)]
pub enum FromClient {
    /// The first message on each socket.
    Hello(Hello),
    /// It is about to begin a job, or holds a run of it.
    Attach(Attach),
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
    /// The job has been published and has not begun.
    Expect(Expect),
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
    /// What it is, for the log.
    pub software: Option<String>,
    /// The process, for the log.
    pub pid: Option<u64>,
}

/// `attach`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attach {
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
    /// The run that the session holds since an earlier socket.
    pub run: Option<i64>,
}

/// `expect`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
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
    /// When it is to begin.
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
    /// Why.
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
    /// With `failed`: why.
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
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(from).map(|_| Self)
    }
}

/// A field that is there, be it null.
fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// A time as RFC 3339 writes it.
fn time<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<jiff::Timestamp>, D::Error> {
    let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
    let wrong = |_| serde::de::Error::custom("run_after must be a time such as 2026-01-02T03:04:05Z");
    text.parse().map(Some).map_err(wrong)
}

/// Why a message cannot be used.
#[derive(Debug, Clone, PartialEq)]
pub enum Unusable {
    /// The protocol has no such message: the socket is closed with this reason.
    Unknown(String),
    /// It has one of this type, and a field is wrong.
    Invalid {
        /// Which job it is about, where that can be read.
        reference: Option<u64>,
        /// Whether an answer `refused` is waited for.
        is_attach: bool,
        /// What is wrong with it.
        message: String,
    },
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(rename = "type", borrow)]
    kind: std::borrow::Cow<'a, str>,
    #[serde(rename = "ref")]
    reference: Option<serde_json::Value>,
}

/// Reads one frame.
pub fn read(text: &str) -> Result<FromClient, Unusable> {
    let head: Head<'_> = serde_json::from_str(text)
        .map_err(|error| Unusable::Unknown(format!("A message is a JSON object with a type: {error}")))?;
    let message = match head.kind.as_ref() {
        "hello" => fields(text).map(FromClient::Hello),
        "attach" => fields(text).map(FromClient::Attach),
        "reached" => fields(text).map(FromClient::Reached),
        "progress" => fields(text).map(FromClient::Progress),
        "failed_item" => fields(text).map(FromClient::FailedItem),
        "save" => fields(text).map(FromClient::Save),
        "end" => fields(text).map(FromClient::End),
        "expect" => fields(text).map(FromClient::Expect),
        other => {
            let word: String = other.chars().take(40).collect();
            return Err(Unusable::Unknown(format!("There is no message {word:?}")));
        }
    };
    let checked = message.and_then(|message| message.check().map(|()| message));
    checked.map_err(|message| Unusable::Invalid {
        reference: head
            .reference
            .and_then(|value| value.as_u64())
            .filter(|reference| (1..=MAX_NUMBER).contains(reference)),
        is_attach: matches!(head.kind.as_ref(), "attach" | "expect"),
        message: format!("{}: {message}", head.kind),
    })
}

fn fields<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| {
        let place = format!(" at line {} column {}", error.line(), error.column());
        let words = error.to_string().replace(&place, "");
        let names_it =
            ["missing field", "unknown field", "duplicate field"].iter().any(|begin| words.starts_with(begin));
        // The column counts within its line: what is found on another one would name a wrong field.
        match field_before(text, error.column()).filter(|_| !names_it && error.line() == 1) {
            Some(field) => format!("{field}: {words}"),
            None => words,
        }
    })
}

/// The last field of the object itself (not of one inside it) whose value begins before this place. The text is JSON.
fn field_before(text: &str, place: usize) -> Option<&str> {
    let (bytes, mut depth, mut at) = (text.as_bytes(), 0_u32, 0);
    let (mut last_text, mut found) = (None, None);
    while at < bytes.len() && at < place {
        match bytes[at] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                let begin = at + 1;
                at = begin;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                last_text = text.get(begin..at);
            }
            b':' if depth == 1 => found = last_text,
            _ => {}
        }
        at += 1;
    }
    found
}

impl FromClient {
    /// Which job it is about.
    pub fn reference(&self) -> Option<u64> {
        match self {
            Self::Hello(_) => None,
            Self::Attach(Attach { reference, .. })
            | Self::Reached(Reached { reference, .. })
            | Self::Progress(Figures { reference, .. })
            | Self::FailedItem(FailedItem { reference, .. })
            | Self::Save(Save { reference, .. })
            | Self::End(End { reference, .. })
            | Self::Expect(Expect { reference, .. }) => Some(*reference),
        }
    }

    /// What the types alone do not say.
    fn check(&self) -> Result<(), String> {
        if let Some(reference) = self.reference() {
            within("ref", reference, 1)?;
        }
        match self {
            Self::Hello(hello) => {
                length("worker", Some(&hello.worker), 1, MAX_NAME)?;
                length("software", hello.software.as_ref(), 0, MAX_NAME)?;
                hello.pid.map_or(Ok(()), |pid| within("pid", pid, 0))
            }
            Self::Attach(attach) => {
                if attach.run.is_some_and(|run| run < 1) {
                    return Err("run must be at least 1".to_owned());
                }
                describe(attach.job_type.as_ref(), attach.title.as_ref(), attach.timeout_seconds)
            }
            Self::Expect(expect) => describe(expect.job_type.as_ref(), expect.title.as_ref(), expect.timeout_seconds),
            Self::Reached(reached) if reached.order < 0 => Err("order must not be negative".to_owned()),
            Self::Progress(figures) => {
                let counts = [
                    ("items_total", figures.items_total),
                    ("items_processed", figures.items_processed),
                    ("items_succeeded", figures.items_succeeded),
                    ("items_failed", figures.items_failed),
                ];
                for (name, count) in counts {
                    count.map_or(Ok(()), |count| within(name, count, 0))?;
                }
                if figures.progress_percent.is_some_and(|percent| !(0.0..=100.0).contains(&percent)) {
                    return Err("progress_percent must be from 0 to 100".to_owned());
                }
                length("current_item", figures.current_item.as_ref().and_then(Option::as_ref), 0, MAX_ITEM)
            }
            Self::Save(save) => within("n", save.n, 1),
            Self::Reached(_) | Self::FailedItem(_) | Self::End(_) => Ok(()),
        }
    }
}

fn describe(job_type: Option<&String>, title: Option<&String>, timeout: Option<u32>) -> Result<(), String> {
    length("job_type", job_type, 1, MAX_NAME)?;
    length("title", title, 0, MAX_TITLE)?;
    if timeout == Some(0) { Err("timeout_seconds must be at least 1".to_owned()) } else { Ok(()) }
}

fn within(name: &str, number: u64, least: u64) -> Result<(), String> {
    if (least..=MAX_NUMBER).contains(&number) {
        Ok(())
    } else {
        Err(format!("{name} must be a whole number from {least} to {MAX_NUMBER}"))
    }
}

fn length(name: &str, text: Option<&String>, least: usize, most: usize) -> Result<(), String> {
    match text.map(|text| text.chars().count()) {
        Some(count) if !(least..=most).contains(&count) => {
            Err(format!("{name} must have {least} to {most} characters"))
        }
        _ => Ok(()),
    }
}

/// What work is ordered to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderKind {
    /// To hold.
    Pause,
    /// To go on.
    Resume,
    /// To end, because somebody cancelled it.
    Cancel,
    /// To end at its next good point: it goes on in a new run.
    Leave,
    /// To end, because it has been running for as long as it may.
    TimeOut,
}

/// Why an `attach` or `expect` is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusedWhy {
    /// The row has ended.
    Ended,
    /// Another session has it.
    Elsewhere,
    /// Not a tenant of the token, or of this worker.
    Denied,
    /// Something is wrong with the message.
    Invalid,
}

/// One message to a client.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToClient<'a> {
    /// The answer to `hello`.
    Welcome {
        /// The version.
        v: u32,
        /// The client's own id.
        session: &'a str,
        /// How long a run waits for its session.
        reattach_seconds: f64,
        /// The largest frame in bytes.
        max_frame: usize,
    },
    /// The job is the session's.
    Attached {
        /// The client's number of the job.
        #[serde(rename = "ref")]
        reference: u64,
        /// Which run of the job it is.
        run: i64,
        /// `running` or `paused`.
        status: &'a str,
        /// The last saved point.
        resume_point: &'a JsonText,
    },
    /// The row of a published job is there.
    Expected {
        /// The client's number of the job.
        #[serde(rename = "ref")]
        reference: u64,
        /// The row's.
        status: &'a str,
    },
    /// An `attach` or `expect` that is not taken.
    Refused {
        /// The client's number of the job.
        #[serde(rename = "ref")]
        reference: u64,
        /// Why.
        error: RefusedWhy,
        /// The row's, where it has ended.
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<&'a str>,
        /// In words.
        message: &'a str,
        /// Seconds until it may be otherwise.
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after: Option<u64>,
    },
    /// What the work is to do.
    Order {
        /// The client's number of the job.
        #[serde(rename = "ref")]
        reference: u64,
        /// Grows with each order of the run.
        order: i64,
        /// What.
        #[serde(rename = "do")]
        kind: OrderKind,
        /// Who asked.
        by: &'a str,
        /// Why, in that person's words.
        reason: Option<&'a str>,
        /// The grace is over: end the process that the work runs in.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        kill: bool,
    },
    /// The resume point `n`, and all before it, are in SQL.
    Saved {
        /// The client's number of the job.
        #[serde(rename = "ref")]
        reference: u64,
        /// Which.
        n: u64,
    },
    /// The end of the run is in SQL.
    Ended {
        /// The client's number of the job.
        #[serde(rename = "ref")]
        reference: u64,
        /// The row's.
        status: &'a str,
    },
    /// The run is not the session's any more.
    Lost {
        /// The client's number of the job.
        #[serde(rename = "ref")]
        reference: u64,
        /// Why.
        message: &'a str,
    },
    /// A message that could not be used.
    Error {
        /// The client's number of the job, where the message was about one.
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<u64>,
        /// A code.
        error: &'a str,
        /// In words.
        message: &'a str,
    },
}

impl ToClient<'_> {
    /// As it travels.
    pub fn text(&self) -> String {
        // Texts, numbers and checked JSON can always be written.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// A refusal because the row has ended.
    pub fn refused_ended(reference: u64, status: JobStatus) -> String {
        let message = format!("The job is {} already: it is not run", status.as_str());
        let status = Some(status.as_str());
        ToClient::Refused { reference, error: RefusedWhy::Ended, status, message: &message, retry_after: None }.text()
    }
}

/// What a client says of an error, as long as it may be in a command's answer.
pub fn sentence(error: Option<&str>, otherwise: &str) -> String {
    let text = error.map(str::trim).filter(|text| !text.is_empty()).unwrap_or(otherwise);
    excerpt(text, MAX_LONG_TEXT).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_with_its_fields_and_an_odd_one_says_what_is_wrong() {
        let attach = r#"{"type":"attach","ref":3,"tenant_id":"t","job_id":"j","parameters":{"a":1.10},"run":2}"#;
        let Ok(FromClient::Attach(read_attach)) = read(attach) else { panic!("{:?}", read(attach)) };
        assert_eq!((read_attach.reference, read_attach.run), (3, Some(2)));
        assert_eq!(read_attach.parameters.expect("parameters").as_str(), r#"{"a":1.10}"#);
        let figures = |text: &str| match read(text) {
            Ok(FromClient::Progress(figures)) => figures.current_item,
            other => panic!("{other:?}"),
        };
        assert_eq!(figures(r#"{"type":"progress","ref":1}"#), None);
        assert_eq!(figures(r#"{"type":"progress","ref":1,"current_item":null}"#), Some(None));
        for (text, word) in [
            (r#"{"type":"attach","ref":0,"tenant_id":"t","job_id":"j"}"#, "ref must be"),
            (r#"{"type":"attach","ref":1,"tenant_id":"t:","job_id":"j"}"#, "tenant_id: a tenant id"),
            (r#"{"type":"attach","ref":1,"job_id":7,"tenant_id":"t"}"#, "job_id: invalid type"),
            (r#"{"type":"attach","ref":1,"parameters":{"job_id":":"},"job_id":"a\"b","tenant_id":"t"}"#, "job_id: "),
            (r#"{"type":"attach","ref":1,"tenant_id":"t"}"#, "job_id"),
            (r#"{"type":"attach","ref":1,"tenant_id":"t","job_id":"j","color":1}"#, "color"),
            (r#"{"type":"progress","ref":1,"progress_percent":101}"#, "progress_percent"),
            (r#"{"type":"reached","ref":1,"order":1,"state":"gone"}"#, "gone"),
            (r#"{"type":"save","ref":1,"n":0,"point":1}"#, "n must be"),
            (r#"{"type":"end","ref":1,"how":"completed","run_after":"soon"}"#, "run_after"),
        ] {
            match read(text) {
                Err(Unusable::Invalid { message, .. }) => assert!(message.contains(word), "{text}: {message}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        for text in ["", "[]", "{}", r#"{"type":1}"#, r#"{"type":"ping"}"#] {
            assert!(matches!(read(text), Err(Unusable::Unknown(_))), "{text}");
        }
    }
}
