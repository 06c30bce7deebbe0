//! How many jobs a second are claimed and ended: what workers do in SQL for each job, without their work.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::{join_all, try_join_all};
use tokio::sync::mpsc;
use wheelhouse::domain::{JsonText, Progress, TenantId, WorkerId};
use wheelhouse::store::{Announcement, AnnouncementKind, Company, RunEnd, Store};

/// Tenants whose jobs wait.
const TENANTS: usize = 4;
/// Workers that take them at the same time, and jobs that each takes at once.
const WORKERS: usize = 4;
const TOGETHER: usize = 32;
/// So long after an end was told it is written down that it has been, as workers do.
const ANNOUNCED_AFTER: Duration = Duration::from_millis(250);
/// For how long.
const TIME: Duration = Duration::from_secs(10);

/// Keeps so many jobs waiting and has them worked off.
#[expect(clippy::print_stdout, reason = "it prints a table")]
pub async fn measure(store: &Store, waiting: u64) -> anyhow::Result<()> {
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
    let (done, taken, begun) = (AtomicU64::new(0), AtomicU64::new(0), Instant::now());
    let (store, tenants, done, taken) = (store, &tenants, &done, &taken);
    let (tell, mut told) = mpsc::channel(TOGETHER * WORKERS);
    let worker = |n: usize| {
        let (job_type, tell) = (job_type.clone(), tell.clone());
        async move {
            let host: WorkerId = format!("bench-{n}").parse()?;
            while begun.elapsed() < TIME {
                let types = [job_type.clone()];
                let claimed = store.claim_jobs(&host, None, &types, Company::None, &|_| true, TOGETHER).await?;
                taken.fetch_add(claimed.len() as u64, Ordering::Relaxed);
                let ended = claimed.iter().map(|claimed| async {
                    let end = RunEnd::Completed(JsonText::default());
                    store.finish(&claimed.run, &Progress::default(), &end).await?;
                    Ok::<_, anyhow::Error>(Announcement {
                        resource: claimed.run.job.clone(),
                        about: AnnouncementKind::Status,
                        run: claimed.run.number,
                    })
                });
                tell.send(try_join_all(ended).await?).await?;
                done.fetch_add(claimed.len() as u64, Ordering::Relaxed);
                if claimed.is_empty() {
                    tokio::task::yield_now().await;
                }
            }
            Ok::<_, anyhow::Error>(())
        }
    };
    // As many as were taken come anew, so that so many wait as before: by itself, as those who submit jobs are.
    let refill = async {
        let mut made = 0;
        while begun.elapsed() < TIME {
            let missing = taken.load(Ordering::Relaxed) - made;
            match missing {
                0 => tokio::time::sleep(Duration::from_micros(200)).await,
                _ => store.insert_waiting_rows(tenants, &job_type, missing).await?,
            }
            made += missing;
        }
        Ok::<_, anyhow::Error>(())
    };
    let workers = join_all((0..WORKERS).map(worker).collect::<Vec<_>>());
    drop(tell);
    let announce = async {
        while let Some(mut ended_jobs) = told.recv().await {
            tokio::time::sleep(ANNOUNCED_AFTER).await;
            while let Ok(more) = told.try_recv() {
                ended_jobs.extend(more);
            }
            store.mark_announced(&ended_jobs).await?;
        }
        Ok::<_, anyhow::Error>(())
    };
    let (ended, refilled, announced) = tokio::join!(workers, refill, announce);
    for ended in ended.into_iter().chain([refilled, announced]) {
        ended?;
    }
    let rate = done.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
    println!("| claimed and ended while {waiting} wait, and as many come | {rate:.0} jobs/s |");
    Ok(())
}
