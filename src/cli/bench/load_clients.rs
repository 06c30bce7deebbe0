//! Many sockets under load: each in a task that reads, all on one thread.
//!
//! Closed loop: a socket sends its next command when the last one is answered. Open loop: commands are sent at a
//! fixed rate by a thread that sleeps exactly (the timers of the runtime are a millisecond coarse), and a latency
//! counts from the moment at which it was to be sent, so that a stall cannot hide the commands it held up.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::StreamExt;
use parking_lot::{Mutex, MutexGuard};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::environment::BenchEnvironment;
use super::socket_client::{Client, ServerMessage, frame, parse_message};
use super::stats::LatencyHistogram;
use crate::domain::{ResourceId, UserId};

/// Sockets opened at once.
const MAX_CONCURRENT: usize = 64;
/// Longest wait for what is still to come when nothing more is sent.
const SETTLE_TIME: Duration = Duration::from_secs(10);

/// Open sockets.
pub struct LoadClients {
    pub clients: Vec<Client>,
}

/// What to do with them.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub duration: Duration,
    /// Commands per second of all sockets together; `None`: closed loop.
    pub rate: Option<f64>,
    /// Whether a command is over with its result, not with its ack.
    pub results: bool,
    /// Commands in all, closed loop: stops earlier when they are sent.
    pub most: i64,
}

impl Load {
    pub fn closed(duration: Duration) -> Self {
        Self { duration, rate: None, results: false, most: i64::MAX }
    }
}

/// What came of it.
pub struct LoadOutcome {
    pub acks: LatencyHistogram,
    pub results: LatencyHistogram,
    pub errors: BTreeMap<String, u64>,
    pub took: Duration,
    /// Commands that got no answer (or no result, where one was waited for).
    pub missing: i64,
    /// The longest time by which a command was sent too late by the load generator itself.
    pub late: Duration,
}

impl LoadOutcome {
    pub fn acks_per_second(&self) -> f64 {
        self.acks.count() as f64 / self.took.as_secs_f64()
    }

    pub fn results_per_second(&self) -> f64 {
        self.results.count() as f64 / self.took.as_secs_f64()
    }

    /// What went wrong, in words.
    pub fn faults_by_kind(&self) -> String {
        let mut parts: Vec<String> = self.errors.iter().map(|(error, count)| format!("{count} × {error}")).collect();
        if self.missing > 0 {
            parts.push(format!("{} without an answer", self.missing));
        }
        parts.join(", ")
    }

    pub fn faults(&self) -> f64 {
        self.errors.values().sum::<u64>() as f64 + self.missing as f64
    }
}

/// What the tasks of one run share.
struct LoadShared {
    load: Load,
    begin: Instant,
    frames: [Vec<u8>; 2],
    counts: Mutex<LoadCounts>,
    outstanding: AtomicI64,
    left: AtomicI64,
    /// Nothing more is sent.
    sent: AtomicBool,
    done: CancellationToken,
}

struct LoadCounts {
    acks: LatencyHistogram,
    results: LatencyHistogram,
    errors: BTreeMap<String, u64>,
    last: Instant,
}

/// When the commands of one socket that are not acked yet were to be sent, oldest first.
type IntendedTimes = Arc<Mutex<VecDeque<Instant>>>;

impl LoadClients {
    /// Opens so many sockets, spread over addresses, jobs and users, and waits until each has its snapshot.
    pub async fn open(
        environment: &BenchEnvironment,
        addresses: &[SocketAddr],
        jobs: &[ResourceId],
        users: &[UserId],
        count: usize,
    ) -> anyhow::Result<Self> {
        let opening = (0..count).map(|n| {
            let token = environment.token(&users[n % users.len()]);
            let (address, job) = (addresses[n % addresses.len()], jobs[n % jobs.len()].clone());
            async move {
                let opening = async {
                    let mut client = Client::open(address, job.as_str(), &token?).await?;
                    loop {
                        let range = client.next().await?;
                        if parse_message(client.text(range)) == ServerMessage::Snapshot {
                            return anyhow::Ok(client);
                        }
                    }
                };
                tokio::time::timeout(SETTLE_TIME, opening).await.context("a socket was not opened in time")?
            }
        });
        let mut opened = futures_util::stream::iter(opening).buffer_unordered(MAX_CONCURRENT);
        let mut clients = Vec::with_capacity(count);
        while let Some(client) = opened.next().await {
            clients.push(client.context("cannot open a socket")?);
        }
        Ok(Self { clients })
    }

    /// Runs the load. Each socket sends pause and resume in turn.
    pub async fn run(&mut self, load: Load) -> anyhow::Result<LoadOutcome> {
        let begin = Instant::now();
        let shared = Arc::new(LoadShared {
            load,
            begin,
            frames: [frame(r#"{"type":"pause_job"}"#), frame(r#"{"type":"resume_job"}"#)],
            counts: Mutex::new(LoadCounts {
                acks: LatencyHistogram::default(),
                results: LatencyHistogram::default(),
                errors: BTreeMap::new(),
                last: begin,
            }),
            outstanding: AtomicI64::new(0),
            left: AtomicI64::new(load.most),
            sent: AtomicBool::new(false),
            done: CancellationToken::new(),
        });
        let mut tasks = JoinSet::new();
        let mut senders = Vec::new();
        for client in self.clients.drain(..) {
            let intended = IntendedTimes::default();
            senders.push((client.sender(), intended.clone()));
            tasks.spawn(serve(client, intended, shared.clone()));
        }
        let pacing = load.rate.map(|rate| {
            let shared = shared.clone();
            tokio::task::spawn_blocking(move || pace(&shared, &senders, rate))
        });
        let late = match pacing {
            Some(pacing) => pacing.await.context("the sender ended early")?,
            None => Duration::ZERO,
        };
        shared.sent.store(true, Ordering::Relaxed);
        let until = begin + load.duration + SETTLE_TIME;
        while shared.outstanding.load(Ordering::Relaxed) > 0 || (load.rate.is_none() && !shared.over()) {
            if Instant::now() > until {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        shared.done.cancel();
        while let Some(client) = tasks.join_next().await {
            self.clients.extend(client.context("a socket's task failed")?);
        }
        let missing = shared.outstanding.load(Ordering::Relaxed);
        let counts = Arc::into_inner(shared).context("a task goes on")?.counts;
        let counts = counts.into_inner();
        let took = counts.last.duration_since(begin);
        Ok(LoadOutcome { acks: counts.acks, results: counts.results, errors: counts.errors, took, missing, late })
    }
}

impl LoadShared {
    fn counts(&self) -> MutexGuard<'_, LoadCounts> {
        self.counts.lock()
    }

    /// Closed loop: whether nothing more is to be sent.
    fn over(&self) -> bool {
        self.begin.elapsed() >= self.load.duration || self.left.load(Ordering::Relaxed) <= 0
    }

    /// Closed loop: whether one more may be sent.
    fn take_one(&self) -> bool {
        self.load.rate.is_none() && !self.over() && self.left.fetch_sub(1, Ordering::Relaxed) > 0
    }
}

/// One socket. `None`: it was lost.
async fn serve(mut client: Client, intended: IntendedTimes, shared: Arc<LoadShared>) -> Option<Client> {
    let mut turn = 0;
    let mut waiting: HashMap<String, Instant> = HashMap::new();
    let mut done = std::pin::pin!(shared.done.cancelled());
    let mut next = shared.take_one();
    loop {
        if std::mem::take(&mut next) {
            lock(&intended).push_back(Instant::now());
            shared.outstanding.fetch_add(1, Ordering::Relaxed);
            turn ^= 1;
            client.send(&shared.frames[turn ^ 1]).await.ok()?;
        }
        let message = tokio::select! {
            biased;
            message = client.next() => message,
            () = &mut done => return Some(client),
        };
        let range = match message {
            Ok(range) => range,
            Err(error) => {
                *shared.counts().errors.entry(format!("socket lost: {error}")).or_default() += 1;
                return None;
            }
        };
        let over = match parse_message(client.text(range)) {
            ServerMessage::Ack { command } => {
                let at = lock(&intended).pop_front().unwrap_or(shared.begin);
                let now = Instant::now();
                let mut counts = shared.counts();
                counts.acks.record(now - at);
                counts.last = now;
                drop(counts);
                if shared.load.results {
                    waiting.insert(command.to_owned(), at);
                }
                !shared.load.results
            }
            ServerMessage::Result { command, succeeded } => match waiting.remove(command) {
                Some(at) => {
                    let now = Instant::now();
                    let mut counts = shared.counts();
                    counts.results.record(now - at);
                    counts.last = now;
                    if !succeeded {
                        *counts.errors.entry("command failed".to_owned()).or_default() += 1;
                    }
                    true
                }
                None => false,
            },
            ServerMessage::Error { code } => {
                lock(&intended).pop_front();
                let mut counts = shared.counts();
                *counts.errors.entry(code.to_owned()).or_default() += 1;
                counts.last = Instant::now();
                true
            }
            ServerMessage::Update | ServerMessage::Snapshot | ServerMessage::Pong | ServerMessage::Other => false,
        };
        if over {
            shared.outstanding.fetch_sub(1, Ordering::Relaxed);
            next = shared.take_one();
        }
    }
}

/// Sends at a fixed rate, one socket after the other; gives by how much it was late at worst.
fn pace(shared: &LoadShared, senders: &[(Arc<TcpStream>, IntendedTimes)], rate: f64) -> Duration {
    let mut worst = Duration::ZERO;
    for n in 0.. {
        let at = Duration::from_secs_f64(f64::from(n) / rate);
        if at >= shared.load.duration {
            break;
        }
        let at = shared.begin + at;
        let now = Instant::now();
        if let Some(wait) = at.checked_duration_since(now) {
            std::thread::sleep(wait);
        }
        worst = worst.max(at.elapsed());
        let index = n as usize % senders.len();
        let (stream, intended) = &senders[index];
        lock(intended).push_back(at);
        shared.outstanding.fetch_add(1, Ordering::Relaxed);
        let frame = &shared.frames[(n as usize / senders.len()) % 2];
        // A frame of twenty bytes fits, unless the other side has not read for very long: then it counts as missing.
        let _ = stream.try_write(frame);
    }
    worst
}

fn lock(intended: &IntendedTimes) -> MutexGuard<'_, VecDeque<Instant>> {
    intended.lock()
}
