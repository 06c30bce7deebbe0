//! How many jobs a second are claimed and ended: what workers do in SQL for each job, without their work.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::{join_all, try_join_all};
use wheelhouse::domain::{JsonText, Progress, TenantId, WorkerId};
use wheelhouse::store::{Announcement, AnnouncementKind, Company, RunEnd, Store};

/// Tenants whose jobs wait.
const TENANTS: usize = 4;
/// Workers that take them at the same time, and jobs that each takes at once.
const WORKERS: usize = 4;
const TOGETHER: usize = 32;
/// For how long.
const TIME: Duration = Duration::from_secs(5);

/// Keeps so many jobs waiting and has them worked off.
#[expect(clippy::print_stdout, reason = "it prints a table")]
pub async fn measure(store: &Store, waiting: u64) -> anyhow::Result<()> {
    let tenants = (0..TENANTS).map(|n| format!("bench-claims-{waiting}-{n}").parse());
    let tenants = tenants.collect::<Result<Vec<TenantId>, _>>()?;
    let job_type = format!("claims-{waiting}");
    store.insert_waiting_rows(&tenants, &job_type, waiting).await?;
    let (done, begun) = (AtomicU64::new(0), Instant::now());
    let (store, tenants, done) = (store, &tenants, &done);
    let worker = |n: usize| {
        let job_type = job_type.clone();
        async move {
            let host: WorkerId = format!("bench-{n}").parse()?;
            while begun.elapsed() < TIME {
                let types = [job_type.clone()];
                let claimed = store.claim_jobs(&host, None, &types, Company::None, &|_| true, TOGETHER).await?;
                let ended = claimed.iter().map(|claimed| async {
                    let end = RunEnd::Completed(JsonText::default());
                    store.finish(&claimed.run, &Progress::default(), &end).await?;
                    Ok::<_, anyhow::Error>(Announcement {
                        resource: claimed.run.job.clone(),
                        about: AnnouncementKind::Status,
                        run: claimed.run.number,
                    })
                });
                let owed = try_join_all(ended).await?;
                store.mark_announced(&owed).await?;
                done.fetch_add(claimed.len() as u64, Ordering::Relaxed);
                if claimed.len() < TOGETHER && waiting < 1_000 {
                    // So many wait as before.
                    let missing = waiting.saturating_sub(waiting.min(TOGETHER as u64 - claimed.len() as u64)).max(1);
                    store.insert_waiting_rows(tenants, &job_type, missing).await?;
                }
            }
            Ok::<_, anyhow::Error>(())
        }
    };
    for ended in join_all((0..WORKERS).map(worker)).await {
        ended?;
    }
    let rate = done.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
    println!("| claimed and ended while {waiting} wait | {rate:.0} jobs/s |");
    Ok(())
}
