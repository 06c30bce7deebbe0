//! `wheelhouse batch …`: one action on many jobs or campaigns.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::api::rows::{Batch, BatchItem, BatchState};
use super::api::{Api, ApiArgs, GatewayLocator, LONG_POLL, Told};
use super::follow::Workers;
use super::out::{self, say, tell};
use super::usage::usage;
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
    /// Do not ask before a filter cancels. Where nobody sits at a terminal, nobody is asked.
    #[arg(long, short)]
    yes: bool,
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

pub(super) async fn batch(command: BatchCommand, locator: &GatewayLocator) -> anyhow::Result<ExitCode> {
    let (action, args) = match command {
        BatchCommand::Cancel(args) => (Action::Cancel, args),
        BatchCommand::Pause(args) => (Action::Pause, args),
        BatchCommand::Resume(args) => (Action::Resume, args),
    };
    let body = body(action, &args)?;
    let api = Api::new(&args.api, locator)?;
    if is_to_be_asked(action, &args) && !ask(&api, &body, action).await? {
        tell!("nothing was done");
        return Ok(ExitCode::FAILURE);
    }
    let said = if args.wait { wait(&api, &body, action).await? } else { send(&api, "", &body, action).await? };
    if args.dry_run != matches!(said.is.state, BatchState::Preview { .. }) {
        return Err(api.no_gateway("it took a batch for a dry run, or the reverse"));
    }
    if args.api.json {
        out::json(&said.json);
    } else {
        print(&said.is, action);
    }
    let failed = if let BatchState::Completed { failed, .. } = said.is.state { failed } else { 0 };
    Ok(if failed == 0 && said.is.refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A cancel is for good, and a filter may hit more than whoever typed it thinks of: a person is asked first.
fn is_to_be_asked(action: Action, args: &BatchArgs) -> bool {
    let by_filter = args.jobs.is_none() && args.campaigns.is_none();
    action == Action::Cancel && by_filter && !args.yes && !args.dry_run && out::can_ask()
}

/// Says how many it would hit, and asks.
async fn ask(api: &Api, body: &Value, action: Action) -> anyhow::Result<bool> {
    let mut preview = body.clone();
    preview["dry_run"] = true.into();
    let said = send(api, "", &preview, action).await?;
    let BatchState::Preview { accepted, .. } = said.is.state else {
        return Err(api.no_gateway("it took a dry run for a batch"));
    };
    let more = if said.is.more { " (and there are more that fit)" } else { "" };
    let jobs = if accepted == 1 { "job" } else { "jobs" };
    Ok(out::confirmed(format_args!("{} {accepted} {jobs}{more} for good?", action.as_str()))?)
}

async fn send(api: &Api, query: &str, body: &Value, action: Action) -> anyhow::Result<Told<Batch>> {
    let answer = api.post(&format!("/api/v1/batch{query}"), body).await?;
    answer.told_that(|batch: &Batch| match batch.action == action.as_str() {
        true => Ok(()),
        false => Err(format!("an answer about {:?}", batch.action)),
    })
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
    body["type"] = format!("{}_{}", action.as_str(), kind.plural()).into();
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
    let names = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|name| !name.is_empty());
    let mut ids: Vec<String> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for name in names {
        let id: ResourceId = name.parse().map_err(|error| usage(format!("{flag} {name:?}: {error}")))?;
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
async fn wait(api: &Api, body: &Value, action: Action) -> anyhow::Result<Told<Batch>> {
    let spinner = if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner.set_message("waiting for all results");
    // At first without waiting: whether a gateway is there at all is known at once.
    let mut said = send(api, "", body, action).await?;
    let mut workers = Workers::default();
    while let BatchState::Requested { workers_online, .. } = said.is.state {
        workers.record(workers_online, |line| spinner.suspend(line));
        said = send(api, &format!("?wait={}", LONG_POLL.as_secs()), body, action).await?;
    }
    spinner.finish_and_clear();
    Ok(said)
}

/// Whether its row alone was or is changed. What was refused or failed changed nothing.
fn on_row(item: &BatchItem) -> bool {
    item.control.as_deref() == Some("row") && item.error.is_none()
}

fn print(said: &Batch, action: Action) {
    for item in &said.items {
        match (item.message.as_ref().or(item.error.as_ref()), &item.status) {
            (Some(why), _) => say!("{}: {why}", item.target),
            (None, Some(status)) if on_row(item) => say!("{} is {status}, in its row alone", item.target),
            (None, Some(status)) => say!("{} is {status}", item.target),
            (None, None) => say!("{}", item.target),
        }
    }
    let (verb, total, refused) = (action.as_str(), said.total, said.refused);
    match said.state {
        BatchState::Preview { accepted, cost } => {
            say!("{verb} would hit {accepted} of {total}, for {cost} of your budget");
        }
        BatchState::Completed { succeeded, failed } => {
            say!("{verb} of {total}: {succeeded} succeeded, {failed} failed, {refused} refused");
        }
        BatchState::Requested { batch_id, accepted, workers_online } => {
            say!("{verb} of {total}: {accepted} accepted, {refused} refused, as {batch_id}");
            if workers_online == 0 {
                say!("No worker is online: the commands wait for one.");
            }
        }
    }
    let rows = said.items.iter().filter(|item| on_row(item)).count();
    if rows > 0 {
        say!(
            "No worker hosts {rows} of these jobs: of those the rows alone change. \
             Other programs that do their work go on unless they look there."
        );
    }
    if said.more {
        say!("There are more that fit: run it again, with a --status that these have left.");
    }
}
