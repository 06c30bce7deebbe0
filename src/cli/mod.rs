//! The command line: one file for each subcommand. What they print goes through `out`.

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod access;
mod api;
mod audit;
mod audit_verify;
mod batch;
// Its tables have no foreign text in them.
#[allow(clippy::print_stdout, clippy::print_stderr)]
#[doc(hidden)]
pub mod bench;
mod campaign_jobs;
mod control;
#[doc(hidden)]
pub mod descriptors;
mod dev;
mod doctor;
mod follow;
mod inspect;
mod job_lines;
mod job_logs;
mod job_state;
mod list_args;
mod lists;
#[allow(clippy::print_stdout, clippy::print_stderr)]
mod out;
mod prune;
mod queue;
mod rerun;
mod resources;
mod revocations;
// The output of the program that it runs passes through as it is.
#[allow(clippy::print_stdout, clippy::print_stderr)]
pub mod run;
#[allow(clippy::print_stdout, clippy::print_stderr)]
mod run_output;
#[allow(clippy::print_stdout, clippy::print_stderr)]
mod run_start;
mod schedule;
mod serve;
mod usage;
mod watch;
mod workers;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use api::GatewayLocator;
use dev::DataFolderState;
use out::tell;
use usage::{UsageError, usage};

use clap::{Parser, Subcommand};

use crate::config::{self, Settings};

/// Live control of long-running jobs and campaigns: pause, resume and cancel real work, and hear what happened.
#[derive(Debug, Parser)]
#[command(
    name = "wheelhouse",
    version,
    after_help = "Start here: `wheelhouse dev` runs everything on this machine, with work to control."
)]
pub struct Cli {
    /// A file of settings (TOML), over the defaults. See config/default.toml for every key.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The folder of a `wheelhouse dev`: where it keeps everything, and which one other commands work with. .wheelhouse
    /// where none is given.
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// One setting, over everything else: --set limits.commands_per_minute=60
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything on this machine: Redis, SQLite, gateway, workers, and demo work to control.
    Dev(dev::DevArgs),
    /// Run a gateway: WebSockets, HTTP API, console. SIGTERM drains it.
    Gateway(serve::GatewayArgs),
    /// Run a worker: carries out commands and runs jobs. SIGTERM hands its jobs back.
    Worker(serve::WorkerArgs),
    /// Look for what is wrong with the place a gateway or a worker is to run in, and say how to mend it.
    Doctor(doctor::DoctorArgs),
    /// Bring the database's tables up to date. Programs of the version before go on with them.
    Migrate(serve::MigrateArgs),
    /// Print a signed token.
    Token(access::TokenArgs),
    /// Give a user permissions; in force everywhere when it returns.
    Grant(access::GrantArgs),
    /// List who holds which permissions.
    Grants(access::GrantsArgs),
    /// Take permissions from a user; in force everywhere when it returns.
    Revoke(access::RevokeArgs),
    /// Refuse a token that has not expired; in force everywhere within a second.
    RevokeToken(revocations::RevokeTokenArgs),
    /// Refuse every token that a user has; in force everywhere within a second.
    RevokeUser(revocations::RevokeUserArgs),
    /// Run any program as a job under live control.
    Run(run::RunArgs),
    /// Submit, list, watch and control jobs through a gateway.
    #[command(subcommand)]
    Job(resources::JobCommand),
    /// Create, list, watch and control campaigns through a gateway.
    #[command(subcommand)]
    Campaign(resources::CampaignCommand),
    /// Cancel, pause or resume many jobs or campaigns at once.
    #[command(subcommand)]
    Batch(batch::BatchCommand),
    /// List the live workers: where they run, what they know, what they have to do.
    Workers(workers::WorkersArgs),
    /// List and take back commands that are to run later.
    #[command(subcommand)]
    Schedule(schedule::ScheduleCommand),
    /// Look at commands that failed for good, ask for them again, forget them.
    #[command(subcommand)]
    Queue(queue::QueueCommand),
    /// Show what Redis holds, with the redis-cli commands that show the same.
    #[command(subcommand)]
    Inspect(inspect::InspectCommand),
    /// Show, export or check the audit trail of commands.
    Audit(audit::AuditArgs),
    /// Measure how much a deployment can carry.
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Run a worker that knows the kinds of job of the demo: what `wheelhouse dev` starts.
    #[command(hide = true)]
    DemoWorker(serve::DemoWorkerArgs),
    /// Run a program that ends when this process's parent does.
    #[command(hide = true)]
    WatchChild(watch::WatchArgs),
}

impl Command {
    /// Whether it works on Redis or SQL for a person at a shell. A gateway or a worker is told where these are.
    fn takes_dev(&self) -> bool {
        matches!(
            self,
            Self::Token(_)
                | Self::Doctor(_)
                | Self::Grant(_)
                | Self::Grants(_)
                | Self::Revoke(_)
                | Self::RevokeToken(_)
                | Self::RevokeUser(_)
                | Self::Run(_)
                | Self::Job(resources::JobCommand::Prune(_))
                | Self::Inspect(_)
                | Self::Audit(_)
        )
    }

    /// Whether it asks a gateway, and so finds its way by itself.
    fn asks_gateway(&self) -> bool {
        matches!(
            self,
            Self::Job(_) | Self::Campaign(_) | Self::Batch(_) | Self::Workers(_) | Self::Schedule(_) | Self::Queue(_)
        )
    }
}

/// Whether flags or the environment name a Redis, a database or a key of their own.
fn is_told_where(overrides: &config::Overrides) -> bool {
    ["redis.url", "database.url", "auth.hs256_secret"].iter().any(|key| {
        let variable = format!("WHEELHOUSE__{}", key.to_ascii_uppercase().replace('.', "__"));
        overrides.iter().any(|(set, _)| set == key) || std::env::var_os(variable).is_some()
    })
}

/// Does what the command line says.
pub async fn run(cli: Cli) -> ExitCode {
    let done = match dispatch(cli).await {
        Ok(code) => return code,
        Err(error) => error,
    };
    // One line, whatever the depth of the error.
    tell!("{done:#}");
    if done.is::<UsageError>() || done.is::<config::SettingError>() { ExitCode::from(2) } else { ExitCode::FAILURE }
}

/// The file of settings to take: the one that is named, else that of a `wheelhouse dev` which runs.
fn settings_file(cli: &Cli, overrides: &config::Overrides) -> anyhow::Result<Option<PathBuf>> {
    let is_dev = matches!(cli.command, Command::Dev(_));
    if cli.config.is_some() && cli.data_dir.is_some() && !is_dev {
        return Err(usage("--config and --data-dir each say what to work with: give one of them"));
    }
    let beside_dev = cli.command.takes_dev() && !is_told_where(overrides);
    if cli.config.is_some() || is_dev || cli.command.asks_gateway() || !(beside_dev || cli.data_dir.is_some()) {
        return Ok(cli.config.clone());
    }
    let folder = cli.data_dir.as_deref().unwrap_or(Path::new(dev::FOLDER));
    match (dev::running(folder), dev::state_of(folder)) {
        (Some(file), _) => Ok(Some(file)),
        (None, DataFolderState::Stopped | DataFolderState::Never) if cli.data_dir.is_some() => {
            Err(dev::not_running(folder))
        }
        // A database of one's own in this folder is what is meant then.
        (None, DataFolderState::Stopped) if !Path::new(OWN_DATABASE).exists() => Err(dev::not_running(folder)),
        _ => Ok(None),
    }
}

/// Where `database.url` leads by default.
const OWN_DATABASE: &str = "wheelhouse.db";

async fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    let mut overrides = config::Overrides::new();
    for one in &cli.set {
        let (key, value) = one.split_once('=').ok_or_else(|| usage(format!("--set {one:?}: write it as KEY=VALUE")))?;
        overrides.push((key.to_owned(), value.to_owned()));
    }
    if let Command::Gateway(args) = &cli.command {
        overrides.extend(args.overrides());
    }
    if let Command::Worker(args) = &cli.command {
        overrides.extend(args.overrides());
    }
    if let Command::DemoWorker(args) = &cli.command {
        overrides.extend(args.overrides());
    }
    // Beside a `wheelhouse dev` in this folder, what is to work on its Redis and database finds them by itself.
    let file = settings_file(&cli, &overrides)?;
    let locator = GatewayLocator { config: cli.config, data_dir: cli.data_dir, overrides: overrides.clone() };
    let settings = || -> anyhow::Result<Settings> { Ok(config::load(file.as_deref(), overrides.clone())?) };
    match cli.command {
        Command::Dev(args) => dev::dev(args, locator.folder(), file, overrides).await,
        Command::Gateway(_) => serve::gateway(settings()?).await,
        Command::Worker(_) => serve::worker(settings()?).await,
        Command::Doctor(args) => doctor::doctor(args, || config::load(file.as_deref(), overrides.clone())).await,
        Command::Migrate(args) => serve::migrate(args, settings()?).await,
        Command::Token(args) => access::token(&args, &settings()?),
        Command::Grant(args) => access::grant(args, settings).await,
        Command::Grants(args) => access::grants(args, settings()?).await,
        Command::Revoke(args) => access::revoke(args, settings()?).await,
        Command::RevokeToken(args) => revocations::revoke_token(args, settings()?).await,
        Command::RevokeUser(args) => revocations::revoke_user(args, settings()?).await,
        Command::Run(args) => run::run(args, settings()?).await,
        Command::Job(command) => resources::job(command, &locator, settings).await,
        Command::Campaign(command) => resources::campaign(command, &locator).await,
        Command::Batch(command) => batch::batch(command, &locator).await,
        Command::Workers(args) => workers::workers(args, &locator).await,
        Command::Schedule(command) => schedule::schedule(command, &locator).await,
        Command::Queue(command) => queue::queue(command, &locator).await,
        Command::Inspect(command) => inspect::inspect(command, settings()?).await,
        Command::Audit(args) => audit::audit(args, settings()?).await,
        Command::Bench(command) => bench::bench(command, settings()?).await,
        Command::DemoWorker(_) => serve::demo_worker(settings()?).await,
        Command::WatchChild(args) => watch::watch(args).await,
    }
}
