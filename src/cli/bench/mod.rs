//! `wheelhouse bench`: how much a deployment can carry.
//!
//! - `load` puts load on a gateway that runs, `remote` attaches runs of foreign workers to a worker that runs.
//! - [`load_clients`] is the load generator: many light sockets ([`socket_client`]), closed or open loop ([`stats`] keeps the
//!   times). [`environment`] is the tenant it all happens in, [`counters`] what Redis says of itself.
//!
//! The suite that `make bench` runs (`crates/wheelhouse-bench`) is built on these.

pub mod counters;
pub mod environment;
mod load;
pub mod load_clients;
mod remote;
pub mod socket_client;
pub mod stats;

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
}

/// Runs it on one thread: the load generator is to take little from what it measures.
pub(super) async fn bench(command: BenchCommand, settings: Settings) -> anyhow::Result<ExitCode> {
    let stop = crate::worker::signals::stop_signals()?;
    let measuring = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let measured = runtime.block_on(stop.run_until_cancelled_owned(async {
            match command {
                BenchCommand::Load(args) => Box::pin(load::load(args, settings)).await,
                BenchCommand::Remote(args) => Box::pin(remote::remote(args, settings)).await,
            }
        }));
        measured.unwrap_or_else(|| anyhow::bail!("interrupted"))
    });
    measuring.await.context("the bench broke off")??;
    Ok(ExitCode::SUCCESS)
}
