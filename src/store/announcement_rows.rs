//! The rows of announcements that are owed, as the transactions write them that make them necessary.

use super::StoreError;
use super::sql::{MultiRowInsert, Tx, Value};
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
    let rows = announcement_rows(&[(resource, run)], about);
    tx.execute_many(&[insert_announcements(&rows)]).await.map(drop)
}

/// The rows of announcements, each of which is due after a run.
pub(super) fn announcement_rows(resources: &[(&Resource, i64)], about: AnnouncementKind) -> Vec<Vec<Value>> {
    let row = |(resource, run): &(&Resource, i64)| {
        let words = [resource.tenant.as_str(), resource.kind.as_str(), resource.id.as_str(), about.as_str()];
        words.into_iter().map(Value::from).chain([Value::from(*run)]).collect()
    };
    resources.iter().map(row).collect()
}

/// The words before and after the rows that note them: one that is owed already stays as it is.
pub(super) const INSERT: &str = "INSERT INTO announcements (tenant_id, resource_kind, resource_id, about, run) ";
pub(super) const ONCE: &str = " ON CONFLICT (tenant_id, resource_kind, resource_id, about, run) DO NOTHING";

/// The statement that notes them.
pub(super) fn insert_announcements(rows: &[Vec<Value>]) -> MultiRowInsert<'_> {
    MultiRowInsert { before: INSERT, row: "(?, ?, ?, ?, ?)", after: ONCE, rows }
}
