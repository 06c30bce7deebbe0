//! Which tenants are watched as a whole, counted by reference. By which patterns they are heard is the business of `coverage_keeper`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::coverage::{Coverage, CoverageState, patterns};
use super::feed::{Feed, FeedSubscriber};
use super::lanes::{LaneReceiver, Lanes};
use super::results::command_of;
use super::update::Update;
use crate::broker::keys::{ChannelContent, read_resource_channel, tenant_of_channel};
use crate::broker::{Broker, BrokerError, Keys, Partition, Subscriber};
use crate::domain::{CommandId, Resource, TenantId};

/// How long a channel or a feed that nobody watches is kept: a client that reconnects finds it.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(2);
/// Messages of a partition's watched tenants that may wait to be handed out. When it is full, all that wait are given up,
/// and everyone who watches one of these tenants is told that messages were missed.
const QUEUE_CAPACITY: usize = 8_192;

/// The watched tenants of a gateway; cheap to clone.
#[derive(Clone)]
pub(super) struct Feeds(pub(super) Arc<FeedsShared>);

pub(super) struct FeedsShared {
    keys: Keys,
    open: Mutex<OpenFeeds>,
    /// Changes only while `open` is locked.
    pub(super) coverage: watch::Sender<Coverage>,
    /// Notified when the coverage does not fit any more.
    pub(super) coverage_due: Notify,
    /// Who hands out: one for each partition.
    dispatchers: Lanes<FeedMessage>,
}

/// The watched tenants, and what is remembered of how they are heard.
#[derive(Default)]
pub(super) struct OpenFeeds {
    pub(super) by_tenant: HashMap<TenantId, FeedEntry>,
    pub(super) coverage: CoverageState,
}

pub(super) struct FeedEntry {
    pub(super) feed: Arc<Feed>,
    /// It has patterns of its own, or somebody is about to subscribe to them.
    pub(super) has_patterns: bool,
    references: usize,
    /// Since when there are none.
    idle: Instant,
}

/// One message, in the order in which they came.
pub(super) struct FeedMessage {
    pub(super) feed: Arc<Feed>,
    pub(super) resource: Resource,
    pub(super) what: FeedContent,
}

pub(super) enum FeedContent {
    Update(Update),
    /// Of this command: all that is taken from the message.
    Result(CommandId),
}

impl Feeds {
    /// Nothing is watched yet. `start_dispatcher`: begins to hand out what is about tenants of a partition.
    pub(super) fn new(
        keys: Keys,
        start_dispatcher: impl Fn(Self, LaneReceiver<FeedMessage>) + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new_cyclic(|shared: &std::sync::Weak<FeedsShared>| {
            let shared = shared.clone();
            let dispatchers = Lanes::new(QUEUE_CAPACITY, move |lane| {
                if let Some(shared) = shared.upgrade() {
                    start_dispatcher(Self(shared), lane);
                }
            });
            FeedsShared {
                keys,
                open: Mutex::default(),
                coverage: watch::Sender::new(Coverage::Each),
                coverage_due: Notify::new(),
                dispatchers,
            }
        }))
    }

    /// When this returns, everything published from now on reaches the subscriber.
    pub(super) async fn join(
        &self,
        broker: &Broker,
        redis: &Subscriber,
        tenant: &TenantId,
        subscriber: Arc<FeedSubscriber>,
    ) -> Result<FeedSubscription, BrokerError> {
        let mut subscription = FeedSubscription { feeds: self.clone(), feed: self.acquire(tenant), subscriber: None };
        let open = async {
            let since = broker.tenant_now_ms(tenant);
            if !self.is_covered(tenant).await {
                redis.psubscribe(patterns(tenant)).await?;
            }
            Ok::<i64, BrokerError>(since)
        };
        // One of those who come at once subscribes; the others wait for it.
        subscription.feed.opened.get_or_try_init(|| open).await?;
        subscription.feed.add(subscriber.clone());
        subscription.subscriber = Some(subscriber);
        Ok(subscription)
    }

    fn acquire(&self, tenant: &TenantId) -> Arc<Feed> {
        let mut open = self.open();
        let entry = open.by_tenant.entry(tenant.clone()).or_insert_with(|| FeedEntry {
            feed: Arc::new(Feed::new(tenant.clone())),
            has_patterns: false,
            references: 0,
            idle: Instant::now(),
        });
        entry.references += 1;
        let feed = Arc::clone(&entry.feed);
        self.widen_if_due(&open);
        feed
    }

    /// Whether a channel is about a tenant that is watched: asked for everything that is published.
    pub(super) fn are_about(&self, channel: &str) -> bool {
        let tenant = channel.split(':').next().and_then(|tenant| tenant.parse::<TenantId>().ok());
        tenant.is_some_and(|tenant| self.open().by_tenant.contains_key(&tenant))
    }

    /// A message that came by a pattern. What wakes workers passes here too, and is not an update.
    pub(super) fn heard(&self, name: &str, payload: bytes::Bytes) {
        let Some((resource, carries)) = read_resource_channel(name) else { return };
        let feed = self.open().by_tenant.get(&resource.tenant).map(|entry| Arc::clone(&entry.feed));
        let Some(feed) = feed else { return };
        let what = match carries {
            ChannelContent::Replies => command_of(&payload).map(FeedContent::Result),
            ChannelContent::Updates => Update::read(payload, &resource).map(FeedContent::Update),
        };
        let Some(what) = what else { return };
        let partition = self.0.keys.partition(&resource.tenant);
        if !self.0.dispatchers.send(partition, FeedMessage { feed, resource, what }) {
            self.0.dispatchers.missed(partition);
        }
    }

    /// Messages may have been lost; with `partitions`, only such as are about tenants of those.
    pub(super) fn missed(&self, partitions: Option<&[Partition]>) {
        let watched: HashSet<Partition> =
            self.open().by_tenant.keys().map(|tenant| self.0.keys.partition(tenant)).collect();
        let missed = watched.into_iter().filter(|partition| partitions.is_none_or(|some| some.contains(partition)));
        missed.for_each(|partition| self.0.dispatchers.missed(partition));
    }

    /// Tells those who watch tenants of which `of` says that news may not come.
    pub(super) fn interrupt(&self, of: impl Fn(&TenantId) -> Option<Utf8Bytes>) {
        for (tenant, entry) in &self.open().by_tenant {
            if let Some(text) = of(tenant) {
                entry.feed.interrupt(&text);
            }
        }
    }

    /// Where news come again: tells those who were told otherwise, behind what was heard before. Whether there is anybody.
    pub(super) fn resume(&self, is_fine: impl Fn(Partition) -> bool) -> bool {
        let watched: Vec<Arc<Feed>> = self.open().by_tenant.values().map(|entry| Arc::clone(&entry.feed)).collect();
        let mut any = false;
        for feed in watched {
            let partition = self.0.keys.partition(&feed.tenant);
            if is_fine(partition) && feed.begin_resuming() {
                any = true;
                self.0.dispatchers.resumed(partition);
            }
        }
        any
    }

    /// Every watched tenant of a partition.
    pub(super) fn of(&self, partition: Partition) -> Vec<Arc<Feed>> {
        let is_there = |tenant: &TenantId| self.0.keys.partition(tenant) == partition;
        let open = self.open();
        let feeds = open.by_tenant.iter().filter(|(tenant, _)| is_there(tenant));
        feeds.map(|(_, entry)| Arc::clone(&entry.feed)).collect()
    }

    /// The right to hear a tenant by this pattern was taken away: its sockets are closed, and told to come back.
    pub(super) fn close_denied(&self, pattern: &str) {
        let Some(tenant) = tenant_of_channel(pattern) else { return };
        if let Some(entry) = self.open().by_tenant.remove(&tenant) {
            entry.feed.close_all();
        }
    }

    /// Gives up tenants that nobody has watched for a while.
    pub(super) fn remove_idle(&self, subscriber: &Subscriber) {
        let mut open = self.open();
        open.by_tenant.retain(|tenant, entry| {
            if entry.references > 0 || entry.idle.elapsed() < IDLE_TIMEOUT {
                return true;
            }
            // Asked under the lock: whoever comes next subscribes after it. Without room to ask, it is kept. Asks nothing of
            // Redis where the tenant has no patterns of its own.
            !subscriber.punsubscribe(patterns(tenant))
        });
        open.by_tenant.shrink_to(16);
    }

    pub(super) fn open(&self) -> MutexGuard<'_, OpenFeeds> {
        self.0.open.lock()
    }
}

/// A place on a tenant's feed, given up when dropped.
pub struct FeedSubscription {
    feeds: Feeds,
    feed: Arc<Feed>,
    subscriber: Option<Arc<FeedSubscriber>>,
}

impl Drop for FeedSubscription {
    fn drop(&mut self) {
        if let Some(subscriber) = &self.subscriber {
            self.feed.remove(subscriber);
        }
        // Not where another feed has taken its place, because this one was no longer permitted.
        if let Some(entry) = self.feeds.open().by_tenant.get_mut(&self.feed.tenant)
            && Arc::ptr_eq(&entry.feed, &self.feed)
        {
            entry.references = entry.references.saturating_sub(1);
            entry.idle = Instant::now();
        }
    }
}
