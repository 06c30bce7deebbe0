//! Acks: parsed, checked, recorded, answered. No worker runs, as nobody works in the yardsticks either.

use std::time::Duration;

use super::Bench;
use crate::cli::bench::crowd::{Crowd, Load, Outcome};
use crate::cli::bench::place::Place;
use crate::cli::bench::redis::{self, Counters};
use crate::cli::bench::report::{Target, number};
use crate::cli::bench::stats::Spent;

const WARM: Duration = Duration::from_millis(500);
const LONG: Duration = Duration::from_millis(3_000);

/// What acks cost.
pub(super) struct Cost {
    pub(super) outcome: Outcome,
    /// µs of CPU a command: gateways, and Redis with everything it does beside.
    pub(super) gateway: f64,
    pub(super) redis: f64,
    /// µs inside the scripts a command.
    pub(super) script: f64,
}

/// Closed loop over these sockets, after a warm-up.
pub(super) async fn measure(place: &Place, pids: &[u32], crowd: &mut Crowd, long: Duration) -> anyhow::Result<Cost> {
    crowd.run(Load::closed(WARM)).await?;
    let before = Counters::read(&place.broker).await?;
    let spent = Spent::begin(pids);
    let outcome = crowd.run(Load::closed(long)).await?;
    let gateway = spent.seconds();
    let after = Counters::read(&place.broker).await?;
    let commands = outcome.acks.len().max(1) as f64;
    Ok(Cost {
        gateway: gateway * 1e6 / commands,
        redis: (after.cpu - before.cpu) * 1e6 / commands,
        script: after.micros_since(&before, "evalsha") / commands,
        outcome,
    })
}

pub(super) async fn acks(bench: &mut Bench) -> anyhow::Result<()> {
    let settings = bench.stack.settings.clone();
    let place = bench.stack.place(&settings, "acks").await?;
    let (jobs, users) = place.fill(1_000, 1_000).await?;
    let port = bench.stack.redis_port;
    let nothing = redis::nothing(port, 600_000).await?;
    let report = &mut bench.report;
    report.note("yardstick", "`return 1`, redis-benchmark -P 16", nothing, "/s");
    let mut yardsticks = vec![redis::submits(&place, port, &users[0], &place.job(&jobs[0]), 80_000).await?];

    let gateway = bench.stack.gateway(&settings).await?;
    let pids = [gateway.process.pid];
    let mut at_200 = None;
    for sockets in [1, 50, 200, 1_000] {
        let mut crowd = Crowd::open(&place, &[gateway.address], &jobs, &users, sockets).await?;
        let cost = measure(&place, &pids, &mut crowd, LONG).await?;
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
            outcome.report_faults(report, &name, "errors");
        }
        if sockets == 200 {
            at_200 = Some(outcome.acks_per_second());
            // Right after it as well: this machine's speed changes with what else it does.
            yardsticks.push(redis::submits(&place, port, &users[0], &place.job(&jobs[0]), 80_000).await?);
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
    let mut crowd = Crowd::open(&place, &[gateway.address, second.address], &jobs, &users, 200).await?;
    let cost = measure(&place, &pids, &mut crowd, LONG).await?;
    let beside = format!("gateways {} µs a command", number(cost.gateway));
    bench.report.add("acks, 200 sockets, 2 gateways", "acks", cost.outcome.acks_per_second(), "/s", None, beside);
    bench.report.note("acks, 200 sockets, 2 gateways", "p50", cost.outcome.acks.ms(0.5), "ms");
    drop(crowd);
    second.process.stop().await;
    gateway.process.stop().await;
    bench.stack.flush(&place).await
}

/// Commands over the limit: 200 users who have used theirs up.
pub(super) async fn limited(bench: &mut Bench) -> anyhow::Result<()> {
    let settings = bench.stack.settings.clone();
    let place = bench.stack.place(&settings, "limited").await?;
    let (jobs, users) = place.fill(200, 200).await?;
    let gateway = bench.stack.gateway_with(&settings, &["limits.messages_per_second=1000000"]).await?;
    let mut crowd = Crowd::open(&place, &[gateway.address], &jobs, &users, 200).await?;
    crowd.run(Load::closed(Duration::from_secs(1))).await?;
    let spent = Spent::begin(&[gateway.process.pid]);
    let outcome = crowd.run(Load::closed(LONG)).await?;
    let rejected = outcome.errors.get("rate_limit_exceeded").copied().unwrap_or_default() as f64;
    let cpu = spent.seconds() * 1e6 / rejected.max(1.0);
    let beside = format!("gateway {} µs each; accepted meanwhile {}", number(cpu), outcome.acks.len());
    let rate = rejected / outcome.took.as_secs_f64();
    bench.report.add("rejected by the limit", "rejections, 200 sockets", rate, "/s", None, beside);
    gateway.process.stop().await;
    bench.stack.flush(&place).await
}
