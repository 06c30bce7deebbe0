//! Jobs that must run alone, because workers have died in them.

use super::queue::{ACTIVE, due, table};
use super::sql::{Row, Value};
use super::{Store, StoreError, rows};
use crate::domain::{Resource, TenantId, WorkerId};

/// Jobs that one look sees.
const SUSPECTS: u32 = 32;

impl Store {
    /// Jobs that could run now and must run alone, because at least so many workers have died in them: oldest first,
    /// each with the worker that makes room for it, if any.
    pub async fn suspects(
        &self,
        tenants: Option<&[TenantId]>,
        job_types: &[String],
        deaths: i64,
    ) -> Result<Vec<(Resource, Option<WorkerId>)>, StoreError> {
        let mut values: Vec<Value> = vec![self.now_ms().into(), deaths.into()];
        let types = table(&mut values, job_types.iter().map(String::as_str));
        let of_tenants = match tenants {
            Some(tenants) => {
                let names = table(&mut values, tenants.iter().map(TenantId::as_str));
                format!("AND j.tenant_id IN (SELECT t.column1 FROM (VALUES {names}) t)")
            }
            None => String::new(),
        };
        let text = |limit| {
            format!(
                "SELECT j.id, j.tenant_id, j.alone_in FROM jobs j
             WHERE j.origin = 'queued' AND j.status = 'pending' AND j.deaths > 0 AND j.deaths >= $2 AND {}
               AND j.job_type IN (SELECT v.column1 FROM (VALUES {types}) v) {of_tenants}
               AND (j.campaign_id IS NULL OR EXISTS (
                 SELECT 1 FROM campaigns c WHERE c.tenant_id = j.tenant_id AND c.id = j.campaign_id AND {ACTIVE}))
             ORDER BY j.rowid LIMIT {limit}",
                due("j")
            )
        };
        let suspect = |row: &Row| -> Result<_, StoreError> {
            Ok((rows::job_resource(row)?, row.text("alone_in")?.and_then(|id| id.parse().ok())))
        };
        self.readable(SUSPECTS, text, &values, suspect).await
    }

    /// This worker makes room for a job that must run alone, in place of `before`. `false`: another was first.
    pub async fn make_room(
        &self,
        job: &Resource,
        host: &WorkerId,
        before: Option<&WorkerId>,
    ) -> Result<bool, StoreError> {
        let text = "UPDATE jobs SET alone_in = $3 WHERE tenant_id = $1 AND id = $2 AND (status || '') = 'pending'
                      AND COALESCE(alone_in, '') = $4";
        let before = before.map_or("", WorkerId::as_str);
        let key = [job.tenant.as_str(), job.id.as_str(), host.as_str(), before].map(Value::from);
        self.change(text, &key).await
    }
}
