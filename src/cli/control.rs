//! `cancel`, `pause`, `resume` of one job or campaign.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use serde_json::json;

use super::access::duration;
use super::api::rows::{CommandResponse, Step};
use super::api::{Api, ApiArgs, GatewayLocator, LONG_POLL};
use super::follow::{RetryBudget, Workers};
use super::out::{self, say};
use crate::domain::{Action, RequestId, ResourceId, ResourceKind};

/// A command.
#[derive(Debug, Args)]
pub(super) struct ControlArgs {
    /// The id.
    id: ResourceId,
    /// Why, for the audit trail.
    #[arg(long)]
    reason: Option<String>,
    /// Your own name for this command: sending the same again is safe.
    #[arg(long)]
    request_id: Option<RequestId>,
    /// Run it then: 2026-01-31T22:00:00Z, or with an offset as in 22:00:00+01:00.
    #[arg(long, value_name = "TIME", conflicts_with_all = ["after", "wait"])]
    at: Option<jiff::Timestamp>,
    /// Run it after so long: 90s, 30m, 8h, 1d.
    #[arg(long = "in", value_name = "TIME", value_parser = duration, conflicts_with = "wait")]
    after: Option<Duration>,
    /// Wait for the result: exit code 0 if it succeeded, 1 if not.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    api: ApiArgs,
}

pub(super) async fn control(
    kind: ResourceKind,
    action: Action,
    args: ControlArgs,
    locator: &GatewayLocator,
) -> anyhow::Result<ExitCode> {
    let mut body = json!({});
    if let Some(reason) = &args.reason {
        body["reason"] = reason.as_str().into();
    }
    if let Some(id) = &args.request_id {
        body["request_id"] = id.as_str().into();
    }
    if let Some(at) = args.at {
        body["run_at"] = at.to_string().into();
    }
    if let Some(after) = args.after {
        body["delay_seconds"] = after.as_secs().into();
    }
    let api = Api::new(&args.api, locator)?;
    let path = format!("/api/v1/{}/{}", kind.plural(), args.id);
    let is_about = |said: &CommandResponse| said.is_about(action, kind, &args.id);
    let mut said = api.post(&format!("{path}/{}", action.as_str()), &body).await?.told_that(is_about)?;
    let command = said.is.command_id;
    let is_ended = |said: &CommandResponse| matches!(said.step(action), Ok(Step::Succeeded | Step::Failed));
    if args.wait && !is_ended(&said.is) {
        let spinner = if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        spinner.enable_steady_tick(Duration::from_millis(100));
        spinner.set_message(format!("waiting until {} {} is {}", kind.as_str(), args.id, past_participle(action)));
        let mut workers = Workers::default();
        let mut retries = RetryBudget::default();
        // Asked again and again, each time for as long as the gateway is willing to hold the answer.
        while !is_ended(&said.is) {
            if let Some(online) = said.is.workers_online {
                workers.record(online, |line| spinner.suspend(line));
            }
            let asked = api.get(&format!("{path}/commands/{command}?wait={}", LONG_POLL.as_secs())).await;
            let is_its = |said: &CommandResponse| match said.command_id == command {
                true => is_about(said),
                false => Err(format!("an answer about the command {}", said.command_id)),
            };
            match asked.and_then(|answer| answer.told_that(is_its)) {
                Ok(answer) => {
                    retries.reset();
                    said = answer;
                }
                Err(error) => retries.record_failure(error).await?,
            }
        }
        spinner.finish_and_clear();
    }
    let step = said.is.step(action).unwrap_or(Step::Waits);
    if args.api.json {
        out::json(&said.json);
    } else {
        print(kind, action, &args.id, step, &said.is);
    }
    Ok(if step == Step::Failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn print(kind: ResourceKind, action: Action, id: &ResourceId, step: Step, said: &CommandResponse) {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (kind, command) = (kind.as_str(), said.command_id);
    match step {
        Step::Failed => say!("{kind} {id}: {}", text(&said.error)),
        Step::Succeeded => say!("{kind} {id} is {}", text(&said.status)),
        Step::Scheduled => {
            let at = out::time(&text(&said.run_at));
            say!(
                "{} of {kind} {id} will run at {at}; take it back with: wheelhouse schedule rm {command}",
                action.as_str()
            );
        }
        Step::Accepted | Step::Waits => {
            say!("{} of {kind} {id} accepted as {command}", action.as_str());
            if said.workers_online == Some(0) {
                say!("No worker is online: the command waits for one.");
            }
        }
    }
    // A command that failed changed nothing.
    if said.control.as_deref() == Some("row") && step != Step::Failed {
        let done = if step == Step::Succeeded { "was" } else { "is" };
        say!(
            "No worker hosts it: its row alone {done} changed. Another program that does its work goes on unless it looks there."
        );
    }
}

fn past_participle(action: Action) -> &'static str {
    match action {
        Action::Cancel => "cancelled",
        Action::Pause => "paused",
        Action::Resume => "resumed",
    }
}
