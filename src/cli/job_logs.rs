//! `wheelhouse job logs`: what a job has printed, and prints.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use super::api::{Api, ApiArgs, GatewayLocator};
use super::out::{self, say, tell};
use crate::domain::{JobStatus, OutputLine, OutputStream, ResourceId};

/// Between two looks for more.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Lines of one answer.
const PAGE: u32 = 1_000;

/// Which job's, and how much of it.
#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    /// The job's id.
    id: ResourceId,
    /// Only the last lines; all that are kept (1,000) where none is given.
    #[arg(short = 'n', long, value_name = "LINES", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    tail: Option<u32>,
    /// Go on until the job has ended.
    #[arg(short, long)]
    follow: bool,
    /// With the time of each line.
    #[arg(short, long)]
    timestamps: bool,
    #[command(flatten)]
    api: ApiArgs,
}

/// An answer of the API.
#[derive(Debug, Deserialize)]
struct Lines {
    job_id: ResourceId,
    lines: Vec<OutputLine>,
    next: i64,
    more: bool,
    left_out: i64,
}

/// The row of a job, as far as it says whether there will be more.
#[derive(Debug, Deserialize)]
struct State {
    id: ResourceId,
    status: JobStatus,
}

pub(super) async fn logs(args: LogsArgs, locator: &GatewayLocator) -> anyhow::Result<ExitCode> {
    let api = Api::new(&args.api, locator)?;
    let path = format!("/api/v1/jobs/{}/output", args.id);
    let is_this = |id: &ResourceId| if *id == args.id { Ok(()) } else { Err(format!("an answer about {id}")) };
    let mut query = args.tail.map_or_else(|| format!("limit={PAGE}"), |lines| format!("tail={lines}"));
    let mut is_first = true;
    loop {
        // Asked before the lines: what was printed before the end is among them.
        let has_ended = match args.follow {
            true => {
                let row = api.get(&format!("/api/v1/jobs/{}", args.id)).await?;
                row.told_that(|row: &State| is_this(&row.id))?.is.status.is_final()
            }
            false => true,
        };
        let answer = api.get(&format!("{path}?{query}")).await?;
        let told = answer.told_that(|lines: &Lines| is_this(&lines.job_id))?;
        let lines = told.is;
        if args.api.json && !args.follow {
            out::json(&told.json);
        } else {
            if lines.left_out > 0 && !(is_first && args.tail.is_none()) {
                tell!("{} lines left out", lines.left_out);
            }
            // A line that still grows is printed once it has ended.
            let is_last = has_ended && !lines.more;
            lines.lines.iter().filter(|line| !line.open || is_last).for_each(|line| print(line, &args));
        }
        is_first = false;
        query = format!("limit={PAGE}&after={}", lines.next);
        if !lines.more {
            if has_ended {
                return Ok(ExitCode::SUCCESS);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        } else if args.api.json && !args.follow {
            // One answer, as the API gives it: its `next` leads on.
            return Ok(ExitCode::SUCCESS);
        }
    }
}

fn print(line: &OutputLine, args: &LogsArgs) {
    if args.api.json {
        return out::json(&serde_json::to_value(line).unwrap_or(Value::Null));
    }
    let time = if args.timestamps { format!("{}  ", line.at) } else { String::new() };
    let from = match line.stream {
        OutputStream::Stdout | OutputStream::Log => "",
        OutputStream::Stderr => "! ",
        OutputStream::Note => "",
    };
    say!("{time}{from}{}", line.text);
}
