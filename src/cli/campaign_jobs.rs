//! `wheelhouse campaign add` and `close`: a campaign that is made without its jobs.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::api::rows::{AddJobsResponse, Row};
use super::api::{Api, ApiArgs, GatewayLocator};
use super::job_lines::{self, JobSource};
use super::job_state::describe_state;
use super::out::{self, say};
use super::usage::usage;
use crate::domain::{RequestId, ResourceId};

/// More jobs of a campaign.
#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// The campaign's id.
    id: ResourceId,
    /// The file with the jobs, a JSON object a line, as many as there are, or a JSON array; - for standard input.
    #[arg(long, value_name = "FILE")]
    jobs: String,
    /// What the request is called: the same lines sent again under the same name make nothing twice.
    #[arg(long, value_name = "ID")]
    request_id: Option<RequestId>,
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

pub(super) async fn add(args: AddArgs, locator: &GatewayLocator) -> anyhow::Result<ExitCode> {
    let api = Api::new(&args.api, locator)?;
    let jobs = match job_lines::open(&args.jobs).await? {
        JobSource::Array(jobs) => jobs,
        JobSource::Lines(lines) => {
            return job_lines::submit(&api, &args.api, Some(&args.id), lines, args.request_id).await;
        }
    };
    if args.request_id.is_some() {
        return Err(usage("--request-id is for jobs as lines, a JSON object each; this is a JSON array"));
    }
    let asked = jobs.len();
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
