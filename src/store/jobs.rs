//! Making, reading and listing jobs.

use std::collections::{HashMap, HashSet};

use super::list_cursor::{self, ListPosition};
use super::lists::{FoundRow, FoundRows};
use super::new_rows::{Beginning, insert};
use super::page::limit_of;
use super::sql::{Row, Tx, Value};
use super::{ClaimedJob, JobFilter, NewJob, Page, Run, Store, StoreError, job_list, rows};
use crate::domain::{CampaignStatus, Job, JobCounts, JobStatus, Resource, ResourceId, TenantId, WorkerId};

/// Workers of one name that are looked for, the newest first.
const MAX_NAMESAKES: u32 = 200;
/// Reruns of a job that are named.
const MAX_RERUNS: u32 = 20;

impl Store {
    /// Inserts a job as `pending`, for workers to run. `Conflict` if the tenant has a job with this id.
    pub async fn create_job(&self, job: &NewJob) -> Result<Job, StoreError> {
        let mut tx = self.database.write().await?;
        accepts_jobs(&mut tx, job).await?;
        insert(&mut tx, job, &Beginning::Queued).await?;
        let made = read_with_contents(&mut tx, &Resource::job(job.tenant.clone(), job.id.clone())).await?;
        tx.commit().await?;
        made.ok_or_else(|| StoreError::Refused("the job vanished while it was made".to_owned()))
    }

    /// Inserts many jobs as `pending`, all or none of them.
    pub async fn create_jobs(&self, jobs: &[NewJob]) -> Result<(), StoreError> {
        let mut tx = self.database.write().await?;
        let mut accepted: HashSet<(&TenantId, &ResourceId)> = HashSet::new();
        for job in jobs {
            if let Some(campaign) = &job.campaign
                && accepted.insert((&job.tenant, campaign))
            {
                accepts_jobs(&mut tx, job).await?;
            }
        }
        for job in jobs {
            insert(&mut tx, job, &Beginning::Queued).await?;
        }
        tx.commit().await
    }

    /// Inserts a job that already runs inside this worker (`wheelhouse run`), never to be started by another.
    pub async fn create_attached_job(&self, job: &NewJob, host: &WorkerId) -> Result<ClaimedJob, StoreError> {
        let resource = Resource::job(job.tenant.clone(), job.id.clone());
        let mut tx = self.database.write().await?;
        accepts_jobs(&mut tx, job).await?;
        insert(&mut tx, job, &Beginning::Attached(host)).await?;
        let made = read_with_contents(&mut tx, &resource).await?;
        tx.commit().await?;
        let made = made.ok_or_else(|| StoreError::Refused("the job vanished while it was made".to_owned()))?;
        Ok(ClaimedJob {
            job: made,
            run: Run { job: resource, host: host.clone(), number: 1 },
            resume_point: None,
            deaths: 0,
            timeout_used_ms: 0,
        })
    }

    /// One job, with everything that it holds.
    pub async fn job(&self, job: &Resource) -> Result<Option<Job>, StoreError> {
        let mut tx = self.database.read().await?;
        let Some(row) = read_with_contents(&mut tx, job).await? else { return Ok(None) };
        let text = format!(
            "SELECT id FROM jobs {{by:jobs_reruns}} WHERE tenant_id = $1 AND rerun_of = $2 ORDER BY rowid DESC LIMIT {MAX_RERUNS}"
        );
        let found = tx.rows(&text, &[job.tenant.as_str().into(), job.id.as_str().into()]).await?;
        let reruns = found.iter().filter_map(|row| row.text("id").ok()??.parse().ok()).collect();
        Ok(Some(Job { reruns, ..row }))
    }

    /// As [`Self::job`], without its parameters and its result.
    pub async fn job_without_contents(&self, job: &Resource) -> Result<Option<Job>, StoreError> {
        read(&mut self.database.read().await?, job).await
    }

    /// The whole text of a job's error, which its row shows in part where it is long. The outer `None`: no such job.
    pub async fn job_error(&self, job: &Resource) -> Result<Option<Option<String>>, StoreError> {
        let text = "SELECT COALESCE(error_detail, error_message) AS error FROM jobs WHERE tenant_id = $1 AND id = $2";
        let values = [job.tenant.as_str().into(), job.id.as_str().into()];
        let found = self.database.read().await?.row(text, &values).await?;
        found.map(|row| row.text("error")).transpose()
    }

    /// Jobs of a tenant in the order that is asked for, with a cursor; without parameters and results, however long the
    /// list is. Rows that cannot be read are left out and logged.
    pub async fn jobs(&self, filter: &JobFilter) -> Result<Page<Job>, StoreError> {
        let (found, begun) = self.find_jobs(filter).await?;
        let mut rows = self.job_rows(filter, &found.rows).await?;
        let items = found.rows.iter().filter_map(|found| rows.remove(&found.id));
        let items = items.filter_map(|row| rows::skip_unreadable(rows::job(&row))).collect();
        let cursor = |position: &ListPosition| list_cursor::write(&filter.question(), begun, position);
        let searched = found.next.as_ref().map(|next| next.searched).filter(|searched| *searched > 0);
        Ok(Page { items, next: found.next.as_ref().map(cursor), searched })
    }

    /// As [`Self::jobs`], with parameters and results: a page ends before they are longer than `most` bytes together, but
    /// not before its first row.
    pub async fn jobs_with_contents(&self, filter: &JobFilter, most: usize) -> Result<Page<Job>, StoreError> {
        let (found, begun) = self.find_jobs(filter).await?;
        let mut rows = self.job_rows(filter, &found.rows).await?;
        let cursor = |position: &ListPosition| list_cursor::write(&filter.question(), begun, position);
        let searched = found.next.as_ref().map_or(0, |next| next.searched);
        let (mut items, mut bytes, mut last) = (Vec::new(), 0, None);
        let mut tx = self.database.read().await?;
        for found in &found.rows {
            // One by one: nobody knows how long the next one is.
            let text = "SELECT CAST(parameters AS TEXT) AS parameters, CAST(result AS TEXT) AS result
                        FROM jobs WHERE tenant_id = $1 AND id = $2";
            let contents = tx.row(text, &[filter.tenant.as_str().into(), found.id.as_str().into()]).await?;
            let read = |column| contents.as_ref().map_or(Ok(None), |contents| contents.text(column));
            let (parameters, result) = (read("parameters")?, read("result")?);
            bytes += [&parameters, &result].into_iter().flatten().map(String::len).sum::<usize>();
            if bytes > most && last.is_some() {
                return Ok(Page { items, next: last.as_ref().map(cursor), searched: None });
            }
            last = Some(ListPosition { phase: found.phase, place: Some(found.place.clone()), searched });
            let row = rows.remove(&found.id);
            if let Some(job) = row.and_then(|row| rows::skip_unreadable(rows::job(&row))) {
                items.push(Job { parameters: rows::json(parameters), result: rows::json(result), ..job });
            }
        }
        Ok(Page { items, next: found.next.as_ref().map(cursor), searched: Some(searched).filter(|n| *n > 0) })
    }

    /// What is wrong with the cursor of a list, in words for the client.
    pub fn check_job_cursor(filter: &JobFilter) -> Result<(), &'static str> {
        let Some(after) = filter.after.as_deref() else { return Ok(()) };
        list_cursor::read(&filter.question(), after).and_then(|(_, position)| position.fits(filter.sort))
    }

    /// The statements that reading a list may take, with how the database would go about them.
    pub async fn explain_jobs(&self, filter: &JobFilter) -> Result<Vec<String>, StoreError> {
        let (begun, after) = self.position(filter)?;
        let hosts = self.hosts_of(filter).await?;
        self.explain_list(&job_list::jobs(filter, begun, &hosts), after.as_ref()).await
    }

    /// How many jobs of a tenant, or of one of its campaigns, are in each status.
    pub async fn job_totals(&self, tenant: &TenantId, campaign: Option<&ResourceId>) -> Result<JobCounts, StoreError> {
        let mut values: Vec<Value> = vec![tenant.as_str().into()];
        let of_campaign = campaign.map_or("", |campaign| {
            values.push(campaign.as_str().into());
            " AND campaign_id = $2"
        });
        let text = format!(
            "SELECT status, CAST(SUM(n) AS BIGINT) AS n FROM job_totals WHERE tenant_id = $1{of_campaign} GROUP BY status"
        );
        let mut counts = JobCounts::default();
        for row in self.database.read().await?.rows(&text, &values).await? {
            let n = row.int("n")?.unwrap_or(0);
            *counts.of_mut(rows::job_status(&row)?) = n;
        }
        Ok(counts)
    }

    /// How many jobs of a tenant ended in which of the last `minutes`, by the database's clock: the minute that it is (since 1970),
    /// and of each minute and status how many, where there are any. Those of a day are kept.
    pub async fn ended_by_minute(
        &self,
        tenant: &TenantId,
        minutes: u32,
    ) -> Result<(i64, Vec<(i64, JobStatus, i64)>), StoreError> {
        let mut reading = self.database.read().await?;
        let newest = reading.row("SELECT CAST({now_ms} / 60000 AS BIGINT) AS newest", &[]).await?;
        let newest = newest.map_or(Ok(None), |row| row.int("newest"))?.unwrap_or(0);
        let text = "SELECT minute, status, CAST(SUM(n) AS BIGINT) AS n FROM job_ends_by_minute
                    WHERE tenant_id = $1 AND minute > $2 GROUP BY minute, status";
        let values = [tenant.as_str().into(), (newest - i64::from(minutes)).into()];
        let rows = reading.rows(text, &values).await?;
        let read =
            |row: &Row| Ok((row.int("minute")?.unwrap_or(0), rows::job_status(row)?, row.int("n")?.unwrap_or(0)));
        Ok((newest, rows.iter().map(read).collect::<Result<Vec<_>, StoreError>>()?))
    }

    fn position(&self, filter: &JobFilter) -> Result<(i64, Option<ListPosition>), StoreError> {
        let Some(after) = &filter.after else { return Ok((self.now_ms(), None)) };
        let read = list_cursor::read(&filter.question(), after);
        read.map(|(begun, position)| (begun, Some(position))).map_err(|why| StoreError::Conflict(why.to_owned()))
    }

    /// The ids of the workers that a list asks for by name, and what may be an id itself.
    async fn hosts_of(&self, filter: &JobFilter) -> Result<Vec<String>, StoreError> {
        let Some(worker) = &filter.worker else { return Ok(Vec::new()) };
        let text = format!("SELECT id FROM workers WHERE name = $1 ORDER BY seen_at DESC LIMIT {MAX_NAMESAKES}");
        let found = self.database.read().await?.rows(&text, &[worker.as_str().into()]).await?;
        let named = found.iter().map(|row| row.required("id"));
        named.chain([Ok(worker.clone())]).collect()
    }

    async fn find_jobs(&self, filter: &JobFilter) -> Result<(FoundRows, i64), StoreError> {
        let (begun, after) = self.position(filter)?;
        let plan = job_list::jobs(filter, begun, &self.hosts_of(filter).await?);
        Ok((self.list(&plan, after.as_ref(), limit_of(filter.limit)).await?, begun))
    }

    async fn job_rows(&self, filter: &JobFilter, found: &[FoundRow]) -> Result<HashMap<String, Row>, StoreError> {
        self.rows_of(&rows::JOB, "jobs", &filter.tenant, found).await
    }
}

impl JobFilter {
    /// What a cursor is bound to: everything but the cursor and the length of a page.
    fn question(&self) -> Self {
        Self { after: None, limit: 0, ..self.clone() }
    }
}

/// Whether a job's campaign, if it names one, is there and takes jobs. It is held until the transaction ends.
pub(super) async fn accepts_jobs(tx: &mut Tx, job: &NewJob) -> Result<(), StoreError> {
    let Some(campaign) = &job.campaign else { return Ok(()) };
    let found = tx
        .row(
            "SELECT status, CAST(closed_at AS TEXT) AS closed_at FROM campaigns WHERE tenant_id = $1 AND id = $2 {share}",
            &[job.tenant.as_str().into(), campaign.as_str().into()],
        )
        .await?;
    let Some(row) = found else { return Err(StoreError::Conflict(format!("there is no campaign {campaign}"))) };
    match rows::campaign_status(&row)? {
        CampaignStatus::Completed => Err(StoreError::Conflict(format!(
            "campaign {campaign} is completed: one that is made without jobs takes them until it is closed"
        ))),
        CampaignStatus::Cancelled => Err(StoreError::Conflict(format!("campaign {campaign} is cancelled"))),
        _ if row.text("closed_at")?.is_some() => {
            Err(StoreError::Conflict(format!("campaign {campaign} is closed: it takes no more jobs")))
        }
        CampaignStatus::Active | CampaignStatus::Paused => Ok(()),
    }
}

/// A job without its parameters and its result.
pub(super) async fn read(tx: &mut Tx, job: &Resource) -> Result<Option<Job>, StoreError> {
    read_columns(tx, job, &rows::JOB).await
}

/// A job with everything that it holds.
pub(super) async fn read_with_contents(tx: &mut Tx, job: &Resource) -> Result<Option<Job>, StoreError> {
    read_columns(tx, job, &rows::JOB_WITH_CONTENTS).await
}

async fn read_columns(tx: &mut Tx, job: &Resource, columns: &str) -> Result<Option<Job>, StoreError> {
    let text = format!("SELECT {columns} FROM jobs WHERE tenant_id = $1 AND id = $2");
    let found = tx.row(&text, &[job.tenant.as_str().into(), job.id.as_str().into()]).await?;
    found.map(|row| rows::job(&row)).transpose()
}
