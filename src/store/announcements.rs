//! Status messages that are owed: written in the transaction that changed the row, deleted by whoever has published
//! them. So what a worker has changed and not said before it died is said by another one. Saying it twice does no harm:
//! each says how the row stands then.

use super::announcement_rows::AnnouncementKind;
use super::sql::{MultiRowInsert, Row, Value};
use super::{Store, StoreError, rows};
use crate::domain::{Resource, ResourceId, ResourceKind, TenantId};

/// One announcement that is owed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Announcement {
    /// About which.
    pub resource: Resource,
    /// The kind of change that is announced.
    pub about: AnnouncementKind,
    /// The run of the job after which it stands so; 0 for campaigns.
    pub run: i64,
}

/// One of them, as `$1` to `$5`.
const ONE_ANNOUNCEMENT: &str = "tenant_id = $1 AND resource_kind = $2 AND resource_id = $3 AND about = $4 AND run = $5";

fn one(owed: &Announcement) -> Vec<Value> {
    vec![
        owed.resource.tenant.as_str().into(),
        owed.resource.kind.as_str().into(),
        owed.resource.id.as_str().into(),
        owed.about.as_str().into(),
        owed.run.into(),
    ]
}

impl Store {
    /// What is owed, each with how far it has been said (see [`Self::mark_announced_to`]); so many at most.
    pub async fn announcements(&self, limit: u32) -> Result<Vec<(Announcement, i64)>, StoreError> {
        let text = |limit| {
            format!(
                "SELECT tenant_id, resource_kind, resource_id AS id, about, run, told_to FROM announcements LIMIT {limit}"
            )
        };
        self.readable(limit, text, &[], announcement).await
    }

    /// How far this one has been said; `None`: it is owed no longer.
    pub async fn announced_count(&self, owed: &Announcement) -> Result<Option<i64>, StoreError> {
        let text = format!("SELECT told_to FROM announcements WHERE {ONE_ANNOUNCEMENT}");
        let found = self.database.read().await?.row(&text, &one(owed)).await?;
        found.map(|row| Ok(row.int("told_to")?.unwrap_or(0))).transpose()
    }

    /// The jobs up to this row have been told of. Whoever goes on begins behind it, and others see that somebody does.
    pub async fn mark_announced_to(&self, owed: &Announcement, row: i64) -> Result<(), StoreError> {
        let mut values = one(owed);
        values.push(row.into());
        self.change(
            &format!("UPDATE announcements SET told_to = $6 WHERE {ONE_ANNOUNCEMENT} AND told_to < $6"),
            &values,
        )
        .await?;
        Ok(())
    }

    /// These have been said.
    pub async fn mark_announced(&self, said: &[Announcement]) -> Result<(), StoreError> {
        if said.is_empty() {
            return Ok(());
        }
        let mut tx = self.database.write().await?;
        let rows: Vec<Vec<Value>> = said.iter().map(one).collect();
        let delete = MultiRowInsert {
            before: "DELETE FROM announcements WHERE (tenant_id, resource_kind, resource_id, about, run) IN (",
            row: "(?, ?, ?, ?, CAST(? AS BIGINT))",
            after: ")",
            rows: &rows,
        };
        tx.execute_many(&[delete]).await?;
        tx.commit().await
    }

    /// Cancelled jobs of a campaign in the order of their making, from behind that row: their ids alone, and the last
    /// row that was looked at; `None` where there are no more.
    pub async fn cancelled_jobs(
        &self,
        campaign: &Resource,
        after: i64,
        limit: u32,
    ) -> Result<(Vec<Resource>, Option<i64>), StoreError> {
        let text = format!(
            "SELECT id, tenant_id, rowid AS row_id FROM jobs
             WHERE tenant_id = $1 AND campaign_id = $2 AND status = 'cancelled' AND rowid > $3
             ORDER BY rowid LIMIT {limit}"
        );
        let values = [campaign.tenant.as_str().into(), campaign.id.as_str().into(), after.into()];
        let found = self.database.read().await?.rows(&text, &values).await?;
        let last = found.last().map_or(Ok(None), |row| row.int("row_id"))?;
        Ok((found.iter().filter_map(|row| rows::skip_unreadable(rows::job_resource(row))).collect(), last))
    }
}

fn announcement(row: &Row) -> Result<(Announcement, i64), StoreError> {
    let odd = |what: &str| StoreError::Refused(format!("a row of announcements has an unreadable {what}"));
    let tenant: TenantId = row.required("tenant_id")?.parse().map_err(|_| odd("tenant_id"))?;
    let id: ResourceId = row.required("id")?.parse().map_err(|_| odd("resource_id"))?;
    let kind = match row.required("resource_kind")?.as_str() {
        "job" => ResourceKind::Job,
        _ => ResourceKind::Campaign,
    };
    let about = if row.required("about")? == AnnouncementKind::Jobs.as_str() {
        AnnouncementKind::Jobs
    } else {
        AnnouncementKind::Status
    };
    let owed = Announcement { resource: Resource { tenant, kind, id }, about, run: row.int("run")?.unwrap_or(0) };
    Ok((owed, row.int("told_to")?.unwrap_or(0)))
}
