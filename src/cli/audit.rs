//! `wheelhouse audit`: who asked for what, and what became of it.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::out::{self, tell};
use super::{audit_verify, usage};
use crate::config::Settings;
use crate::domain::audit::parse_time_or_age;
use crate::domain::{Action, AuditEvent, ResourceId, TenantId, UserId, printable, printable_json};
use crate::store::audit::export;
use crate::store::{AuditFilter, AuditOrder, AuditRow, Page, Store, StoreError};

/// Which rows, or a check of them all.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples: wheelhouse audit --tenant acme --since 24h
          wheelhouse audit --event denied --format csv > denied.csv
          wheelhouse audit verify"
)]
pub(super) struct AuditArgs {
    #[command(subcommand)]
    command: Option<AuditCommand>,
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Check the whole trail: every row changed, missing or put in by hand. Exit code 0 intact, 1 broken, 3 not checked.
    Verify(audit_verify::VerifyArgs),
}

/// Which rows, and how they are written.
#[derive(Debug, Args)]
struct ShowArgs {
    /// Only this tenant's.
    #[arg(long)]
    tenant: Option<TenantId>,
    /// Only this job's or campaign's.
    #[arg(long, value_name = "ID")]
    resource: Option<ResourceId>,
    /// Only this user's.
    #[arg(long)]
    user: Option<UserId>,
    /// Only this: cancel, pause or resume.
    #[arg(long, value_parser = action)]
    action: Option<Action>,
    /// Only this: accepted, denied, rate_limited, scheduled, withdrawn, succeeded, failed or expired.
    #[arg(long)]
    event: Option<AuditEvent>,
    /// Not before: 2026-01-31T12:00:00Z, or how long ago: 90s, 15m, 24h, 7d.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Before: the same.
    #[arg(long, value_name = "TIME", conflicts_with = "follow")]
    until: Option<String>,
    /// Show what comes from now on; with --since first what has come since then.
    #[arg(long)]
    follow: bool,
    /// How rows are written.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// The same as --format jsonl.
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One line a row, for people.
    Table,
    /// With a header; a text that a spreadsheet would take for a formula gets a ' in front.
    Csv,
    /// One JSON object a line.
    Jsonl,
}

fn action(text: &str) -> Result<Action, String> {
    Action::parse(text).ok_or_else(|| "an action is one of cancel, pause, resume".to_owned())
}

/// Between two looks with --follow.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

pub(super) async fn audit(args: AuditArgs, settings: Settings) -> anyhow::Result<ExitCode> {
    match args.command {
        Some(AuditCommand::Verify(verify)) => audit_verify::verify(verify, settings).await,
        None => match show(args.show, settings).await {
            // Whoever reads has seen enough: `wheelhouse audit | head`.
            Err(error) if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) => {
                Ok(ExitCode::SUCCESS)
            }
            Err(error) if error.is::<io::Error>() => Err(error.context("cannot write to standard output")),
            shown => shown,
        },
    }
}

async fn show(args: ShowArgs, settings: Settings) -> anyhow::Result<ExitCode> {
    let now = jiff::Timestamp::now().as_millisecond();
    let time = |name: &str, text: Option<String>| {
        text.map(|text| parse_time_or_age(&text, now).map_err(|problem| usage(format!("{name} {text:?}: {problem}"))))
            .transpose()
    };
    let mut filter = AuditFilter {
        tenant: args.tenant,
        resource: args.resource,
        user: args.user,
        action: args.action,
        event: args.event,
        since: time("--since", args.since)?,
        until: time("--until", args.until)?,
        order: AuditOrder::OldestFirst,
        after: None,
        limit: 1_000,
    };
    let format = if args.json { Format::Jsonl } else { args.format };
    let store = Store::open_migrated(&settings.database).await?;
    if args.follow && filter.since.is_none() {
        filter.after = Some(store.audit_newest().await?.to_string());
        tell!("showing what comes from now on (--since 1h: also what came in the last hour)");
    }
    if format == Format::Csv {
        write(&export::csv_header())?;
    }
    loop {
        let (page, seen) = match next(&store, &filter).await {
            Err(error @ StoreError::Unavailable(_)) if args.follow => {
                tell!("{error}; trying again");
                tokio::time::sleep(POLL_INTERVAL).await;
                continue;
            }
            read => read?,
        };
        match format {
            Format::Table => write(&page.items.iter().map(line).collect::<String>())?,
            Format::Csv => out::export(&export::csv(&page.items), || shown_csv(&page.items))?,
            Format::Jsonl => {
                let text = export::jsonl(&page.items);
                out::export(&text, || printable_json(&text).into_owned())?;
            }
        }
        filter.after = Some(page.next.clone().unwrap_or_else(|| seen.to_string()));
        if page.next.is_some() {
            continue;
        }
        if !args.follow {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// The next page, and up to which row everything has been seen once that was the last one: the next look need not
/// go through all the rows again that were not asked for.
async fn next(store: &Store, filter: &AuditFilter) -> Result<(Page<AuditRow>, i64), StoreError> {
    let newest = store.audit_newest().await?;
    let page = store.audit(filter).await?;
    let last = page.items.last().map_or(0, |row| row.id);
    let after = filter.after.as_deref().and_then(|after| after.parse().ok()).unwrap_or(0);
    Ok((page, newest.max(last).max(after)))
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn line(row: &AuditRow) -> String {
    let e = &row.entry;
    let mut text = format!(
        "{}  {:<12}  {} {} {} by {} in {}",
        out::time(&row.time),
        e.event,
        e.action,
        e.resource_kind,
        e.resource_id,
        e.user_id,
        e.tenant_id
    );
    if let Some(outcome) = &e.outcome {
        text.push_str(&format!(": {outcome}"));
    }
    if let Some(refusals) = e.refusals {
        let time = |ms: Option<i64>| ms.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
        let (first, last) = (time(e.first_at), time(e.last_at));
        text.push_str(&format!(": the first of {refusals} from {first:.3} to {last:.3}"));
    }
    if let Some(run_at) = e.run_at.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()) {
        text.push_str(&format!(", to run at {run_at:.3}"));
    }
    if let Some(latency) = e.latency_ms {
        text.push_str(&format!(" after {latency} ms"));
    }
    if let Some(worker) = &e.worker_id {
        text.push_str(&format!(" on {worker}"));
    }
    if let Some(address) = &e.address {
        text.push_str(&format!(" from {address}"));
    }
    if let Some(reason) = &e.reason {
        text.push_str(&format!(" (reason: {reason:?})"));
    }
    // Nothing that somebody sent may do things to the terminal of whoever reads this.
    printable(&text).into_owned() + "\n"
}

/// Rows as CSV for a terminal: a row a line.
fn shown_csv(rows: &[AuditRow]) -> String {
    let lines = rows.iter().map(|row| export::csv(std::slice::from_ref(row)));
    lines.map(|line| printable(line.trim_end_matches('\n')).into_owned() + "\n").collect()
}
