//! The rows of announcements that are owed, as the transactions write them that make them necessary.

use super::StoreError;
use super::sql::Tx;
use crate::domain::Resource;

/// What is to be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AnnouncementKind {
    /// The status of the resource itself.
    Status,
    /// The status of each cancelled job of the campaign.
    Jobs,
}

impl AnnouncementKind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Jobs => "jobs",
        }
    }
}

/// Notes an announcement, in the transaction that makes it necessary.
pub(super) async fn record_announcement(
    tx: &mut Tx,
    resource: &Resource,
    about: AnnouncementKind,
    run: i64,
) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO announcements (tenant_id, resource_kind, resource_id, about, run) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (tenant_id, resource_kind, resource_id, about, run) DO NOTHING",
        &[
            resource.tenant.as_str().into(),
            resource.kind.as_str().into(),
            resource.id.as_str().into(),
            about.as_str().into(),
            run.into(),
        ],
    )
    .await
    .map(drop)
}
