//! Making, reading and listing jobs and campaigns.

use super::sql::{Tx, Value};
use super::{CampaignFilter, HostedJob, JobFilter, NewCampaign, NewJob, Page, Run, Store, StoreError, rows};
use crate::domain::{Campaign, Job, Resource, WorkerId};

impl Store {
    /// Inserts a job as `pending`, for workers to run. `Conflict` if the tenant has a job with this id.
    pub async fn create_job(&self, job: &NewJob) -> Result<Job, StoreError> {
        let mut tx = self.database.write().await?;
        accepts_jobs(&mut tx, job).await?;
        insert(&mut tx, job, None).await?;
        let made = read(&mut tx, &Resource::job(job.tenant.clone(), job.id.clone())).await?;
        tx.commit().await?;
        made.ok_or_else(|| StoreError::Refused("the job vanished while it was made".to_owned()))
    }

    /// Inserts a job that already runs inside this worker (`wheelhouse run`), never to be started by another.
    pub async fn create_attached_job(&self, job: &NewJob, host: &WorkerId) -> Result<HostedJob, StoreError> {
        let resource = Resource::job(job.tenant.clone(), job.id.clone());
        let mut tx = self.database.write().await?;
        accepts_jobs(&mut tx, job).await?;
        insert(&mut tx, job, Some(host)).await?;
        let made = read(&mut tx, &resource).await?;
        tx.commit().await?;
        let made = made.ok_or_else(|| StoreError::Refused("the job vanished while it was made".to_owned()))?;
        Ok(HostedJob { job: made, run: Run { job: resource, host: host.clone(), number: 1 }, resume_point: None })
    }

    /// One job.
    pub async fn job(&self, job: &Resource) -> Result<Option<Job>, StoreError> {
        read(&mut self.database.read().await?, job).await
    }

    /// Jobs of a tenant, newest first, with a cursor. Rows that cannot be read are left out and logged.
    pub async fn jobs(&self, filter: &JobFilter) -> Result<Page<Job>, StoreError> {
        let mut wheres = "tenant_id = $1".to_owned();
        let mut values: Vec<Value> = vec![filter.tenant.as_str().into()];
        let mut only = |condition: &str, value: Value| {
            values.push(value);
            wheres.push_str(&format!(" AND {condition} ${}", values.len()));
        };
        if let Some(status) = filter.status {
            only("status =", status.word().into());
        }
        if let Some(campaign) = &filter.campaign {
            only("campaign_id =", campaign.as_str().into());
        }
        if let Some(job_type) = &filter.job_type {
            only("job_type =", job_type.as_str().into());
        }
        only("rowid <", cursor(filter.after.as_deref())?.into());
        let text =
            format!("SELECT {} FROM jobs WHERE {wheres} ORDER BY rowid DESC LIMIT {}", rows::JOB, page(filter.limit));
        let found = self.database.read().await?.rows(&text, &values).await?;
        listed(&found, filter.limit, rows::job)
    }

    /// Inserts a campaign and its jobs, all or nothing.
    pub async fn create_campaign(&self, campaign: &NewCampaign) -> Result<Campaign, StoreError> {
        let mut tx = self.database.write().await?;
        tx.execute(
            "INSERT INTO campaigns (id, tenant_id, name, created_by) VALUES ($1, $2, $3, $4)",
            &[
                campaign.id.as_str().into(),
                campaign.tenant.as_str().into(),
                campaign.name.clone().into(),
                campaign.created_by.as_ref().map(ToString::to_string).into(),
            ],
        )
        .await
        .map_err(|error| match error {
            StoreError::Conflict(_) => StoreError::Conflict(format!("there is a campaign {} already", campaign.id)),
            other => other,
        })?;
        for job in &campaign.jobs {
            // Its jobs, whatever they say themselves.
            let (tenant, id) = (campaign.tenant.clone(), Some(campaign.id.clone()));
            insert(&mut tx, &NewJob { tenant, campaign: id, ..job.clone() }, None).await?;
        }
        let made = read_campaign(&mut tx, &Resource::campaign(campaign.tenant.clone(), campaign.id.clone())).await?;
        tx.commit().await?;
        made.ok_or_else(|| StoreError::Refused("the campaign vanished while it was made".to_owned()))
    }

    /// One campaign, with its counts.
    pub async fn campaign(&self, campaign: &Resource) -> Result<Option<Campaign>, StoreError> {
        read_campaign(&mut self.database.read().await?, campaign).await
    }

    /// Campaigns of a tenant, newest first, with a cursor.
    pub async fn campaigns(&self, filter: &CampaignFilter) -> Result<Page<Campaign>, StoreError> {
        let text = format!(
            "SELECT {} FROM campaigns c WHERE c.tenant_id = $1 AND c.rowid < $2 ORDER BY c.rowid DESC LIMIT {}",
            rows::CAMPAIGN,
            page(filter.limit)
        );
        let values = [filter.tenant.as_str().into(), cursor(filter.after.as_deref())?.into()];
        let found = self.database.read().await?.rows(&text, &values).await?;
        listed(&found, filter.limit, rows::campaign)
    }
}

/// Whether a job's campaign, if it names one, is there and has not ended. It is held until the transaction ends.
async fn accepts_jobs(tx: &mut Tx, job: &NewJob) -> Result<(), StoreError> {
    let Some(campaign) = &job.campaign else { return Ok(()) };
    let found = tx
        .row(
            "SELECT status FROM campaigns WHERE tenant_id = $1 AND id = $2 {share}",
            &[job.tenant.as_str().into(), campaign.as_str().into()],
        )
        .await?;
    match found.map(|row| rows::campaign_status(&row)).transpose()? {
        None => Err(StoreError::Conflict(format!("there is no campaign {campaign}"))),
        Some(status) if status.is_final() => {
            Err(StoreError::Conflict(format!("campaign {campaign} is {}", status.word())))
        }
        Some(_) => Ok(()),
    }
}

async fn insert(tx: &mut Tx, job: &NewJob, host: Option<&WorkerId>) -> Result<(), StoreError> {
    let (origin, status, run) = if host.is_some() { ("attached", "running", 1) } else { ("queued", "pending", 0) };
    tx.execute(
        "INSERT INTO jobs (id, tenant_id, campaign_id, job_type, title, parameters, max_retries, created_by,
           origin, status, host, run, started_at, timeout_seconds)
         VALUES ($1, $2, $3, $4, $5, {json:$6}, $7, $8, $9, $10, $11, $12, CASE WHEN $13 = 1 THEN {now} ELSE NULL END, $14)",
        &[
            job.id.as_str().into(),
            job.tenant.as_str().into(),
            job.campaign.as_ref().map(ToString::to_string).into(),
            job.job_type.as_str().into(),
            job.title.clone().into(),
            Value::json(&job.parameters),
            i64::from(job.max_retries).into(),
            job.created_by.as_ref().map(ToString::to_string).into(),
            origin.into(),
            status.into(),
            host.map(ToString::to_string).into(),
            run.into(),
            run.into(),
            job.timeout_seconds.map(i64::from).into(),
        ],
    )
    .await
    .map_err(|error| match error {
        StoreError::Conflict(_) => StoreError::Conflict(format!("there is a job {} already", job.id)),
        other => other,
    })?;
    Ok(())
}

pub(super) async fn read(tx: &mut Tx, job: &Resource) -> Result<Option<Job>, StoreError> {
    let text = format!("SELECT {} FROM jobs WHERE tenant_id = $1 AND id = $2", rows::JOB);
    let found = tx.row(&text, &[job.tenant.as_str().into(), job.id.as_str().into()]).await?;
    found.map(|row| rows::job(&row)).transpose()
}

pub(super) async fn read_campaign(tx: &mut Tx, campaign: &Resource) -> Result<Option<Campaign>, StoreError> {
    let text = format!("SELECT {} FROM campaigns c WHERE c.tenant_id = $1 AND c.id = $2", rows::CAMPAIGN);
    let found = tx.row(&text, &[campaign.tenant.as_str().into(), campaign.id.as_str().into()]).await?;
    found.map(|row| rows::campaign(&row)).transpose()
}

pub(super) fn cursor(after: Option<&str>) -> Result<i64, StoreError> {
    let Some(after) = after else { return Ok(i64::MAX) };
    after
        .parse()
        .map_err(|_| StoreError::Conflict("\"after\" is not a cursor: pass on the last page's \"next\"".to_owned()))
}

/// One more than asked for, to know whether there is a next page.
pub(super) fn page(limit: u32) -> u32 {
    limit.clamp(1, 1_000) + 1
}

pub(super) fn listed<T>(
    found: &[super::sql::Row],
    limit: u32,
    read: impl Fn(&super::sql::Row) -> Result<T, StoreError>,
) -> Result<Page<T>, StoreError> {
    let limit = limit.clamp(1, 1_000) as usize;
    let shown = &found[..found.len().min(limit)];
    let next = match shown.last() {
        Some(last) if found.len() > limit => last.int("row_id")?.map(|id| id.to_string()),
        _ => None,
    };
    let items = shown.iter().filter_map(|row| rows::readable(read(row))).collect();
    Ok(Page { items, next })
}
