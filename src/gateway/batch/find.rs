//! Which resources a batch is about: those named that are there, or those that a filter finds.

use std::collections::HashSet;
use std::time::Duration;

use crate::auth::Caller;
use crate::broker::scripts::batch::StoredBatch;
use crate::domain::ResourceId;
use crate::http::reply::Refusal;
use crate::protocol::BatchRequest;
use crate::protocol::batch::{MAX_BATCH, Target};
use crate::store::{ResourceSelection, Store, StoreError};

/// Longest wait for SQL.
const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct FoundResources {
    /// Named, or found.
    pub(super) asked: Vec<ResourceId>,
    /// Those of them that are there, in the same order.
    pub(super) there: Vec<ResourceId>,
    /// Whether the filter would have found others.
    pub(super) more: bool,
}

/// `known`: the request was made before, and what it was about then is what it is about now. What a filter finds may
/// be other ones by now, and a row may be gone.
pub(super) async fn find(
    store: &Store,
    caller: &Caller,
    request: &BatchRequest,
    known: Option<StoredBatch>,
) -> Result<FoundResources, Refusal> {
    let (tenant, kind) = (&caller.tenant, request.kind);
    match (&request.target, known) {
        (Target::Ids(asked), Some(known)) => {
            // In the order of the first time: whose order differs now asks for something else, and is told so.
            let there: HashSet<&ResourceId> = known.ids.iter().collect();
            let rest = asked.iter().filter(|id| !there.contains(id));
            let same_order = asked.iter().filter(|id| there.contains(id)).eq(known.ids.iter());
            let asked = if same_order { asked.clone() } else { known.ids.iter().chain(rest).cloned().collect() };
            Ok(FoundResources { asked, there: known.ids, more: false })
        }
        (Target::Filter(_), Some(known)) => {
            Ok(FoundResources { asked: known.ids.clone(), there: known.ids, more: known.more })
        }
        (Target::Ids(asked), None) => {
            let there = with_timeout(store.existing(tenant, kind, asked)).await?;
            let there = asked.iter().filter(|id| there.contains(*id)).cloned().collect();
            Ok(FoundResources { asked: asked.clone(), there, more: false })
        }
        (Target::Filter(filter), None) => {
            let chosen = ResourceSelection {
                tenant: tenant.clone(),
                kind,
                status: filter.status.clone(),
                campaign: filter.campaign_id.clone(),
                job_type: filter.job_type.clone(),
            };
            let mut there = with_timeout(store.select_matching(&chosen, MAX_BATCH + 1)).await?;
            let more = there.len() > MAX_BATCH;
            there.truncate(MAX_BATCH);
            Ok(FoundResources { asked: there.clone(), there, more })
        }
    }
}

async fn with_timeout<T>(read: impl Future<Output = Result<T, StoreError>>) -> Result<T, Refusal> {
    match tokio::time::timeout(TIMEOUT, read).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => {
            tracing::warn!(%error, "gateway.batch_not_found_out");
            Err(Refusal::unavailable())
        }
        Err(_) => Err(Refusal::unavailable()),
    }
}
