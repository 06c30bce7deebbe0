//! `wheelhouse bench load`: what a running deployment does, and what that costs.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use super::counters::Counters;
use super::environment::BenchEnvironment;
use super::load_clients::{Load, LoadClients, LoadOutcome};
use super::stats::{CpuTime, number};
use crate::cli::out::report;
use crate::config::Settings;

/// How much load.
#[derive(Debug, Args)]
#[command(after_help = "\
Give it the settings of the deployment (--config, WHEELHOUSE__…): it signs tokens with auth.hs256_secret, puts jobs and \
users of a tenant bench-… into the database, and takes them away at the end; the audit trail keeps the commands. \
Limits hold for it as for anyone: with limits.commands_per_minute = 30 a user sends half a command a second, so give \
many --users, or raise the limit of the gateway for the time of the bench.

Examples:
  wheelhouse bench load --sockets 200 --users 200                       as fast as it goes: acks
  wheelhouse bench load --sockets 1000 --rate 500 --results             500 commands a second up to their results")]
pub(in crate::cli) struct LoadArgs {
    /// Address of the gateway.
    #[arg(long, default_value = "127.0.0.1:8000", value_name = "HOST:PORT")]
    gateway: String,
    /// Open sockets.
    #[arg(long, default_value_t = 200)]
    sockets: usize,
    /// Jobs they are spread over; as many as sockets, where not given.
    #[arg(long)]
    jobs: Option<usize>,
    /// Users they are spread over; as many as sockets, where not given.
    #[arg(long)]
    users: Option<usize>,
    /// How long, in seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Commands a second in all (open loop: latencies count from the intended time). Without it: as fast as answers come.
    #[arg(long)]
    rate: Option<f64>,
    /// Wait for results, not for acks: workers must run.
    #[arg(long)]
    results: bool,
    /// Process id of the gateway, if it runs on this machine: its CPU is shown.
    #[arg(long, value_name = "PID")]
    gateway_pid: Option<u32>,
}

pub(super) async fn load(args: LoadArgs, settings: Settings) -> anyhow::Result<()> {
    let enough = super::super::descriptors::raise_limit();
    if enough < args.sockets as u64 + 100 {
        anyhow::bail!("{}", super::super::descriptors::too_few(enough, args.sockets));
    }
    let address: SocketAddr =
        args.gateway.to_socket_addrs()?.next().with_context(|| format!("{} is no address", args.gateway))?;
    let environment = BenchEnvironment::open(settings, "load").await?;
    let (jobs, users) =
        environment.fill(args.jobs.unwrap_or(args.sockets).max(1), args.users.unwrap_or(args.sockets).max(1)).await?;
    let measured = async {
        let begun = std::time::Instant::now();
        let mut clients = LoadClients::open(&environment, &[address], &jobs, &users, args.sockets).await?;
        report!("{} sockets open in {:.2} s", args.sockets, begun.elapsed().as_secs_f64());
        let before = Counters::read(&environment.broker).await?;
        let spent = CpuTime::begin(args.gateway_pid.as_slice());
        let load = Load { rate: args.rate, results: args.results, ..Load::closed(Duration::from_secs(args.seconds)) };
        let outcome = clients.run(load).await?;
        let after = Counters::read(&environment.broker).await?;
        print(&args, &outcome, after.cpu - before.cpu, spent.seconds());
        anyhow::Ok(())
    };
    let measured = measured.await;
    environment.store.delete_bench_rows(&environment.tenant, &users).await?;
    measured
}

fn print(args: &LoadArgs, outcome: &LoadOutcome, redis: f64, gateway: f64) {
    let times = |name: &str, times: &super::stats::LatencyHistogram, rate: f64| {
        if times.count() > 0 {
            report!(
                "{name:<8} {:>9}  {:>9}/s   p50 {} ms   p99 {} ms   p99.9 {} ms   max {} ms",
                times.count(),
                number(rate),
                number(times.ms(0.5)),
                number(times.ms(0.99)),
                number(times.ms(0.999)),
                number(times.max_ms())
            );
        }
    };
    times("acks", &outcome.acks, outcome.acks_per_second());
    times("results", &outcome.results, outcome.results_per_second());
    for (error, count) in &outcome.errors {
        report!("error    {count:>9}  {error}");
    }
    if outcome.missing > 0 {
        report!("{} commands got no answer in time", outcome.missing);
    }
    if args.rate.is_some() {
        report!("the load generator was late by {} ms at worst", number(outcome.late.as_secs_f64() * 1_000.0));
    }
    let commands = outcome.acks.count().max(1) as f64;
    report!(
        "Redis    {} µs of CPU a command: one core carries {}/s",
        number(redis * 1e6 / commands),
        number(commands / redis.max(1e-9))
    );
    if args.gateway_pid.is_some() {
        report!(
            "gateway  {} µs of CPU a command: one core carries {}/s",
            number(gateway * 1e6 / commands),
            number(commands / gateway.max(1e-9))
        );
    }
}
