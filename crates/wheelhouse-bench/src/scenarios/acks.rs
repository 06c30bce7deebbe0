//! Acks: parsed, checked, recorded, answered. No worker runs, as nobody works in the yardsticks either.

use std::time::Duration;

use super::Bench;
use crate::report::Target;
use crate::yardsticks;
use wheelhouse::cli::bench::counters::Counters;
use wheelhouse::cli::bench::environment::BenchEnvironment;
use wheelhouse::cli::bench::load_clients::{Load, LoadClients, LoadOutcome};
use wheelhouse::cli::bench::stats::CpuTime;
use wheelhouse::cli::bench::stats::number;

const WARM_UP: Duration = Duration::from_millis(500);
const RUN_TIME: Duration = Duration::from_millis(3_000);

/// What acks cost.
pub(crate) struct CommandCost {
    pub(crate) outcome: LoadOutcome,
    /// µs of CPU a command: gateways, and Redis with everything it does beside.
    pub(crate) gateway: f64,
    pub(crate) redis: f64,
    /// µs inside the scripts a command.
    pub(crate) script: f64,
}

/// Closed loop over these sockets, after a warm-up.
pub(crate) async fn measure(
    environment: &BenchEnvironment,
    pids: &[u32],
    clients: &mut LoadClients,
    long: Duration,
) -> anyhow::Result<CommandCost> {
    clients.run(Load::closed(WARM_UP)).await?;
    let before = Counters::read(&environment.broker).await?;
    let spent = CpuTime::begin(pids);
    let outcome = clients.run(Load::closed(long)).await?;
    let gateway = spent.seconds();
    let after = Counters::read(&environment.broker).await?;
    let commands = outcome.acks.count().max(1) as f64;
    Ok(CommandCost {
        gateway: gateway * 1e6 / commands,
        redis: (after.cpu - before.cpu) * 1e6 / commands,
        script: after.micros_since(&before, "evalsha") / commands,
        outcome,
    })
}

pub(crate) async fn acks(bench: &mut Bench) -> anyhow::Result<()> {
    let settings = bench.stack.settings.clone();
    let environment = bench.stack.environment(&settings, "acks").await?;
    let (jobs, users) = environment.fill(1_000, 1_000).await?;
    let port = bench.stack.redis_port;
    let nothing = yardsticks::nothing(port, 600_000).await?;
    let report = &mut bench.report;
    report.note("yardstick", "`return 1`, redis-benchmark -P 16", nothing, "/s");
    let mut yardsticks =
        vec![yardsticks::submits(&environment, port, &users[0], &environment.job(&jobs[0]), 80_000).await?];

    let gateway = bench.stack.gateway(&settings).await?;
    let pids = [gateway.process.pid];
    let mut at_200 = None;
    for sockets in [1, 50, 200, 1_000] {
        let mut clients = LoadClients::open(&environment, &[gateway.address], &jobs, &users, sockets).await?;
        let cost = measure(&environment, &pids, &mut clients, RUN_TIME).await?;
        let name = format!("acks, {sockets} sockets");
        let outcome = &cost.outcome;
        let report = &mut bench.report;
        report.note(&name, "acks", outcome.acks_per_second(), "/s");
        let target = (sockets == 200).then_some(Target::AtMost(6.0));
        let beside = format!("p99 {} ms, worst {} ms", number(outcome.acks.ms(0.99)), number(outcome.acks.max_ms()));
        report.add(&name, "p50", outcome.acks.ms(0.5), "ms", target, beside);
        let target = (sockets == 200).then_some(Target::AtMost(25.0));
        let beside = format!("Redis {} µs, of it scripts {} µs", number(cost.redis), number(cost.script));
        report.add(&name, "gateway CPU a command", cost.gateway, "µs", target, beside);
        if outcome.faults() > 0.0 {
            report.faults(&name, "errors", outcome);
        }
        if sockets == 200 {
            at_200 = Some(outcome.acks_per_second());
            // Right after it as well: this machine's speed changes with what else it does.
            yardsticks
                .push(yardsticks::submits(&environment, port, &users[0], &environment.job(&jobs[0]), 80_000).await?);
        }
    }
    let yardstick = yardsticks.iter().sum::<f64>() / yardsticks.len() as f64;
    let report = &mut bench.report;
    report.note("yardstick", "submit_command, redis-benchmark -P 16", yardstick, "/s");
    if let Some(rate) = at_200 {
        let beside = format!("{}/s beside {}/s", number(rate), number(yardstick));
        report.add(
            "acks, 200 sockets",
            "part of the yardstick",
            rate / yardstick,
            "",
            Some(Target::AtLeast(0.4)),
            beside,
        );
    }

    let second = bench.stack.gateway(&settings).await?;
    let pids = [gateway.process.pid, second.process.pid];
    let mut clients = LoadClients::open(&environment, &[gateway.address, second.address], &jobs, &users, 200).await?;
    let cost = measure(&environment, &pids, &mut clients, RUN_TIME).await?;
    let beside = format!("gateways {} µs a command", number(cost.gateway));
    bench.report.add("acks, 200 sockets, 2 gateways", "acks", cost.outcome.acks_per_second(), "/s", None, beside);
    bench.report.note("acks, 200 sockets, 2 gateways", "p50", cost.outcome.acks.ms(0.5), "ms");
    drop(clients);
    second.process.stop().await;
    gateway.process.stop().await;
    bench.stack.flush(&environment).await
}

/// Commands over the limit: 200 users who have used theirs up.
pub(crate) async fn limited(bench: &mut Bench) -> anyhow::Result<()> {
    let settings = bench.stack.settings.clone();
    let environment = bench.stack.environment(&settings, "limited").await?;
    let (jobs, users) = environment.fill(200, 200).await?;
    let gateway = bench.stack.gateway_with(&settings, &["limits.messages_per_second=1000000"]).await?;
    let mut clients = LoadClients::open(&environment, &[gateway.address], &jobs, &users, 200).await?;
    clients.run(Load::closed(Duration::from_secs(1))).await?;
    let spent = CpuTime::begin(&[gateway.process.pid]);
    let outcome = clients.run(Load::closed(RUN_TIME)).await?;
    let rejected = outcome.errors.get("rate_limit_exceeded").copied().unwrap_or_default() as f64;
    let cpu = spent.seconds() * 1e6 / rejected.max(1.0);
    let beside = format!("gateway {} µs each; accepted meanwhile {}", number(cpu), outcome.acks.count());
    let rate = rejected / outcome.took.as_secs_f64();
    bench.report.add("rejected by the limit", "rejections, 200 sockets", rate, "/s", None, beside);
    gateway.process.stop().await;
    bench.stack.flush(&environment).await
}
