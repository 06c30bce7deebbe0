//! Updates to everyone who watches. They are published as a worker publishes them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Bench;
use crate::report::Target;
use wheelhouse::broker::scripts::updates::Update;
use wheelhouse::cli::bench::environment::BenchEnvironment;
use wheelhouse::cli::bench::load_clients::LoadClients;
use wheelhouse::cli::bench::socket_client::{Client, field};
use wheelhouse::cli::bench::stats::number;
use wheelhouse::cli::bench::stats::{CpuTime, LatencyHistogram};
use wheelhouse::domain::Resource;
use wheelhouse::protocol::frame::Frame;

const WATCHERS: usize = 1_000;
const RUN_TIME: Duration = Duration::from_secs(3);
/// Updates on their way at once, where as many are sent as get through.
const WINDOW: u64 = 8;

/// What the watchers heard.
struct ReceivedCounts {
    count: AtomicU64,
    begin: Instant,
    /// Updates a second; their numbers say when each was to be sent.
    rate: f64,
    times: Mutex<LatencyHistogram>,
    done: CancellationToken,
}

impl ReceivedCounts {
    fn new(rate: f64) -> Arc<Self> {
        let begin = Instant::now() + Duration::from_millis(50);
        let (count, times, done) =
            (AtomicU64::new(0), Mutex::new(LatencyHistogram::default()), CancellationToken::new());
        Arc::new(Self { count, begin, rate, times, done })
    }

    fn at(&self, n: u64) -> Instant {
        self.begin + Duration::from_secs_f64(n as f64 / self.rate)
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

async fn watch(mut client: Client, received: Arc<ReceivedCounts>) -> Option<Client> {
    let mut done = std::pin::pin!(received.done.cancelled());
    loop {
        let range = tokio::select! {
            biased;
            next = client.next() => next.ok()?,
            () = &mut done => return Some(client),
        };
        if let Some(n) = field(client.text(range), "current_item").and_then(|n| n.parse().ok()) {
            received.count.fetch_add(1, Ordering::Relaxed);
            let late = Instant::now().saturating_duration_since(received.at(n));
            received.times.lock().record(late);
        }
    }
}

async fn publish(environment: &BenchEnvironment, job: &Resource, kind: &str, n: u64) -> anyhow::Result<()> {
    let message = Frame::new(kind)
        .resource(job)
        .ascii("status", "running")
        .number("progress_percent", 42)
        .number("items_total", 200_000)
        .number("items_processed", 84_000)
        .ascii("current_item", &n.to_string())
        .open();
    environment.broker.publish_update(job, &Update { message, desired: None }).await?;
    Ok(())
}

/// Lets these watch while `publishing` goes on; gives them back.
async fn during(
    clients: &mut LoadClients,
    received: &Arc<ReceivedCounts>,
    publishing: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    for client in clients.clients.drain(..) {
        tasks.spawn(watch(client, received.clone()));
    }
    let published = publishing.await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    received.done.cancel();
    while let Some(client) = tasks.join_next().await {
        clients.clients.extend(client?);
    }
    published
}

pub(crate) async fn fanout(bench: &mut Bench) -> anyhow::Result<()> {
    let settings = bench.stack.settings.clone();
    let environment = bench.stack.environment(&settings, "fanout").await?;
    let (jobs, users) = environment.fill(WATCHERS, WATCHERS).await?;
    let gateway = bench.stack.gateway(&settings).await?;
    let job = environment.job(&jobs[0]);
    let mut clients = LoadClients::open(&environment, &[gateway.address], &jobs[..1], &users, WATCHERS).await?;

    // As many as get through. Changes of state, which are never folded.
    let received = ReceivedCounts::new(1e9);
    let spent = CpuTime::begin(&[gateway.process.pid]);
    let begun = Instant::now();
    let mut sent = 0;
    during(&mut clients, &received, async {
        while begun.elapsed() < RUN_TIME {
            publish(&environment, &job, "job_status", sent).await?;
            sent += 1;
            while sent >= WINDOW + received.count() / WATCHERS as u64 && begun.elapsed() < 2 * RUN_TIME {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        Ok(())
    })
    .await?;
    let rate = received.count() as f64 / (begun.elapsed() - Duration::from_millis(400)).as_secs_f64();
    let cpu = spent.seconds() * 1e6 / received.count().max(1) as f64;
    let name = "fan-out, 1 job × 1,000";
    let beside = format!("gateway {} µs each", number(cpu));
    bench.report.add(name, "deliveries, as many as get through", rate, "/s", Some(Target::AtLeast(150_000.0)), beside);
    let lost = (sent * WATCHERS as u64).saturating_sub(received.count());
    bench.report.aim(name, "changes of state not delivered", lost as f64, "", Target::AtMost(0.0));

    for (rate, target) in [(75.0, Some(Target::AtMost(50.0))), (150.0, None)] {
        let received = ReceivedCounts::new(rate);
        let mut sent = 0_u64;
        during(&mut clients, &received, async {
            while received.begin.elapsed() < RUN_TIME {
                tokio::time::sleep_until(received.at(sent).into()).await;
                publish(&environment, &job, "job_progress", sent).await?;
                sent += 1;
            }
            Ok(())
        })
        .await?;
        let part = received.count() as f64 / (sent * WATCHERS as u64).max(1) as f64;
        let times = received.times.lock();
        let what = format!("p99 of progress at {}/s", number(rate * WATCHERS as f64));
        let beside = format!("p50 {} ms; {} % delivered, the rest folded", number(times.ms(0.5)), number(part * 100.0));
        bench.report.add(name, &what, times.ms(0.99), "ms", target, beside);
    }
    drop(clients);

    let mut clients = LoadClients::open(&environment, &[gateway.address], &jobs, &users, WATCHERS).await?;
    let received = ReceivedCounts::new(100.0); // In steps of 10 ms, a hundred jobs each.
    let spent = CpuTime::begin(&[gateway.process.pid]);
    let all: Vec<Resource> = jobs.iter().map(|id| environment.job(id)).collect();
    let mut step = 0_u64;
    during(&mut clients, &received, async {
        while received.begin.elapsed() < RUN_TIME {
            tokio::time::sleep_until(received.at(step).into()).await;
            let some = all.chunks(100).nth((step % 10) as usize).unwrap_or_default();
            for done in join_all(some.iter().map(|job| publish(&environment, job, "job_progress", step))).await {
                done?;
            }
            step += 1;
        }
        Ok(())
    })
    .await?;
    let cpu = spent.seconds() * 1e6 / received.count().max(1) as f64;
    let (p50, p99) = {
        let times = received.times.lock();
        (times.ms(0.5), times.ms(0.99))
    };
    let part = received.count() as f64 / (step * 100) as f64 * 100.0;
    let beside = format!("p50 {} ms; {} % delivered; gateway {} µs each", number(p50), number(part), number(cpu));
    bench.report.add("fan-out, 1,000 jobs × 1 × 10/s", "p99", p99, "ms", None, beside);
    drop(clients);
    gateway.process.stop().await;
    bench.stack.flush(&environment).await
}
