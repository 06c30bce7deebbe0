//! What the demo has: a tenant, two people, a real file to import, a real program, a campaign of 300 jobs.

use anyhow::Context;
use serde_json::json;

use super::folder::Folder;
use crate::domain::{JobStatus, ResourceId, TenantId, UserId};
use crate::store::{CampaignFilter, JobFilter, NewCampaign, NewJob, Store};
use crate::worker::jobs;

/// The file to import, in the folder that the demo's jobs may read.
const ORDERS: &str = "orders.csv";
/// Rows of it.
const ROWS: u64 = 200_000;
/// Jobs of the campaign.
const JOBS: usize = 300;

pub(super) struct People {
    pub(super) tenant: TenantId,
    pub(super) operator: UserId,
}

/// A program run through `wheelhouse run`.
pub(super) struct Program {
    pub(super) id: ResourceId,
    pub(super) title: &'static str,
    pub(super) command: Vec<String>,
}

pub(super) struct Work {
    pub(super) import: ResourceId,
    pub(super) campaign: ResourceId,
    pub(super) program: Option<Program>,
}

/// `operator` may do everything; `viewer` may look.
pub(super) async fn people(store: &Store) -> anyhow::Result<People> {
    let (operator, viewer): (UserId, UserId) = ("operator".parse()?, "viewer".parse()?);
    store.grant(&operator, &["*".to_owned()]).await?;
    store.grant(&viewer, &["jobs.read".to_owned(), "campaigns.read".to_owned()]).await?;
    Ok(People { tenant: "acme".parse()?, operator })
}

/// What an earlier run left unfinished goes on; what is missing is made.
pub(super) async fn work(store: &Store, tenant: &TenantId, folder: &Folder) -> anyhow::Result<Work> {
    let file = folder.files().join(ORDERS);
    if !file.exists() {
        println!("Writing {} with {ROWS} rows", file.display());
        let to = file.clone();
        tokio::task::spawn_blocking(move || jobs::generate_csv(&to, ROWS))
            .await?
            .context("cannot write the CSV file")?;
    }
    // Before the campaign, whose 300 jobs it would otherwise wait for.
    let import = match unfinished(store, tenant, "csv_import").await? {
        Some(id) => id,
        None => {
            let parameters = json!({"path": ORDERS, "rows_per_second": 1_000});
            make_job(store, tenant, "csv_import", "Import of orders.csv", parameters).await?
        }
    };
    let campaign = match open_campaign(store, tenant).await? {
        Some(id) => id,
        None => make_campaign(store, tenant, &file).await?,
    };
    Ok(Work { import, campaign, program: Some(program(&file)) })
}

async fn unfinished(store: &Store, tenant: &TenantId, job_type: &str) -> anyhow::Result<Option<ResourceId>> {
    for status in [JobStatus::Running, JobStatus::Paused, JobStatus::Pending] {
        let filter = JobFilter {
            tenant: tenant.clone(),
            status: Some(status),
            campaign: None,
            job_type: Some(job_type.to_owned()),
            after: None,
            limit: 1,
        };
        if let Some(job) = store.jobs(&filter).await?.items.into_iter().next() {
            return Ok(Some(job.id));
        }
    }
    Ok(None)
}

async fn open_campaign(store: &Store, tenant: &TenantId) -> anyhow::Result<Option<ResourceId>> {
    let filter = CampaignFilter { tenant: tenant.clone(), after: None, limit: 100 };
    let page = store.campaigns(&filter).await?;
    Ok(page.items.into_iter().find(|campaign| !campaign.status.is_final()).map(|campaign| campaign.id))
}

async fn make_job(
    store: &Store,
    tenant: &TenantId,
    job_type: &str,
    title: &str,
    parameters: serde_json::Value,
) -> anyhow::Result<ResourceId> {
    let job = new_job(tenant, job_type, title.to_owned(), parameters);
    Ok(store.create_job(&job).await?.id)
}

fn new_job(tenant: &TenantId, job_type: &str, title: String, parameters: serde_json::Value) -> NewJob {
    NewJob {
        id: ResourceId::generate(),
        tenant: tenant.clone(),
        campaign: None,
        job_type: job_type.to_owned(),
        title: Some(title),
        parameters,
        max_retries: 2,
        timeout_seconds: None,
        created_by: None,
    }
}

async fn make_campaign(store: &Store, tenant: &TenantId, file: &std::path::Path) -> anyhow::Result<ResourceId> {
    let id = ResourceId::generate();
    let per_job = ROWS / JOBS as u64;
    let from = file.to_owned();
    let starts = tokio::task::spawn_blocking(move || jobs::row_starts(&from, per_job as usize)).await??;
    let jobs = starts.into_iter().take(JOBS).enumerate().map(|(n, first_byte)| {
        let first = n as u64 * per_job;
        let parameters = json!({
            "path": ORDERS, "first_row": first + 1, "first_byte": first_byte, "rows": per_job, "rows_per_second": 150
        });
        let job =
            new_job(tenant, "demo_step", format!("Digest of rows {} to {}", first + 1, first + per_job), parameters);
        NewJob { campaign: Some(id.clone()), ..job }
    });
    let campaign = NewCampaign {
        id: id.clone(),
        tenant: tenant.clone(),
        name: Some("Digest of orders.csv in 300 parts".to_owned()),
        created_by: None,
        jobs: jobs.collect(),
    };
    store.create_campaign(&campaign).await?;
    Ok(id)
}

/// Counts orders by city with nothing but awk, slowly enough to be watched.
fn program(file: &std::path::Path) -> Program {
    let script = format!(
        "n=0; while [ $n -lt 100 ]; do n=$((n+1)); \
         awk -F, -v n=$n 'NR > 1 && NR % 100 == n - 1 {{ seen[$4]++ }} END {{ for (c in seen) print c, seen[c] }}' '{}' > /dev/null; \
         echo \"{{\\\"progress\\\":$n}}\"; sleep 2; done",
        file.display().to_string().replace('\'', "'\\''")
    );
    Program {
        id: ResourceId::generate(),
        title: "An outside program: orders by city, with awk",
        command: vec!["sh".to_owned(), "-c".to_owned(), script],
    }
}
