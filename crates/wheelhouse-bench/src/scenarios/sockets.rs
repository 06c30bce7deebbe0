//! Many sockets: idle, dropped together, back together, all asking at once.

use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::StreamExt;

use super::Bench;
use crate::report::Target;
use wheelhouse::cli::bench::load_clients::{Load, LoadClients};
use wheelhouse::cli::bench::socket_client::{Client, ServerMessage, frame, parse_message};
use wheelhouse::cli::bench::stats::number;
use wheelhouse::cli::bench::stats::{CpuTime, resident_bytes};

const POLL_INTERVAL: Duration = Duration::from_secs(6);
/// Sockets that come back.
const CONNECT_STORM: usize = 5_000;
/// Connections that are being opened at once in the storm.
const MAX_CONCURRENT: usize = 1_000;
/// Longer than the permission cache keeps what it knows.
const COLD_START_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) async fn idle(bench: &mut Bench) -> anyhow::Result<()> {
    let settings = bench.stack.settings.clone();
    for count in [1_000, bench.sockets] {
        let environment = bench.stack.environment(&settings, "idle").await?;
        // Each on a job of its own and each another user: what costs most.
        let (jobs, users) = environment.fill(count, count).await?;
        let gateway = bench.stack.gateway(&settings).await?;
        let pid = gateway.process.pid;
        let workers = bench.stack.workers(&environment, 1).await?;
        let mut probe = LoadClients::open(&environment, &[gateway.address], &jobs, &users, 10).await?;
        let before = resident_bytes(pid).context("this system does not tell what a process holds")?;
        let begun = Instant::now();
        let mut clients = LoadClients::open(&environment, &[gateway.address], &jobs, &users, count).await?;
        let opened = begun.elapsed();
        // A command, its ack and its result on each.
        let once = Load { results: true, most: count as i64, ..Load::closed(Duration::from_secs(20)) };
        let outcome = clients.run(once).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let spent = CpuTime::begin(&[pid]);
        tokio::time::sleep(POLL_INTERVAL).await;
        let percent = spent.seconds() / POLL_INTERVAL.as_secs_f64() * 100.0;
        // The allocator gives back what the last burst took a few seconds after it.
        let bytes = (resident_bytes(pid).unwrap_or_default() - before) / count as f64;
        let name = format!("idle, {} sockets", number(count as f64));
        let most = count > 1_000;
        let beside = format!(
            "each on its own job, after a command and its result; {} before any",
            number(before / 1024.0 / 1024.0) + " MiB"
        );
        let report = &mut bench.report;
        report.add(&name, "memory a socket", bytes / 1024.0, "KiB", most.then_some(Target::AtMost(8.0)), beside);
        report.add(
            &name,
            "CPU of one core",
            percent,
            "%",
            most.then_some(Target::AtMost(1.0)),
            "pings among it".to_owned(),
        );
        report.note(&name, "opened", count as f64 / opened.as_secs_f64(), "/s");
        report.faults(&name, "errors", &outcome);
        if most {
            // All of them leave at once, from a thread of their own, while others go on.
            let leaving = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_secs(1));
                drop(clients);
            });
            let outcome = probe.run(Load { rate: Some(200.0), ..Load::closed(Duration::from_secs(4)) }).await?;
            let _ = tokio::task::spawn_blocking(move || leaving.join()).await;
            let beside = format!("p99 {} ms", number(outcome.acks.ms(0.99)));
            report.add(
                &name,
                "worst ack while all leave at once",
                outcome.acks.max_ms(),
                "ms",
                Some(Target::AtMost(50.0)),
                beside,
            );
        }
        for worker in workers {
            worker.stop().await;
        }
        gateway.process.stop().await;
        bench.stack.flush(&environment).await?;
        environment.store.delete_bench_rows(&environment.tenant, &users).await?;
    }
    Ok(())
}

pub(crate) async fn storm(bench: &mut Bench) -> anyhow::Result<()> {
    let settings = bench.stack.settings.clone();
    let environment = bench.stack.environment(&settings, "storm").await?;
    let count = CONNECT_STORM.min(bench.sockets);
    let (jobs, users) = environment.fill(count, count).await?;
    let gateway = bench.stack.gateway(&settings).await?;
    let workers = bench.stack.workers(&environment, 1).await?;
    let clients = LoadClients::open(&environment, &[gateway.address], &jobs, &users, count).await?;
    // Each has a command under way when it is cut off.
    for client in &clients.clients {
        client.send(&frame(r#"{"type":"pause_job","request_id":"storm"}"#)).await?;
    }
    let begun = Instant::now();
    let leaving = std::thread::spawn(move || drop(clients));
    let opening = (0..count).map(|n| {
        let (job, token) = (jobs[n].clone(), environment.token(&users[n]));
        async move {
            let mut client = Client::open(gateway.address, job.as_str(), &token?).await?;
            loop {
                let range = client.next().await?;
                if parse_message(client.text(range)) == ServerMessage::Snapshot {
                    return anyhow::Ok(client);
                }
            }
        }
    });
    let opened: Vec<anyhow::Result<Client>> =
        futures_util::stream::iter(opening).buffer_unordered(MAX_CONCURRENT).collect().await;
    let back = begun.elapsed().as_secs_f64();
    let _ = tokio::task::spawn_blocking(move || leaving.join()).await;
    let errors = opened.iter().filter(|client| client.is_err()).count();
    let first_error = opened.iter().find_map(|client| client.as_ref().err()).map(ToString::to_string);
    // The same request again: it is answered as the first time, and has its one result.
    let asking = opened.into_iter().flatten().map(|mut client| async move {
        client.send(&frame(r#"{"type":"pause_job","request_id":"storm"}"#)).await.ok()?;
        let answered = async {
            // The result may have been on its way already when this socket came back.
            let (mut acked, mut ended) = (false, false);
            while !(acked && ended) {
                let range = client.next().await.ok()?;
                match parse_message(client.text(range)) {
                    ServerMessage::Ack { .. } => acked = true,
                    ServerMessage::Result { succeeded, .. } => ended = succeeded,
                    ServerMessage::Error { .. } => return None,
                    _ => {}
                }
            }
            Some(())
        };
        tokio::time::timeout(Duration::from_secs(10), answered).await.ok().flatten()
    });
    let answers: Vec<Option<()>> = futures_util::stream::iter(asking).buffer_unordered(256).collect().await;
    let lost = count - answers.iter().flatten().count();
    let name = format!("storm, {} sockets", number(count as f64));
    let beside = first_error.unwrap_or_default();
    bench.report.aim(&name, "all back after", back, "s", Target::AtMost(5.0));
    bench.report.add(&name, "errors", errors as f64, "", Some(Target::AtMost(0.0)), beside);
    bench.report.aim(&name, "commands lost", lost as f64, "", Target::AtMost(0.0));
    for worker in workers {
        worker.stop().await;
    }
    gateway.process.stop().await;
    bench.stack.flush(&environment).await
}

/// Nobody's permissions are known, and everybody asks at once.
pub(crate) async fn cold(bench: &mut Bench) -> anyhow::Result<()> {
    let settings = bench.stack.settings.clone();
    let environment = bench.stack.environment(&settings, "cold").await?;
    let count = CONNECT_STORM.min(bench.sockets);
    let (jobs, users) = environment.fill(1_000, count).await?;
    let gateway = bench.stack.gateway(&settings).await?;
    let mut clients = LoadClients::open(&environment, &[gateway.address], &jobs, &users, count).await?;
    tokio::time::sleep(COLD_START_TIMEOUT).await;
    let once = Load { most: count as i64, ..Load::closed(Duration::from_secs(20)) };
    let cold = clients.run(once).await?;
    let warm = clients.run(once).await?;
    let name = format!("cold start, {} users", number(count as f64));
    let beside = format!("known: {} ms; errors {}", number(warm.acks.max_ms()), cold.faults());
    bench.report.add(&name, "all acks, permissions unknown", cold.acks.max_ms(), "ms", None, beside);
    drop(clients);
    gateway.process.stop().await;
    bench.stack.flush(&environment).await
}
