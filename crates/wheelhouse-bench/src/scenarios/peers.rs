//! What a user would take instead, on the same machine in the same run (`make bench-peers` installs them).

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use secrecy::ExposeSecret;
use tokio::process::Command;

use super::{Bench, acks};
use crate::report::{Report, Target};
use crate::stack::get_status;
use crate::stack::{Process, free_port};
use wheelhouse::cli::bench::load_clients::LoadClients;
use wheelhouse::cli::bench::stats::number;

const RUN_TIME: Duration = Duration::from_millis(3_000);
/// Longest run of one of them.
const TIMEOUT: Duration = Duration::from_secs(90);

pub(crate) async fn peers(bench: &mut Bench) -> anyhow::Result<()> {
    let Some(folder) = bench.peers.clone() else { return Ok(()) };
    let folder = folder.canonicalize().context("`make bench-peers` installs the peers")?;
    let done = node(bench, &folder).await;
    note(&mut bench.report, "Node server", done);
    let done = bullmq(bench, &folder).await;
    note(&mut bench.report, "BullMQ", done);
    let done = celery(bench, &folder).await;
    note(&mut bench.report, "Celery", done);
    let done = rq(bench, &folder).await;
    note(&mut bench.report, "RQ", done);
    Ok(())
}

/// One that could not be measured does not take the others with it.
fn note(report: &mut Report, name: &str, done: anyhow::Result<()>) {
    if let Err(error) = done {
        report.leave_out(name, &error);
    }
}

/// ws + ioredis + rate-limiter-flexible, driven by the same load generator; ours once more right after it.
async fn node(bench: &mut Bench, folder: &Path) -> anyhow::Result<()> {
    let settings = bench.stack.settings.clone();
    let environment = bench.stack.environment(&settings, "peer").await?;
    let (jobs, users) = environment.fill(1_000, 1_000).await?;
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
    let mut command = Command::new("node");
    let secret = settings.auth.hs256_secret.as_ref().map(|s| s.expose_secret().to_owned()).unwrap_or_default();
    command.arg(folder.join("node-server.mjs")).current_dir(folder);
    command.env("PORT", address.port().to_string()).env("REDIS_PORT", bench.stack.redis_port.to_string());
    command.env("SECRET", secret);
    let mut server = Process::start(command, &bench.stack.file("node.log"))?;
    let ready = async {
        while !matches!(get_status(address, "/readyz").await, Ok(200)) {
            if server.has_ended() {
                bail!("it ended: {}", std::fs::read_to_string(bench.stack.file("node.log")).unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    };
    tokio::time::timeout(TIMEOUT, ready).await.context("it did not become ready")??;
    let mut theirs = LoadClients::open(&environment, &[address], &jobs, &users, 200).await?;
    let gateway = bench.stack.gateway(&settings).await?;
    let mut ours = LoadClients::open(&environment, &[gateway.address], &jobs, &users, 200).await?;
    // In turns, so that whatever else this machine does meets both.
    let (mut their_rates, mut our_rates, mut their_p50, mut our_p50, mut their_cpu) =
        (vec![], vec![], vec![], vec![], vec![]);
    for _ in 0..3 {
        let cost = acks::measure(&environment, &[server.pid], &mut theirs, RUN_TIME / 2).await?;
        their_rates.push(cost.outcome.acks_per_second());
        their_p50.push(cost.outcome.acks.ms(0.5));
        their_cpu.push(cost.gateway);
        let cost = acks::measure(&environment, &[gateway.process.pid], &mut ours, RUN_TIME / 2).await?;
        our_rates.push(cost.outcome.acks_per_second());
        our_p50.push(cost.outcome.acks.ms(0.5));
    }
    let (theirs_s, ours_s) = (median(&mut their_rates), median(&mut our_rates));
    let report = &mut bench.report;
    let beside =
        format!("p50 {} ms, {} µs of its CPU each", number(median(&mut their_p50)), number(median(&mut their_cpu)));
    report.add("Node server, 200 sockets", "acks", theirs_s, "/s", None, beside);
    let beside = format!("ours {}/s, p50 {} ms, in turns with it", number(ours_s), number(median(&mut our_p50)));
    report.add(
        "Node server, 200 sockets",
        "our acks for one of its",
        ours_s / theirs_s,
        "×",
        Some(Target::AtLeast(1.5)),
        beside,
    );
    drop(theirs);
    drop(ours);
    server.stop().await;
    gateway.process.stop().await;
    bench.stack.flush(&environment).await
}

async fn bullmq(bench: &mut Bench, folder: &Path) -> anyhow::Result<()> {
    let told = run(bench, folder, "node", "bullmq.mjs").await?;
    let (p50, p99, sustained) = (told("p50")?, told("p99")?, told("sustained")?);
    let ours = |what: &str| bench.report.value("results, SQLite, 1 workers", what);
    let beside = [
        ours_beside(ours("p50 at 1,000/s, open loop"), "ms"),
        ours_beside(ours("p99 at 1,000/s, open loop"), "ms"),
        ours_beside(ours("sustained, closed loop"), "/s"),
    ];
    let [p50_beside, p99_beside, sustained_beside] = beside;
    let name = "BullMQ, add → completed";
    bench.report.add(name, "p50 at 1,000/s", p50, "ms", None, p50_beside);
    bench.report.add(name, "p99 at 1,000/s", p99, "ms", None, p99_beside);
    bench.report.add(name, "10,000 at once", sustained, "/s", None, sustained_beside);
    Ok(())
}

async fn celery(bench: &mut Bench, folder: &Path) -> anyhow::Result<()> {
    let told = run(bench, folder, "venv/bin/python", "celery_revoke.py").await?;
    let (gone, gone_p99, replied) = (told("gone_p50")?, told("gone_p99")?, told("replied_p50")?);
    let ours = bench.report.value("process, cancel", "p50 to a stop seen in /proc");
    let beside = format!("p99 {} ms; {}", number(gone_p99), ours_beside(ours, "ms"));
    bench.report.add("Celery revoke", "p50 to the process's death", gone, "ms", None, beside);
    bench.report.note("Celery revoke", "p50 with a reply", replied, "ms");
    Ok(())
}

async fn rq(bench: &mut Bench, folder: &Path) -> anyhow::Result<()> {
    let told = run(bench, folder, "venv/bin/python", "rq_stop.py").await?;
    let (gone, gone_p99) = (told("gone_p50")?, told("gone_p99")?);
    let ours = bench.report.value("process, cancel", "p50 to a stop seen in /proc");
    let beside = format!("p99 {} ms; {}", number(gone_p99), ours_beside(ours, "ms"));
    bench.report.add("RQ stop", "p50 to the process's death", gone, "ms", None, beside);
    Ok(())
}

fn ours_beside(value: Option<f64>, unit: &str) -> String {
    value.map_or_else(
        || "ours was not measured in this run".to_owned(),
        |value| format!("ours {} {unit}", number(value)),
    )
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Runs a script that prints one JSON object of numbers as its last line; gives a way to ask for them.
async fn run(
    bench: &Bench,
    folder: &Path,
    interpreter: &str,
    script: &str,
) -> anyhow::Result<impl Fn(&str) -> anyhow::Result<f64> + use<>> {
    let inside = folder.join(interpreter);
    let program = if inside.exists() { inside } else { interpreter.into() };
    let running = Command::new(program)
        .arg(script)
        .current_dir(folder)
        .env("REDIS_PORT", bench.stack.redis_port.to_string())
        .env("PEER_FOLDER", bench.stack.file(""))
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(TIMEOUT, running).await.with_context(|| format!("{script} takes too long"))??;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let numbers: serde_json::Value = match text.trim().lines().last().map(serde_json::from_str) {
        Some(Ok(numbers)) => numbers,
        _ => bail!("{script} said: {text} {}", String::from_utf8_lossy(&output.stderr)),
    };
    Ok(move |name: &str| numbers[name].as_f64().with_context(|| format!("it says nothing of {name}")))
}
