//! `wheelhouse job rerun`: one job again, or many.

use std::process::ExitCode;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::api::rows::Row;
use super::api::{Api, ApiArgs, GatewayLocator};
use super::follow::{RetryBudget, follow};
use super::out::{self, say, tell};
use super::usage::usage;
use crate::domain::{JobStatus, ResourceId, ResourceKind};

/// Which jobs.
#[derive(Debug, Args)]
#[command(after_help = "\
A rerun is a new job with the same parameters, linked to the one that it was made from; that one stays as it ended. \
It belongs to the same campaign, if that still takes jobs.

Examples:
  wheelhouse job rerun nightly-7 --wait
  wheelhouse job rerun --campaign spring --dry-run
  wheelhouse job rerun --campaign spring --type mail")]
pub(super) struct RerunArgs {
    /// The job.
    #[arg(required_unless_present = "campaign", conflicts_with_all = ["campaign", "status", "job_type", "dry_run"])]
    id: Option<ResourceId>,
    /// All failed jobs of this campaign that have not been run again, 1,000 at most, the newest first.
    #[arg(long, value_name = "ID")]
    campaign: Option<ResourceId>,
    /// With --campaign: those in these statuses instead: failed,cancelled
    #[arg(long, requires = "campaign")]
    status: Option<String>,
    /// With --campaign: only jobs of this type.
    #[arg(long = "type", value_name = "TYPE", requires = "campaign")]
    job_type: Option<String>,
    /// With --campaign: only say which, and change nothing.
    #[arg(long, requires = "campaign")]
    dry_run: bool,
    /// A name for this request: sent again, it makes no second job.
    #[arg(long, value_name = "ID")]
    request_id: Option<ResourceId>,
    /// Why, for the audit trail.
    #[arg(long)]
    reason: Option<String>,
    /// Wait until the new job has ended; exit code 0 if it completed.
    #[arg(long, conflicts_with = "campaign")]
    wait: bool,
    #[command(flatten)]
    api: ApiArgs,
}

/// As the API takes it.
#[derive(Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<Filter<'a>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a ResourceId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

#[derive(Serialize)]
struct Filter<'a> {
    campaign_id: &'a ResourceId,
    status: Vec<JobStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_type: Option<&'a str>,
}

/// What became of many.
#[derive(Debug, Deserialize)]
struct Many {
    accepted: u64,
    refused: u64,
    more: bool,
    items: Vec<Item>,
}

#[derive(Debug, Deserialize)]
struct Item {
    job_id: ResourceId,
    rerun: Option<ResourceId>,
    message: Option<String>,
}

pub(super) async fn rerun(args: RerunArgs, locator: &GatewayLocator) -> anyhow::Result<ExitCode> {
    let api = Api::new(&args.api, locator)?;
    let filter = args.campaign.as_ref().map(|campaign| filter(campaign, &args)).transpose()?;
    let (request_id, reason) = (args.request_id.as_ref(), args.reason.as_deref());
    let body = Body { filter, dry_run: args.dry_run, request_id, reason };
    if let Some(id) = &args.id {
        let is_of = |row: &Row| if row.id == *id { Err("the old job".to_owned()) } else { Ok(()) };
        let made = api.post(&format!("/api/v1/jobs/{id}/rerun"), &body).await?.told_that(is_of)?;
        let new = made.is.id;
        if args.wait {
            return follow(&api, ResourceKind::Job, &new, args.api.json, RetryBudget::default()).await;
        }
        if args.api.json {
            out::json(&made.json);
        } else {
            say!("{new}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let told = api.post("/api/v1/jobs/rerun", &body).await?.told_that(|_: &Many| Ok(()))?;
    let many = told.is;
    if args.api.json {
        out::json(&told.json);
    } else {
        for item in &many.items {
            match (&item.rerun, &item.message) {
                (Some(new), _) => say!("{}  {new}", item.job_id),
                (None, Some(message)) => tell!("{}: {message}", item.job_id),
                (None, None) => say!("{}", item.job_id),
            }
        }
        if many.more {
            tell!("there are more: ask again for them");
        }
    }
    Ok(if many.refused > 0 || (many.accepted == 0 && !args.dry_run) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn filter<'a>(campaign: &'a ResourceId, args: &'a RerunArgs) -> anyhow::Result<Filter<'a>> {
    let read = |word: &str| {
        let status = JobStatus::parse(word.trim()).filter(|status| status.is_final());
        status.ok_or_else(|| usage(format!("--status {word}: one of completed, failed, cancelled")))
    };
    let status = match &args.status {
        Some(words) => words.split(',').map(read).collect::<Result<Vec<_>, _>>()?,
        None => vec![JobStatus::Failed],
    };
    Ok(Filter { campaign_id: campaign, status, job_type: args.job_type.as_deref() })
}
