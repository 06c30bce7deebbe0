//! Which job a worker gets: of the tenants with a job that can run, the one with the fewest running; of its jobs
//! the oldest that can run, whatever else stands in the queue before it.
//!
//! A tenant may have thousands of campaigns, a paused one may have 100,000 jobs in front of the one that can run,
//! or they may be of a type that this worker does not know. So nobody walks along the queue:
//!
//! 1. One statement jumps from tenant to tenant along the index of what waits, counts what each has running, and
//!    looks at no more than its oldest [`OLDEST_LIMIT`] jobs of each type. Where nothing waits, that is all.
//! 2. Tenants whose oldest jobs can all not run are looked at more closely: one look for each of their campaigns,
//!    for the active ones where those are few, else for the ones with jobs that wait.
//! 3. The best group (tenant, campaign, type) is held, and its oldest job taken (`claim_rows.rs`). A worker with room for
//!    many takes several at once, the same that it would get one after the other.
//!
//! Idle workers only read.

use std::collections::HashMap;
use std::time::Duration;

use super::job_indexes::{BY_CAMPAIGN, BY_TYPE, HALVES, QUEUE, QUEUE_OF_CAMPAIGN};
use super::quarantine::{CorruptRows, CorruptTenant, add_corrupt};
use super::sql::{Row, Value};
use super::{ClaimedJob, Company, Store, StoreError, rows, run_rows};
use crate::domain::{TenantId, WorkerId};

/// The oldest jobs that wait among those that `of` describes, a type and a tenant: these columns and `row_id`.
pub(super) fn oldest_of_type(columns: &str, of: &str, limit: u32) -> String {
    let half = |(index, half)| {
        format!(
            "SELECT * FROM (SELECT j.rowid AS row_id, {columns} FROM jobs j {{by:{index}}} WHERE {BY_TYPE} AND {half} AND {of}
               ORDER BY j.rowid LIMIT {limit}) h"
        )
    };
    format!("SELECT * FROM ({}) q ORDER BY row_id LIMIT {limit}", HALVES.map(half).join(" UNION ALL "))
}

/// Its time has come (`$1`: now, Unix ms). No retry waits longer than the longest wait: a time that lies further ahead
/// was written by a clock that was wrong, and would hold the job up for as long as that clock was ahead. And no worker has it: plain SQL
/// may have put it back without saying so, and then it waits until that worker is dead.
pub(super) fn due(of: &str) -> String {
    let far = i64::try_from((run_rows::MAX_RETRY_DELAY + CLOCKS_APART).as_millis()).unwrap_or(i64::MAX);
    format!("({of}.host IS NULL AND ({of}.run_after IS NULL OR {of}.run_after <= $1 OR {of}.run_after > $1 + {far}))")
}
/// The columns that [`due`] and [`fits`] look at, and the campaign.
pub(super) const CONDITION_COLUMNS: &str = "j.campaign_id, j.host, j.run_after, j.deaths";

/// How far clocks that are right may be apart.
const CLOCKS_APART: Duration = Duration::from_secs(5);

/// A worker with this company may take it.
pub(super) fn fits(of: &str, company: Company) -> String {
    match company {
        Company::None => String::new(),
        Company::Others(deaths) => format!(" AND {of}.deaths < {deaths}"),
        Company::Awaited(deaths) => format!(" AND {of}.deaths >= {deaths}"),
    }
}

/// A campaign that lets its jobs start.
pub(super) const ACTIVE: &str = "c.is_active AND c.status = 'active'";
/// A tenant's oldest jobs that the first statement looks at.
pub(super) const OLDEST_LIMIT: u32 = 32;
/// Tenants of one look. Where more have jobs that wait, the next look goes on behind them.
const TENANTS: usize = 500;
/// So many active campaigns are few.
const MAX_CAMPAIGNS_SEARCHED: usize = 200;
/// So many running jobs of a tenant are counted: tenants with more are alike, and each look reads no more of them.
const MAX_RUNNING: usize = 10_000;
/// Groups to try when others take the jobs at the same time.
const GROUPS: usize = 16;
/// So often one look begins anew because all that it has found were rows that cannot be read: each time it has taken some of them out of
/// the way, up to a thousand.
const MAX_LOOKS: usize = 64;

/// Jobs of one tenant, campaign and type, with at least one that can run.
#[derive(Debug, Clone)]
pub(super) struct JobTypeGroup {
    pub tenant: String,
    pub campaign: Option<String>,
    pub job_type: String,
    /// Its oldest job that can run: rows are numbered in the order of their making.
    pub first: i64,
    /// Jobs of the tenant that run.
    pub running: i64,
    /// It was found behind jobs that cannot run; then all groups of its tenant were.
    pub is_behind: bool,
}

impl JobTypeGroup {
    /// Whether both have the same jobs.
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.tenant, &self.campaign, &self.job_type) == (&other.tenant, &other.campaign, &other.job_type)
    }
}

/// What a look into the queue found.
#[derive(Debug, Clone)]
pub struct QueueLook {
    /// These are taken.
    pub jobs: Vec<ClaimedJob>,
    /// What it left there.
    pub left: LeftInQueue,
}

/// What a look has left in the queue, of what was there when it looked; what says least comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftInQueue {
    /// There may be more. Where no job was taken, others took them at the same time.
    MayBeMore,
    /// No job that this worker could take with its company, as far as was looked.
    NothingFits,
    /// No job for any worker of these tenants and types.
    NothingWaits,
}

impl Store {
    /// Takes a job that waits for a worker: its campaign, if any, is active, its type is known.
    pub async fn claim_job(
        &self,
        host: &WorkerId,
        tenants: Option<&[TenantId]>,
        job_types: &[String],
    ) -> Result<Option<ClaimedJob>, StoreError> {
        self.claim_job_beside(host, tenants, job_types, Company::None, &|_| true).await
    }

    /// As [`Self::claim_jobs`], one job.
    pub async fn claim_job_beside(
        &self,
        host: &WorkerId,
        tenants: Option<&[TenantId]>,
        job_types: &[String],
        company: Company,
        served: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<Option<ClaimedJob>, StoreError> {
        Ok(self.claim_jobs(host, tenants, job_types, company, served, 1).await?.pop())
    }

    /// As [`Self::claim_job`], up to `limit` jobs, for a worker with this company for each of them, and only of tenants that
    /// are `served`: a job that nobody could control just now does not begin. Fewer than `limit` do not mean that no more
    /// waits: none does.
    pub async fn claim_jobs(
        &self,
        host: &WorkerId,
        tenants: Option<&[TenantId]>,
        job_types: &[String],
        company: Company,
        served: &(dyn Fn(&str) -> bool + Sync),
        limit: usize,
    ) -> Result<Vec<ClaimedJob>, StoreError> {
        Ok(self.look_for_jobs(host, tenants, job_types, company, served, limit).await?.jobs)
    }

    /// The same, with what is left then.
    pub async fn look_for_jobs(
        &self,
        host: &WorkerId,
        tenants: Option<&[TenantId]>,
        job_types: &[String],
        company: Company,
        served: &(dyn Fn(&str) -> bool + Sync),
        limit: usize,
    ) -> Result<QueueLook, StoreError> {
        if limit == 0 || job_types.is_empty() || tenants.is_some_and(<[TenantId]>::is_empty) {
            return Ok(QueueLook { jobs: Vec::new(), left: LeftInQueue::NothingFits });
        }
        let mut look = QueueLook { jobs: Vec::new(), left: LeftInQueue::NothingFits };
        for _ in 0..MAX_LOOKS {
            let now = self.now_ms();
            let FoundGroups { mut groups, tenants: corrupt, rows, is_any_stuck } =
                self.groups(now, tenants, job_types, company).await?;
            let mut looks_again = self.quarantine_waiting(&corrupt, rows).await?;
            // Of very many tenants not all were looked at.
            let is_all = tenants.is_some() || self.cursor.start_after().is_empty();
            let found = groups.len();
            groups.retain(|group| served(&group.tenant));
            // Those that cannot run may only not fit.
            let all_fit = matches!(company, Company::None) || !is_any_stuck;
            let sees_all = is_all && groups.len() == found && all_fit;
            look = QueueLook {
                jobs: Vec::new(),
                left: if sees_all { LeftInQueue::NothingWaits } else { LeftInQueue::NothingFits },
            };
            if !groups.is_empty() {
                groups.sort_by_key(|group| (group.running, group.first));
                let left_out = groups.split_off(groups.len().min(GROUPS));
                let claimed = self.claim_of_groups(now, &groups, &left_out, host, company, limit).await?;
                looks_again = (looks_again || claimed.met_corrupt) && claimed.look.jobs.is_empty();
                // Where there are more tenants, the next look goes on behind these.
                let left = if is_all { claimed.look.left.min(look.left) } else { LeftInQueue::MayBeMore };
                look = QueueLook { left, ..claimed.look };
            }
            if !looks_again {
                break;
            }
        }
        Ok(look)
    }

    /// Whether a job waits that some worker of these tenants and types could take now, or may wait: of very many tenants not all are
    /// looked at.
    pub async fn is_job_waiting(&self, tenants: Option<&[TenantId]>, job_types: &[String]) -> Result<bool, StoreError> {
        let groups = self.groups(self.now_ms(), tenants, job_types, Company::None).await?.groups;
        Ok(!groups.is_empty() || (tenants.is_none() && !self.cursor.start_after().is_empty()))
    }

    /// The groups with a job that can run: of each tenant that was looked at, at least the one with its oldest.
    async fn groups(
        &self,
        now: i64,
        tenants: Option<&[TenantId]>,
        job_types: &[String],
        company: Company,
    ) -> Result<FoundGroups, StoreError> {
        let (text, values) = oldest_jobs(now, tenants, &self.cursor.start_after(), job_types, company);
        let rows = self.database.read().await?.rows(&text, &values).await?;
        let (mut found, mut running) = (FoundGroups::default(), HashMap::new());
        let (mut with_few, mut with_many): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
        let mut last = None;
        for row in &rows {
            // Behind one that is no text the next look begins with the first tenant.
            last = row.text("last").ok().flatten();
            if rows::tenant(row).is_err() {
                found.tenants.push(CorruptTenant {
                    tenant: row.text("tenant_id").ok().flatten().unwrap_or_default(),
                    job_type: row.required("job_type")?,
                    row_id: row.int("row_id")?.unwrap_or(0),
                });
                continue;
            }
            let (tenant, count) = (row.required("tenant_id")?, row.int("running")?.unwrap_or(0));
            running.insert(tenant.clone(), count);
            match row.int("first")? {
                Some(first) => found.add(row, first, count, false),
                None if row.int("active")?.is_some_and(|active| active < MAX_CAMPAIGNS_SEARCHED as i64) => {
                    with_few.push(tenant)
                }
                None => with_many.push(tenant),
            }
        }
        found.is_any_stuck = !with_few.is_empty() || !with_many.is_empty();
        if tenants.is_none() {
            self.cursor.advance(last.unwrap_or_default());
        }
        for (mut tenants, campaigns) in [(with_few, Campaigns::Active), (with_many, Campaigns::Waiting)] {
            tenants.dedup(); // It stands there once for each type.
            if tenants.is_empty() {
                continue;
            }
            let (text, values) = search_behind(now, &tenants, campaigns, job_types, company);
            for row in &self.database.read().await?.rows(&text, &values).await? {
                let Some(first) = row.int("first")? else { continue };
                let count = running.get(&row.required("tenant_id")?).copied().unwrap_or(0);
                found.add(row, first, count, true);
            }
        }
        Ok(found)
    }
}

/// What a look into the queue finds.
#[derive(Default)]
struct FoundGroups {
    groups: Vec<JobTypeGroup>,
    /// Tenants that cannot be any, with jobs that wait.
    tenants: Vec<CorruptTenant>,
    /// Rows that cannot be read.
    rows: CorruptRows,
    /// A tenant has jobs of a type, of whose oldest none can run.
    is_any_stuck: bool,
}

impl FoundGroups {
    /// `row` is a group, and has its first job that can run as `row_id` if the group cannot be read.
    fn add(&mut self, row: &Row, first: i64, running: i64, is_behind: bool) {
        match group(row, first, running, is_behind) {
            Ok(group) => self.groups.push(group),
            Err(why) => add_corrupt(&mut self.rows, row, &why),
        }
    }
}

fn group(row: &Row, first: i64, running: i64, is_behind: bool) -> Result<JobTypeGroup, StoreError> {
    let (tenant, campaign, job_type) = (row.required("tenant_id")?, row.key("campaign_id")?, row.required("job_type")?);
    Ok(JobTypeGroup { tenant, campaign, job_type, first, running, is_behind })
}

/// Words as the rows of a table, in an SQL text.
pub(super) fn table<'a>(values: &mut Vec<Value>, words: impl Iterator<Item = &'a str>) -> String {
    let mut place = |word: &str| {
        values.push(word.into());
        format!("(CAST(${} AS TEXT))", values.len())
    };
    words.map(&mut place).collect::<Vec<_>>().join(", ")
}

/// Each tenant and type with jobs that wait: how many of the tenant's run, and the oldest that can run among the
/// first few (`first`; null: none of them can). `last`: behind this tenant there may be more.
fn oldest_jobs(
    now: i64,
    tenants: Option<&[TenantId]>,
    after: &str,
    job_types: &[String],
    company: Company,
) -> (String, Vec<Value>) {
    let fits = format!("{}{}", due("w"), fits("w", company));
    let mut values: Vec<Value> = vec![now.into()];
    let types = table(&mut values, job_types.iter().map(String::as_str));
    let turn = match tenants {
        Some(tenants) => {
            let names = table(&mut values, tenants.iter().map(TenantId::as_str));
            format!("turn (tenant_id, place) AS (SELECT v.column1, 0 FROM (VALUES {names}) v)")
        }
        None => {
            // The next tenant with a job of any of the types: one look into each half for each type.
            let next = |after: &str| {
                let half = |(index, half)| {
                    format!(
                        "SELECT (SELECT j.tenant_id FROM jobs j {{by:{index}}}
                           WHERE {BY_TYPE} AND {half} AND j.job_type = t.job_type AND j.tenant_id > {after}
                           ORDER BY j.tenant_id LIMIT 1) AS tenant_id FROM types t"
                    )
                };
                format!("(SELECT MIN(h.tenant_id) FROM ({}) h)", HALVES.map(half).join(" UNION ALL "))
            };
            values.push(after.into());
            let (first, others) = (next(&format!("CAST(${} AS TEXT)", values.len())), next("n.tenant_id"));
            format!(
                "turn (tenant_id, place) AS (SELECT {first}, 1 UNION ALL
                   SELECT {others}, n.place + 1 FROM turn n WHERE n.tenant_id IS NOT NULL AND n.place < {TENANTS})"
            )
        }
    };
    let of_both = "j.job_type = t.job_type AND j.tenant_id = n.tenant_id";
    let oldest = oldest_of_type(CONDITION_COLUMNS, of_both, OLDEST_LIMIT);
    let head = oldest_of_type("1 AS one", of_both, 1);
    let text = format!(
        "WITH RECURSIVE types (job_type) AS (VALUES {types}), {turn},
         oldest_jobs (tenant_id, job_type, head, first) AS MATERIALIZED (
           SELECT n.tenant_id, t.job_type, (SELECT o.row_id FROM ({head}) o),
             (SELECT w.row_id FROM ({oldest}) w
               WHERE {fits} AND (w.campaign_id IS NULL OR EXISTS (
                 SELECT 1 FROM campaigns c WHERE c.tenant_id = n.tenant_id AND c.id = w.campaign_id AND {ACTIVE}))
               ORDER BY w.row_id LIMIT 1)
           FROM turn n CROSS JOIN types t WHERE n.tenant_id IS NOT NULL)
         SELECT h.tenant_id, h.job_type, h.first, COALESCE(h.first, h.head) AS row_id,
           (SELECT j.campaign_id FROM jobs j
             WHERE {BY_TYPE} AND j.campaign_id IS NOT NULL AND j.job_type = h.job_type AND j.tenant_id = h.tenant_id
               AND j.rowid = h.first) AS campaign_id,
           (SELECT COUNT(*) FROM (SELECT 1 AS one FROM jobs j {{by:jobs_running_of_tenant}}
             WHERE j.origin = 'queued' AND {{hide:j.status}} = 'running' AND j.tenant_id = h.tenant_id LIMIT {MAX_RUNNING}) r) AS running,
           CASE WHEN h.first IS NULL THEN (SELECT COUNT(*) FROM (
             SELECT c.id FROM campaigns c WHERE c.tenant_id = h.tenant_id AND {ACTIVE} LIMIT {MAX_CAMPAIGNS_SEARCHED}) a) END AS active,
           (SELECT n.tenant_id FROM turn n WHERE n.place = {TENANTS}) AS last
         FROM oldest_jobs h WHERE h.head IS NOT NULL"
    );
    (text, values)
}

/// Which campaigns of a tenant are looked at, one by one.
#[derive(Clone, Copy)]
enum Campaigns {
    /// The active ones.
    Active,
    /// The ones with jobs that wait, jumping from one to the next along the index.
    Waiting,
}

/// The groups of some tenants with a job that can run, however many that cannot stand before it.
fn search_behind(
    now: i64,
    tenants: &[String],
    campaigns: Campaigns,
    job_types: &[String],
    company: Company,
) -> (String, Vec<Value>) {
    let fits = format!("{}{}", due("j"), fits("j", company));
    let mut values: Vec<Value> = vec![now.into()];
    let types = table(&mut values, job_types.iter().map(String::as_str));
    let tenants = table(&mut values, tenants.iter().map(String::as_str));
    // The next campaign of a tenant with a job that waits.
    let next = |from: &str, after: &str| {
        format!(
            "(SELECT j.campaign_id FROM jobs j {{by:{QUEUE_OF_CAMPAIGN}}} WHERE {BY_CAMPAIGN} AND j.tenant_id = {from}.tenant_id
               AND j.campaign_id > {after} ORDER BY j.campaign_id LIMIT 1)"
        )
    };
    let first = |index: &str, those: &str| {
        format!(
            "(SELECT j.rowid FROM jobs j {{by:{index}}} WHERE {those} AND {fits} AND j.job_type = t.job_type
               ORDER BY j.rowid LIMIT 1)"
        )
    };
    let alone = first(QUEUE, &format!("{BY_TYPE} AND j.campaign_id IS NULL AND j.tenant_id = n.tenant_id"));
    let of_campaign = format!("{BY_CAMPAIGN} AND j.tenant_id = f.tenant_id AND j.campaign_id = f.campaign_id");
    let of_campaign = first(QUEUE_OF_CAMPAIGN, &of_campaign);
    let found = match campaigns {
        Campaigns::Active => {
            format!(
                "SELECT n.tenant_id, c.id FROM tenants n JOIN campaigns c ON c.tenant_id = n.tenant_id AND {ACTIVE}"
            )
        }
        Campaigns::Waiting => format!(
            "SELECT n.tenant_id, {} FROM tenants n
             UNION ALL SELECT f.tenant_id, {} FROM found f WHERE f.campaign_id IS NOT NULL",
            next("n", "''"),
            next("f", "f.campaign_id")
        ),
    };
    let text = format!(
        "WITH RECURSIVE types (job_type) AS (VALUES {types}), tenants (tenant_id) AS (VALUES {tenants}),
         found (tenant_id, campaign_id) AS ({found}),
         groups (tenant_id, campaign_id, job_type, first) AS MATERIALIZED (
           SELECT n.tenant_id, CAST(NULL AS TEXT), t.job_type, {alone} FROM tenants n CROSS JOIN types t
           UNION ALL
           SELECT f.tenant_id, f.campaign_id, t.job_type, {of_campaign} FROM found f CROSS JOIN types t
             WHERE f.campaign_id IS NOT NULL AND (
               SELECT COUNT(*) FROM campaigns c WHERE c.tenant_id = f.tenant_id AND c.id = f.campaign_id AND {ACTIVE}) = 1)
         SELECT g.tenant_id, g.campaign_id, g.job_type, g.first, g.first AS row_id FROM groups g WHERE g.first IS NOT NULL"
    );
    (text, values)
}
