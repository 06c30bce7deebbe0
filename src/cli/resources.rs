//! `wheelhouse job …` and `wheelhouse campaign …`: the same operations as on a socket, from a shell.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::value::RawValue;

use super::access::duration;
use super::api::rows::Row;
use super::api::{Api, ApiArgs, GatewayLocator};
use super::campaign_jobs;
use super::control::{ControlArgs, control};
use super::follow::{RetryBudget, follow};
use super::job_lines::{self, JobSource};
use super::job_logs;
use super::list_args::{ListArgs, ListCampaignsArgs};
use super::lists;
use super::out::{self, say};
use super::prune;
use super::rerun;
use super::usage::usage;
use crate::config::Settings;
use crate::domain::{Action, JsonText, RequestId, ResourceId, ResourceKind};

/// What to do with jobs.
#[derive(Debug, Subcommand)]
pub(super) enum JobCommand {
    /// Submit a job for workers to run, or very many from a file.
    #[command(
        after_help = "Example: wheelhouse job submit letters --title Spring --parameters '{\"recipients\":[\"ann@example.com\"]}' --wait"
    )]
    Submit(SubmitArgs),
    /// List jobs: those that have not ended first, the newest of them on top.
    Ls(ListArgs),
    /// Show one job.
    Show(ShowArgs),
    /// List what a job could not do, item by item, and why.
    FailedItems(FailedItemsArgs),
    /// Show what a job has printed: the last 1,000 lines of its programs and its code.
    Logs(job_logs::LogsArgs),
    /// Run a job again, or all failed jobs of a campaign: as new jobs with the same parameters.
    Rerun(rerun::RerunArgs),
    /// Cancel a job for good.
    Cancel(ControlArgs),
    /// Pause a job.
    Pause(ControlArgs),
    /// Let a paused job go on.
    Resume(ControlArgs),
    /// Delete jobs that ended long ago, with failed items and outputs.
    Prune(prune::PruneArgs),
}

/// What to do with campaigns.
#[derive(Debug, Subcommand)]
pub(super) enum CampaignCommand {
    /// Create a campaign with its jobs, from a file: a JSON object a line, or one JSON array; without, it stays open.
    Create(CreateArgs),
    /// Add jobs to a campaign, from a file: a JSON array, or a JSON object a line.
    Add(campaign_jobs::AddArgs),
    /// No more jobs are added: the campaign is completed when those it has have ended.
    Close(campaign_jobs::CloseArgs),
    /// List campaigns: those that have not ended first, the newest of them on top.
    Ls(ListCampaignsArgs),
    /// Show one campaign.
    Show(ShowArgs),
    /// Cancel a campaign for good, with every job of it that has not ended.
    Cancel(ControlArgs),
    /// Stop handing the campaign's jobs to workers.
    Pause(ControlArgs),
    /// Go on handing them out.
    Resume(ControlArgs),
}

/// A new job.
#[derive(Debug, Args)]
pub(super) struct SubmitArgs {
    /// Which code runs it, as the workers know it.
    #[arg(required_unless_present = "file")]
    job_type: Option<String>,
    /// A file with jobs, as many as there are: a JSON object a line, {"job_type":"…","parameters":{…}}; - for standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["job_type", "title", "parameters", "id", "max_retries", "timeout", "wait"])]
    file: Option<String>,
    /// What the request with the file is called: the same lines sent again under the same name make nothing twice.
    #[arg(long, value_name = "ID", requires = "file")]
    request_id: Option<RequestId>,
    /// For people.
    #[arg(long)]
    title: Option<String>,
    /// A JSON value for that code.
    #[arg(long, default_value = "{}")]
    parameters: String,
    /// Its id; made up where none is given.
    #[arg(long)]
    id: Option<ResourceId>,
    /// The campaign it belongs to.
    #[arg(long, value_name = "ID")]
    campaign: Option<ResourceId>,
    /// How often it may be tried again after a failure.
    #[arg(long, default_value_t = 0)]
    max_retries: u32,
    /// Longest running time of each try, without the time it stands paused: 90s, 15m, 2h; no limit where none is given.
    #[arg(long, value_parser = duration)]
    timeout: Option<Duration>,
    /// Wait until it has ended; exit code 0 if it completed.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    api: ApiArgs,
}

/// A new campaign.
#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// For people.
    name: String,
    /// The file with its jobs; - for standard input. Without, the campaign stays open until `campaign close`.
    #[arg(long, value_name = "FILE")]
    jobs: Option<String>,
    /// Its id; made up where none is given.
    #[arg(long)]
    id: Option<ResourceId>,
    #[command(flatten)]
    api: ApiArgs,
}

/// Which one.
#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// The id.
    id: ResourceId,
    /// Watch until it has ended.
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    api: ApiArgs,
}

/// Of which job.
#[derive(Debug, Args)]
pub(super) struct FailedItemsArgs {
    /// The job's id.
    id: ResourceId,
    #[command(flatten)]
    api: ApiArgs,
}

pub(super) async fn job(
    command: JobCommand,
    locator: &GatewayLocator,
    settings: impl FnOnce() -> anyhow::Result<Settings>,
) -> anyhow::Result<ExitCode> {
    let kind = ResourceKind::Job;
    match command {
        JobCommand::Submit(args) => submit(args, locator).await,
        JobCommand::Ls(args) => list_jobs(args, locator).await,
        JobCommand::Show(args) => show(kind, args, locator).await,
        JobCommand::FailedItems(args) => failed_items(args, locator).await,
        JobCommand::Logs(args) => job_logs::logs(args, locator).await,
        JobCommand::Rerun(args) => rerun::rerun(args, locator).await,
        JobCommand::Cancel(args) => control(kind, Action::Cancel, args, locator).await,
        JobCommand::Pause(args) => control(kind, Action::Pause, args, locator).await,
        JobCommand::Resume(args) => control(kind, Action::Resume, args, locator).await,
        JobCommand::Prune(args) => prune::prune(args, settings()?).await,
    }
}

pub(super) async fn campaign(command: CampaignCommand, locator: &GatewayLocator) -> anyhow::Result<ExitCode> {
    let kind = ResourceKind::Campaign;
    match command {
        CampaignCommand::Create(args) => create(args, locator).await,
        CampaignCommand::Add(args) => campaign_jobs::add(args, locator).await,
        CampaignCommand::Close(args) => campaign_jobs::close(args, locator).await,
        CampaignCommand::Ls(args) => list_campaigns(args, locator).await,
        CampaignCommand::Show(args) => show(kind, args, locator).await,
        CampaignCommand::Cancel(args) => control(kind, Action::Cancel, args, locator).await,
        CampaignCommand::Pause(args) => control(kind, Action::Pause, args, locator).await,
        CampaignCommand::Resume(args) => control(kind, Action::Resume, args, locator).await,
    }
}

/// As the API takes it; what is left out there, it fills in.
#[derive(Serialize)]
struct NewJob<'a> {
    job_type: &'a str,
    parameters: JsonText,
    max_retries: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a ResourceId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    campaign_id: Option<&'a ResourceId>,
}

/// As the API takes it.
#[derive(Serialize)]
struct NewCampaign<'a> {
    name: &'a str,
    jobs: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a ResourceId>,
}

async fn submit(args: SubmitArgs, locator: &GatewayLocator) -> anyhow::Result<ExitCode> {
    if let Some(file) = &args.file {
        let JobSource::Lines(lines) = job_lines::open(file).await? else {
            return Err(usage(format!("{file} is a JSON array: --file takes a JSON object a line")));
        };
        let api = Api::new(&args.api, locator)?;
        return job_lines::submit(&api, &args.api, args.campaign.as_ref(), lines, args.request_id).await;
    }
    let body = NewJob {
        job_type: args.job_type.as_deref().unwrap_or_default(),
        parameters: JsonText::parse(&args.parameters).map_err(|e| usage(format!("--parameters {e}")))?,
        max_retries: args.max_retries,
        timeout_seconds: args.timeout.map(|limit| limit.as_secs()),
        title: args.title.as_deref(),
        id: args.id.as_ref(),
        campaign_id: args.campaign.as_ref(),
    };
    let api = Api::new(&args.api, locator)?;
    let made = api.post("/api/v1/jobs", &body).await?.told_that(|row: &Row| is_as_asked(row, args.id.as_ref()))?;
    let id = made.is.id;
    if args.wait {
        return follow(&api, ResourceKind::Job, &id, args.api.json, RetryBudget::default()).await;
    }
    if args.api.json {
        out::json(&made.json)
    } else {
        say!("{id}")
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether what was made has the id that was asked for, if one was.
fn is_as_asked(row: &Row, id: Option<&ResourceId>) -> Result<(), String> {
    id.map_or(Ok(()), |id| row.is_of(id))
}

async fn create(args: CreateArgs, locator: &GatewayLocator) -> anyhow::Result<ExitCode> {
    let (jobs, lines) = match &args.jobs {
        None => (Vec::new(), None),
        Some(file) => match job_lines::open(file).await? {
            JobSource::Array(jobs) => (jobs, None),
            JobSource::Lines(lines) => (Vec::new(), Some(lines)),
        },
    };
    let body = NewCampaign { name: &args.name, jobs, id: args.id.as_ref() };
    let api = Api::new(&args.api, locator)?;
    let mut made =
        api.post("/api/v1/campaigns", &body).await?.told_that(|row: &Row| is_as_asked(row, args.id.as_ref()))?;
    if let Some(lines) = lines {
        // Open until its jobs are there.
        let id = made.is.id.clone();
        let stays_open = |error: anyhow::Error| {
            error.context(format!(
                "campaign {id} is open and may have some of its jobs: mend the lines and go on with `wheelhouse campaign \
                 add {id} --jobs FILE` and `wheelhouse campaign close {id}`"
            ))
        };
        job_lines::send(&api, Some(&id), lines, None).await.map_err(stays_open)?;
        let closed = api.post(&format!("/api/v1/campaigns/{id}/close"), &serde_json::json!({})).await;
        made = closed.and_then(|answer| answer.told_that(|row: &Row| row.is_of(&id))).map_err(stays_open)?;
    }
    if args.api.json {
        out::json(&made.json)
    } else {
        say!("{}", made.is.id)
    }
    Ok(ExitCode::SUCCESS)
}

async fn list_jobs(args: ListArgs, locator: &GatewayLocator) -> anyhow::Result<ExitCode> {
    let (query, limit) = args.query()?;
    lists::jobs(&Api::new(&args.api, locator)?, &args.api, &query, limit).await
}

async fn list_campaigns(args: ListCampaignsArgs, locator: &GatewayLocator) -> anyhow::Result<ExitCode> {
    let (query, limit) = args.query()?;
    lists::campaigns(&Api::new(&args.api, locator)?, &args.api, &query, limit).await
}

async fn show(kind: ResourceKind, args: ShowArgs, locator: &GatewayLocator) -> anyhow::Result<ExitCode> {
    let api = Api::new(&args.api, locator)?;
    if args.follow {
        return follow(&api, kind, &args.id, args.api.json, RetryBudget::new()).await;
    }
    let answer = api.get(&format!("/api/v1/{}/{}", kind.plural(), args.id)).await?;
    let mut row = answer.told_that(|row: &Row| row.is_of(&args.id))?.json;
    if args.api.json {
        out::json(&row);
    } else {
        // A job's id once more, and the number on the stream, say nothing.
        row.remove("job_id");
        row.remove("seq");
        let is_lost = row.get("contact_lost_at").is_some();
        let is_over = matches!(row.text("status").as_deref(), Some("completed" | "failed" | "cancelled"));
        match row.text("control").as_deref() {
            Some(_) if is_over => row.remove("control"),
            Some("row") if is_lost => row.set(
                "control",
                "row: nothing is heard of its program, and a command waits until it is back or given up",
            ),
            Some("row") => row.set("control", "row: no worker hosts it, and a command changes its row alone"),
            _ => {}
        }
        out::fields(&row, &LEADING_FIELDS);
    }
    Ok(ExitCode::SUCCESS)
}

/// What a reader of one resource looks for first.
const LEADING_FIELDS: [&str; 10] = [
    "id",
    "title",
    "name",
    "status",
    "desired",
    "error_message",
    "progress_percent",
    "current_item",
    "result",
    "job_type",
];

async fn failed_items(args: FailedItemsArgs, locator: &GatewayLocator) -> anyhow::Result<ExitCode> {
    let path = format!("/api/v1/jobs/{}/failed_items", args.id);
    lists::failed_items(&Api::new(&args.api, locator)?, &args.api, &path).await
}
