//! `wheelhouse bench remote`: what attached runs of foreign workers cost one worker that runs.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::stats::number;
use crate::auth::{self, TokenTenants, WorkerClaims};
use crate::cli::out::report;
use crate::config::Settings;
use crate::domain::TenantId;
use crate::protocol::worker::WORKER_PROTOCOL;

/// How many runs, and where.
#[derive(Debug, Args)]
#[command(after_help = "\
Give it the settings of the deployment (--config, WHEELHOUSE__…): it signs a token with auth.hs256_secret. Its jobs are \
completed at the end, and stay as rows of the tenant.

Example: wheelhouse bench remote --worker 127.0.0.1:8100 --worker-pid $(pgrep -f 'wheelhouse worker') --jobs 10000")]
pub(in crate::cli) struct RemoteArgs {
    /// Where the worker listens: worker.listen.
    #[arg(long, default_value = "127.0.0.1:8100", value_name = "HOST:PORT")]
    worker: String,
    /// Jobs to attach.
    #[arg(long, default_value_t = 1_000)]
    jobs: usize,
    /// Sockets that they are spread over.
    #[arg(long, default_value_t = 20)]
    sockets: usize,
    /// How long they stay attached, in seconds.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Whose jobs.
    #[arg(long, default_value = "bench")]
    tenant: TenantId,
    /// Process id of the worker, if it runs on this machine: its CPU and memory are shown.
    #[arg(long, value_name = "PID")]
    worker_pid: Option<u32>,
}

type Socket = WebSocketStream<TcpStream>;

pub(super) async fn remote(args: RemoteArgs, settings: Settings) -> anyhow::Result<()> {
    let tenants = TokenTenants::These(vec![args.tenant.clone()]);
    let claims = WorkerClaims { worker: "bench".parse()?, tenants, ttl: Duration::from_secs(3_600) };
    let (token, _) = auth::sign_worker(&settings.auth, &claims)?;
    let name = uuid::Uuid::now_v7().simple().to_string();
    let before = args.worker_pid.and_then(usage);

    let mut sockets = Vec::new();
    for n in 0..args.sockets.max(1) {
        sockets.push(open(&args.worker, &token, &format!("{name}-{n}")).await?);
    }
    let begun = Instant::now();
    let each = args.jobs.div_ceil(sockets.len());
    let attaching = sockets.iter_mut().enumerate().map(|(n, socket)| {
        let (from, to) = (n * each, ((n + 1) * each).min(args.jobs));
        let (tenant, name) = (&args.tenant, &name);
        async move {
            for job in from..to {
                let text = format!(
                    r#"{{"type":"attach","ref":{},"tenant_id":"{tenant}","job_id":"{name}-{job}","job_type":"bench"}}"#,
                    job + 1
                );
                socket.feed(Message::text(text)).await?;
            }
            socket.flush().await?;
            wait_for(socket, "attached", to.saturating_sub(from)).await
        }
    });
    futures_util::future::try_join_all(attaching).await?;
    let took = begun.elapsed();
    report!(
        "attached {} runs over {} sockets in {} s: {} /s",
        args.jobs,
        sockets.len(),
        number(took.as_secs_f64()),
        number(args.jobs as f64 / took.as_secs_f64())
    );

    let start = args.worker_pid.and_then(usage);
    let staying = Duration::from_secs(args.seconds);
    // The sockets are read meanwhile: pings are answered.
    let reading = sockets
        .iter_mut()
        .map(|socket| async move { tokio::time::timeout(staying, wait_for(socket, "none", 1)).await });
    futures_util::future::join_all(reading).await;
    if let (Some(before), Some(start), Some(end)) = (before, start, args.worker_pid.and_then(usage)) {
        let share = (end.cpu - start.cpu) / staying.as_secs_f64() * 100.0;
        let each = (end.kib as f64 - before.kib as f64) / args.jobs as f64;
        report!("attached and quiet: {} % of a core, {} KiB of memory a run", number(share), number(each));
    }

    let begun = Instant::now();
    let ending = sockets.iter_mut().enumerate().map(|(n, socket)| {
        let (from, to) = (n * each, ((n + 1) * each).min(args.jobs));
        async move {
            for job in from..to {
                let text = format!(r#"{{"type":"end","ref":{},"how":"completed"}}"#, job + 1);
                socket.feed(Message::text(text)).await?;
            }
            socket.flush().await?;
            wait_for(socket, "ended", to.saturating_sub(from)).await
        }
    });
    futures_util::future::try_join_all(ending).await?;
    let took = begun.elapsed();
    report!("ended them in {} s: {} /s", number(took.as_secs_f64()), number(args.jobs as f64 / took.as_secs_f64()));
    Ok(())
}

async fn open(address: &str, token: &str, session: &str) -> anyhow::Result<Socket> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
    let mut request = format!("ws://{address}/api/v1/worker/ws").into_client_request()?;
    let protocols = format!("{WORKER_PROTOCOL}, bearer.{token}").parse()?;
    request.headers_mut().insert("sec-websocket-protocol", protocols);
    let (mut socket, _) = client_async(request, stream).await.context("the worker refused")?;
    let hello = format!(r#"{{"type":"hello","v":1,"worker":"bench","session":"{session}"}}"#);
    socket.send(Message::text(hello)).await?;
    wait_for(&mut socket, "welcome", 1).await?;
    Ok(socket)
}

/// Reads until so many messages of a type have come.
async fn wait_for(socket: &mut Socket, kind: &str, mut count: usize) -> anyhow::Result<()> {
    let begin = format!(r#"{{"type":"{kind}""#);
    while count > 0 {
        match socket.next().await {
            Some(Ok(Message::Text(text))) if text.starts_with(&begin) => count -= 1,
            Some(Ok(Message::Text(text))) if text.contains(r#""type":"refused""#) => bail!("refused: {text}"),
            Some(Ok(Message::Close(frame))) => bail!("the worker closed the socket: {frame:?}"),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error.into()),
            None => bail!("the worker closed the socket"),
        }
    }
    Ok(())
}

/// What a process has used so far.
struct Usage {
    /// Seconds.
    cpu: f64,
    kib: u64,
}

fn usage(process: u32) -> Option<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib = resident.split_whitespace().next()?.parse().ok()?;
    Some(Usage { cpu: ticks as f64 / rustix::param::clock_ticks_per_second() as f64, kib })
}
