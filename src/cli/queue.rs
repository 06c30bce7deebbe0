//! `wheelhouse queue …`: commands that failed for good.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::api::{Api, ApiArgs};
use super::resource_of;
use crate::domain::CommandId;

/// What to do with them. The newest 1,000 of the last week are kept.
#[derive(Debug, Subcommand)]
pub(super) enum QueueCommand {
    /// List commands that failed for good, the newest first; or show one.
    Failed(FailedArgs),
    /// Ask for one again: the same action on the same resource, in your name.
    Requeue(OneArgs),
    /// Forget one.
    Drop(OneArgs),
}

/// Which ones.
#[derive(Debug, Args)]
pub(super) struct FailedArgs {
    /// Only this one, with all there is to know.
    id: Option<CommandId>,
    /// At most so many.
    #[arg(long, default_value_t = 50)]
    limit: u32,
    #[command(flatten)]
    api: ApiArgs,
}

/// Which one.
#[derive(Debug, Args)]
pub(super) struct OneArgs {
    /// Its id, as `queue failed` shows it.
    id: CommandId,
    #[command(flatten)]
    api: ApiArgs,
}

pub(super) async fn queue(command: QueueCommand) -> anyhow::Result<ExitCode> {
    match command {
        QueueCommand::Failed(FailedArgs { id: Some(id), api, .. }) => {
            let row = Api::new(&api)?.get(&format!("/api/v1/queue/failed/{id}")).await?.good()?;
            if api.json {
                println!("{row}");
            } else {
                super::print_fields(&row, &[]);
            }
        }
        QueueCommand::Failed(args) => {
            let body = Api::new(&args.api)?.get(&format!("/api/v1/queue/failed?limit={}", args.limit)).await?.good()?;
            if args.api.json {
                println!("{body}");
                return Ok(ExitCode::SUCCESS);
            }
            for row in body["failed"].as_array().into_iter().flatten() {
                let word = |name: &str| row[name].as_str().unwrap_or_default();
                let (kind, id) = resource_of(row);
                println!(
                    "{}  {}  {:<6}  {kind} {id}  by {}: {}",
                    word("command_id"),
                    word("failed_at"),
                    word("action"),
                    word("user_id"),
                    word("error")
                );
            }
        }
        QueueCommand::Requeue(OneArgs { id, api }) => {
            let body = Api::new(&api)?.post(&format!("/api/v1/queue/failed/{id}/requeue"), &json!({})).await?.good()?;
            if api.json {
                println!("{body}");
            } else {
                println!("accepted again as {}", body["command_id"].as_str().unwrap_or_default());
            }
        }
        QueueCommand::Drop(OneArgs { id, api }) => {
            let body = Api::new(&api)?.delete(&format!("/api/v1/queue/failed/{id}")).await?.good()?;
            if api.json {
                println!("{body}");
            } else {
                println!("{id} is forgotten");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
