//! `wheelhouse queue …`: commands that wait for a worker, and commands that failed for good.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::api::rows::{self, CommandResponse, DropResponse, FailedRow, WaitingRow};
use super::api::{Api, ApiArgs, GatewayLocator};
use super::lists::{List, print_lines};
use super::out::{self, say, tell};
use crate::domain::{Action, CommandId, ResourceId};

/// What to do with them. Of those that failed the newest 1,000 of the last week are kept.
#[derive(Debug, Subcommand)]
pub(super) enum QueueCommand {
    /// List commands that were accepted and have no result yet, those that have waited longest first.
    Waiting(WaitingArgs),
    /// List commands that failed for good, the newest first; or show one.
    Failed(FailedArgs),
    /// Ask for one again: the same action on the same resource, in your name.
    Requeue(CommandIdArgs),
    /// Forget one.
    Drop(CommandIdArgs),
}

/// Which ones.
#[derive(Debug, Args)]
pub(super) struct WaitingArgs {
    /// Only those of this job or campaign.
    id: Option<ResourceId>,
    #[command(flatten)]
    api: ApiArgs,
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
        QueueCommand::Waiting(args) => waiting(&args, locator).await?,
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

async fn waiting(args: &WaitingArgs, locator: &GatewayLocator) -> anyhow::Result<()> {
    let path = match &args.id {
        // An id has no letter that means something in an address.
        Some(id) => format!("/api/v1/queue/waiting?resource={id}"),
        None => "/api/v1/queue/waiting".to_owned(),
    };
    let answer = Api::new(&args.api, locator)?.get(&path).await?;
    let mut page = None;
    let told = answer
        .told_that(|json: &Value| rows::page::<WaitingRow>(json, "waiting", false).map(|read| page = Some(read)))?;
    if args.api.json {
        out::json(&told.json);
        return Ok(());
    }
    let header = ["ACCEPTED", "STATE", "ACTION", "OF", "BY"].map(str::to_owned).to_vec();
    let rows = page.into_iter().flat_map(|page| page.rows).map(|(row, _)| {
        let why = row.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        vec![
            out::time(&row.accepted_at),
            row.state,
            row.action,
            row.target.to_string(),
            format!("{}{why}", row.user_id),
        ]
    });
    let header = out::is_for_people().then_some(header);
    print_lines(&header.into_iter().chain(rows).collect::<Vec<_>>());
    if told.is["more"] == true {
        tell!("commands of further jobs and campaigns wait: name one of them to see its own");
    }
    Ok(())
}

/// Whether an answer is about the command that was asked for.
fn is_of(answered: CommandId, asked: CommandId) -> Result<(), String> {
    if answered == asked { Ok(()) } else { Err(format!("an answer about {answered}")) }
}
