//! `wheelhouse job …` and `wheelhouse campaign …`: the same operations as on a socket, from a shell.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::api::{Answer, Api, ApiArgs};
use super::campaign_jobs;
use super::follow::{Patience, follow};
use super::people::duration;
use super::standing::standing;
use super::{print_fields, usage};
use crate::domain::{Action, JobStatus, RequestId, ResourceId, ResourceKind};

/// What to do with jobs.
#[derive(Debug, Subcommand)]
pub(super) enum JobCommand {
    /// Submit a job for workers to run.
    #[command(
        after_help = "Example: wheelhouse job submit letters --title Spring --parameters '{\"recipients\":[\"ann@example.com\"]}' --wait"
    )]
    Submit(SubmitArgs),
    /// List jobs, newest first.
    Ls(ListArgs),
    /// Show one job.
    Show(ShowArgs),
    /// List what a job could not do, item by item, and why.
    FailedItems(FailedItemsArgs),
    /// Cancel a job for good.
    Cancel(ControlArgs),
    /// Pause a job.
    Pause(ControlArgs),
    /// Let a paused job go on.
    Resume(ControlArgs),
}

/// What to do with campaigns.
#[derive(Debug, Subcommand)]
pub(super) enum CampaignCommand {
    /// Create a campaign with its jobs, from a JSON file: [{"job_type":"…","parameters":{…}}, …]; without, it stays open.
    Create(CreateArgs),
    /// Add jobs to a campaign, from a file: a JSON array, or a JSON object a line.
    Add(campaign_jobs::AddArgs),
    /// No more jobs are added: the campaign is completed when those it has have ended.
    Close(campaign_jobs::CloseArgs),
    /// List campaigns, newest first.
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
    job_type: String,
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

/// Which jobs.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only jobs in this status.
    #[arg(long)]
    status: Option<String>,
    /// Only this campaign's jobs.
    #[arg(long, value_name = "ID")]
    campaign: Option<ResourceId>,
    /// At most so many.
    #[arg(long, default_value_t = 50)]
    limit: u32,
    #[command(flatten)]
    api: ApiArgs,
}

/// Which campaigns.
#[derive(Debug, Args)]
pub(super) struct ListCampaignsArgs {
    /// At most so many.
    #[arg(long, default_value_t = 50)]
    limit: u32,
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

/// A command.
#[derive(Debug, Args)]
pub(super) struct ControlArgs {
    /// The id.
    id: ResourceId,
    /// Why, for the audit trail.
    #[arg(long)]
    reason: Option<String>,
    /// Your own name for this command: sending the same again is safe.
    #[arg(long)]
    request_id: Option<RequestId>,
    /// Run it then: 2026-01-31T22:00:00Z, or with an offset as in 22:00:00+01:00.
    #[arg(long, value_name = "TIME", conflicts_with_all = ["after", "wait"])]
    at: Option<jiff::Timestamp>,
    /// Run it after so long: 90s, 30m, 8h, 1d.
    #[arg(long = "in", value_name = "TIME", value_parser = duration, conflicts_with = "wait")]
    after: Option<Duration>,
    /// Wait for the result: exit code 0 if it succeeded, 1 if not.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    api: ApiArgs,
}

pub(super) async fn job(command: JobCommand) -> anyhow::Result<ExitCode> {
    let kind = ResourceKind::Job;
    match command {
        JobCommand::Submit(args) => submit(args).await,
        JobCommand::Ls(args) => list_jobs(args).await,
        JobCommand::Show(args) => show(kind, args).await,
        JobCommand::FailedItems(args) => failed_items(args).await,
        JobCommand::Cancel(args) => control(kind, Action::Cancel, args).await,
        JobCommand::Pause(args) => control(kind, Action::Pause, args).await,
        JobCommand::Resume(args) => control(kind, Action::Resume, args).await,
    }
}

pub(super) async fn campaign(command: CampaignCommand) -> anyhow::Result<ExitCode> {
    let kind = ResourceKind::Campaign;
    match command {
        CampaignCommand::Create(args) => create(args).await,
        CampaignCommand::Add(args) => campaign_jobs::add(args).await,
        CampaignCommand::Close(args) => campaign_jobs::close(args).await,
        CampaignCommand::Ls(args) => list(kind, &format!("limit={}", args.limit), &args.api).await,
        CampaignCommand::Show(args) => show(kind, args).await,
        CampaignCommand::Cancel(args) => control(kind, Action::Cancel, args).await,
        CampaignCommand::Pause(args) => control(kind, Action::Pause, args).await,
        CampaignCommand::Resume(args) => control(kind, Action::Resume, args).await,
    }
}

async fn submit(args: SubmitArgs) -> anyhow::Result<ExitCode> {
    let parameters: Value =
        serde_json::from_str(&args.parameters).map_err(|e| usage(format!("--parameters is not JSON: {e}")))?;
    let mut body = json!({"job_type": args.job_type, "parameters": parameters, "max_retries": args.max_retries});
    if let Some(limit) = args.timeout {
        body["timeout_seconds"] = limit.as_secs().into();
    }
    if let Some(title) = &args.title {
        body["title"] = title.as_str().into();
    }
    if let Some(id) = &args.id {
        body["id"] = id.as_str().into();
    }
    if let Some(campaign) = &args.campaign {
        body["campaign_id"] = campaign.as_str().into();
    }
    let api = Api::new(&args.api)?;
    let made = api.post("/api/v1/jobs", &body).await?.good()?;
    let id: ResourceId = made["id"].as_str().unwrap_or_default().parse()?;
    if args.wait {
        return follow(&api, ResourceKind::Job, &id, args.api.json).await;
    }
    if args.api.json {
        println!("{made}")
    } else {
        println!("{id}")
    }
    Ok(ExitCode::SUCCESS)
}

async fn create(args: CreateArgs) -> anyhow::Result<ExitCode> {
    let jobs = args.jobs.as_deref().map(campaign_jobs::jobs_of).transpose()?.unwrap_or_default();
    let mut body = json!({"name": args.name, "jobs": jobs});
    if let Some(id) = &args.id {
        body["id"] = id.as_str().into();
    }
    let made = Api::new(&args.api)?.post("/api/v1/campaigns", &body).await?.good()?;
    if args.api.json {
        println!("{made}")
    } else {
        println!("{}", made["id"].as_str().unwrap_or_default())
    }
    Ok(ExitCode::SUCCESS)
}

async fn list_jobs(args: ListArgs) -> anyhow::Result<ExitCode> {
    let mut query = format!("limit={}", args.limit);
    if let Some(status) = &args.status {
        if JobStatus::from_word(status).is_none() {
            return Err(usage(format!(
                "--status {status}: one of pending, running, paused, completed, failed, cancelled"
            )));
        }
        query.push_str(&format!("&status={status}"));
    }
    if let Some(campaign) = &args.campaign {
        query.push_str(&format!("&campaign_id={campaign}"));
    }
    list(ResourceKind::Job, &query, &args.api).await
}

async fn list(kind: ResourceKind, query: &str, api: &ApiArgs) -> anyhow::Result<ExitCode> {
    let body = Api::new(api)?.get(&format!("/api/v1/{}?{query}", kind.plural())).await?.good()?;
    if api.json {
        println!("{body}");
        return Ok(ExitCode::SUCCESS);
    }
    for row in body[kind.plural()].as_array().into_iter().flatten() {
        println!("{}", one_line(row));
    }
    Ok(ExitCode::SUCCESS)
}

fn one_line(row: &Value) -> String {
    let name = row["title"].as_str().or(row["name"].as_str()).or(row["job_type"].as_str()).unwrap_or_default();
    let percent = row["progress_percent"].as_i64().unwrap_or(0);
    format!("{}  {:<9}  {percent:>3}%  {name}", row["id"].as_str().unwrap_or_default(), standing(row))
}

async fn show(kind: ResourceKind, args: ShowArgs) -> anyhow::Result<ExitCode> {
    let api = Api::new(&args.api)?;
    if args.follow {
        return follow(&api, kind, &args.id, args.api.json).await;
    }
    let mut row = api.get(&format!("/api/v1/{}/{}", kind.plural(), args.id)).await?.good()?;
    if args.api.json {
        println!("{row}");
    } else {
        // A job's id once more, and the number on the stream, say nothing.
        if let Some(fields) = row.as_object_mut() {
            fields.retain(|name, _| name != "job_id" && name != "seq");
        }
        print_fields(&row, &FIRST);
    }
    Ok(ExitCode::SUCCESS)
}

/// What a reader of one resource looks for first.
const FIRST: [&str; 10] = [
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
/// All of them, page by page: with `--json` a page a line, as the API gives it.
async fn failed_items(args: FailedItemsArgs) -> anyhow::Result<ExitCode> {
    let api = Api::new(&args.api)?;
    let path = format!("/api/v1/jobs/{}/failed_items?limit=1000", args.id);
    let mut page = api.get(&path).await?.good()?;
    loop {
        if args.api.json {
            println!("{page}");
        } else {
            for row in page["failed_items"].as_array().into_iter().flatten() {
                let word = |name: &str| row[name].as_str().unwrap_or_default().replace(char::is_control, " ");
                println!("{}  {}", word("item"), word("error"));
            }
        }
        let Some(next) = page["next"].as_str() else { return Ok(ExitCode::SUCCESS) };
        page = api.get(&format!("{path}&after={next}")).await?.good()?;
    }
}

async fn control(kind: ResourceKind, action: Action, args: ControlArgs) -> anyhow::Result<ExitCode> {
    let mut body = json!({});
    if let Some(reason) = &args.reason {
        body["reason"] = reason.as_str().into();
    }
    if let Some(id) = &args.request_id {
        body["request_id"] = id.as_str().into();
    }
    if let Some(at) = args.at {
        body["run_at"] = at.to_string().into();
    }
    if let Some(after) = args.after {
        body["delay_seconds"] = after.as_secs().into();
    }
    let api = Api::new(&args.api)?;
    let path = format!("/api/v1/{}/{}", kind.plural(), args.id);
    let mut answer = api.post(&format!("{path}/{}", action.word()), &body).await?.good()?;
    let command = answer["command_id"].as_str().unwrap_or_default().to_owned();
    let failed = format!("{}_failed", action.word());
    if args.wait {
        let spinner = if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        spinner.enable_steady_tick(Duration::from_millis(100));
        spinner.set_message(format!("waiting until {} {} is {}", kind.word(), args.id, done_word(action)));
        let mut patience = Patience::default();
        // Asked again and again, each time for as long as the gateway is willing to hold the answer.
        while answer["type"] != failed && answer["type"] != format!("{}_succeeded", action.word()) {
            match api.get(&format!("{path}/commands/{command}?wait=30")).await.and_then(Answer::good) {
                Ok(said) => {
                    patience.renew();
                    answer = said;
                }
                Err(error) => patience.bear(error).await?,
            }
        }
        spinner.finish_and_clear();
    }
    if args.api.json {
        println!("{answer}");
    } else if answer["type"] == failed {
        println!("{} {}: {}", kind.word(), args.id, answer["error"].as_str().unwrap_or("it failed"));
    } else if let Some(schedule) = answer["schedule_id"].as_str() {
        let at = answer["run_at"].as_str().unwrap_or_default();
        println!(
            "{} of {} {} will run at {at}; take it back with: wheelhouse schedule rm {schedule}",
            action.word(),
            kind.word(),
            args.id
        );
    } else if let Some(status) = answer["status"].as_str() {
        println!("{} {} is {status}", kind.word(), args.id);
    } else {
        println!("{} of {} {} accepted as {command}", action.word(), kind.word(), args.id);
        if answer["workers_online"] == 0 {
            println!("No worker is online: the command waits for one.");
        }
    }
    Ok(if answer["type"] == failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn done_word(action: Action) -> &'static str {
    match action {
        Action::Cancel => "cancelled",
        Action::Pause => "paused",
        Action::Resume => "resumed",
    }
}
