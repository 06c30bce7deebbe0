//! From the command to the program that really stands still, or is gone: `wheelhouse run`.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::Bench;
use crate::report::Target;
use wheelhouse::cli::bench::environment::BenchEnvironment;
use wheelhouse::cli::bench::socket_client::{Client, ServerMessage, frame, parse_message};
use wheelhouse::cli::bench::stats::LatencyHistogram;
use wheelhouse::cli::bench::stats::number;
use wheelhouse::domain::UserId;

const RUNS: usize = 30;
const PAUSES: usize = 4;
/// Between two looks at the process table, on a thread of its own.
const POLL_INTERVAL: Duration = Duration::from_micros(200);
const TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) async fn process(bench: &mut Bench) -> anyhow::Result<()> {
    let settings = bench.stack.settings.clone();
    let environment = bench.stack.environment(&settings, "process").await?;
    let (_, users) = environment.fill(0, 1).await?;
    let gateway = bench.stack.gateway(&settings).await?;
    let mut times = [const { None }; 4].map(|_: Option<()>| LatencyHistogram::default());
    for n in 0..RUNS {
        let job = format!("run-{n}");
        let file = bench.stack.file(&format!("{job}.pid"));
        let script = format!("echo $$ > '{}'; exec sleep 600", file.display());
        let mut run = bench.stack.run(&environment, &job, &["sh", "-c", &script])?;
        let pid = started(&file).await?;
        let mut client = open(&environment, gateway.address, &job, &users[0]).await?;
        let [paused, stopped, cancelled, gone] = &mut times;
        for _ in 0..PAUSES {
            let (answer, seen) = command(&mut client, "pause", pid).await?;
            paused.record(answer);
            stopped.record(seen);
            command(&mut client, "resume", pid).await?;
        }
        let (answer, seen) = command(&mut client, "cancel", pid).await?;
        cancelled.record(answer);
        gone.record(seen);
        while !run.has_ended() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    gateway.process.stop().await;
    let [paused, stopped, cancelled, gone] = &times;
    for (what, answer, seen) in [("pause", paused, stopped), ("cancel", cancelled, gone)] {
        let name = format!("process, {what}");
        let beside = format!(
            "{} times; result to the client p50 {} ms, p99 {} ms",
            seen.count(),
            number(answer.ms(0.5)),
            number(answer.ms(0.99))
        );
        bench.report.add(&name, "p50 to a stop seen in /proc", seen.ms(0.5), "ms", Some(Target::AtMost(3.0)), beside);
        bench.report.aim(&name, "p99 to a stop seen in /proc", seen.ms(0.99), "ms", Target::AtMost(15.0));
    }
    bench.stack.flush(&environment).await
}

async fn started(file: &Path) -> anyhow::Result<i32> {
    let begun = Instant::now();
    while begun.elapsed() < TIMEOUT {
        if let Some(pid) = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()) {
            return Ok(pid);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bail!("a program did not start under `wheelhouse run`")
}

/// The host takes a moment to register: until then there is no such job.
async fn open(
    environment: &BenchEnvironment,
    address: std::net::SocketAddr,
    job: &str,
    user: &UserId,
) -> anyhow::Result<Client> {
    let begun = Instant::now();
    let token = environment.token(user)?;
    loop {
        match Client::open(address, job, &token).await {
            Ok(client) => {
                // It hears commands from now on, or at its next renewal.
                tokio::time::sleep(Duration::from_millis(50)).await;
                return Ok(client);
            }
            Err(error) if begun.elapsed() > TIMEOUT => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Time to the result, and to the state of the process that it stands for.
async fn command(client: &mut Client, action: &str, pid: i32) -> anyhow::Result<(Duration, Duration)> {
    let (verb, letter) = match action {
        "pause" => (action, Some('T')),
        "resume" => (action, Some('S')),
        _ => (action, None),
    };
    let begun = Instant::now();
    let looking = tokio::task::spawn_blocking(move || {
        while state_of(pid) != letter && begun.elapsed() < TIMEOUT {
            std::thread::sleep(POLL_INTERVAL);
        }
        begun.elapsed()
    });
    client.send(&frame(&format!("{{\"type\":\"{verb}_job\"}}"))).await?;
    let answer = loop {
        let range = tokio::time::timeout(TIMEOUT, client.next()).await.context("no result")??;
        match parse_message(client.text(range.clone())) {
            ServerMessage::Result { succeeded: true, .. } => break begun.elapsed(),
            ServerMessage::Result { .. } | ServerMessage::Error { .. } => bail!("{}", client.text(range)),
            _ => {}
        }
    };
    Ok((answer, looking.await?))
}

/// The letter of its state; `None`: it is gone, or dead.
fn state_of(pid: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let letter = stat.rsplit_once(')')?.1.trim_start().chars().next()?;
    (!matches!(letter, 'Z' | 'X')).then_some(if matches!(letter, 'R' | 'D') { 'S' } else { letter })
}
