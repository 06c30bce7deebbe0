//! `wheelhouse batch …`: one action on many jobs or campaigns.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::api::{Api, ApiArgs};
use super::{resource_of, usage};
use crate::domain::{Action, RequestId, ResourceId, ResourceKind};
use crate::protocol::batch::MAX_BATCH;

/// What to do with them.
#[derive(Debug, Subcommand)]
pub(super) enum BatchCommand {
    /// End them for good.
    Cancel(BatchArgs),
    /// Stop them until resumed.
    Pause(BatchArgs),
    /// Let them go on.
    Resume(BatchArgs),
}

/// Which ones: by name, or by what they are.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wheelhouse batch cancel --jobs j1,j2,j3 --reason 'wrong file'
  wheelhouse batch pause --status running --campaign c1 --dry-run     what it would hit
  wheelhouse batch pause --status running --campaign c1 --wait        and until all have stopped
  wheelhouse batch resume --campaigns c1,c2
  grep failed list.txt | wheelhouse batch cancel --jobs -             ids from standard input

A batch has 1,000 at most, and uses one command of your budget for each 100 or part of 100. A filter takes the newest
1,000 jobs that fit and have not ended, and says so if there are more: run it again, with a --status that the first ones
have left.

Exit code: 0 if all were accepted (with --wait: carried out), 1 if some were not, 2 for a wrong command line.")]
pub(super) struct BatchArgs {
    /// These jobs, separated by commas; - reads them from standard input, separated by commas, spaces or lines.
    #[arg(long, value_name = "IDS", conflicts_with_all = ["campaigns", "status", "campaign", "job_type", "all"])]
    jobs: Option<String>,
    /// These campaigns, in the same way.
    #[arg(long, value_name = "IDS", conflicts_with_all = ["status", "campaign", "job_type", "all"])]
    campaigns: Option<String>,
    /// Jobs in this status: pending, running or paused; several with commas.
    #[arg(long, value_name = "STATUS", value_delimiter = ',')]
    status: Vec<String>,
    /// Jobs of this campaign.
    #[arg(long, value_name = "ID")]
    campaign: Option<ResourceId>,
    /// Jobs of this type.
    #[arg(long, value_name = "TYPE")]
    job_type: Option<String>,
    /// Every job that has not ended.
    #[arg(long, conflicts_with_all = ["status", "campaign", "job_type"])]
    all: bool,
    /// Only say what it would hit. Uses no budget.
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
    /// Why, for the audit trail.
    #[arg(long)]
    reason: Option<String>,
    /// Your own name for this batch: sending the same again is safe.
    #[arg(long)]
    request_id: Option<RequestId>,
    /// Wait for all results: exit code 0 if all succeeded.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    api: ApiArgs,
}

pub(super) async fn batch(command: BatchCommand) -> anyhow::Result<ExitCode> {
    let (action, args) = match command {
        BatchCommand::Cancel(args) => (Action::Cancel, args),
        BatchCommand::Pause(args) => (Action::Pause, args),
        BatchCommand::Resume(args) => (Action::Resume, args),
    };
    let body = body(action, &args)?;
    let api = Api::new(&args.api)?;
    let answer = if args.wait { wait(&api, &body).await? } else { api.post("/api/v1/batch", &body).await?.good()? };
    if args.api.json {
        println!("{answer}");
    } else {
        print(&answer, action);
    }
    let none = |name: &str| answer[name].as_u64().unwrap_or(0) == 0;
    let all_well = none("failed") && none("refused");
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn body(action: Action, args: &BatchArgs) -> anyhow::Result<Value> {
    let mut kind = ResourceKind::Job;
    let mut body = json!({});
    if let Some(text) = &args.jobs {
        body["job_ids"] = ids("--jobs", text)?.into();
    } else if let Some(text) = &args.campaigns {
        kind = ResourceKind::Campaign;
        body["campaign_ids"] = ids("--campaigns", text)?.into();
    } else {
        let mut filter = json!({});
        if !args.status.is_empty() {
            filter["status"] = args.status.clone().into();
        }
        if let Some(campaign) = &args.campaign {
            filter["campaign_id"] = campaign.as_str().into();
        }
        if let Some(job_type) = &args.job_type {
            filter["job_type"] = job_type.as_str().into();
        }
        if filter == json!({}) && !args.all {
            return Err(usage("which ones? Give --jobs, --campaigns, --status, --campaign, --job-type or --all"));
        }
        body["filter"] = filter;
    }
    body["type"] = format!("{}_{}", action.word(), kind.plural()).into();
    if args.dry_run {
        body["dry_run"] = true.into();
    }
    if let Some(reason) = &args.reason {
        body["reason"] = reason.as_str().into();
    }
    match &args.request_id {
        Some(id) => body["request_id"] = id.as_str().into(),
        // It is asked again and again for its results.
        None if args.wait => body["request_id"] = format!("cli-{}", uuid::Uuid::now_v7().simple()).into(),
        None => {}
    }
    Ok(body)
}

fn ids(flag: &str, text: &str) -> anyhow::Result<Vec<String>> {
    let text = if text == "-" { std::io::read_to_string(std::io::stdin())? } else { text.to_owned() };
    let words = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty());
    let mut ids: Vec<String> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for word in words {
        let id: ResourceId = word.parse().map_err(|error| usage(format!("{flag} {word:?}: {error}")))?;
        if seen.insert(id.clone()) {
            ids.push(id.to_string());
        }
    }
    match ids.len() {
        0 => Err(usage(format!("{flag} names nothing"))),
        n if n > MAX_BATCH => Err(usage(format!("{flag} names {n}: a batch has {MAX_BATCH} at most, send several"))),
        _ => Ok(ids),
    }
}

/// Asks the same again until every result is there: the same request is the same batch, and uses no more budget.
async fn wait(api: &Api, body: &Value) -> anyhow::Result<Value> {
    let spinner = if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner.set_message("waiting for all results");
    loop {
        let answer = api.post("/api/v1/batch?wait=30", body).await?.good()?;
        if answer["type"] == "batch_completed" {
            spinner.finish_and_clear();
            return Ok(answer);
        }
        if answer["workers_online"] == 0 {
            spinner.set_message("waiting for a worker: none is online");
        }
    }
}

fn print(answer: &Value, action: Action) {
    let number = |name: &str| answer[name].as_u64().unwrap_or(0);
    for item in answer["items"].as_array().into_iter().flatten() {
        let (kind, id) = resource_of(item);
        let text = |name: &str| item[name].as_str();
        match (text("message").or(text("error")), text("status")) {
            (Some(why), _) => println!("{kind} {id}: {why}"),
            (None, Some(status)) => println!("{kind} {id} is {status}"),
            (None, None) => println!("{kind} {id}"),
        }
    }
    let (word, total) = (action.word(), number("total"));
    match answer["type"].as_str() {
        Some("batch_preview") => {
            println!("{word} would hit {} of {total}, for {} of your budget", number("accepted"), number("cost"));
        }
        Some("batch_completed") => {
            let (succeeded, failed, refused) = (number("succeeded"), number("failed"), number("refused"));
            println!("{word} of {total}: {succeeded} succeeded, {failed} failed, {refused} refused");
        }
        _ => {
            let batch = answer["batch_id"].as_str().unwrap_or_default();
            println!("{word} of {total}: {} accepted, {} refused, as {batch}", number("accepted"), number("refused"));
            if answer["workers_online"] == 0 {
                println!("No worker is online: the commands wait for one.");
            }
        }
    }
    if answer["more"] == true {
        println!("There are more that fit: run it again, with a --status that these have left.");
    }
}
