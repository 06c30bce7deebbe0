//! Making, reading, closing and completing campaigns.

use super::announcement_rows::{AnnouncementKind, record_announcement};
use super::list_cursor;
use super::new_rows::{Beginning, insert};
use super::page::limit_of;
use super::sql::{Tx, Value};
use super::{CampaignFilter, NewCampaign, NewJob, Page, Store, StoreError, job_list, rows};
use crate::domain::{Campaign, Resource};

/// All jobs of the campaign `$1`, `$2` have ended.
const ALL_ENDED: &str = "NOT EXISTS (SELECT 1 FROM jobs j WHERE j.tenant_id = $1 AND j.campaign_id = $2
  AND j.status IN ('pending', 'running', 'paused'))";

fn key_of(campaign: &Resource) -> [Value; 2] {
    [campaign.tenant.as_str().into(), campaign.id.as_str().into()]
}

impl Store {
    /// Inserts a campaign and its jobs, all or nothing. Without any it stays open: jobs are added later, and it is
    /// completed only after it was told to close.
    pub async fn create_campaign(&self, campaign: &NewCampaign) -> Result<Campaign, StoreError> {
        let mut tx = self.database.write().await?;
        let is_open = if campaign.jobs.is_empty() { "TRUE" } else { "FALSE" };
        tx.execute(
            &format!(
                "INSERT INTO campaigns (id, tenant_id, name, created_by, is_open) VALUES ($1, $2, $3, $4, {is_open})"
            ),
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
            insert(&mut tx, &NewJob { tenant, campaign: id, ..job.clone() }, &Beginning::Queued).await?;
        }
        let made = read_campaign(&mut tx, &Resource::campaign(campaign.tenant.clone(), campaign.id.clone())).await?;
        tx.commit().await?;
        made.ok_or_else(|| StoreError::Refused("the campaign vanished while it was made".to_owned()))
    }

    /// One campaign, with its counts.
    pub async fn campaign(&self, campaign: &Resource) -> Result<Option<Campaign>, StoreError> {
        read_campaign(&mut self.database.read().await?, campaign).await
    }

    /// Campaigns of a tenant in the order that is asked for, with a cursor.
    pub async fn campaigns(&self, filter: &CampaignFilter) -> Result<Page<Campaign>, StoreError> {
        let (begun, after) = match &filter.after {
            None => (self.now_ms(), None),
            Some(after) => {
                let read = list_cursor::read(&filter.question(), after);
                let (begun, position) = read.map_err(|why| StoreError::Conflict(why.to_owned()))?;
                (begun, Some(position))
            }
        };
        let plan = job_list::campaigns(filter);
        let found = self.list(&plan, after.as_ref(), limit_of(filter.limit)).await?;
        let mut rows = self.rows_of(&rows::CAMPAIGN, "campaigns c", &filter.tenant, &found.rows).await?;
        let items = found.rows.iter().filter_map(|found| rows.remove(&found.id));
        let items = items.filter_map(|row| rows::skip_unreadable(rows::campaign(&row))).collect();
        let next = found.next.as_ref().map(|position| list_cursor::write(&filter.question(), begun, position));
        let searched = found.next.as_ref().map(|next| next.searched).filter(|searched| *searched > 0);
        Ok(Page { items, next, searched })
    }

    /// What is wrong with the cursor of a list, in words for the client.
    pub fn check_campaign_cursor(filter: &CampaignFilter) -> Result<(), &'static str> {
        let Some(after) = filter.after.as_deref() else { return Ok(()) };
        list_cursor::read(&filter.question(), after).and_then(|(_, position)| position.fits(filter.sort))
    }

    /// The statements that reading a list may take, with how the database would go about them.
    pub async fn explain_campaigns(&self, filter: &CampaignFilter) -> Result<Vec<String>, StoreError> {
        self.explain_list(&job_list::campaigns(filter), None).await
    }

    /// No more jobs are added. Completes the campaign at once if it is active and all its jobs have ended, also if it
    /// never had any. Closing it again changes nothing. `None`: no such campaign.
    pub async fn close_campaign(&self, campaign: &Resource) -> Result<Option<CloseOutcome>, StoreError> {
        let mut tx = self.database.write().await?;
        let key = key_of(campaign);
        // Held first, in a statement of its own: the next one sees every job that was added before.
        tx.row("SELECT id FROM campaigns WHERE tenant_id = $1 AND id = $2 {lock}", &key).await?;
        tx.execute(
            "UPDATE campaigns SET is_open = FALSE, closed_at = {now}, updated_at = {now}
             WHERE tenant_id = $1 AND id = $2 AND closed_at IS NULL AND status IN ('active', 'paused')",
            &key,
        )
        .await?;
        let has_completed = complete_in(&mut tx, campaign, "closed_at IS NOT NULL").await?;
        let row = read_campaign(&mut tx, campaign).await?;
        tx.commit().await?;
        Ok(row.map(|campaign| CloseOutcome { campaign, has_completed }))
    }

    /// Marks a campaign completed if it is active, not open, and all its jobs have ended (and there is at least one).
    /// That it is completed is owed to those who watch it: see `announcements.rs`.
    pub async fn complete_campaign(&self, campaign: &Resource) -> Result<Option<Campaign>, StoreError> {
        let mut tx = self.database.write().await?;
        // Held first, in a statement of its own: the one after it sees every job that was added before.
        tx.row("SELECT id FROM campaigns WHERE tenant_id = $1 AND id = $2 {lock}", &key_of(campaign)).await?;
        let has_jobs = "EXISTS (SELECT 1 FROM jobs j WHERE j.tenant_id = $1 AND j.campaign_id = $2)";
        if !complete_in(&mut tx, campaign, has_jobs).await? {
            tx.rollback().await?;
            return Ok(None);
        }
        let completed = read_campaign(&mut tx, campaign).await?;
        tx.commit().await?;
        Ok(completed)
    }
}

impl CampaignFilter {
    /// What a cursor is bound to: everything but the cursor and the length of a page.
    fn question(&self) -> Self {
        Self { after: None, limit: 0, ..self.clone() }
    }
}

/// What closing a campaign did.
#[derive(Debug, Clone)]
pub struct CloseOutcome {
    /// The row as it is now.
    pub campaign: Campaign,
    /// Nothing was left to wait for: it is completed with this, and those who watch it are to be told.
    pub has_completed: bool,
}

/// Completes a campaign that the transaction holds, if it is active and not open, all its jobs have ended, and `only`.
async fn complete_in(tx: &mut Tx, campaign: &Resource, only: &str) -> Result<bool, StoreError> {
    let text = format!(
        "UPDATE campaigns SET status = 'completed', is_active = FALSE, completed_at = {{now}}, updated_at = {{now}}
         WHERE tenant_id = $1 AND id = $2 AND status = 'active' AND is_active AND NOT is_open AND {only} AND {ALL_ENDED}"
    );
    let changed = tx.execute(&text, &key_of(campaign)).await? > 0;
    if changed {
        record_announcement(tx, campaign, AnnouncementKind::Status, 0).await?;
    }
    Ok(changed)
}

pub(super) async fn read_campaign(tx: &mut Tx, campaign: &Resource) -> Result<Option<Campaign>, StoreError> {
    let text = format!("SELECT {} FROM campaigns c WHERE c.tenant_id = $1 AND c.id = $2", *rows::CAMPAIGN);
    let found = tx.row(&text, &key_of(campaign)).await?;
    found.map(|row| rows::campaign(&row)).transpose()
}
