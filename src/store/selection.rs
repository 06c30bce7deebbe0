//! Which of many resources are there, and which fit a filter: for batches and feeds.

use std::collections::{HashMap, HashSet};

use super::by_id::rows_by_id;
use super::job_indexes::{self, IndexPiece};
use super::sql::{Row, Value};
use super::{ResourceSelection, Store, StoreError, rows};
use crate::domain::text::MAX_SHORT_TEXT;
use crate::domain::{CampaignStatus, JobFacts, JobStatus, ResourceId, ResourceKind, TenantId};

impl Store {
    /// Those of the ids that the tenant has.
    pub async fn existing(
        &self,
        tenant: &TenantId,
        kind: ResourceKind,
        ids: &[ResourceId],
    ) -> Result<HashSet<ResourceId>, StoreError> {
        let rows = self.chosen_rows("id", kind, tenant, ids).await?;
        let found = rows.iter().map(|row| row.shown_key("id")).collect::<Result<Vec<_>, _>>()?;
        Ok(found.iter().filter_map(|id| id.parse().ok()).collect())
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
        let columns = format!("id, {} AS name", rows::shorten(column, MAX_SHORT_TEXT));
        let mut found = Vec::new();
        for row in self.chosen_rows(&columns, kind, tenant, ids).await? {
            let (Ok(id), Some(name)) = (row.shown_key("id")?.parse(), row.text("name")?) else { continue };
            found.push((id, name));
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
        for row in self.chosen_rows("id, campaign_id, job_type", ResourceKind::Job, tenant, ids).await? {
            let Ok(id) = row.shown_key("id")?.parse() else { continue };
            let campaign_id = row.text("campaign_id")?.and_then(|id| id.parse().ok());
            let job_type = row.text("job_type")?.unwrap_or_default();
            found.insert(id, JobFacts { campaign_id, job_type });
        }
        Ok(found)
    }

    async fn chosen_rows(
        &self,
        columns: &str,
        kind: ResourceKind,
        tenant: &TenantId,
        ids: &[ResourceId],
    ) -> Result<Vec<Row>, StoreError> {
        let ids = ids.iter().map(ResourceId::as_str);
        rows_by_id(&mut self.database.read().await?, columns, kind.plural(), tenant, ids).await
    }
}
