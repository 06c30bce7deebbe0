//! Which job a worker gets: the oldest that waits, whatever else stands in the queue before it.
//!
//! A paused campaign may have 100,000 jobs in front of the one that can run, or they may be of a type that this
//! worker does not know. So nobody walks along the queue: one look into an index for each campaign and type gives
//! the oldest job of that group, and the oldest of those is taken. Idle workers only read.

use super::jobs::read;
use super::sql::{Row, Tx, Value};
use super::{HostedJob, Run, Store, StoreError, rows};
use crate::domain::{Resource, TenantId, WorkerId};

/// A job that waits (`$1`: now, Unix ms). The indexes `jobs_waiting…` are made for these words.
const WAITS: &str = "j.origin = 'queued' AND j.status = 'pending' AND (j.run_after IS NULL OR j.run_after <= $1)";
/// The index for each kind of group. SQLite has to be told: it takes `jobs_of_campaign` otherwise, and walks past
/// every job of a type that nobody asked for.
const OF_ALL: &str = "jobs_waiting";
const OF_TENANT: &str = "jobs_waiting_of_tenant";
const OF_CAMPAIGN: &str = "jobs_waiting_of_campaign";
/// Groups to try when others take the jobs at the same time.
const GROUPS: usize = 16;

impl Store {
    /// Takes the oldest job that waits for a worker: its campaign, if any, is active, its type is known.
    pub async fn claim_job(
        &self,
        host: &WorkerId,
        tenants: Option<&[TenantId]>,
        job_types: &[String],
    ) -> Result<Option<HostedJob>, StoreError> {
        if job_types.is_empty() || tenants.is_some_and(<[TenantId]>::is_empty) {
            return Ok(None);
        }
        let now = jiff::Timestamp::now().as_millisecond();
        let (text, values) = groups(now, tenants, job_types);
        let groups = self.database.read().await?.rows(&text, &values).await?;
        if groups.is_empty() {
            return Ok(None);
        }
        let mut tx = self.database.write().await?;
        for group in &groups {
            if let Some(taken) = take(&mut tx, now, group, host).await? {
                tx.commit().await?;
                return Ok(Some(taken));
            }
        }
        // A row that can never run may have been marked so.
        tx.commit().await?;
        Ok(None)
    }
}

/// The groups with jobs that wait, the one with the oldest job first.
fn groups(now: i64, tenants: Option<&[TenantId]>, job_types: &[String]) -> (String, Vec<Value>) {
    let mut values: Vec<Value> = vec![now.into()];
    let mut table = |words: Vec<&str>| {
        let mut place = |word: &str| {
            values.push(word.into());
            format!("(CAST(${} AS TEXT))", values.len())
        };
        words.into_iter().map(&mut place).collect::<Vec<_>>().join(", ")
    };
    let oldest = |index: &str, of: &str| {
        format!("(SELECT j.rowid FROM jobs j {{by:{index}}} WHERE {WAITS} AND {of} ORDER BY j.rowid LIMIT 1)")
    };
    let mut with = format!("types (job_type) AS (VALUES {})", table(job_types.iter().map(String::as_str).collect()));
    let (alone, in_campaigns) = match tenants {
        None => {
            let first = oldest(OF_ALL, "j.campaign_id IS NULL AND j.job_type = t.job_type");
            let alone = format!("SELECT CAST(NULL AS TEXT) AS tenant_id, {first} AS first, t.job_type FROM types t");
            (alone, "")
        }
        Some(tenants) => {
            let names = table(tenants.iter().map(TenantId::as_str).collect());
            with.push_str(&format!(", tenants (tenant_id) AS (VALUES {names})"));
            let first =
                oldest(OF_TENANT, "j.campaign_id IS NULL AND j.tenant_id = n.tenant_id AND j.job_type = t.job_type");
            let alone = format!("SELECT n.tenant_id, {first} AS first, t.job_type FROM types t CROSS JOIN tenants n");
            (alone, "AND c.tenant_id IN (SELECT tenant_id FROM tenants)")
        }
    };
    let first = oldest(OF_CAMPAIGN, "j.tenant_id = c.tenant_id AND j.campaign_id = c.id AND j.job_type = t.job_type");
    let text = format!(
        "WITH {with} SELECT g.tenant_id, g.campaign_id, g.job_type FROM (
           SELECT a.tenant_id, CAST(NULL AS TEXT) AS campaign_id, a.job_type, a.first FROM ({alone}) a
           UNION ALL
           SELECT c.tenant_id, c.id, t.job_type, {first} FROM campaigns c CROSS JOIN types t
             WHERE c.is_active AND c.status = 'active' {in_campaigns}) g
         WHERE g.first IS NOT NULL ORDER BY g.first LIMIT {GROUPS}"
    );
    (text, values)
}

/// Takes the oldest job of a group that nobody else is taking right now.
async fn take(tx: &mut Tx, now: i64, group: &Row, host: &WorkerId) -> Result<Option<HostedJob>, StoreError> {
    let mut values: Vec<Value> = vec![now.into(), group.needed("job_type")?.into()];
    let mut only = format!("{WAITS} AND j.job_type = $2");
    let mut index = OF_ALL;
    let campaign = group.text("campaign_id")?;
    if let Some(tenant) = group.text("tenant_id")? {
        values.push(tenant.into());
        only.push_str(" AND j.tenant_id = $3");
        index = OF_TENANT;
    }
    match &campaign {
        None => only.push_str(" AND j.campaign_id IS NULL"),
        Some(id) => {
            values.push(id.as_str().into());
            only.push_str(" AND j.campaign_id = $4");
            index = OF_CAMPAIGN;
            // Held until this commits: a pause that commits first is seen here, a later one waits. The campaign
            // before its jobs, as everywhere: two that wait for each other would both fail.
            let active = tx
                .row(
                    "SELECT id FROM campaigns WHERE tenant_id = $1 AND id = $2 AND is_active AND status = 'active' {share}",
                    &values[2..],
                )
                .await?;
            if active.is_none() {
                return Ok(None);
            }
        }
    }
    let text =
        format!("SELECT {} FROM jobs j {{by:{index}}} WHERE {only} ORDER BY j.rowid LIMIT 1 {{skip}}", rows::JOB);
    let Some(row) = tx.row(&text, &values).await? else { return Ok(None) };
    let Some(job) = rows::readable(rows::job(&row)) else {
        // Only plain SQL can have put it there as queued. At the head of its group it would stop all behind it.
        tx.execute(
            "UPDATE jobs SET status = 'failed', error_message = 'the row cannot be read', completed_at = {now},
               updated_at = {now} WHERE rowid = $1 AND status = 'pending'",
            &[row.int("row_id")?.into()],
        )
        .await?;
        return Ok(None);
    };
    let number = row.int("run")?.unwrap_or(0) + 1;
    let resource = Resource::job(job.tenant_id, job.id);
    let taken = tx
        .execute(
            "UPDATE jobs SET status = 'running', host = $3, run = $4, started_at = COALESCE(started_at, {now}),
               run_after = NULL, error_message = NULL, updated_at = {now}
             WHERE tenant_id = $1 AND id = $2 AND status = 'pending' AND host IS NULL",
            &[resource.tenant.as_str().into(), resource.id.as_str().into(), host.as_str().into(), number.into()],
        )
        .await?;
    if taken == 0 {
        return Ok(None);
    }
    let resume_point = row.text("resume_point")?.and_then(|text| serde_json::from_str(&text).ok());
    let claimed = read(tx, &resource).await?;
    let run = Run { job: resource, host: host.clone(), number };
    Ok(claimed.map(|job| HostedJob { job, run, resume_point }))
}
