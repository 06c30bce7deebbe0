//! What a worker sends to a client.

use serde::Serialize;

use crate::domain::{JobStatus, JsonText};

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
        /// The reason, as a code that a program can act on.
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
        /// What the work is to do.
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
        /// The number that the client gave to the saved point.
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
        /// The reason, in words for whoever reads the worker's log.
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
