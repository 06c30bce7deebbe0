//! Jobs from a file of any length, or from standard input: a JSON object a line, sent while they are read.

use std::process::ExitCode;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use uuid::Uuid;

use super::api::{Api, ApiArgs, ByteSource, Object};
use super::out::{self, say};
use super::usage::usage;
use crate::domain::{RequestId, ResourceId};

/// Jobs that are still to be read.
pub(super) enum JobSource {
    /// One JSON array, read already.
    Array(Vec<Box<serde_json::value::RawValue>>),
    /// Lines.
    Lines(ByteSource),
}

/// Opens a file, or standard input (`-`), and looks how it begins.
pub(super) async fn open(file: &str) -> anyhow::Result<JobSource> {
    let cannot_read = |error| usage(format!("cannot read {file}: {error}"));
    let source: ByteSource = match file {
        "-" => Box::new(tokio::io::stdin()),
        file => Box::new(tokio::fs::File::open(file).await.map_err(cannot_read)?),
    };
    let mut source = BufReader::new(source);
    let is_array = loop {
        let begin = source.fill_buf().await.map_err(cannot_read)?;
        match begin.iter().position(|byte| !byte.is_ascii_whitespace()) {
            Some(at) => break begin[at] == b'[',
            None if begin.is_empty() => break false,
            None => {
                // An empty line counts as one.
                if begin.contains(&b'\n') {
                    break false;
                }
                let blank = begin.len();
                source.consume(blank);
            }
        }
    };
    if !is_array {
        return Ok(JobSource::Lines(Box::new(source)));
    }
    let mut text = String::new();
    source.read_to_string(&mut text).await.map_err(cannot_read)?;
    let jobs = serde_json::from_str(&text).map_err(|error| usage(format!("{file} is not JSON: {error}")))?;
    Ok(JobSource::Array(jobs))
}

/// Sends lines. Where that fails half-way, the error says under which name they can be sent again.
pub(super) async fn send(
    api: &Api,
    campaign: Option<&ResourceId>,
    lines: ByteSource,
    request_id: Option<RequestId>,
) -> anyhow::Result<Object> {
    let request_id = request_id.map_or_else(|| Uuid::now_v7().to_string(), |id| id.to_string());
    let path = match campaign {
        Some(campaign) => format!("/api/v1/campaigns/{campaign}/jobs?request_id={request_id}"),
        None => format!("/api/v1/jobs?request_id={request_id}"),
    };
    let sent = match api.post_lines(&path, lines).await {
        Ok(answer) => answer.told_that(|made: &Value| match made["count"].as_u64() {
            Some(_) => Ok(()),
            None => Err("no count".to_owned()),
        }),
        Err(error) => Err(error),
    };
    let again = format!(
        "not all lines were taken; when what follows is mended, send all of them again with --request-id {request_id}, which makes nothing twice"
    );
    sent.map(|told| told.json).map_err(|error| error.context(again))
}

/// `wheelhouse job submit --file`, and `campaign add` with lines.
pub(super) async fn submit(
    api: &Api,
    args: &ApiArgs,
    campaign: Option<&ResourceId>,
    lines: ByteSource,
    request_id: Option<RequestId>,
) -> anyhow::Result<ExitCode> {
    let made = send(api, campaign, lines, request_id).await?;
    if args.json {
        out::json(&made);
    } else {
        say!("{}", in_words(&made, campaign));
    }
    Ok(ExitCode::SUCCESS)
}

/// `5 jobs submitted`, and how many of them were there before.
pub(super) fn in_words(made: &Object, campaign: Option<&ResourceId>) -> String {
    let number = |name| made.get(name).and_then(|value| value.get().parse::<u64>().ok()).unwrap_or(0);
    let (count, known) = (number("count"), number("count") - number("new").min(number("count")));
    let jobs = if count == 1 { "job" } else { "jobs" };
    let done = campaign.map_or("submitted".to_owned(), |campaign| format!("added to campaign {campaign}"));
    let known = if known > 0 { format!(", {known} of them before") } else { String::new() };
    format!("{count} {jobs} {done}{known}")
}
