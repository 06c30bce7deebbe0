//! `wheelhouse gateway`, `worker`, `migrate`: the production roles.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::out::say;
use crate::config::{Overrides, Settings};
use crate::store::Store;
use crate::worker::signals::stop_on_signals;
use crate::{gateway as role, telemetry, worker as work};

/// Where a gateway listens.
#[derive(Debug, Args)]
pub(super) struct GatewayArgs {
    /// Address and port; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
}

impl GatewayArgs {
    pub(super) fn overrides(&self) -> Overrides {
        self.listen.iter().map(|listen| ("server.listen".to_owned(), listen.clone())).collect()
    }
}

pub(super) async fn gateway(settings: Settings) -> anyhow::Result<ExitCode> {
    telemetry::log::init(&settings.log);
    let descriptors = super::descriptors::raise_limit();
    let sockets = settings.limits.connections_per_tenant as usize;
    // What is kept back for Redis and SQL is not there for sockets.
    if descriptors < sockets as u64 + crate::http::descriptors::reserve(&settings) {
        tracing::warn!("{}", super::descriptors::too_few(descriptors, sockets));
    }
    let signals = stop_on_signals()?;
    let stop = role::drain::Stop { asked: signals.asked, without_notice: signals.by_person };
    role::serve(settings, None, stop).await.context("the gateway ended")?;
    Ok(ExitCode::SUCCESS)
}

/// Where a worker listens.
#[derive(Debug, Args)]
pub(super) struct WorkerArgs {
    /// Where to listen for foreign workers: worker.listen.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
}

impl WorkerArgs {
    pub(super) fn overrides(&self) -> Overrides {
        self.listen.iter().map(|listen| ("worker.listen".to_owned(), listen.clone())).collect()
    }
}

/// A worker that carries out commands and knows no kind of job: whoever may create jobs must not find any there that
/// nobody meant to offer. Kinds are taught in a program of one's own, with `WorkerBuilder::job`.
pub(super) async fn worker(settings: Settings) -> anyhow::Result<ExitCode> {
    telemetry::log::init(&settings.log);
    if let Some(address) = settings.worker.listen {
        let descriptors = super::descriptors::raise_limit();
        let sockets = settings.worker.max_connections;
        if descriptors < sockets as u64 + crate::http::descriptors::reserve(&settings) {
            tracing::warn!(%address, "{}", super::descriptors::too_few(descriptors, sockets));
        }
    }
    run_worker(work::WorkerBuilder::new(settings)).await
}

/// The folder of the demo's files.
#[derive(Debug, Args)]
pub(super) struct DemoWorkerArgs {
    /// The only folder that its jobs may read.
    #[arg(long, value_name = "DIR")]
    files_root: String,
    /// Where to listen for foreign workers.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
}

impl DemoWorkerArgs {
    pub(super) fn overrides(&self) -> Overrides {
        let listen = self.listen.iter().map(|listen| ("worker.listen".to_owned(), listen.clone()));
        listen.chain([("worker.files_root".to_owned(), self.files_root.clone())]).collect()
    }
}

/// A worker of `wheelhouse dev`: it knows the kinds of the demo, too.
pub(super) async fn demo_worker(settings: Settings) -> anyhow::Result<ExitCode> {
    telemetry::log::init(&settings.log);
    let store = Store::open(&settings.database).await?;
    run_worker(crate::demo::teach(work::WorkerBuilder::new(settings), store)).await
}

async fn run_worker(builder: work::WorkerBuilder) -> anyhow::Result<ExitCode> {
    builder.build().run().await.context("the worker ended")?;
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, Args)]
pub(super) struct MigrateArgs {
    /// Also take away what only programs of the version before need: say it when none of them runs any more.
    #[arg(long)]
    finish: bool,
}

pub(super) async fn migrate(args: MigrateArgs, settings: Settings) -> anyhow::Result<ExitCode> {
    let store = Store::open(&settings.database).await?;
    match if args.finish { store.finish_upgrade().await? } else { store.migrate().await? } {
        0 => say!("The database is up to date."),
        1 => say!("Applied 1 migration."),
        many => say!("Applied {many} migrations."),
    }
    if !store.is_upgrade_finished().await? {
        say!(
            "Once every gateway and worker runs this version, run `wheelhouse migrate --finish`: until then each job costs more to store."
        );
    }
    Ok(ExitCode::SUCCESS)
}
