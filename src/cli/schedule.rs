//! `wheelhouse schedule …`: commands that are to run later.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::api::rows::{self, ScheduleRow, WithdrawResponse};
use super::api::{Api, ApiArgs, GatewayLocator};
use super::out::{self, say};
use crate::domain::CommandId;

/// What to do with them. `wheelhouse job cancel ID --in 8h` makes one.
#[derive(Debug, Subcommand)]
pub(super) enum ScheduleCommand {
    /// List commands that are to run later, the next one first.
    Ls(LsArgs),
    /// Take one back.
    Rm(RmArgs),
}

/// All of them.
#[derive(Debug, Args)]
pub(super) struct LsArgs {
    #[command(flatten)]
    api: ApiArgs,
}

/// Which one.
#[derive(Debug, Args)]
pub(super) struct RmArgs {
    /// Its id, as `schedule ls` shows it.
    id: CommandId,
    #[command(flatten)]
    api: ApiArgs,
}

pub(super) async fn schedule(command: ScheduleCommand, locator: &GatewayLocator) -> anyhow::Result<ExitCode> {
    match command {
        ScheduleCommand::Ls(args) => {
            let answer = Api::new(&args.api, locator)?.get("/api/v1/schedules").await?;
            let mut page = None;
            let told = answer.told_that(|json: &Value| {
                rows::page::<ScheduleRow>(json, "schedules", false).map(|read| page = Some(read))
            })?;
            if args.api.json {
                out::json(&told.json);
                return Ok(ExitCode::SUCCESS);
            }
            for (row, _) in page.into_iter().flat_map(|page| page.rows) {
                let why = row.reason.map(|reason| format!("  ({reason})")).unwrap_or_default();
                let (id, at) = (row.schedule_id, out::time(&row.run_at));
                say!("{id}  {at}  {:<6}  {}  by {}{why}", row.action, row.target, row.user_id);
            }
        }
        ScheduleCommand::Rm(args) => {
            let answer = Api::new(&args.api, locator)?.delete(&format!("/api/v1/schedules/{}", args.id)).await?;
            let taken = answer.told_that(|taken: &WithdrawResponse| match taken.kind.as_str() {
                "schedule_withdrawn" if taken.schedule_id == args.id => Ok(()),
                other => Err(format!("an answer of type {other:?} about {}", taken.schedule_id)),
            })?;
            if args.api.json {
                out::json(&taken.json);
            } else {
                say!("{} of {} will not run", taken.is.action, taken.is.target);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
