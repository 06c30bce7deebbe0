//! `wheelhouse run`: any program as a job under live control.

use std::process::ExitCode;

use clap::Args;

use crate::config::Settings;

/// What to run.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[arg(required = true, last = true)]
    command: Vec<String>,
}

/// Runs it.
pub async fn run(_args: RunArgs, _settings: Settings) -> anyhow::Result<ExitCode> {
    unimplemented!()
}
