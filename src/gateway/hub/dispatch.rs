//! Takes what was heard of whole tenants, in order, looks up what it takes to hand it out, and does so.
//!
//! Results are looked up in the record, the facts of jobs in SQL: many at a time, so that a thousand results cost a
//! few round trips. While the record of a partition cannot be read the rest of that partition waits too; if too much waits
//! it is given up, and everyone who watches its tenants is told to list again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::feed::Feed;
use super::feeds::{FeedContent, FeedMessage, Feeds};
use super::lanes::LaneReceiver;
use super::results::log_unrecorded;
use crate::broker::Broker;
use crate::broker::scripts::results::CommandResult;
use crate::domain::{CommandId, Resource, ResourceId, ResourceKind, TenantId};
use crate::protocol::tenant::resynchronize;
use crate::store::Store;

/// Messages that are looked up together.
const BATCH_SIZE: usize = 256;
/// Between two tries while Redis is away.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// Longest wait for SQL: everyone's messages wait with those that need it.
const SQL_TIMEOUT: Duration = Duration::from_millis(500);
/// After SQL failed it is not asked for so long, for the same reason.
const SQL_COOLDOWN: Duration = Duration::from_secs(2);

/// Hands out what was heard of the tenants of one partition; a clone serves another one.
#[derive(Clone)]
pub(super) struct FeedDispatcher {
    broker: Broker,
    store: Store,
    /// SQL has failed, and is not asked again before then, whichever partition it is about.
    sql_cooldown_until: Arc<Mutex<Instant>>,
}

impl FeedDispatcher {
    pub(super) fn new(broker: Broker, store: Store) -> Self {
        Self { broker, store, sql_cooldown_until: Arc::new(Mutex::new(Instant::now())) }
    }

    /// Hands out until the hub is gone.
    pub(super) async fn run(self, feeds: Feeds, lane: LaneReceiver<FeedMessage>) {
        let LaneReceiver { partition, mut queue, missed, resumed } = lane;
        let mut some = Vec::new();
        loop {
            tokio::select! {
                biased;
                () = missed.notified() => notify_resynchronize(&feeds.of(partition), &mut queue),
                count = queue.recv_many(&mut some, BATCH_SIZE) => match count {
                    0 => return,
                    _ => self.deliver(std::mem::take(&mut some)).await,
                },
                // Last: what was heard before is older than what a client then reads.
                () = resumed.notified() => feeds.of(partition).iter().for_each(|feed| feed.resume()),
            }
        }
    }

    async fn deliver(&self, some: Vec<FeedMessage>) {
        let mut results = self.results_of(&some).await;
        let unserved = self.learn_facts(&some).await;
        for FeedMessage { feed, resource, what } in some {
            if unserved.contains(&resource) {
                let text: Utf8Bytes = resynchronize(&feed.tenant).into();
                feed.notify_unserved(&resource, &text);
            }
            match what {
                FeedContent::Result(command) => {
                    if let Some(ended) = results.remove(&(resource.clone(), command)) {
                        feed.result(&resource, ended, self.broker.tenant_now_ms(&feed.tenant));
                    }
                }
                FeedContent::Update(update) => {
                    if let Some(last) = feed.backwards_from(&resource, &update)
                        && !self.has_restarted(&feed, &resource, last).await
                    {
                        continue;
                    }
                    feed.update(&resource, update);
                }
            }
        }
    }

    /// The recorded results of the commands that were named. A command without one has none.
    async fn results_of(&self, some: &[FeedMessage]) -> HashMap<(Resource, CommandId), CommandResult> {
        let named = some.iter().filter_map(|heard| match heard.what {
            FeedContent::Result(command) if !heard.feed.was_delivered(command) => {
                Some((heard.resource.clone(), command))
            }
            _ => None,
        });
        let named: Vec<(Resource, CommandId)> = named.collect();
        if named.is_empty() {
            return HashMap::new();
        }
        let found = loop {
            match self.broker.command_results(&named).await {
                Ok(found) => break found,
                Err(_) => tokio::time::sleep(RETRY_DELAY).await,
            }
        };
        let mut results = HashMap::with_capacity(named.len());
        for (named, ended) in named.into_iter().zip(found) {
            let (resource, command) = &named;
            match ended {
                Some(ended) => {
                    results.insert(named, ended);
                }
                None => log_unrecorded(&self.broker, resource, *command),
            }
        }
        results
    }

    /// Reads the facts that filters need, once for each job. Gives the jobs of which they cannot be had just now.
    async fn learn_facts(&self, some: &[FeedMessage]) -> HashSet<Resource> {
        let mut lacking: HashMap<TenantId, (Arc<Feed>, HashSet<ResourceId>)> = HashMap::new();
        for FeedMessage { feed, resource, .. } in some {
            if resource.kind == ResourceKind::Job && feed.lacks_facts(resource) {
                let (_, ids) = lacking.entry(feed.tenant.clone()).or_insert_with(|| (feed.clone(), HashSet::new()));
                ids.insert(resource.id.clone());
            }
        }
        let mut unserved = HashSet::new();
        for (tenant, (feed, ids)) in lacking {
            let ids: Vec<ResourceId> = ids.into_iter().collect();
            if *self.sql_cooldown_until.lock() <= Instant::now() {
                if let Ok(Ok(found)) = tokio::time::timeout(SQL_TIMEOUT, self.store.job_facts(&tenant, &ids)).await {
                    found.into_iter().for_each(|(id, facts)| feed.learn_facts(id, facts));
                    continue;
                }
                *self.sql_cooldown_until.lock() = Instant::now() + SQL_COOLDOWN;
            }
            unserved.extend(ids.into_iter().map(|id| Resource::job(tenant.clone(), id)));
        }
        unserved
    }

    /// Whether the numbers of a stream have begun anew (Redis lost its data), and not an old message come again: then the
    /// record is not as far as it was.
    async fn has_restarted(&self, feed: &Feed, resource: &Resource, last: i64) -> bool {
        let Ok(live) = self.broker.live(resource).await else { return false };
        let anew = live.seq < last;
        if anew {
            feed.reset(resource);
        }
        anew
    }
}

/// What waits is older than what was missed: handed out after the word of it, it would undo what a client then reads.
fn notify_resynchronize(feeds: &[Arc<Feed>], queue: &mut mpsc::Receiver<FeedMessage>) {
    for _ in 0..queue.len() {
        let _ = queue.try_recv();
    }
    for feed in feeds {
        feed.notify_resynchronize(&resynchronize(&feed.tenant).into());
    }
}
