//! `wheelhouse dev`: everything on one machine, with no set-up: a private Redis, SQLite, a gateway, workers,
//! and demo work to control. Started again on the same folder, it goes on where it was.

mod ask;
mod demo;
mod folder;
mod others;
pub(super) mod processes;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use secrecy::SecretString;

use super::out::{say, tell};
use crate::auth::{self, Claims, TokenTenants, WorkerClaims};
use crate::config::{self, Settings};
use crate::store::Store;
use crate::telemetry;
use crate::worker::signals::stop_signals;
use demo::DemoRounds;
use folder::Folder;
pub(super) use folder::{DataFolderState, FOLDER, is_settings_of_dev, not_running, running, state_of};
use others::Others;
use processes::Processes;

/// What runs, and where.
#[derive(Debug, Args)]
pub(super) struct DevArgs {
    /// The gateway's port; 0 takes a free one. Without this, 8000, or a free one if 8000 is taken.
    #[arg(long)]
    port: Option<u16>,
    /// How many workers.
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Throw away what an earlier run kept, and begin anew.
    #[arg(long)]
    fresh: bool,
}

pub(super) async fn dev(
    args: DevArgs,
    data_dir: &Path,
    config_file: Option<PathBuf>,
    overrides: config::Overrides,
) -> anyhow::Result<ExitCode> {
    const OWN_SETTINGS: [&str; 5] =
        ["server.listen", "redis.url", "database.url", "auth.hs256_secret", "worker.files_root"];
    if let Some((key, _)) = overrides.iter().find(|(key, _)| OWN_SETTINGS.contains(&key.as_str())) {
        return Err(super::usage::usage(format!(
            "--set {key}: `wheelhouse dev` chooses that by itself (see --port, --data-dir)"
        )));
    }
    let stop = stop_signals()?;
    let folder = Folder::open(data_dir, args.fresh)?;
    let port = choose_port(args.port)?;
    let redis_port = folder.redis_port()?;
    let mut settings = config::load(config_file.as_deref(), overrides.clone())?;
    settings.server.listen = ([127, 0, 0, 1], port).into();
    settings.redis.url = SecretString::from(format!("redis://127.0.0.1:{redis_port}"));
    settings.redis.ca_pem = None;
    settings.database.url = SecretString::from(folder.database_url());
    settings.auth.hs256_secret = Some(folder.secret()?);
    telemetry::log::init(&config::Log { level: "warn".to_owned(), ..settings.log.clone() });

    let mut processes = Processes::new(&folder, &settings, config_file, &overrides)?;
    let address = format!("http://localhost:{port}");
    let started = tokio::select! {
        started = start(&args, data_dir, &folder, &settings, &mut processes, redis_port, &address) => started.map(Some),
        () = stop.cancelled() => Ok(None),
    };
    let started = match started {
        Ok(Some(rounds)) => {
            tokio::select! {
                () = processes.keep_alive(&stop) => {}
                () = rounds.next_round(&folder) => {}
            }
            Ok(())
        }
        other => other.map(drop),
    };
    tell!("stopping; the work is handed back and goes on with the next `wheelhouse dev`.");
    processes.stop().await;
    folder.remove_address();
    started.map(|()| ExitCode::SUCCESS)
}

async fn start(
    args: &DevArgs,
    data_dir: &Path,
    folder: &Folder,
    settings: &Settings,
    processes: &mut Processes,
    redis_port: u16,
    address: &str,
) -> anyhow::Result<DemoRounds> {
    say!("Starting a private Redis on port {redis_port}, with its data in {}", folder.path("redis").display());
    processes.redis(redis_port).await?;
    let store = Store::open(&settings.database).await?;
    // All programs on this data are of this version: they are started below.
    store.finish_upgrade().await?;
    let users = demo::users(&store).await?;
    say!(
        "Starting the gateway on {address} and {} workers; their logs are in {}",
        args.workers,
        folder.path("logs").display()
    );
    processes.gateway().await?;
    // One of the workers listens for foreign workers: which one makes no difference to them.
    let listen = if args.workers > 0 { Some(worker_address(settings)?) } else { None };
    for number in 1..=args.workers {
        processes.worker(number, listen.filter(|_| number == 1))?;
    }
    wait_ready(settings).await.with_context(|| format!("see {}", folder.path("logs/gateway.log").display()))?;
    let claims = Claims {
        user: users.operator,
        tenant: users.tenant.clone(),
        ttl: Duration::from_secs(86_400),
        permissions: None,
    };
    let others =
        Others::new(store.clone(), users.tenant.clone(), settings.server.listen, &settings.auth, users.second)?;
    let token = auth::sign(&settings.auth, &claims)?;
    folder.save_address(address, &token)?;
    folder.save_settings(processes.own_settings())?;
    let work = demo::work(&store, &users.tenant, folder, &others).await?;
    processes.demo_program(&users.tenant, &work.program)?;
    let me = std::env::args().next().unwrap_or_else(|| "wheelhouse".to_owned());
    let at = if data_dir == Path::new(FOLDER) { String::new() } else { format!(" --data-dir {}", quoted(data_dir)) };
    say!("");
    say!("Console:");
    say!("  {address}/?token={token}");
    say!("");
    let shown = demo::Shown { socket: address.replacen("http", "ws", 1), token };
    shown.import(&work.import);
    shown.campaign(&work.campaign);
    say!("In wscat type {{\"type\":\"pause_job\"}} or {{\"type\":\"pause_campaign\"}}, then resume_… or cancel_….");
    say!("Each is over after some twenty minutes; then another begins, and its line is printed here.");
    say!("From another shell in this folder:");
    say!("  {me} job ls{at}");
    say!("  {me} run{at} --tenant {} -- ping -c 100 localhost", users.tenant);
    say!("  {me} audit{at} --follow");
    if let Some(address) = listen {
        let claims = WorkerClaims {
            worker: "dev".parse()?,
            tenants: TokenTenants::These(vec![users.tenant.clone()]),
            ttl: Duration::from_secs(86_400),
        };
        let (token, _) = auth::sign_worker(&settings.auth, &claims)?;
        say!("For your own workers in Python or Node (tenant {}):", users.tenant);
        say!("  export WHEELHOUSE_URL=http://{address}");
        say!("  export WHEELHOUSE_TOKEN={token}");
    }
    say!("Ctrl-C ends everything.");
    Ok(DemoRounds { store, tenant: users.tenant, work, shown, others })
}

/// As a shell reads it as one word.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = text.chars().all(|c| c.is_alphanumeric() || "/._-+~".contains(c));
    if is_plain { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

async fn wait_ready(settings: &Settings) -> anyhow::Result<()> {
    for _ in 0..300 {
        if let Ok(status) = ask::get_status(settings.server.listen, "/readyz").await
            && status == 200
        {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("the gateway did not become ready within 30 s")
}

/// Where one worker listens for foreign workers: as the settings say, else port 8100, or one that is free.
fn worker_address(settings: &Settings) -> anyhow::Result<SocketAddr> {
    if let Some(address) = settings.worker.listen {
        return Ok(address);
    }
    let free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).and_then(|listener| listener.local_addr());
    // The gateway may not have taken its own yet.
    let taken = settings.server.listen.port();
    let first = if taken == 8100 { free(0) } else { free(8100).or_else(|_| free(0)) };
    Ok(first?)
}

/// The port asked for, or 8000, or any that is free.
fn choose_port(asked: Option<u16>) -> anyhow::Result<u16> {
    let free =
        |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).and_then(|l| l.local_addr()).map(|a| a.port());
    match asked {
        Some(port) => free(port).map_err(|_| {
            super::usage::usage(format!("port {port} is taken: choose another with --port, or --port 0 for a free one"))
        }),
        None => free(8000).or_else(|_| {
            let port = free(0)?;
            say!("Port 8000 is taken; the gateway takes {port}.");
            anyhow::Ok(port)
        }),
    }
}
