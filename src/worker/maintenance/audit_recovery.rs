//! Puts into the audit trail what Redis has lost: a command that was applied is noted in SQL by the transaction that applied
//! it, and is to be found in the trail, whatever became of the Redis that had its entries.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::{Action, AuditEntry, ResourceKind};
use crate::protocol::CommandError;
use crate::store::{APPLIED_STREAM, MaintenanceTask, StoreError, UnauditedEnd};
use crate::worker::context::WorkerContext;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(5);
/// Entries that Redis still has come from there, with all that it knows: for so long they are waited for.
const GRACE_MS: i64 = 10_000;
/// Commands of one transaction.
const BATCH_SIZE: usize = 100;

/// Looks once, if it is due and nobody else does.
pub(crate) async fn recover(ctx: &Arc<WorkerContext>) -> Result<(), StoreError> {
    let store = &ctx.store;
    if !store.try_acquire_lease(MaintenanceTask::Audit, INTERVAL).await? {
        return Ok(());
    }
    loop {
        let before = store.clock().await? - GRACE_MS;
        let found = store.unaudited_ends(before, BATCH_SIZE).await?;
        if found.is_empty() {
            return Ok(());
        }
        let (lost, there): (Vec<&UnauditedEnd>, Vec<_>) =
            found.iter().partition(|end| end.base.is_some() && !end.is_ended);
        // Also one whose record nobody can read, which would be found again and again.
        let there: Vec<String> = there.iter().map(|end| end.command.clone()).collect();
        if !there.is_empty() {
            store.forget_unaudited(&there).await?;
        }
        let entries: Vec<AuditEntry> = lost.iter().flat_map(|end| entries_of(end)).collect();
        if !entries.is_empty() {
            store.append_audit(APPLIED_STREAM, &entries).await?;
            tracing::warn!(commands = lost.len(), "worker.audit_recovered");
        }
        if found.len() < BATCH_SIZE || ctx.stop.is_cancelled() {
            return Ok(());
        }
    }
}

/// What the trail lacks of a command, as the scripts would have written it.
fn entries_of(end: &UnauditedEnd) -> Vec<AuditEntry> {
    let Some(base) = &end.base else { return Vec::new() };
    let base = AuditEntry { id: format!("{}-{}", end.at, end.command), at: end.at, ..base.clone() };
    let refused = || {
        let action = Action::ALL.into_iter().find(|action| action.as_str() == base.action).unwrap_or(Action::Cancel);
        let kind = ResourceKind::parse(&base.resource_kind).unwrap_or(ResourceKind::Job);
        CommandError::AlreadyEnded.message(action, kind).into_owned()
    };
    let (event, outcome) = match end.outcome.as_str() {
        "refused" => ("failed", refused()),
        status => ("succeeded", status.to_owned()),
    };
    let ended = AuditEntry { event: event.to_owned(), outcome: Some(outcome), ..base.clone() };
    let accepted = AuditEntry { event: "accepted".to_owned(), worker_id: None, attempts: None, ..base };
    if end.is_accepted { vec![ended] } else { vec![accepted, ended] }
}
