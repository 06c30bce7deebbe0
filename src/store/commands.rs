//! Applying a command, and what a command on a campaign looks at.

use super::applied::{REQUEST_TTL, applied_before, request_key, request_text};
use super::command_rows::{RowWrite, RowWrites, key_of, raise_fence, row_of};
use super::sql::time_text;
use super::{ApplyOutcome, CommandChange, Store, StoreError, rows};
use crate::domain::{Action, Resource, ResourceKind, UserId};

impl Store {
    /// Applies a command in one guarded transaction, once: the same command again gives the first outcome.
    pub async fn apply(&self, change: &CommandChange) -> Result<ApplyOutcome, StoreError> {
        self.group_commit.apply(change).await
    }

    /// Gives a command up, unless it has been applied (`true`): from now on no older claim of it can apply it any more.
    /// A look would not do: what a worker sent before it lost its claim may still be waiting for its turn.
    pub async fn void_older_claims(&self, change: &CommandChange) -> Result<bool, StoreError> {
        let _one = self.group_commit.limiter().acquire_for(change).await?;
        let mut tx = self.database.write().await?;
        // The row first, as in `apply_in`.
        let row = row_of(&mut tx, &change.resource).await?;
        let applied = applied_before(&mut tx, &[change.command]).await?.contains_key(&change.command);
        if let Some(row) = row.filter(|_| !applied)
            && row.int("fence")?.unwrap_or(0) < change.fence
        {
            match change.resource.kind {
                ResourceKind::Job => {
                    let mut writes = RowWrites::default();
                    writes.add(change, RowWrite::Fence(row.required("seen")?));
                    writes.write(&mut tx).await?;
                }
                ResourceKind::Campaign => raise_fence(&mut tx, change).await?,
            }
        }
        tx.commit().await?;
        Ok(applied)
    }

    /// Whether a command was applied that came by this request.
    pub async fn is_request_applied(
        &self,
        resource: &Resource,
        user: &UserId,
        request_id: &str,
        action: Action,
    ) -> Result<bool, StoreError> {
        let text = "SELECT command_id FROM applied_commands WHERE request = $1";
        let key = request_text(resource, user, request_id, action);
        Ok(self.database.read().await?.row(text, &[key.into()]).await?.is_some())
    }

    /// Whether another command was applied that came by the same request. Whoever is about to stop or start work asks
    /// first: what SQL then leaves undone must not be done to the work either.
    pub async fn is_repeated_request(&self, change: &CommandChange) -> Result<bool, StoreError> {
        let Some(key) = request_key(change) else { return Ok(false) };
        let text = "SELECT command_id FROM applied_commands WHERE request = $1 AND command_id <> $2 AND at > {time:$3}";
        let since = self.now_ms() - i64::try_from(REQUEST_TTL.as_millis()).unwrap_or(i64::MAX);
        let values = [key.into(), change.command.to_string().into(), time_text(since).into()];
        Ok(self.database.read().await?.row(text, &values).await?.is_some())
    }

    /// Jobs of a campaign that a worker still hosts (running, or paused inside it).
    pub async fn hosted_jobs(&self, campaign: &Resource) -> Result<Vec<Resource>, StoreError> {
        let found = self
            .database
            .read()
            .await?
            .rows(
                "SELECT id, tenant_id FROM jobs WHERE tenant_id = $1 AND campaign_id = $2 AND host IS NOT NULL
                   AND status IN ('pending', 'running', 'paused')",
                &[campaign.tenant.as_str().into(), campaign.id.as_str().into()],
            )
            .await?;
        Ok(found.iter().filter_map(|row| rows::skip_unreadable(rows::job_resource(row))).collect())
    }

    /// Jobs of a campaign that have not ended, wherever they are: their ids alone, so many at most.
    pub async fn unended_jobs(&self, campaign: &Resource, limit: u32) -> Result<Vec<Resource>, StoreError> {
        let text = format!(
            "SELECT id, tenant_id FROM jobs WHERE tenant_id = $1 AND campaign_id = $2
               AND status IN ('pending', 'running', 'paused') LIMIT {limit}"
        );
        let found = self.database.read().await?.rows(&text, &key_of(campaign)).await?;
        Ok(found.iter().filter_map(|row| rows::skip_unreadable(rows::job_resource(row))).collect())
    }
}
