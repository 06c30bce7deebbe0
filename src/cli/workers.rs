//! `wheelhouse workers`: the live workers, and what they have to do.

use std::process::ExitCode;

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use super::api::rows;
use super::api::{Api, ApiArgs, GatewayLocator};
use super::lists::{Cells, print_lines};
use super::out;

/// Workers alive for the tenant.
#[derive(Debug, Args)]
pub(super) struct WorkersArgs {
    #[command(flatten)]
    api: ApiArgs,
}

/// One of them, as the API gives it. What it has not said is null.
#[derive(Debug, Deserialize)]
struct WorkerRow {
    id: String,
    name: Option<String>,
    host: Option<String>,
    pid: Option<i64>,
    version: Option<String>,
    started_at: Option<String>,
    job_types: Option<Vec<String>>,
    slots: Option<i64>,
    running: i64,
    paused: i64,
    attached: i64,
    last_heartbeat: Option<String>,
}

pub(super) async fn workers(args: WorkersArgs, locator: &GatewayLocator) -> anyhow::Result<ExitCode> {
    let answer = Api::new(&args.api, locator)?.get("/api/v1/workers").await?;
    let mut page = None;
    let told = answer
        .told_that(|json: &Value| rows::page::<WorkerRow>(json, "workers", false).map(|read| page = Some(read)))?;
    if args.api.json {
        out::json(&told.json);
        return Ok(ExitCode::SUCCESS);
    }
    let header =
        ["NAME", "HOST", "PID", "VERSION", "SINCE", "HEARTBEAT", "RUNNING", "PAUSED", "ATTACHED", "TYPES", "ID"];
    let mut lines: Vec<Cells> = Vec::new();
    if out::is_for_people() {
        lines.push(header.iter().map(|name| (*name).to_owned()).collect());
    }
    lines.extend(page.into_iter().flat_map(|page| page.rows).map(|(row, _)| cells(row)));
    print_lines(&lines);
    Ok(ExitCode::SUCCESS)
}

fn cells(row: WorkerRow) -> Cells {
    let known = |text: Option<String>| text.filter(|text| !text.is_empty()).unwrap_or_else(|| "-".to_owned());
    let time = |text: Option<String>| text.map_or_else(|| "-".to_owned(), |text| out::time(&text));
    let slots = row.slots.map_or_else(|| "?".to_owned(), |slots| slots.to_string());
    vec![
        known(row.name),
        known(row.host),
        known(row.pid.map(|pid| pid.to_string())),
        known(row.version),
        time(row.started_at),
        time(row.last_heartbeat),
        format!("{}/{slots}", row.running),
        row.paused.to_string(),
        row.attached.to_string(),
        known(row.job_types.map(|types| types.join(","))),
        row.id,
    ]
}
