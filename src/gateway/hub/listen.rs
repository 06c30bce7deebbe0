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

use super::feed::Feed;
use super::feeds::{Feeds, Heard, What};
use crate::broker::Broker;
use crate::broker::scripts::results::CommandResult;
use crate::domain::{CommandId, Resource, ResourceId, ResourceKind, TenantId};
use crate::protocol::tenant::resynchronize;
use crate::store::Store;

/// Messages that are looked up together.
const TOGETHER: usize = 256;
/// Between two tries while Redis is away.
const AGAIN: Duration = Duration::from_millis(100);
/// Longest wait for SQL: everyone's messages wait with those that need it.
const SQL_WITHIN: Duration = Duration::from_millis(500);
/// After SQL failed it is not asked for so long, for the same reason.
const SQL_REST: Duration = Duration::from_secs(2);

/// Hands out what was heard.
pub(super) struct FeedDispatcher {
    broker: Broker,
    store: Store,
    feeds: Feeds,
    /// SQL has failed, and is not asked again before then.
    sql_rests_until: Instant,
}

impl FeedDispatcher {
    pub(super) fn new(broker: Broker, store: Store, feeds: Feeds) -> Self {
        Self { broker, store, feeds, sql_rests_until: Instant::now() }
    }

    /// Hands out until the hub is gone.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Heard>) {
        let mut some = Vec::new();
        loop {
            tokio::select! {
                biased;
                () = self.feeds.until_missed() => self.tell_missed(&mut queue),
                count = queue.recv_many(&mut some, TOGETHER) => match count {
                    0 => return,
                    _ => self.hand_out(std::mem::take(&mut some)).await,
                }
            }
        }
    }

    /// What waits is older than what was missed: handed out after the word of it, it would undo what a client then reads.
    fn tell_missed(&self, queue: &mut mpsc::Receiver<Heard>) {
        for _ in 0..queue.len() {
            let _ = queue.try_recv();
        }
        for feed in self.feeds.all() {
            feed.tell_missed(&resynchronize(&feed.tenant).into());
        }
    }

    async fn hand_out(&mut self, some: Vec<Heard>) {
        let mut results = self.results_of(&some).await;
        let unserved = self.learn_facts(&some).await;
        for Heard { feed, resource, what } in some {
            if unserved.contains(&resource) {
                let text: Utf8Bytes = resynchronize(&feed.tenant).into();
                feed.tell_unserved(&resource, &text);
            }
            match what {
                What::Result(command) => {
                    if let Some(ended) = results.remove(&(resource.clone(), command)) {
                        feed.result(&resource, ended, self.broker.tenant_now_ms(&feed.tenant));
                    }
                }
                What::Update(update) => {
                    if let Some(last) = feed.backwards_from(&resource, &update)
                        && !self.begins_anew(&feed, &resource, last).await
                    {
                        continue;
                    }
                    feed.update(&resource, update);
                }
            }
        }
    }

    /// The recorded results of the commands that were named. A command without one has none: the message was forged.
    async fn results_of(&self, some: &[Heard]) -> HashMap<(Resource, CommandId), CommandResult> {
        let named = some.iter().filter_map(|heard| match heard.what {
            What::Result(command) if !heard.feed.knows(command) => Some((heard.resource.clone(), command)),
            _ => None,
        });
        let named: Vec<(Resource, CommandId)> = named.collect();
        if named.is_empty() {
            return HashMap::new();
        }
        let found = loop {
            match self.broker.command_results(&named).await {
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
    async fn learn_facts(&mut self, some: &[Heard]) -> HashSet<Resource> {
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
            if self.sql_rests_until <= Instant::now() {
                if let Ok(Ok(found)) = tokio::time::timeout(SQL_WITHIN, self.store.job_facts(&tenant, &ids)).await {
                    found.into_iter().for_each(|(id, facts)| feed.learn_facts(id, facts));
                    continue;
                }
                self.sql_rests_until = Instant::now() + SQL_REST;
            }
            unserved.extend(ids.into_iter().map(|id| Resource::job(tenant.clone(), id)));
        }
        unserved
    }

    /// Whether the numbers of a stream have begun anew (Redis lost its data), and not an old message come again: then the
    /// record is not as far as it was.
    async fn begins_anew(&self, feed: &Feed, resource: &Resource, last: i64) -> bool {
        let Ok(live) = self.broker.live(resource).await else { return false };
        let anew = live.seq < last;
        if anew {
            feed.begin_anew(resource);
        }
        anew
    }
}
