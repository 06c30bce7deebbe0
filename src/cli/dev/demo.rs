//! What the demo has: a tenant, three people, a real file to import, a real program, a campaign of 300 jobs. Each takes some
//! twenty minutes, so that there is something to control for whoever looks around first; then another one begins.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;
use serde_json::json;

use super::folder::Folder;
use super::others::{EXTERNAL_TYPE, Others};
use crate::cli::out::{say, tell};
use crate::demo::{generate_csv, row_starts};
use crate::domain::{Campaign, JobStatus, JsonText, Resource, ResourceId, TenantId, UserId};
use crate::store::{CampaignFilter, JobFilter, NewCampaign, NewJob, Store};

/// The file to import, in the folder that the demo's jobs may read.
const ORDERS: &str = "orders.csv";
/// Its rows.
const ROWS: u64 = 200_000;
/// Rows that the import takes in a second: 24 minutes for all of them.
const IMPORTED_PER_SECOND: u64 = 140;
/// The campaign's name, by which an open one is found again.
const CAMPAIGN: &str = "Digest of orders.csv in 300 parts";
/// Jobs of the campaign.
const CAMPAIGN_JOBS: usize = 300;
/// Rows that each of them takes in a second. Seven run beside the import on the two workers of a usual `dev`, which
/// makes 21 minutes for all.
const DIGESTED_PER_SECOND: u64 = 23;
/// Steps of the program, of two seconds each: 22 minutes.
const STEPS: u32 = 650;
/// Between two looks whether something has ended.
const POLL_INTERVAL: Duration = Duration::from_secs(3);

pub(super) struct DemoUsers {
    pub(super) tenant: TenantId,
    pub(super) operator: UserId,
    /// Who works beside whoever looks around.
    pub(super) second: UserId,
}

/// A program run through `wheelhouse run`.
pub(super) struct Program {
    pub(super) title: &'static str,
    pub(super) command: Vec<String>,
}

pub(super) struct DemoWork {
    pub(super) import: ResourceId,
    pub(super) campaign: ResourceId,
    pub(super) program: Program,
    /// The row of another system is there from before.
    pub(super) has_external: bool,
}

/// Prints how to watch what runs.
pub(super) struct Shown {
    pub(super) socket: String,
    pub(super) token: String,
}

impl Shown {
    pub(super) fn import(&self, id: &ResourceId) {
        say!("A job (a CSV file of 200,000 rows being imported):");
        say!("  wscat -c \"{}/api/v1/realtime/ws/jobs/{id}?token={}\"", self.socket, self.token);
        say!("");
    }

    pub(super) fn campaign(&self, id: &ResourceId) {
        say!("A campaign (300 jobs, a few at a time):");
        say!("  wscat -c \"{}/api/v1/realtime/ws/campaigns/{id}?token={}\"", self.socket, self.token);
        say!("");
    }
}

/// Begins the work anew when it has ended, or was cancelled.
pub(super) struct DemoRounds {
    pub(super) store: Store,
    pub(super) tenant: TenantId,
    pub(super) work: DemoWork,
    pub(super) shown: Shown,
    pub(super) others: Others,
}

impl DemoRounds {
    /// Until it is dropped.
    pub(super) async fn next_round(self, folder: &Folder) {
        let Self { store, tenant, work, shown, others } = self;
        let (import, has_external) = (Mutex::new(work.import.clone()), work.has_external);
        let mut rounds = Rounds { store, tenant, work, shown, import: &import };
        tokio::join!(rounds.keep_going(folder), others.keep_going(ORDERS, has_external, || import.lock().clone()));
    }
}

/// The long work, round after round.
struct Rounds<'a> {
    store: Store,
    tenant: TenantId,
    work: DemoWork,
    shown: Shown,
    /// Of the round that runs, for the second operator.
    import: &'a Mutex<ResourceId>,
}

impl Rounds<'_> {
    async fn keep_going(&mut self, folder: &Folder) {
        loop {
            tokio::time::sleep(POLL_INTERVAL).await;
            if let Err(error) = self.poll(folder).await {
                tell!("cannot look whether the demo's work has ended: {error:#}");
            }
        }
    }

    async fn poll(&mut self, folder: &Folder) -> anyhow::Result<()> {
        let import = Resource::job(self.tenant.clone(), self.work.import.clone());
        if self.store.job(&import).await?.is_none_or(|job| job.status.is_final()) {
            self.work.import = make_import(&self.store, &self.tenant).await?;
            *self.import.lock() = self.work.import.clone();
            say!("The import has ended; another one begins.");
            self.shown.import(&self.work.import);
        }
        let campaign = Resource::campaign(self.tenant.clone(), self.work.campaign.clone());
        if self.store.campaign(&campaign).await?.is_none_or(|campaign| campaign.status.is_final()) {
            self.work.campaign = make_campaign(&self.store, &self.tenant, &folder.files().join(ORDERS)).await?;
            say!("The campaign has ended; another one begins.");
            self.shown.campaign(&self.work.campaign);
        }
        Ok(())
    }
}

/// `operator` and `ben` may do everything; `viewer` may look.
pub(super) async fn users(store: &Store) -> anyhow::Result<DemoUsers> {
    let (operator, viewer): (UserId, UserId) = ("operator".parse()?, "viewer".parse()?);
    let second: UserId = "ben".parse()?;
    for user in [&operator, &second] {
        store.grant(user, &["*".to_owned()]).await?;
    }
    store.grant(&viewer, &["jobs.read".to_owned(), "campaigns.read".to_owned()]).await?;
    Ok(DemoUsers { tenant: "acme".parse()?, operator, second })
}

/// What an earlier run left unfinished goes on; what is missing is made.
pub(super) async fn work(
    store: &Store,
    tenant: &TenantId,
    folder: &Folder,
    others: &Others,
) -> anyhow::Result<DemoWork> {
    let file = folder.files().join(ORDERS);
    if !file.exists() {
        say!("Writing {} with {ROWS} rows", file.display());
        let to = file.clone();
        tokio::task::spawn_blocking(move || generate_csv(&to, ROWS)).await?.context("cannot write the CSV file")?;
    }
    // Before the campaign, whose 300 jobs it would otherwise wait for.
    let import = match unfinished(store, tenant, "csv_import").await? {
        Some(id) => id,
        None => {
            let import = make_import(store, tenant).await?;
            others.make(ORDERS).await?;
            import
        }
    };
    let campaign = match open_campaign(store, tenant).await? {
        Some(id) => id,
        None => make_campaign(store, tenant, &file).await?,
    };
    let has_external = unfinished(store, tenant, EXTERNAL_TYPE).await?.is_some();
    Ok(DemoWork { import, campaign, program: program(&file), has_external })
}

async fn unfinished(store: &Store, tenant: &TenantId, job_type: &str) -> anyhow::Result<Option<ResourceId>> {
    for status in [JobStatus::Running, JobStatus::Paused, JobStatus::Pending] {
        let filter = JobFilter {
            status: vec![status],
            job_type: Some(job_type.to_owned()),
            limit: 1,
            ..JobFilter::of(tenant.clone())
        };
        if let Some(job) = store.jobs(&filter).await?.items.into_iter().next() {
            return Ok(Some(job.id));
        }
    }
    Ok(None)
}

async fn open_campaign(store: &Store, tenant: &TenantId) -> anyhow::Result<Option<ResourceId>> {
    let filter = CampaignFilter { limit: 100, ..CampaignFilter::of(tenant.clone()) };
    let page = store.campaigns(&filter).await?;
    let is_it = |campaign: &Campaign| !campaign.status.is_final() && campaign.name.as_deref() == Some(CAMPAIGN);
    Ok(page.items.into_iter().find(is_it).map(|campaign| campaign.id))
}

async fn make_import(store: &Store, tenant: &TenantId) -> anyhow::Result<ResourceId> {
    let parameters =
        json!({"path": ORDERS, "batch_rows": IMPORTED_PER_SECOND / 2, "rows_per_second": IMPORTED_PER_SECOND});
    let job = new_job(tenant, "csv_import", "Import of orders.csv".to_owned(), parameters);
    Ok(store.create_job(&job).await?.id)
}

fn new_job(tenant: &TenantId, job_type: &str, title: String, parameters: serde_json::Value) -> NewJob {
    let parameters = JsonText::of(&parameters).unwrap_or_default();
    let job = NewJob::new(tenant.clone(), ResourceId::generate(), job_type);
    NewJob { title: Some(title), parameters, max_retries: 2, ..job }
}

async fn make_campaign(store: &Store, tenant: &TenantId, file: &Path) -> anyhow::Result<ResourceId> {
    let id = ResourceId::generate();
    let per_job = ROWS / CAMPAIGN_JOBS as u64;
    let from = file.to_owned();
    let starts = tokio::task::spawn_blocking(move || row_starts(&from, per_job as usize)).await??;
    let jobs = starts.into_iter().take(CAMPAIGN_JOBS).enumerate().map(|(n, first_byte)| {
        let first = n as u64 * per_job;
        let parameters = json!({
            "path": ORDERS, "first_row": first + 1, "first_byte": first_byte, "rows": per_job,
            "rows_per_second": DIGESTED_PER_SECOND
        });
        let job =
            new_job(tenant, "demo_step", format!("Digest of rows {} to {}", first + 1, first + per_job), parameters);
        NewJob { campaign: Some(id.clone()), ..job }
    });
    let campaign = NewCampaign {
        id: id.clone(),
        tenant: tenant.clone(),
        name: Some(CAMPAIGN.to_owned()),
        created_by: None,
        jobs: jobs.collect(),
    };
    store.create_campaign(&campaign).await?;
    Ok(id)
}

/// Counts orders by city with nothing but awk, slowly enough to be watched.
fn program(file: &Path) -> Program {
    let script = format!(
        "n=0; while [ $n -lt {STEPS} ]; do n=$((n+1)); \
         awk -F, -v n=$n 'NR > 1 && NR % {STEPS} == n - 1 {{ seen[$4]++ }} END {{ for (c in seen) print c, seen[c] }}' '{}' > /dev/null; \
         echo \"{{\\\"progress\\\":$((n*100/{STEPS})),\\\"items_total\\\":{STEPS},\\\"items_processed\\\":$n}}\"; sleep 2; done",
        file.display().to_string().replace('\'', "'\\''")
    );
    Program {
        title: "An outside program: orders by city, with awk",
        command: vec!["sh".to_owned(), "-c".to_owned(), script],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_takes_twenty_minutes_or_more() {
        let least = 20 * 60;
        assert!(ROWS / IMPORTED_PER_SECOND >= least);
        // At once run four jobs on each of the two workers.
        assert!(ROWS / (DIGESTED_PER_SECOND * 8) >= least * 9 / 10);
        assert!(u64::from(STEPS) * 2 >= least);
    }
}
