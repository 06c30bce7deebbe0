//! What others feel of an attack, and how soon whoever was shut out is out.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use super::Bench;
use crate::report::Target;
use wheelhouse::cli::bench::socket_client::Client;
use wheelhouse::cli::bench::stats::{LatencyHistogram, number};
use wheelhouse::store::{NewRevocation, RevocationKind};

/// Campaigns that are made alone and beside each attack, in turns, so that all see the same moods of the machine.
const ROUNDS: usize = 15;
const CAMPAIGNS_PER_ROUND: usize = 20;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(10);
/// Bytes that a trickling body announces.
const ANNOUNCED: usize = 16 * 1024 * 1024;
/// Between two bytes of each.
const TRICKLE: Duration = Duration::from_millis(20);
/// Clients that make as many jobs as one request may, again and again.
const HEAVY: usize = 12;
const MOST_JOBS: usize = 10_000;

/// Users whose tokens are revoked, one after the other.
const REVOCATIONS: usize = 200;
const GATEWAYS: usize = 3;
/// Between two questions whether a token is refused by now.
const ASK: Duration = Duration::from_millis(2);
/// Longest wait until it is.
const PATIENCE: Duration = Duration::from_secs(30);

/// A kept connection to a gateway.
struct Http {
    stream: TcpStream,
    address: SocketAddr,
    answer: Vec<u8>,
}

impl Http {
    async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, address, answer: Vec::new() })
    }

    fn head(&self, method: &str, path: &str, token: &str, length: usize) -> String {
        let address = self.address;
        format!(
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\ncontent-length: {length}\r\n\r\n"
        )
    }

    /// Sends a request and reads its answer; gives the status.
    async fn ask(&mut self, method: &str, path: &str, token: &str, body: &str) -> anyhow::Result<u16> {
        let request = self.head(method, path, token, body.len()) + body;
        self.stream.write_all(request.as_bytes()).await?;
        self.answer.clear();
        loop {
            ensure!(self.stream.read_buf(&mut self.answer).await? > 0, "the gateway closed the connection");
            let Some(end) = self.answer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let head = std::str::from_utf8(&self.answer[..end])?.to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            if self.answer.len() >= end + 4 + length.unwrap_or(0) {
                return Ok(head.get(9..12).context("no status")?.parse()?);
            }
        }
    }
}

/// So many bodies that never end, of which a byte comes now and then.
async fn trickle(address: SocketAddr, token: &str, count: usize) -> anyhow::Result<AbortOnDropHandle<()>> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let mut http = Http::open(address).await?;
        let head = http.head("POST", "/api/v1/campaigns", token, ANNOUNCED);
        http.stream.write_all(head.as_bytes()).await?;
        http.stream.write_all(br#"{"name":""#).await?;
        streams.push(http.stream);
    }
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            for stream in &mut streams {
                let _ = stream.write_all(b"x").await;
            }
            tokio::time::sleep(TRICKLE).await;
        }
    })))
}

/// Clients that make as many jobs as they may, as often as they get an answer.
async fn heavy(address: SocketAddr, token: &str) -> anyhow::Result<Vec<AbortOnDropHandle<()>>> {
    let body = format!("[{}]", vec![r#"{"job_type":"none"}"#; MOST_JOBS].join(","));
    let mut clients = Vec::new();
    for _ in 0..HEAVY {
        let (mut http, token, body) = (Http::open(address).await?, token.to_owned(), body.clone());
        clients.push(AbortOnDropHandle::new(tokio::spawn(async move {
            while http.ask("POST", "/api/v1/jobs", &token, &body).await.is_ok() {}
        })));
    }
    Ok(clients)
}

async fn make_campaigns(http: &mut Http, token: &str, times: &mut LatencyHistogram) -> anyhow::Result<()> {
    for _ in 0..CAMPAIGNS_PER_ROUND {
        let begun = Instant::now();
        let status = http.ask("POST", "/api/v1/campaigns", token, r#"{"name":"one of many"}"#).await?;
        times.record(begun.elapsed());
        ensure!(status == 201, "a campaign was answered with {status}");
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Campaigns of one tenant while another tenant's bodies trickle, and while it makes very many jobs.
pub(crate) async fn neighbours(bench: &mut Bench) -> anyhow::Result<()> {
    let sqlite = bench.stack.settings.clone();
    neighbours_on(bench, &sqlite, "neighbours (SQLite)").await?;
    let postgres = bench.stack.with_postgres().await?;
    neighbours_on(bench, &postgres, "neighbours (PostgreSQL)").await
}

async fn neighbours_on(bench: &mut Bench, settings: &wheelhouse::config::Settings, name: &str) -> anyhow::Result<()> {
    let attacker = bench.stack.environment(settings, "attacker").await?;
    let neighbour = attacker.beside_running("neighbour")?;
    let mut tokens = Vec::new();
    for environment in [&attacker, &neighbour] {
        let (_, users) = environment.fill(0, 1).await?;
        environment.store.grant(&users[0], &["*".to_owned()]).await?;
        tokens.push(environment.token(&users[0])?);
    }
    let gateway = bench.stack.gateway(settings).await?;
    let mut http = Http::open(gateway.address).await?;
    make_campaigns(&mut http, &tokens[1], &mut LatencyHistogram::default()).await?;
    let mut times: [LatencyHistogram; 4] = Default::default();
    for _ in 0..ROUNDS {
        make_campaigns(&mut http, &tokens[1], &mut times[0]).await?;
        for (at, count) in [(1, 12), (2, 200)] {
            let trickling = trickle(gateway.address, &tokens[0], count).await?;
            make_campaigns(&mut http, &tokens[1], &mut times[at]).await?;
            drop(trickling);
        }
    }
    let clients = heavy(gateway.address, &tokens[0]).await?;
    for _ in 0..ROUNDS {
        make_campaigns(&mut http, &tokens[1], &mut times[3]).await?;
    }
    drop(clients);
    let alone = times[0].ms(0.99);
    for (what, times) in
        ["alone", "beside 12 trickling bodies", "beside 200", "beside 12 clients that make 10,000 jobs each"]
            .iter()
            .zip(&times)
    {
        let beside = format!(
            "p50 {} ms, at most {} ms; p99 is {} times that alone",
            number(times.ms(0.5)),
            number(times.max_ms()),
            number(times.ms(0.99) / alone)
        );
        let target = (*what != "alone").then_some(Target::AtMost(200.0));
        bench.report.add(name, &format!("campaign made, p99, {what}"), times.ms(0.99), "ms", target, beside);
    }
    gateway.process.stop().await;
    Ok(())
}

/// From the moment at which a revocation stands in SQL until the last of the gateways has refused the token, and closed
/// its socket.
pub(crate) async fn revocation(bench: &mut Bench) -> anyhow::Result<()> {
    let settings = bench.stack.settings.clone();
    let environment = bench.stack.environment(&settings, "revocation").await?;
    let (jobs, users) = environment.fill(1, REVOCATIONS).await?;
    let mut gateways = Vec::new();
    for _ in 0..GATEWAYS {
        gateways.push(bench.stack.gateway(&settings).await?);
    }
    let mut connections = Vec::new();
    for gateway in &gateways {
        connections.push(Http::open(gateway.address).await?);
    }
    let (mut refused, mut closed) = (LatencyHistogram::default(), LatencyHistogram::default());
    let path = format!("/api/v1/jobs/{}", jobs[0]);
    for user in &users {
        let token = environment.token(user)?;
        let mut sockets = Vec::new();
        for (gateway, http) in gateways.iter().zip(&mut connections) {
            sockets.push(Client::open(gateway.address, jobs[0].as_str(), &token).await?);
            ensure!(http.ask("GET", &path, &token, "").await? == 200, "the token is not taken");
        }
        // Not always at the same moment of the gateways' own rhythm.
        tokio::time::sleep(Duration::from_millis(fastrand::u64(..300))).await;
        let new = NewRevocation {
            kind: RevocationKind::User,
            name: user.as_str(),
            tenant: None,
            keep_until: None,
            revoked_by: None,
            reason: None,
        };
        environment.store.revoke_tokens(&new).await?;
        let begun = Instant::now();
        let watching = async {
            let ended = sockets.iter_mut().map(async |socket| {
                loop {
                    if let Err(error) = socket.next().await {
                        ensure!(error.to_string().contains("4403"), "the socket ended with {error}");
                        return Ok(begun.elapsed());
                    }
                }
            });
            let last = futures_util::future::try_join_all(ended).await?.into_iter().max().unwrap_or_default();
            anyhow::Ok(last)
        };
        let asking = async {
            let asked = connections.iter_mut().map(async |http| {
                while http.ask("GET", &path, &token, "").await? != 401 {
                    tokio::time::sleep(ASK).await;
                }
                anyhow::Ok(begun.elapsed())
            });
            let last = futures_util::future::try_join_all(asked).await?.into_iter().max().unwrap_or_default();
            anyhow::Ok(last)
        };
        let both = futures_util::future::try_join(watching, asking);
        let (socket, request) = tokio::time::timeout(PATIENCE, both).await.context("a revoked token is taken")??;
        closed.record(socket);
        refused.record(request);
    }
    for (what, times) in [("requests refused by all, p99", refused), ("sockets closed by all, p99", closed)] {
        let beside =
            format!("of {}: p50 {} ms, at most {} ms", times.count(), number(times.ms(0.5)), number(times.max_ms()));
        let name = format!("revocation, {GATEWAYS} gateways");
        bench.report.add(&name, what, times.ms(0.99), "ms", Some(Target::AtMost(1_000.0)), beside);
    }
    for gateway in gateways {
        gateway.process.stop().await;
    }
    environment.store.delete_bench_rows(&environment.tenant, &users).await.map_err(Into::into)
}
