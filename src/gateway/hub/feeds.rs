//! Which tenants are watched as a whole: one pair of patterns for each, counted by reference.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, mpsc};

use super::feed::{Feed, FeedSubscriber};
use super::results::command_of;
use super::update::Update;
use crate::broker::keys::{ChannelContent, read_resource_channel, tenant_of_channel, tenant_pattern};
use crate::broker::{Broker, BrokerError, Subscriber};
use crate::domain::{CommandId, Resource, ResourceKind, TenantId};

/// How long a channel or a feed that nobody watches is kept: a client that reconnects finds it.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(2);
/// Messages of all watched tenants that may wait to be handed out. When it is full, all that wait are given up, and
/// everyone is told that messages were missed.
const QUEUE_CAPACITY: usize = 8_192;

/// The watched tenants of a gateway; cheap to clone.
#[derive(Clone)]
pub(super) struct Feeds(Arc<FeedsShared>);

struct FeedsShared {
    open: Mutex<HashMap<TenantId, FeedEntry>>,
    heard: mpsc::Sender<FeedMessage>,
    missed: Notify,
}

struct FeedEntry {
    feed: Arc<Feed>,
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
    pub(super) fn new() -> (Self, mpsc::Receiver<FeedMessage>) {
        let (heard, queue) = mpsc::channel(QUEUE_CAPACITY);
        (Self(Arc::new(FeedsShared { open: Mutex::default(), heard, missed: Notify::new() })), queue)
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
            redis.psubscribe(patterns(tenant)).await?;
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
        let entry = open.entry(tenant.clone()).or_insert_with(|| FeedEntry {
            feed: Arc::new(Feed::new(tenant.clone())),
            references: 0,
            idle: Instant::now(),
        });
        entry.references += 1;
        Arc::clone(&entry.feed)
    }

    /// A message that came by a pattern. What wakes workers passes here too, and is not an update.
    pub(super) fn heard(&self, name: &str, payload: bytes::Bytes) {
        let Some((resource, carries)) = read_resource_channel(name) else { return };
        let feed = self.open().get(&resource.tenant).map(|entry| Arc::clone(&entry.feed));
        let Some(feed) = feed else { return };
        let what = match carries {
            ChannelContent::Replies => command_of(&payload).map(FeedContent::Result),
            ChannelContent::Updates => Update::read(payload, &resource).map(FeedContent::Update),
        };
        let Some(what) = what else { return };
        if self.0.heard.try_send(FeedMessage { feed, resource, what }).is_err() {
            self.missed();
        }
    }

    /// Messages may have been lost.
    pub(super) fn missed(&self) {
        self.0.missed.notify_one();
    }

    /// Waits for that.
    pub(super) async fn until_missed(&self) {
        self.0.missed.notified().await;
    }

    /// Every watched tenant.
    pub(super) fn all(&self) -> Vec<Arc<Feed>> {
        self.open().values().map(|entry| Arc::clone(&entry.feed)).collect()
    }

    /// The right to hear a tenant by this pattern was taken away: its sockets are closed, and told to come back.
    pub(super) fn close_denied(&self, pattern: &str) {
        let Some(tenant) = tenant_of_channel(pattern) else { return };
        if let Some(entry) = self.open().remove(&tenant) {
            entry.feed.close_all();
        }
    }

    /// Gives up tenants that nobody has watched for a while.
    pub(super) fn remove_idle(&self, subscriber: &Subscriber) {
        let mut open = self.open();
        open.retain(|tenant, entry| {
            if entry.references > 0 || entry.idle.elapsed() < IDLE_TIMEOUT {
                return true;
            }
            // Asked under the lock: whoever comes next subscribes after it. Without room to ask, it is kept.
            !subscriber.punsubscribe(patterns(tenant))
        });
        open.shrink_to(16);
    }

    fn open(&self) -> MutexGuard<'_, HashMap<TenantId, FeedEntry>> {
        self.0.open.lock()
    }
}

fn patterns(tenant: &TenantId) -> Vec<String> {
    ResourceKind::ALL.into_iter().map(|kind| tenant_pattern(tenant, kind)).collect()
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
        if let Some(entry) = self.feeds.open().get_mut(&self.feed.tenant)
            && Arc::ptr_eq(&entry.feed, &self.feed)
        {
            entry.references = entry.references.saturating_sub(1);
            entry.idle = Instant::now();
        }
    }
}
