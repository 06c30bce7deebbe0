//! What Redis, SQL and the processes have done so far, and the difference of two such moments as a line of a table.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use wheelhouse::broker::Broker;

use crate::listener::Arrived;
use crate::{Process, REPORT_INTERVAL};

/// Clock ticks in a second, as `/proc` counts them.
const TICKS_PER_SECOND: f64 = 100.0;

pub(crate) struct Costs {
    /// Calls of each command, those inside scripts included.
    commands: BTreeMap<String, u64>,
    /// Transactions that SQLite has written; `None`: the database is another one.
    transactions: Option<u32>,
    worker_cpu: f64,
    redis_cpu: f64,
    /// Resident memory of the worker, in bytes: now, and at most so far.
    memory: u64,
    peak: u64,
}

impl Costs {
    pub(crate) async fn now(
        broker: &Broker,
        database: &Path,
        worker: &Process,
        redis: &Process,
    ) -> anyhow::Result<Self> {
        let info = broker.query_any(&["INFO".to_owned(), "commandstats".to_owned()]).await?.join("\n");
        let commands = info.lines().filter_map(|line| {
            let (name, rest) = line.trim().strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
        });
        let [memory, peak] = ["VmRSS", "VmHWM"].map(|name| memory_of(worker, name));
        Ok(Self {
            commands: commands.collect(),
            transactions: transactions(database),
            worker_cpu: cpu_of(worker)?,
            redis_cpu: cpu_of(redis)?,
            memory: memory?,
            peak: peak?,
        })
    }
}

/// How many transactions have been written: SQLite counts them in the shared index of its write-ahead log (`iChange`, the third
/// number of its header).
fn transactions(database: &Path) -> Option<u32> {
    let index = std::fs::read(PathBuf::from(format!("{}-shm", database.display()))).ok()?;
    Some(u32::from_ne_bytes(index.get(8..12)?.try_into().ok()?))
}

fn memory_of(process: &Process, name: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid()?))?;
    let line = status.lines().find(|line| line.starts_with(name)).context("no memory in /proc")?;
    let kib: u64 = line.split_whitespace().nth(1).context("no number in /proc")?.parse()?;
    Ok(kib * 1_024)
}

fn cpu_of(process: &Process) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid()?))?;
    let (_, fields) = stat.rsplit_once(") ").context("no fields in /proc")?;
    let ticks = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap_or(0.0)).sum::<f64>();
    Ok(ticks / TICKS_PER_SECOND)
}

#[expect(clippy::print_stdout, reason = "it prints a table")]
pub(crate) fn print(jobs: usize, window: Duration, arrived: Arrived, before: &Costs, after: &Costs) {
    let (mut latencies, seconds) = (arrived.latencies, window.as_secs_f64());
    latencies.sort_unstable();
    let updates = latencies.len().max(1) as f64;
    let at = |part: f64| latencies.get((updates * part) as usize).map_or(0.0, |us| *us as f64 / 1_000.0);
    let reports = jobs as f64 * seconds / REPORT_INTERVAL.as_secs_f64();
    let calls = |name: &str| after.commands.get(name).unwrap_or(&0) - before.commands.get(name).unwrap_or(&0);
    let all: u64 = after.commands.keys().map(|name| calls(name)).sum();
    let scripts = calls("evalsha") + calls("eval");
    println!(
        "{jobs} jobs, {:.0} updates/s heard, {:.1} % of the reports",
        updates / seconds,
        100.0 * updates / reports
    );
    println!(
        "  from the report to the message: p50 {:.1}, p99 {:.1}, at most {:.1} ms; {} out of order",
        at(0.5),
        at(0.99),
        latencies.last().map_or(0.0, |us| *us as f64 / 1_000.0),
        arrived.out_of_order
    );
    println!(
        "  Redis commands for each update: {:.2}, of which calls from outside {:.2}",
        all as f64 / updates,
        (scripts + calls("ping") + calls("publish").saturating_sub(latencies.len() as u64)) as f64 / updates
    );
    let mut by_count: Vec<(u64, &String)> = after.commands.keys().map(|name| (calls(name), name)).collect();
    by_count.sort_unstable_by(|a, b| b.cmp(a));
    let named = by_count.iter().take(8).map(|(n, name)| format!("{name} {:.3}", *n as f64 / updates));
    println!("  by name: {}", named.collect::<Vec<_>>().join(", "));
    match (before.transactions, after.transactions) {
        (Some(before), Some(after)) => {
            let written = f64::from(after.wrapping_sub(before));
            println!("  SQL transactions: {:.1} a second, {:.4} for each update", written / seconds, written / updates);
        }
        _ => println!("  SQL transactions: ask the database (pg_stat_database)"),
    }
    println!(
        "  worker: {:.2} cores, {:.1} µs an update, {} MiB resident, at most {} MiB; Redis: {:.2} cores, {:.1} µs an update",
        (after.worker_cpu - before.worker_cpu) / seconds,
        1e6 * (after.worker_cpu - before.worker_cpu) / updates,
        after.memory >> 20,
        after.peak >> 20,
        (after.redis_cpu - before.redis_cpu) / seconds,
        1e6 * (after.redis_cpu - before.redis_cpu) / updates,
    );
}
