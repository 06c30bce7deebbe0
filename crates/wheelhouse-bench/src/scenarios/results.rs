//! From the command to its result: gateway, Redis, worker, SQL, and back.

use std::time::Duration;

use super::Bench;
use crate::report::Target;
use wheelhouse::cli::bench::counters::Counters;
use wheelhouse::cli::bench::load_clients::{Load, LoadClients};
use wheelhouse::cli::bench::stats::CpuTime;
use wheelhouse::cli::bench::stats::number;
use wheelhouse::config::Settings;

/// Jobs, each with one user and one socket.
const JOBS: usize = 1_000;
const RATE: f64 = 1_000.0;

pub(crate) async fn sqlite(bench: &mut Bench) -> anyhow::Result<()> {
    let settings = bench.stack.settings.clone();
    for workers in [1, 4] {
        measure(bench, &settings, "SQLite", workers).await?;
    }
    Ok(())
}

pub(crate) async fn postgres(bench: &mut Bench) -> anyhow::Result<()> {
    let settings = bench.stack.with_postgres().await?;
    for workers in [1, 4] {
        measure(bench, &settings, "PostgreSQL", workers).await?;
    }
    Ok(())
}

async fn measure(bench: &mut Bench, settings: &Settings, database: &str, workers: usize) -> anyhow::Result<()> {
    let environment = bench.stack.environment(settings, "results").await?;
    let (jobs, users) = environment.fill(JOBS, JOBS).await?;
    let gateway = bench.stack.gateway(settings).await?;
    let workers_running = bench.stack.workers(&environment, workers).await?;
    let mut clients = LoadClients::open(&environment, &[gateway.address], &jobs, &users, JOBS).await?;
    let name = format!("results, {database}, {workers} workers");
    // The targets are SQLite's; one worker is the usual smallest deployment.
    let aims = |target| (database == "SQLite").then_some(target);

    let open = Load { rate: Some(RATE), results: true, ..Load::closed(Duration::from_secs(4)) };
    clients.run(Load { duration: Duration::from_secs(1), ..open }).await?;
    let outcome = clients.run(open).await?;
    let report = &mut bench.report;
    let beside = format!(
        "p99.9 {} ms, worst {} ms; load generator late by {} ms at worst",
        number(outcome.results.ms(0.999)),
        number(outcome.results.max_ms()),
        number(outcome.late.as_secs_f64() * 1e3)
    );
    report.add(
        &name,
        "p50 at 1,000/s, open loop",
        outcome.results.ms(0.5),
        "ms",
        aims(Target::AtMost(2.0)),
        String::new(),
    );
    report.add(&name, "p99 at 1,000/s, open loop", outcome.results.ms(0.99), "ms", aims(Target::AtMost(10.0)), beside);
    report.faults(&name, "errors and lost", &outcome);

    let mut bursts = Vec::new();
    for _ in 0..3 {
        let burst = Load { results: true, most: JOBS as i64, ..Load::closed(Duration::from_secs(8)) };
        let outcome = clients.run(burst).await?;
        if outcome.results.count() < JOBS as u64 {
            anyhow::bail!("only {} of {JOBS} commands had a result", outcome.results.count());
        }
        bursts.push(outcome.results.max_ms());
    }
    bursts.sort_by(f64::total_cmp);
    let beside = format!("of three: {} to {} ms", number(bursts[0]), number(bursts[2]));
    bench.report.add(
        &name,
        "1,000 commands at once, all results",
        bursts[1],
        "ms",
        aims(Target::AtMost(500.0)),
        beside,
    );

    let before = Counters::read(&environment.broker).await?;
    let gateway_spent = CpuTime::begin(&[gateway.process.pid]);
    let worker_pids: Vec<u32> = workers_running.iter().map(|worker| worker.pid).collect();
    let worker_spent = CpuTime::begin(&worker_pids);
    let outcome = clients.run(Load { results: true, ..Load::closed(Duration::from_secs(4)) }).await?;
    let (gateway_cpu, worker_cpu) = (gateway_spent.seconds(), worker_spent.seconds());
    let after = Counters::read(&environment.broker).await?;
    let commands = outcome.results.count().max(1) as f64;
    let each = |seconds: f64| number(seconds * 1e6 / commands);
    let beside = format!(
        "a command: gateway {} µs, Redis {} µs, workers {} µs; p50 {} ms",
        each(gateway_cpu),
        each(after.cpu - before.cpu),
        each(worker_cpu),
        number(outcome.results.ms(0.5))
    );
    bench.report.add(
        &name,
        "sustained, closed loop",
        outcome.results_per_second(),
        "/s",
        aims(Target::AtLeast(5_000.0)),
        beside,
    );
    if outcome.faults() > 0.0 {
        bench.report.faults(&name, "errors when sustained", &outcome);
    }
    drop(clients);
    for worker in workers_running {
        worker.stop().await;
    }
    gateway.process.stop().await;
    bench.stack.flush(&environment).await
}
