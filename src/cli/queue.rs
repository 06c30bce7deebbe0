//! `wheelhouse queue …`: commands that failed for good.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::api::rows::{CommandResponse, DropResponse, FailedRow};
use super::api::{Api, ApiArgs, GatewayLocator};
use super::lists::List;
use super::out::{self, say};
use crate::domain::{Action, CommandId};

/// What to do with them. The newest 1,000 of the last week are kept.
#[derive(Debug, Subcommand)]
pub(super) enum QueueCommand {
    /// List commands that failed for good, the newest first; or show one.
    Failed(FailedArgs),
    /// Ask for one again: the same action on the same resource, in your name.
    Requeue(CommandIdArgs),
    /// Forget one.
    Drop(CommandIdArgs),
}

/// Which ones.
#[derive(Debug, Args)]
pub(super) struct FailedArgs {
    /// Only this one, with all there is to know.
    id: Option<CommandId>,
    /// At most so many; all where none is given, but with --json the first 50 (`next` in it leads to the others).
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    #[command(flatten)]
    api: ApiArgs,
}

/// Which one.
#[derive(Debug, Args)]
pub(super) struct CommandIdArgs {
    /// Its id, as `queue failed` shows it.
    id: CommandId,
    #[command(flatten)]
    api: ApiArgs,
}

pub(super) async fn queue(command: QueueCommand, locator: &GatewayLocator) -> anyhow::Result<ExitCode> {
    match command {
        QueueCommand::Failed(FailedArgs { id: Some(id), api, .. }) => {
            let answer = Api::new(&api, locator)?.get(&format!("/api/v1/queue/failed/{id}")).await?;
            let row = answer.told_that(|row: &FailedRow| is_of(row.command_id, id))?.json;
            if api.json {
                out::json(&row);
            } else {
                out::fields(&row, &[]);
            }
        }
        QueueCommand::Failed(args) => {
            let list = List { path: "/api/v1/queue/failed", name: "failed", limit: args.limit };
            let header = ["COMMAND", "FAILED", "ACTION", "OF", "WHY"];
            let api = Api::new(&args.api, locator)?;
            return list
                .print(&api, &args.api, &header, |row: &FailedRow, _| {
                    let (at, why) = (out::time(&row.failed_at), format!("by {}: {}", row.user_id, row.error));
                    vec![row.command_id.to_string(), at, format!("{:<6}", row.action), row.target.to_string(), why]
                })
                .await;
        }
        QueueCommand::Requeue(CommandIdArgs { id, api }) => {
            let answer =
                Api::new(&api, locator)?.post(&format!("/api/v1/queue/failed/{id}/requeue"), &json!({})).await?;
            let said = answer.told_that(|said: &CommandResponse| {
                let known = Action::ALL.into_iter().any(|action| said.step(action).is_ok());
                if known { Ok(()) } else { Err(format!("an answer of type {:?}", said.kind)) }
            })?;
            if api.json {
                out::json(&said.json);
            } else {
                say!("accepted again as {}", said.is.command_id);
            }
        }
        QueueCommand::Drop(CommandIdArgs { id, api }) => {
            let answer = Api::new(&api, locator)?.delete(&format!("/api/v1/queue/failed/{id}")).await?;
            let gone = answer.told_that(|gone: &DropResponse| is_of(gone.dropped, id))?;
            if api.json {
                out::json(&gone.json);
            } else {
                say!("{id} is forgotten");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether an answer is about the command that was asked for.
fn is_of(answered: CommandId, asked: CommandId) -> Result<(), String> {
    if answered == asked { Ok(()) } else { Err(format!("an answer about {answered}")) }
}
