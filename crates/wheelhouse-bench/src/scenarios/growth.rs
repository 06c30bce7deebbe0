//! What grows, and what must not.

use std::time::Duration;

use futures_util::StreamExt;

use super::{Bench, acks};
use crate::report::Target;
use wheelhouse::broker::scripts::submit::{ClientOrigin, Grant, Submission, SubmitLimits};
use wheelhouse::cli::bench::counters::Counters;
use wheelhouse::cli::bench::environment::BenchEnvironment;
use wheelhouse::cli::bench::load_clients::{Load, LoadClients};
use wheelhouse::cli::bench::stats::number;
use wheelhouse::domain::{Action, CommandId, ResourceId, UserId, When};

const SOCKETS: usize = 200;
const MANY_WORKERS: usize = 50;
const RATE: f64 = 500.0;
const RUN_TIME: Duration = Duration::from_millis(1_500);

/// Fifty workers hear every wake-up; one of them is to claim.
pub(crate) async fn many_workers(bench: &mut Bench) -> anyhow::Result<()> {
    // On PostgreSQL where there is one: fifty programs that each wait for the disk in turn would measure SQLite.
    let (settings, database) = match bench.stack.with_postgres().await {
        Ok(settings) => (settings, "PostgreSQL"),
        Err(_) => (bench.stack.settings.clone(), "SQLite"),
    };
    let mut cpu_of_one = 0.0;
    for count in [1, MANY_WORKERS] {
        let environment = bench.stack.environment(&settings, "workers").await?;
        let (jobs, users) = environment.fill(SOCKETS, SOCKETS).await?;
        let gateway = bench.stack.gateway(&settings).await?;
        let workers = bench.stack.workers(&environment, count).await?;
        let mut clients = LoadClients::open(&environment, &[gateway.address], &jobs, &users, SOCKETS).await?;
        // A fleet that has been running for a while: each worker has its connections to the database.
        let load = Load { rate: Some(RATE), results: true, ..Load::closed(Duration::from_secs(4)) };
        clients.run(load).await?;
        // They also poll and beat when nothing happens: that is not a command's cost.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = Counters::read(&environment.broker).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let idle = (Counters::read(&environment.broker).await?.cpu - before.cpu) / 2.0;
        let before = Counters::read(&environment.broker).await?;
        let outcome = clients.run(load).await?;
        let after = Counters::read(&environment.broker).await?;
        let commands = outcome.acks.count().max(1) as f64;
        // The first thing that a claim does is to look at the head of the queue, and a submission looks once at
        // the user's list: nothing else asks for one element of a list.
        let claims = after.calls_since(&before, "lindex") / commands - 1.0;
        let cpu = (after.cpu - before.cpu - idle * outcome.took.as_secs_f64()) * 1e6 / commands;
        let name = format!("{count} workers, 500/s, {database}");
        let beside = format!("p50 {} ms, p99 {} ms", number(outcome.results.ms(0.5)), number(outcome.results.ms(0.99)));
        bench.report.add(&name, "claims a command", claims, "", Some(Target::AtMost(2.0)), beside);
        let beside = match count {
            1 => format!("idle {} % of a core", number(idle * 100.0)),
            _ => format!("idle {} % of a core; with one worker {} µs", number(idle * 100.0), number(cpu_of_one)),
        };
        cpu_of_one = cpu;
        bench.report.add(&name, "Redis CPU a command, beyond idle", cpu, "µs", None, beside);
        bench.report.faults(&name, "errors and lost", &outcome);
        drop(clients);
        for worker in workers {
            worker.stop().await;
        }
        gateway.process.stop().await;
        bench.stack.flush(&environment).await?;
    }
    Ok(())
}

/// Ten times as many tenants, jobs or waiting commands: what a command costs then.
pub(crate) async fn growth(bench: &mut Bench) -> anyhow::Result<()> {
    let settings = bench.stack.settings.clone();
    let environment = bench.stack.environment(&settings, "growth").await?;
    let (jobs, users) = environment.fill(10_000, SOCKETS).await?;
    let gateway = bench.stack.gateway(&settings).await?;
    let pids = [gateway.process.pid];
    for (what, tenants, waiting_jobs, deep) in [
        ("10 × tenants (100)", 100, 1_000, 1),
        ("10 × jobs (10,000)", 10, 10_000, 1),
        ("10 × queue (100 each)", 10, SOCKETS, 100),
    ] {
        let mut costs = Vec::new();
        for grown in [false, true, false, true] {
            bench.stack.flush(&environment).await?;
            let (tenants, waiting_jobs, deep) = match (what, grown) {
                (_, true) => (tenants, waiting_jobs, deep),
                (what, _) if what.contains("tenants") => (tenants / 10, waiting_jobs, deep),
                (what, _) if what.contains("jobs") => (tenants, waiting_jobs / 10, deep),
                _ => (tenants, waiting_jobs, deep / 10),
            };
            for _ in 0..tenants {
                fill(&environment.beside_running("other")?, &jobs[..10], &users[0], 1).await?;
            }
            fill(&environment, &jobs[..waiting_jobs], &users[0], deep).await?;
            let mut clients =
                LoadClients::open(&environment, &[gateway.address], &jobs[..SOCKETS], &users, SOCKETS).await?;
            let cost = acks::measure(&environment, &pids, &mut clients, RUN_TIME).await?;
            costs.push((cost.gateway + cost.redis, cost.script));
        }
        let sum = |from: usize| (costs[from].0 + costs[from + 2].0, costs[from].1 + costs[from + 2].1);
        let (small, big) = (sum(0), sum(1));
        let growth = (big.0 / small.0 - 1.0) * 100.0;
        let beside = format!(
            "{} → {} µs (gateway and Redis); scripts alone {} → {} µs",
            number(small.0 / 2.0),
            number(big.0 / 2.0),
            number(small.1 / 2.0),
            number(big.1 / 2.0)
        );
        bench.report.add("growth", what, growth, "% more a command", Some(Target::AtMost(10.0)), beside);
    }
    gateway.process.stop().await;
    bench.stack.flush(&environment).await
}

/// So many commands waiting on each of these jobs.
async fn fill(environment: &BenchEnvironment, jobs: &[ResourceId], user: &UserId, deep: usize) -> anyhow::Result<()> {
    let limits =
        SubmitLimits { commands_per_minute: 1_000_000_000, backlog_per_tenant: 1_000_000_000, schedules_per_tenant: 1 };
    let submitting = (0..jobs.len() * deep).map(|n| {
        let submission = Submission {
            command: CommandId::generate(),
            resource: environment.job(&jobs[n % jobs.len()]),
            action: Action::Pause,
            user: user.clone(),
            request: None,
            reason: None,
            origin: ClientOrigin::default(),
            grant: Grant::Token(true),
            when: When::Now,
            batch: None,
        };
        async move { environment.broker.submit(&submission, limits).await }
    });
    let mut submitted = futures_util::stream::iter(submitting).buffer_unordered(256);
    while let Some(done) = submitted.next().await {
        done?;
    }
    Ok(())
}
