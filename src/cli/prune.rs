//! `wheelhouse job prune`: deletes jobs that ended long ago.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use super::access::duration;
use super::out::{self, say, tell};
use super::usage::usage;
use crate::broker::Broker;
use crate::config::Settings;
use crate::store::{PrunedJobs, Store};
use crate::worker::clocks;

/// How old.
#[derive(Debug, Args)]
#[command(
    after_help = "Works on the database itself, for all tenants, and asks Redis for the time. Campaigns go with the last of their jobs; the audit trail stays.\n\
                  Example: wheelhouse job prune --older-than 30d --dry-run"
)]
pub(super) struct PruneArgs {
    /// Delete what ended longer ago than this: 90d, 12h; jobs.keep_days where it is not given.
    #[arg(long, value_name = "TIME", value_parser = age)]
    older_than: Option<Duration>,
    /// Only say what would be deleted.
    #[arg(long)]
    dry_run: bool,
    /// Ask nothing: at a terminal it says how many it would delete, and asks.
    #[arg(long)]
    yes: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) async fn prune(args: PruneArgs, settings: Settings) -> anyhow::Result<ExitCode> {
    let Some(keep) = args.older_than.or(settings.jobs.keep) else {
        return Err(usage("say how old with --older-than 30d: jobs.keep_days is not set, so jobs are kept for ever"));
    };
    let store = Store::open_migrated(&settings.database).await?;
    // A clock that runs ahead must not delete what is young, and SQLite has none of its own to compare with.
    let broker =
        Broker::connect(&settings.redis).await.context("Redis is asked what time it is: nothing was deleted")?;
    let (here, redis) = clocks::agreed(&broker, &store).await?;
    let before = store.ended_before(here.min(redis), keep).await?;
    if !args.dry_run && !args.yes && out::can_ask() {
        let PrunedJobs { jobs, campaigns } = store.prunable_jobs(before).await?;
        if !out::confirmed(format_args!("delete {jobs} jobs and {campaigns} campaigns of all tenants for good?"))? {
            tell!("nothing was done");
            return Ok(ExitCode::FAILURE);
        }
    }
    let pruned =
        if args.dry_run { store.prunable_jobs(before).await? } else { store.prune_jobs(before, || false).await? };
    let time = jiff::Timestamp::from_millisecond(before).unwrap_or_default();
    if args.json {
        out::json(&serde_json::json!({
            "jobs": pruned.jobs, "campaigns": pruned.campaigns, "ended_before": time.to_string(), "dry_run": args.dry_run
        }));
    } else {
        let done = if args.dry_run { "would be deleted" } else { "deleted" };
        say!("{} jobs and {} campaigns that ended before {time} {done}", pruned.jobs, pruned.campaigns);
    }
    Ok(ExitCode::SUCCESS)
}

/// Always with its unit: a plain 30 is meant as days, like `jobs.keep_days`, and elsewhere a plain number is seconds.
fn age(text: &str) -> Result<Duration, String> {
    if text.ends_with(|c: char| c.is_ascii_digit()) {
        return Err("write the unit too, like 30d for days (or s, m, h)".to_owned());
    }
    duration(text)
}
