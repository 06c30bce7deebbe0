//! `make bench-lists`, or `cargo run --package wheelhouse-bench --bin lists -- --database-url URL`: what each list costs among
//! very many rows, what a write of progress costs beside their indexes, how many jobs are claimed and ended in a second while few
//! or very many wait, and what a page of a long audit trail costs. The database has to be empty, and keeps the rows.

mod audit;
mod claims;

use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use wheelhouse::config::Database;
use wheelhouse::domain::{JobStatus, Progress, ResourceId, TenantId};
use wheelhouse::store::{CampaignFilter, JobFilter, JobSort, NewJob, SavedRun, Store};

#[derive(Debug, Parser)]
struct Arguments {
    /// An empty database: sqlite://FILE or postgres://…
    #[arg(long)]
    database_url: String,
    /// So many jobs.
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// Pages of each list.
    #[arg(long, default_value_t = 200)]
    pages: usize,
    /// What to measure; everything where nothing is said.
    #[arg(long, value_enum)]
    only: Option<Part>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Lists,
    Claims,
    Audit,
}

/// A list, by its query.
fn lists(tenant: &TenantId) -> Vec<(String, JobFilter)> {
    let all = || JobFilter { limit: 50, ..JobFilter::of(tenant.clone()) };
    let sorted = |sort, ascending| JobFilter { sort, ascending, ..all() };
    let campaign: Option<ResourceId> = "campaign-77".parse().ok();
    let text = |text: &str| JobFilter { text: Some(text.to_owned()), ..all() };
    let named = [
        ("", all()),
        ("sort=created", sorted(JobSort::Created, false)),
        ("sort=updated&order=asc", sorted(JobSort::Updated, true)),
        ("sort=duration", sorted(JobSort::Duration, false)),
        ("status=failed", JobFilter { status: vec![JobStatus::Failed], ..all() }),
        (
            "status=failed,cancelled&sort=updated",
            JobFilter { status: vec![JobStatus::Failed, JobStatus::Cancelled], ..sorted(JobSort::Updated, false) },
        ),
        ("campaign_id=…", JobFilter { campaign: campaign.clone(), ..all() }),
        ("campaign_id=…&sort=duration", JobFilter { campaign, ..sorted(JobSort::Duration, false) }),
        ("job_type=…", JobFilter { job_type: Some("type-3".to_owned()), ..all() }),
        (
            "job_type=…&created_by=…&sort=created",
            JobFilter {
                job_type: Some("type-3".to_owned()),
                created_by: Some("user-3".to_owned()),
                ..sorted(JobSort::Created, false)
            },
        ),
        (
            "created_by=…&status=failed",
            JobFilter { created_by: Some("user-1".to_owned()), status: vec![JobStatus::Failed], ..all() },
        ),
        (
            "created_after=…&created_before=…",
            JobFilter { created_after: Some(1_767_226_000_000), created_before: Some(1_767_296_000_000), ..all() },
        ),
        (
            "updated_after=…&status=failed&sort=updated",
            JobFilter {
                updated_after: Some(1_767_240_000_000),
                status: vec![JobStatus::Failed],
                ..sorted(JobSort::Updated, false)
            },
        ),
        (
            "status=running&sort=duration",
            JobFilter { status: vec![JobStatus::Running], ..sorted(JobSort::Duration, false) },
        ),
        (
            "campaign_id=(large)&status=failed",
            JobFilter { campaign: "campaign-large".parse().ok(), status: vec![JobStatus::Failed], ..all() },
        ),
        (
            "job_type=…&status=running",
            JobFilter { job_type: Some("type-2".to_owned()), status: vec![JobStatus::Running], ..all() },
        ),
        ("sort=duration&order=asc", sorted(JobSort::Duration, true)),
        ("campaign_id=(large)", JobFilter { campaign: "campaign-large".parse().ok(), ..all() }),
        (
            "campaign_id=(large)&job_type=…&sort=duration",
            JobFilter {
                campaign: "campaign-large".parse().ok(),
                job_type: Some("type-3".to_owned()),
                ..sorted(JobSort::Duration, false)
            },
        ),
        ("worker=…", JobFilter { worker: Some("bench-worker".to_owned()), ..all() }),
        ("q=… (often)", text("letters")),
        ("q=… (once)", text("customer 901 ")),
        ("q=… (never)", text("no such words")),
    ];
    named.into_iter().map(|(name, filter)| (name.to_owned(), filter)).collect()
}

fn percentile(sorted: &[Duration], part: f64) -> f64 {
    let at = ((sorted.len() as f64 * part) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(at).map_or(0.0, |time| time.as_secs_f64() * 1_000.0)
}

#[expect(clippy::print_stdout, reason = "it prints a table")]
fn report(name: &str, mut times: Vec<Duration>, note: &str) {
    times.sort();
    println!("| `{name}` | {:.1} | {:.1} |{note}", percentile(&times, 0.5), percentile(&times, 0.99));
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let database = Database { url: arguments.database_url.clone().into(), connections: 4 };
    let store = Store::open(&database).await?;
    store.migrate().await?;
    let is_asked = |part| arguments.only.is_none_or(|only| only == part);
    if is_asked(Part::Claims) {
        for waiting in [10, arguments.rows] {
            claims::measure(&store, &database, waiting).await?;
        }
    }
    if is_asked(Part::Lists) {
        measure_lists(&store, &arguments).await?;
    }
    if is_asked(Part::Audit) {
        audit::measure(&store, arguments.rows, arguments.pages).await?;
    }
    Ok(())
}

async fn measure_lists(store: &Store, arguments: &Arguments) -> anyhow::Result<()> {
    let tenant: TenantId = "bench-lists".parse()?;
    let is_new = store.jobs(&JobFilter { limit: 1, ..JobFilter::of(tenant.clone()) }).await?.items.is_empty();
    if is_new {
        write_progress(store, &tenant, "progress (empty)").await?;
        store.insert_list_rows(&tenant, arguments.rows).await?;
    }
    // As a worker does every few seconds, and a gateway that is asked for totals.
    store.add_up_job_counts(false).await?;
    for (name, first) in lists(&tenant) {
        let (mut times, mut filter, mut searched) = (Vec::new(), first.clone(), 0);
        for _ in 0..arguments.pages {
            let begun = Instant::now();
            let page = store.jobs(&filter).await?;
            times.push(begun.elapsed());
            searched = searched.max(page.searched.unwrap_or(0));
            // Page after page; from the beginning again at the end.
            filter = JobFilter { after: page.next, ..first.clone() };
        }
        let note = if searched > 0 {
            format!(" {searched} rows looked at in {} pages", arguments.pages)
        } else {
            String::new()
        };
        report(&name, times, &note);
    }
    let mut times = Vec::new();
    let mut filter = CampaignFilter { limit: 50, ..CampaignFilter::of(tenant.clone()) };
    for _ in 0..arguments.pages {
        let begun = Instant::now();
        let page = store.campaigns(&filter).await?;
        times.push(begun.elapsed());
        filter.after = page.next;
    }
    report("campaigns", times, "");
    for (name, campaign) in [("totals=true", None), ("campaign_id=…&totals=true", "campaign-77".parse().ok())] {
        let mut times = Vec::new();
        for _ in 0..arguments.pages {
            let begun = Instant::now();
            store.job_totals(&tenant, campaign.as_ref()).await?;
            times.push(begun.elapsed());
        }
        report(name, times, "");
    }
    write_progress(store, &tenant, "progress (beside the rows)").await
}

/// What a write of a running job's progress costs, which changes `updated_at` and so its index.
async fn write_progress(store: &Store, tenant: &TenantId, name: &str) -> anyhow::Result<()> {
    let host = "bench-worker".parse()?;
    let job = NewJob::new(tenant.clone(), ResourceId::generate(), "bench");
    let claimed = store.create_attached_job(&job, &host).await?;
    let mut times = Vec::new();
    for n in 0..500 {
        let progress = Progress { items_processed: n, ..Progress::default() };
        let begun = Instant::now();
        store.save(&claimed.run, &SavedRun { progress, ..SavedRun::default() }).await?;
        times.push(begun.elapsed());
    }
    report(name, times, "");
    Ok(())
}
