//! Which of many resources are there, and which fit a filter: for batches and feeds.

use std::collections::{HashMap, HashSet};

use super::sql::Value;
use super::{ResourceSelection, Store, StoreError};
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
                found.extend(row.required("id")?.parse::<ResourceId>());
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
        // The condition of the index, word for word: neither database finds out by itself that it holds. A campaign's
        // jobs have an index of their own.
        let (index, unended) = match (chosen.kind, &chosen.campaign) {
            (ResourceKind::Job, None) => (" {by:jobs_unended}", " AND status IN ('pending', 'running', 'paused')"),
            _ => ("", ""),
        };
        let mut values: Vec<Value> = vec![chosen.tenant.as_str().into()];
        let mut next = |value: Value| {
            values.push(value);
            format!("${}", values.len())
        };
        let statuses = open.into_iter().map(|word| next(word.into())).collect::<Vec<_>>().join(", ");
        let mut wheres = format!("tenant_id = $1 AND status IN ({statuses}){unended}");
        if let Some(campaign) = &chosen.campaign {
            wheres.push_str(&format!(" AND campaign_id = {}", next(campaign.as_str().into())));
        }
        if let Some(job_type) = &chosen.job_type {
            wheres.push_str(&format!(" AND job_type = {}", next(job_type.as_str().into())));
        }
        let table = chosen.kind.plural();
        let text = format!("SELECT id FROM {table}{index} WHERE {wheres} ORDER BY rowid DESC LIMIT {limit}");
        let rows = self.database.read().await?.rows(&text, &values).await?;
        let ids = rows.iter().map(|row| row.required("id")).collect::<Result<Vec<_>, _>>()?;
        Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
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
                let Ok(id) = row.required("id")?.parse() else { continue };
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
