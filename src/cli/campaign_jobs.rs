//! `wheelhouse campaign add` and `close`: a campaign that is made without its jobs.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use serde_json::value::RawValue;

use super::api::rows::{AddJobsResponse, Row};
use super::api::{Api, ApiArgs, GatewayLocator};
use super::job_state::describe_state;
use super::out::{self, say};
use super::usage::usage;
use crate::domain::ResourceId;

/// More jobs of a campaign.
#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// The campaign's id.
    id: ResourceId,
    /// The file with the jobs; - for standard input.
    #[arg(long, value_name = "FILE")]
    jobs: String,
    #[command(flatten)]
    api: ApiArgs,
}

/// Which campaign.
#[derive(Debug, Args)]
pub(super) struct CloseArgs {
    /// The id.
    id: ResourceId,
    #[command(flatten)]
    api: ApiArgs,
}

/// What a file, or standard input, says of jobs: a JSON array, or an object a line.
pub(super) fn jobs_of(file: &str) -> anyhow::Result<Vec<Box<RawValue>>> {
    let text = if file == "-" {
        std::io::read_to_string(std::io::stdin())?
    } else {
        std::fs::read_to_string(file).map_err(|e| usage(format!("cannot read {file}: {e}")))?
    };
    let not_json = |e| usage(format!("{file} is not JSON: {e}"));
    let values: Result<Vec<Box<RawValue>>, _> = serde_json::Deserializer::from_str(&text).into_iter().collect();
    let values = values.map_err(not_json)?;
    match values.as_slice() {
        [list] if list.get().starts_with('[') => serde_json::from_str(list.get()).map_err(not_json),
        _ => Ok(values),
    }
}

pub(super) async fn add(args: AddArgs, locator: &GatewayLocator) -> anyhow::Result<ExitCode> {
    let jobs = jobs_of(&args.jobs)?;
    let asked = jobs.len();
    let api = Api::new(&args.api, locator)?;
    let answer = api.post(&format!("/api/v1/campaigns/{}/jobs", args.id), &jobs).await?;
    let made = answer.told_that(|made: &AddJobsResponse| match made.jobs.len() {
        count if count == asked => Ok(()),
        count => Err(format!("{count} jobs for {asked} that were sent")),
    })?;
    if args.api.json {
        out::json(&made.json)
    } else {
        let jobs = if asked == 1 { "job" } else { "jobs" };
        say!("{asked} {jobs} added to campaign {}", args.id)
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn close(args: CloseArgs, locator: &GatewayLocator) -> anyhow::Result<ExitCode> {
    let answer =
        Api::new(&args.api, locator)?.post(&format!("/api/v1/campaigns/{}/close", args.id), &json!({})).await?;
    let row = answer.told_that(|row: &Row| row.is_of(&args.id))?.json;
    if args.api.json {
        out::json(&row)
    } else if matches!(row.text("status").as_deref(), Some("active" | "paused")) {
        say!("campaign {} is closed: it is completed when its jobs have ended", args.id)
    } else {
        say!("campaign {} is {}", args.id, describe_state(&row.read().unwrap_or_default()))
    }
    Ok(ExitCode::SUCCESS)
}
