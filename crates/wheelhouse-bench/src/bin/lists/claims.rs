//! How many jobs a second are claimed and ended: what workers do in SQL for each job, without their work.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::try_join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{Notify, mpsc};
use wheelhouse::config::Database;
use wheelhouse::domain::{JsonText, Progress, TenantId, WorkerId};
use wheelhouse::store::{Announcement, AnnouncementKind, ClaimedJob, Company, LeftInQueue, QueueLook, RunEnd, Store};

/// Tenants whose jobs wait.
const TENANTS: usize = 4;
/// Workers that take them at the same time, jobs that each has room for, and jobs that each takes at once.
const WORKERS: usize = 4;
const ROOM: usize = 64;
const TOGETHER: usize = 32;
/// So long after an end was told it is written down that it has been, as workers do.
const ANNOUNCED_AFTER: Duration = Duration::from_millis(250);
/// For how long.
const TIME: Duration = Duration::from_secs(10);

/// What workers and whoever submits jobs have in common.
struct Shared {
    tenants: Vec<TenantId>,
    job_type: String,
    begun: Instant,
    taken: AtomicU64,
    done: AtomicU64,
    /// Jobs were taken; jobs have come.
    taken_more: Notify,
    come: Notify,
}

impl Shared {
    fn is_over(&self) -> bool {
        self.begun.elapsed() >= TIME
    }
}

/// Keeps so many jobs waiting and has them worked off.
#[expect(clippy::print_stdout, reason = "it prints a table")]
pub async fn measure(store: &Store, database: &Database, waiting: u64) -> anyhow::Result<()> {
    let tenants = (0..TENANTS).map(|n| format!("bench-claims-{waiting}-{n}").parse());
    let tenants = tenants.collect::<Result<Vec<TenantId>, _>>()?;
    let job_type = format!("claims-{waiting}");
    let mut there = 0;
    for tenant in &tenants {
        there += store.job_totals(tenant, None).await?.pending.unsigned_abs();
    }
    let begun = Instant::now();
    store.insert_waiting_rows(&tenants, &job_type, waiting.saturating_sub(there)).await?;
    if there + 1_000 < waiting {
        let rate = (waiting - there) as f64 / begun.elapsed().as_secs_f64();
        println!("| rows made by the database itself, {waiting} | {rate:.0} jobs/s |");
    }
    // Each worker is a program with connections of its own.
    let stores = try_join_all((0..WORKERS).map(|_| Store::open(database))).await?;
    let (taken, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let (taken_more, come) = (Notify::new(), Notify::new());
    let shared = &Shared { tenants, job_type, begun: Instant::now(), taken, done, taken_more, come };
    let workers = stores.iter().enumerate().map(|(n, store)| work(store, shared, n));
    tokio::try_join!(try_join_all(workers), refill(store, shared))?;
    let rate = shared.done.load(Ordering::Relaxed) as f64 / shared.begun.elapsed().as_secs_f64();
    println!("| claimed and ended while {waiting} wait, and as many come | {rate:.0} jobs/s |");
    Ok(())
}

/// One worker: takes jobs while it has room, ends each at once, and looks again when it is told that jobs have come.
async fn work(store: &Store, shared: &Shared, n: usize) -> anyhow::Result<()> {
    let host: WorkerId = format!("bench-{n}").parse()?;
    let types = [shared.job_type.clone()];
    let (tell, told) = mpsc::channel(ROOM);
    let takes = async move {
        let mut ending = FuturesUnordered::new();
        while !shared.is_over() {
            let room = (ROOM - ending.len()).min(TOGETHER);
            let come = shared.come.notified();
            let look = match room {
                0 => QueueLook { jobs: Vec::new(), left: LeftInQueue::MayBeMore },
                _ => store.look_for_jobs(&host, None, &types, Company::None, &|_| true, room).await?,
            };
            shared.taken.fetch_add(look.jobs.len() as u64, Ordering::Relaxed);
            shared.taken_more.notify_one();
            let looks_again = !look.jobs.is_empty() && look.left == LeftInQueue::MayBeMore;
            ending.extend(look.jobs.into_iter().map(|job| end(store, job)));
            // What has ended by now; where nothing is left to take, it waits for one that ends or for jobs that come.
            while let Some(Some(ended)) = ending.next().now_or_never() {
                tell.send(ended?).await?;
                shared.done.fetch_add(1, Ordering::Relaxed);
            }
            if looks_again {
                continue;
            }
            tokio::pin!(come);
            let over = tokio::time::sleep(TIME.saturating_sub(shared.begun.elapsed()));
            tokio::pin!(over);
            loop {
                tokio::select! {
                    Some(ended) = ending.next() => {
                        tell.send(ended?).await?;
                        shared.done.fetch_add(1, Ordering::Relaxed);
                        if room == 0 {
                            break;
                        }
                    }
                    () = &mut come, if room > 0 => break,
                    () = &mut over => break,
                }
            }
        }
        Ok::<_, anyhow::Error>(())
    };
    tokio::try_join!(takes, announce(store, told))?;
    Ok(())
}

async fn end(store: &Store, claimed: ClaimedJob) -> anyhow::Result<Announcement> {
    store.finish(&claimed.run, &Progress::default(), &RunEnd::Completed(JsonText::default())).await?;
    Ok(Announcement { resource: claimed.run.job, about: AnnouncementKind::Status, run: claimed.run.number })
}

/// Writes down what has been told, many together.
async fn announce(store: &Store, mut told: mpsc::Receiver<Announcement>) -> anyhow::Result<()> {
    while let Some(first) = told.recv().await {
        let (mut all, due) = (vec![first], tokio::time::Instant::now() + ANNOUNCED_AFTER);
        while let Ok(Some(more)) = tokio::time::timeout_at(due, told.recv()).await {
            all.push(more);
        }
        store.mark_announced(&all).await?;
    }
    Ok(())
}

/// As many as were taken come anew, so that so many wait as before: by itself, as those who submit jobs are.
async fn refill(store: &Store, shared: &Shared) -> anyhow::Result<()> {
    let mut made = 0;
    while !shared.is_over() {
        let missing = shared.taken.load(Ordering::Relaxed) - made;
        if missing == 0 {
            let _ = tokio::time::timeout(Duration::from_millis(100), shared.taken_more.notified()).await;
            continue;
        }
        store.insert_waiting_rows(&shared.tenants, &shared.job_type, missing).await?;
        made += missing;
        shared.come.notify_waiters();
    }
    Ok(())
}
