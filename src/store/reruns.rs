//! Jobs that are run once more: new jobs with the same parameters, linked to those they were made from.

use super::sql::{Row, Tx, Value};
use super::{Store, StoreError, job_indexes, rows};
use crate::domain::{JobStatus, ResourceId, TenantId, UserId};

/// Jobs of one transaction: other writers have their turn between them.
const TOGETHER: usize = 50;

/// What became of a wish to run a job again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rerun {
    /// There is a new job.
    Made,
    /// The same wish has made it before.
    Known,
    /// There is no such job.
    Missing,
    /// It cannot be run again, for this reason, in words.
    Refused(String),
}

/// A job, and the id of the one that is made from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RerunWish {
    /// Which job.
    pub of: ResourceId,
    /// The new one's id. The same wish has the same one, and makes it once.
    pub id: ResourceId,
}

/// Of which jobs.
#[derive(Debug, Clone)]
pub struct RerunFilter {
    /// The tenant whose jobs are run again.
    pub tenant: TenantId,
    /// In one of these statuses, all of which are ends.
    pub status: Vec<JobStatus>,
    /// Only that campaign's.
    pub campaign: Option<ResourceId>,
    /// Only of that type.
    pub job_type: Option<String>,
}

impl Store {
    /// Makes a new job from each of these, in this user's name; `request` is what their request is called, if it has a name.
    /// The old jobs stay as they are: nothing leaves its end.
    pub async fn rerun_jobs(
        &self,
        tenant: &TenantId,
        wishes: &[RerunWish],
        user: &UserId,
        request: Option<&str>,
    ) -> Result<Vec<Rerun>, StoreError> {
        let mut outcomes = Vec::with_capacity(wishes.len());
        for some in wishes.chunks(TOGETHER) {
            let mut tx = self.database.write().await?;
            for wish in some {
                outcomes.push(rerun(&mut tx, tenant, wish, user, request).await?);
            }
            tx.commit().await?;
        }
        Ok(outcomes)
    }

    /// Whether each of these could be run again.
    pub async fn can_rerun(&self, tenant: &TenantId, ids: &[ResourceId]) -> Result<Vec<Rerun>, StoreError> {
        let mut tx = self.database.read().await?;
        let mut outcomes = Vec::with_capacity(ids.len());
        for id in ids {
            let row = row_of(&mut tx, tenant, id).await?;
            outcomes.push(match row.map(|row| refusal(id, &row)).transpose()? {
                None => Rerun::Missing,
                Some(Some(why)) => Rerun::Refused(why),
                Some(None) => Rerun::Made,
            });
        }
        Ok(outcomes)
    }

    /// The newest jobs that fit and have not been run again, or only by this very request; `limit` at most.
    pub async fn ended_jobs(
        &self,
        filter: &RerunFilter,
        request: Option<&str>,
        limit: u32,
    ) -> Result<Vec<ResourceId>, StoreError> {
        let mut values: Vec<Value> = vec![filter.tenant.as_str().into(), request.unwrap_or_default().into()];
        let statuses: Vec<_> = filter.status.iter().map(|status| format!("'{}'", status.as_str())).collect();
        let (mut index, mut only) = ("jobs_ended_of_tenant", format!(" AND {}", job_indexes::ENDED));
        if let Some(campaign) = &filter.campaign {
            values.push(campaign.as_str().into());
            (index, only) = ("jobs_of_campaign", format!(" AND j.campaign_id = ${}", values.len()));
        }
        if let Some(job_type) = &filter.job_type {
            values.push(job_type.as_str().into());
            only.push_str(&format!(" AND j.job_type = ${}", values.len()));
        }
        let text = format!(
            "SELECT j.id FROM jobs j {{by:{index}}} WHERE j.tenant_id = $1 AND j.status IN ({}){only}
               AND NOT EXISTS (SELECT 1 FROM jobs r WHERE r.tenant_id = $1 AND r.rerun_of IS NOT NULL AND r.rerun_of = j.id
                 AND COALESCE(r.rerun_request, '-') <> $2)
             ORDER BY j.rowid DESC LIMIT {limit}",
            statuses.join(", ")
        );
        let found = self.database.read().await?.rows(&text, &values).await?;
        Ok(found.iter().filter_map(|row| row.text("id").ok()??.parse().ok()).collect())
    }
}

async fn row_of(tx: &mut Tx, tenant: &TenantId, id: &ResourceId) -> Result<Option<Row>, StoreError> {
    let text = "SELECT status, origin, remote_session, campaign_id FROM jobs WHERE tenant_id = $1 AND id = $2";
    tx.row(text, &[tenant.as_str().into(), id.as_str().into()]).await
}

/// Why a job cannot be run again, in words.
fn refusal(id: &ResourceId, row: &Row) -> Result<Option<String>, StoreError> {
    let status = rows::job_status(row)?;
    let is_foreign = row.text("remote_session")?.is_some();
    Ok(match row.required("origin")?.as_str() {
        _ if is_foreign => Some(format!(
            "Job {id} was run by a foreign worker, whose queue has what it was given: publish it again there"
        )),
        "queued" if status.is_final() => None,
        "queued" => Some(format!("Job {id} is {}: it can be run again when it has ended", status.as_str())),
        "attached" => Some(format!("Job {id} was a `wheelhouse run`: start its program again")),
        _ => Some(format!("Job {id} was put here by another system, and no worker knows how to run it")),
    })
}

async fn rerun(
    tx: &mut Tx,
    tenant: &TenantId,
    wish: &RerunWish,
    user: &UserId,
    request: Option<&str>,
) -> Result<Rerun, StoreError> {
    let Some(row) = row_of(tx, tenant, &wish.of).await? else { return Ok(Rerun::Missing) };
    let text = "SELECT rerun_of FROM jobs WHERE tenant_id = $1 AND id = $2";
    if let Some(known) = tx.row(text, &[tenant.as_str().into(), wish.id.as_str().into()]).await? {
        return Ok(match known.text("rerun_of")? {
            Some(of) if of == wish.of.as_str() => Rerun::Known,
            _ => Rerun::Refused(format!("There is a job {} already", wish.id)),
        });
    }
    if let Some(why) = refusal(&wish.of, &row)? {
        return Ok(Rerun::Refused(why));
    }
    // It belongs to the campaign, if that still takes jobs; it is held until this commits.
    let campaign = match row.text("campaign_id")? {
        None => None,
        Some(campaign) => {
            let text = "SELECT c.id FROM campaigns c WHERE c.tenant_id = $1 AND c.id = $2
                          AND c.status IN ('active', 'paused') AND c.closed_at IS NULL {share}";
            tx.row(text, &[tenant.as_str().into(), campaign.as_str().into()]).await?.map(|_| campaign)
        }
    };
    // The parameters do not leave the database, however long they are.
    let made = tx
        .execute(
            "INSERT INTO jobs (id, tenant_id, campaign_id, job_type, title, parameters, max_retries, created_by, origin,
               status, timeout_seconds, rerun_of, rerun_request)
             SELECT $3, j.tenant_id, $4, j.job_type, j.title, j.parameters, j.max_retries, $5, 'queued', 'pending',
               j.timeout_seconds, j.id, $6
             FROM jobs j WHERE j.tenant_id = $1 AND j.id = $2
             ON CONFLICT (tenant_id, id) DO NOTHING",
            &[
                tenant.as_str().into(),
                wish.of.as_str().into(),
                wish.id.as_str().into(),
                campaign.into(),
                user.as_str().into(),
                request.map(str::to_owned).into(),
            ],
        )
        .await?;
    // The very same wish was faster.
    Ok(if made > 0 { Rerun::Made } else { Rerun::Known })
}
