//! Takes what was heard of whole tenants, in order, looks up what it takes to hand it out, and does so.
//!
//! Results are looked up in the record, the facts of jobs in SQL: many at a time, so that a thousand results cost a
//! few round trips. While the record cannot be read the rest waits too; if too much waits it is given up, and everyone
//! is told to list again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::Hub;
use super::feed::Feed;
use super::feeds::{Heard, What};
use crate::broker::scripts::claim::CommandResult;
use crate::domain::{CommandId, Resource, ResourceId, ResourceKind, TenantId};
use crate::protocol::tenant::resynchronize;

/// Messages that are looked up together.
const TOGETHER: usize = 256;
/// Between two tries while Redis is away.
const AGAIN: Duration = Duration::from_millis(100);
/// Longest wait for SQL: everyone's messages wait with those that need it.
const SQL_WITHIN: Duration = Duration::from_millis(500);
/// After SQL failed it is not asked for so long, for the same reason.
const SQL_REST: Duration = Duration::from_secs(2);

/// Hands out until the hub is gone.
pub(super) async fn run(hub: Hub, mut queue: mpsc::Receiver<Heard>) {
    let mut some = Vec::new();
    let mut sql_rests_until = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = hub.0.feeds.until_missed() => tell_missed(&hub, &mut queue),
            count = queue.recv_many(&mut some, TOGETHER) => match count {
                0 => return,
                _ => hand_out(&hub, std::mem::take(&mut some), &mut sql_rests_until).await,
            }
        }
    }
}

/// What waits is older than what was missed: handed out after the word of it, it would undo what a client then reads.
fn tell_missed(hub: &Hub, queue: &mut mpsc::Receiver<Heard>) {
    for _ in 0..queue.len() {
        let _ = queue.try_recv();
    }
    for feed in hub.0.feeds.all() {
        feed.tell_missed(&resynchronize(&feed.tenant).into());
    }
}

async fn hand_out(hub: &Hub, some: Vec<Heard>, sql_rests_until: &mut Instant) {
    let mut results = results_of(hub, &some).await;
    let unserved = learn_facts(hub, &some, sql_rests_until).await;
    for Heard { feed, resource, what } in some {
        if unserved.contains(&resource) {
            let text: Utf8Bytes = resynchronize(&feed.tenant).into();
            feed.tell_unserved(&resource, &text);
        }
        match what {
            What::Result(command) => {
                if let Some(ended) = results.remove(&(resource.clone(), command)) {
                    feed.result(&resource, ended, hub.0.broker.tenant_now_ms(&feed.tenant));
                }
            }
            What::Update(update) => {
                if let Some(last) = feed.backwards_from(&resource, &update)
                    && !begins_anew(hub, &feed, &resource, last).await
                {
                    continue;
                }
                feed.update(&resource, update);
            }
        }
    }
}

/// The recorded results of the commands that were named. A command without one has none: the message was forged.
async fn results_of(hub: &Hub, some: &[Heard]) -> HashMap<(Resource, CommandId), CommandResult> {
    let named = some.iter().filter_map(|heard| match heard.what {
        What::Result(command) if !heard.feed.knows(command) => Some((heard.resource.clone(), command)),
        _ => None,
    });
    let named: Vec<(Resource, CommandId)> = named.collect();
    if named.is_empty() {
        return HashMap::new();
    }
    let found = loop {
        match hub.0.broker.command_results(&named).await {
            Ok(found) => break found,
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    };
    let mut results = HashMap::with_capacity(named.len());
    for (named, ended) in named.into_iter().zip(found) {
        let (resource, command) = &named;
        match ended {
            Some(ended) => {
                results.insert(named, ended);
            }
            None => tracing::warn!(%resource, command_id = %command, "gateway.forged_reply"),
        }
    }
    results
}

/// Reads the facts that filters need, once for each job. Gives the jobs of which they cannot be had just now.
async fn learn_facts(hub: &Hub, some: &[Heard], sql_rests_until: &mut Instant) -> HashSet<Resource> {
    let mut lacking: HashMap<TenantId, (Arc<Feed>, HashSet<ResourceId>)> = HashMap::new();
    for Heard { feed, resource, .. } in some {
        if resource.kind == ResourceKind::Job && feed.lacks_facts(resource) {
            let (_, ids) = lacking.entry(feed.tenant.clone()).or_insert_with(|| (feed.clone(), HashSet::new()));
            ids.insert(resource.id.clone());
        }
    }
    let mut unserved = HashSet::new();
    for (tenant, (feed, ids)) in lacking {
        let ids: Vec<ResourceId> = ids.into_iter().collect();
        if *sql_rests_until <= Instant::now() {
            if let Ok(Ok(found)) = tokio::time::timeout(SQL_WITHIN, hub.0.store.job_facts(&tenant, &ids)).await {
                found.into_iter().for_each(|(id, facts)| feed.learn_facts(id, facts));
                continue;
            }
            *sql_rests_until = Instant::now() + SQL_REST;
        }
        unserved.extend(ids.into_iter().map(|id| Resource::job(tenant.clone(), id)));
    }
    unserved
}

/// Whether the numbers of a stream have begun anew (Redis lost its data), and not an old message come again: then the
/// record is not as far as it was.
async fn begins_anew(hub: &Hub, feed: &Feed, resource: &Resource, last: i64) -> bool {
    let Ok(live) = hub.0.broker.live(resource).await else { return false };
    let anew = live.seq < last;
    if anew {
        feed.begin_anew(resource);
    }
    anew
}
