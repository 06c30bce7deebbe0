//! `wheelhouse bench`: how much a deployment can carry, and how big one must be.
//!
//! - [`load`] puts load on a gateway that runs, with the settings of its deployment.
//! - [`remote`] attaches runs of foreign workers to a worker that runs.
//! - [`suite`] starts everything itself, measures every scenario beside its yardsticks, and prints one table.
//! - [`load_clients`] is the load generator: many light sockets ([`socket_client`]), closed or open loop ([`stats`] keeps the times).
//! - [`redis`] has the yardsticks, [`environment`] the tenant it all happens in, [`stack`] the processes of the suite.

mod environment;
mod load;
mod load_clients;
mod redis;
mod remote;
mod report;
mod scenarios;
mod socket_client;
mod stack;
mod stats;
mod suite;

use std::process::ExitCode;

use anyhow::Context;
use clap::Subcommand;

use crate::config::Settings;

/// What to measure.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum BenchCommand {
    /// Put load on a gateway that runs: acks, results, latencies, and what they cost.
    Load(load::LoadArgs),
    /// Attach runs of foreign workers to a worker that runs: the rate, and what they cost.
    Remote(remote::RemoteArgs),
    /// Start a private Redis, gateways and workers, and measure everything. About five minutes.
    Suite(suite::SuiteArgs),
}

/// Runs it on one thread: the load generator is to take little from what it measures.
pub(super) async fn bench(
    command: BenchCommand,
    settings: impl FnOnce() -> anyhow::Result<Settings>,
) -> anyhow::Result<ExitCode> {
    let settings = match &command {
        BenchCommand::Load(_) | BenchCommand::Remote(_) => Some(settings()?),
        BenchCommand::Suite(_) => None,
    };
    let stop = crate::worker::signals::stop_signals()?;
    let measuring = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let measured = runtime.block_on(stop.run_until_cancelled_owned(async {
            match (command, settings) {
                (BenchCommand::Load(args), Some(settings)) => Box::pin(load::load(args, settings)).await,
                (BenchCommand::Suite(args), _) => Box::pin(suite::suite(args)).await,
                (BenchCommand::Remote(args), Some(settings)) => Box::pin(remote::remote(args, settings)).await,
                (BenchCommand::Load(_) | BenchCommand::Remote(_), None) => unreachable!("its settings were read"),
            }
        }));
        measured.unwrap_or_else(|| anyhow::bail!("interrupted"))
    });
    measuring.await.context("the bench broke off")??;
    Ok(ExitCode::SUCCESS)
}
