//! `wheelhouse audit`: who asked for what, and what became of it.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::config::Settings;
use crate::domain::{ResourceId, TenantId};
use crate::store::{AuditFilter, AuditRow, Store};

/// Which rows.
#[derive(Debug, Args)]
pub(super) struct AuditArgs {
    /// Only this tenant's.
    #[arg(long)]
    tenant: Option<TenantId>,
    /// Only this job's or campaign's.
    #[arg(long, value_name = "ID")]
    resource: Option<ResourceId>,
    /// Wait for more.
    #[arg(long)]
    follow: bool,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Between two looks with --follow.
const LOOK: Duration = Duration::from_millis(500);

pub(super) async fn audit(args: AuditArgs, settings: Settings) -> anyhow::Result<ExitCode> {
    let store = Store::open_migrated(&settings.database).await?;
    let mut filter = AuditFilter { tenant: args.tenant, resource: args.resource, after: None, limit: 1_000 };
    loop {
        let page = store.audit(&filter).await?;
        for row in &page.items {
            if args.json {
                println!("{}", serde_json::to_string(row)?);
            } else {
                println!("{}", line(row));
            }
        }
        if let Some(last) = page.items.last() {
            filter.after = Some(last.id.to_string());
        }
        if page.next.is_some() {
            continue;
        }
        if !args.follow {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn line(row: &AuditRow) -> String {
    let e = &row.entry;
    let mut text = format!(
        "{}  {:<12}  {} {} {} by {} in {}",
        row.time, e.event, e.action, e.resource_kind, e.resource_id, e.user_id, e.tenant_id
    );
    if let Some(outcome) = &e.outcome {
        text.push_str(&format!(": {outcome}"));
    }
    if let Some(latency) = e.latency_ms {
        text.push_str(&format!(" after {latency} ms"));
    }
    if let Some(reason) = &e.reason {
        text.push_str(&format!(" (reason: {reason:?})"));
    }
    text
}
