//! Which of many resources are there, and which fit a filter: for batches and feeds.

use std::collections::{HashMap, HashSet};

use super::job_indexes::{self, IndexPiece};
use super::sql::Value;
use super::{ResourceSelection, Store, StoreError, rows};
use crate::domain::text::MAX_SHORT_TEXT;
use crate::domain::{CampaignStatus, JobFacts, JobStatus, ResourceId, ResourceKind, TenantId};

/// Ids in one statement: SQLite takes 32,766 values, PostgreSQL 65,535.
const TOGETHER: usize = 1_000;

impl Store {
    /// Those of the ids that the tenant has.
    pub async fn existing(
        &self,
        tenant: &TenantId,
        kind: ResourceKind,
        ids: &[ResourceId],
    ) -> Result<HashSet<ResourceId>, StoreError> {
        let mut found = HashSet::with_capacity(ids.len());
        for some in ids.chunks(TOGETHER) {
            let (list, values) = listed(tenant, some);
            let text = format!("SELECT id FROM {} WHERE tenant_id = $1 AND id IN ({list})", kind.plural());
            for row in self.database.read().await?.rows(&text, &values).await? {
                found.extend(row.shown_key("id")?.parse::<ResourceId>());
            }
        }
        Ok(found)
    }

    /// The newest that fit, `limit` at most. Rows whose ids are none are left out.
    pub async fn select_matching(
        &self,
        chosen: &ResourceSelection,
        limit: usize,
    ) -> Result<Vec<ResourceId>, StoreError> {
        let open = match chosen.kind {
            _ if !chosen.status.is_empty() => chosen.status.clone(),
            ResourceKind::Job => JobStatus::ALL.iter().filter(|s| !s.is_final()).map(|s| s.as_str()).collect(),
            ResourceKind::Campaign => {
                CampaignStatus::ALL.iter().filter(|s| !s.is_final()).map(|s| s.as_str()).collect()
            }
        };
        let mut values: Vec<Value> = vec![chosen.tenant.as_str().into()];
        let mut next = |value: Value| {
            values.push(value);
            format!("${}", values.len())
        };
        let mut others = String::new();
        if let Some(job_type) = &chosen.job_type {
            others.push_str(&format!(" AND job_type = {}", next(job_type.as_str().into())));
        }
        let text = match (chosen.kind, &chosen.campaign) {
            (ResourceKind::Job, None) => {
                // Neither database finds out by itself along which indexes the newest of several statuses are at hand.
                let statuses = open.into_iter().filter_map(JobStatus::parse).filter(|status| !status.is_final());
                let newest = |IndexPiece { index, only, .. }| {
                    format!(
                        "SELECT * FROM (SELECT id, rowid AS place FROM jobs {{by:{index}}} WHERE tenant_id = $1 AND {only}{others}
                           ORDER BY rowid DESC LIMIT {limit}) s"
                    )
                };
                let pieces: Vec<String> = statuses.flat_map(job_indexes::of_status).map(newest).collect();
                if pieces.is_empty() {
                    return Ok(Vec::new());
                }
                format!("SELECT id FROM ({}) n ORDER BY place DESC LIMIT {limit}", pieces.join(" UNION ALL "))
            }
            (kind, campaign) => {
                if let Some(campaign) = campaign {
                    others.push_str(&format!(" AND campaign_id = {}", next(campaign.as_str().into())));
                }
                let statuses = open.into_iter().map(|word| next(word.into())).collect::<Vec<_>>().join(", ");
                format!(
                    "SELECT id FROM {} WHERE tenant_id = $1 AND status IN ({statuses}){others} ORDER BY rowid DESC LIMIT {limit}",
                    kind.plural()
                )
            }
        };
        let rows = self.database.read().await?.rows(&text, &values).await?;
        let ids = rows.iter().map(|row| row.shown_key("id")).collect::<Result<Vec<_>, _>>()?;
        Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
    }

    /// What jobs or campaigns are called, cut down where it is long; those that are not there, or have no name, are left out.
    pub async fn names(
        &self,
        tenant: &TenantId,
        kind: ResourceKind,
        ids: &[ResourceId],
    ) -> Result<Vec<(ResourceId, String)>, StoreError> {
        let column = match kind {
            ResourceKind::Job => "title",
            ResourceKind::Campaign => "name",
        };
        let (name, table) = (rows::shorten(column, MAX_SHORT_TEXT), kind.plural());
        let mut found = Vec::new();
        for some in ids.chunks(TOGETHER) {
            let (list, values) = listed(tenant, some);
            let text = format!("SELECT id, {name} AS name FROM {table} WHERE tenant_id = $1 AND id IN ({list})");
            for row in self.database.read().await?.rows(&text, &values).await? {
                let (Ok(id), Some(name)) = (row.shown_key("id")?.parse(), row.text("name")?) else { continue };
                found.push((id, name));
            }
        }
        Ok(found)
    }

    /// What the messages of these jobs do not say; jobs that the tenant does not have are left out.
    pub async fn job_facts(
        &self,
        tenant: &TenantId,
        ids: &[ResourceId],
    ) -> Result<HashMap<ResourceId, JobFacts>, StoreError> {
        let mut found = HashMap::with_capacity(ids.len());
        for some in ids.chunks(TOGETHER) {
            let (list, values) = listed(tenant, some);
            let text = format!("SELECT id, campaign_id, job_type FROM jobs WHERE tenant_id = $1 AND id IN ({list})");
            for row in self.database.read().await?.rows(&text, &values).await? {
                let Ok(id) = row.shown_key("id")?.parse() else { continue };
                let campaign_id = row.text("campaign_id")?.and_then(|id| id.parse().ok());
                let job_type = row.text("job_type")?.unwrap_or_default();
                found.insert(id, JobFacts { campaign_id, job_type });
            }
        }
        Ok(found)
    }
}

/// `$2, $3, …`, and the tenant and the ids as values.
fn listed(tenant: &TenantId, ids: &[ResourceId]) -> (String, Vec<Value>) {
    let list = (2..ids.len() + 2).map(|n| format!("${n}")).collect::<Vec<_>>().join(", ");
    let ids = ids.iter().map(|id| Value::from(id.as_str()));
    (list, std::iter::once(Value::from(tenant.as_str())).chain(ids).collect())
}
