//! `wheelhouse schedule …`: commands that are to run later.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::api::{Api, ApiArgs};
use super::resource_of;
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

pub(super) async fn schedule(command: ScheduleCommand) -> anyhow::Result<ExitCode> {
    match command {
        ScheduleCommand::Ls(args) => {
            let body = Api::new(&args.api)?.get("/api/v1/schedules").await?.good()?;
            if args.api.json {
                println!("{body}");
                return Ok(ExitCode::SUCCESS);
            }
            for row in body["schedules"].as_array().into_iter().flatten() {
                let word = |name: &str| row[name].as_str().unwrap_or_default();
                let why = row["reason"].as_str().map(|reason| format!("  ({reason})")).unwrap_or_default();
                let (kind, id) = resource_of(row);
                println!(
                    "{}  {}  {:<6}  {kind} {id}  by {}{why}",
                    word("schedule_id"),
                    word("run_at"),
                    word("action"),
                    word("user_id")
                );
            }
        }
        ScheduleCommand::Rm(args) => {
            let body = Api::new(&args.api)?.delete(&format!("/api/v1/schedules/{}", args.id)).await?.good()?;
            if args.api.json {
                println!("{body}");
            } else {
                let (kind, id) = resource_of(&body);
                println!("{} of {kind} {id} will not run", body["action"].as_str().unwrap_or_default());
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
