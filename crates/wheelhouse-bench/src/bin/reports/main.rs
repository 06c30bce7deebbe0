//! `make bench-reports`, or `cargo run --release --package wheelhouse-bench --bin reports`: one worker with very many running jobs,
//! each of which reports its progress four times a second. What that costs: Redis commands and SQL writes for each update, the
//! worker's memory and processor time, and how many updates arrive, how soon.
//!
//! The worker is a process of its own, this program once more. Redis is a private one, and so is the database unless
//! `--database-url` names an empty PostgreSQL.

mod costs;
mod listener;

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::Parser;
use secrecy::{ExposeSecret, SecretString};
use tokio::process::{Child, Command};
use wheelhouse::broker::Broker;
use wheelhouse::config::{self, Settings};
use wheelhouse::domain::{Progress, TenantId};
use wheelhouse::store::Store;
use wheelhouse::worker::{Job, JobContext, JobError, WorkerBuilder};

use costs::Costs;
use listener::Heard;

/// Between two reports of one job.
const REPORT_INTERVAL: Duration = Duration::from_millis(250);
/// Longest wait until all jobs run.
const START_TIMEOUT: Duration = Duration::from_secs(300);
/// From when all of them run until the costs are counted.
const SETTLE: Duration = Duration::from_secs(5);

#[derive(Debug, Parser)]
struct Arguments {
    /// So many jobs, one measurement after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 3_000, 10_000])]
    jobs: Vec<usize>,
    /// Among so many tenants.
    #[arg(long, default_value_t = 16)]
    tenants: usize,
    /// For how long the costs are counted.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// An empty PostgreSQL; a new SQLite file where nothing is said.
    #[arg(long)]
    database_url: Option<String>,
    /// Runs the worker: this program starts itself so.
    #[arg(long, hide = true)]
    worker: bool,
}

/// Reports until it is cancelled.
struct Reports;

impl Job for Reports {
    const TYPE: &'static str = "reports";

    async fn run(&self, ctx: JobContext) -> Result<serde_json::Value, JobError> {
        // Not all of them at the same moment.
        tokio::time::sleep(REPORT_INTERVAL.mul_f64(fastrand::f64())).await;
        let mut ticks = tokio::time::interval(REPORT_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            ctx.checkpoint().await?;
            let item = Some(format!("customer {}", fastrand::u32(..)));
            // The time travels as a count, so that whoever hears the message knows how long it took.
            ctx.progress(Progress { items_processed: unix_us(), current_item: item, ..Progress::default() });
            ctx.guard(ticks.tick()).await?;
        }
    }
}

fn unix_us() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_micros()).unwrap_or(i64::MAX)
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let threads = if arguments.worker { 2 } else { 1 };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    runtime.block_on(async {
        if arguments.worker {
            let settings = config::load(None, Vec::new())?;
            return Ok(WorkerBuilder::new(settings).job(Reports).build().run().await?);
        }
        // The processes end with their handles, also at Ctrl-C.
        let stop = wheelhouse::worker::signals::stop_signals()?;
        let measuring = async {
            for jobs in arguments.jobs.clone() {
                measure(&arguments, jobs).await?;
            }
            Ok(())
        };
        stop.run_until_cancelled(measuring).await.unwrap_or_else(|| bail!("interrupted"))
    })
}

/// A process that ends with this one.
struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> anyhow::Result<Self> {
        Ok(Self(command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).spawn()?))
    }

    fn pid(&self) -> anyhow::Result<u32> {
        self.0.id().context("a process has ended")
    }
}

async fn redis_server(folder: &std::path::Path) -> anyhow::Result<(Process, u16)> {
    let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]);
    command.args(["--auto-aof-rewrite-percentage", "0", "--maxmemory-policy", "noeviction"]).arg("--dir").arg(folder);
    // Whoever listens here is not to be closed because the two cores are busy for a moment.
    command.args(["--client-output-buffer-limit", "pubsub", "0", "0", "0"]);
    let redis = Process::start(&mut command)?;
    for _ in 0..400 {
        if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            return Ok((redis, port));
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    bail!("redis-server did not start")
}

async fn measure(arguments: &Arguments, jobs: usize) -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("wheelhouse-reports-{}-{jobs}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let measured = measure_in(arguments, jobs, &folder).await;
    let _ = std::fs::remove_dir_all(&folder);
    measured
}

async fn measure_in(arguments: &Arguments, jobs: usize, folder: &std::path::Path) -> anyhow::Result<()> {
    let (redis, port) = redis_server(folder).await?;
    let mut settings = config::load_from(None, [], Vec::new())?;
    settings.redis.url = SecretString::from(format!("redis://127.0.0.1:{port}"));
    let database = folder.join("reports.db");
    let url = arguments.database_url.clone().unwrap_or_else(|| format!("sqlite://{}", database.display()));
    settings.database.url = SecretString::from(url);
    let store = Store::open(&settings.database).await?;
    store.migrate().await?;
    let broker = Broker::connect(&settings.redis).await?;
    let names = (0..arguments.tenants).map(|n| format!("reports-{jobs}-{n}").parse());
    let tenants = names.collect::<Result<Vec<TenantId>, _>>()?;
    store.insert_waiting_rows(&tenants, Reports::TYPE, jobs as u64).await?;
    let heard = Arc::new(Heard::default());
    let listening = tokio::spawn(listener::listen(port, heard.clone()));
    let worker = Process::start(&mut worker_command(&settings, jobs)?)?;
    until_all_run(&store, &tenants, jobs).await?;
    tokio::time::sleep(SETTLE).await;
    let before = Costs::now(&broker, &database, &worker, &redis).await?;
    let (begun, first) = (Instant::now(), heard.take());
    drop(first);
    tokio::time::sleep(Duration::from_secs(arguments.seconds)).await;
    let window = begun.elapsed();
    let arrived = heard.take();
    let after = Costs::now(&broker, &database, &worker, &redis).await?;
    costs::print(jobs, window, arrived, &before, &after);
    listening.abort();
    Ok(())
}

fn worker_command(settings: &Settings, jobs: usize) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--worker");
    command.env("WHEELHOUSE__REDIS__URL", settings.redis.url.expose_secret());
    command.env("WHEELHOUSE__DATABASE__URL", settings.database.url.expose_secret());
    command.env("WHEELHOUSE__WORKER__CONCURRENCY", jobs.to_string());
    command.env("WHEELHOUSE__WORKER__MAX_HELD_JOBS", (jobs + 1_000).to_string());
    Ok(command)
}

async fn until_all_run(store: &Store, tenants: &[TenantId], jobs: usize) -> anyhow::Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < START_TIMEOUT {
        let mut running = 0;
        for tenant in tenants {
            running += store.job_totals(tenant, None).await?.running;
        }
        if usize::try_from(running).unwrap_or(0) >= jobs {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    bail!("not all jobs ran after {START_TIMEOUT:?}")
}
