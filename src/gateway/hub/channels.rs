//! Which resources are watched: one channel for each, counted by reference.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::channel::{Channel, RECENT};
use super::feeds::IDLE_TIMEOUT;
use super::lanes::{LaneReceiver, Lanes};
use crate::broker::keys::{reply_channel, updates_channel};
use crate::broker::{Broker, BrokerError, Keys, Partition, Subscriber};
use crate::domain::{CommandId, Resource, TenantId};
use crate::gateway::outbox::Outbox;

/// The watched resources of a gateway; cheap to clone.
#[derive(Clone)]
pub(super) struct Channels(Arc<ChannelsShared>);

struct ChannelsShared {
    keys: Keys,
    open: Mutex<HashMap<Resource, ChannelEntry>>,
    /// Channels that have to be read again, each once.
    stale: Mutex<HashMap<Partition, Vec<Arc<Channel>>>>,
    /// Who reads them: one for each partition.
    readers: Lanes<()>,
}

struct ChannelEntry {
    channel: Arc<Channel>,
    references: usize,
    /// Since when there are none.
    idle: Instant,
}

impl Channels {
    /// Nothing is watched yet. `start_reader`: begins to read what is stale in a partition.
    pub(super) fn new(keys: Keys, start_reader: impl Fn(Self, LaneReceiver<()>) + Send + Sync + 'static) -> Self {
        Self(Arc::new_cyclic(|shared: &std::sync::Weak<ChannelsShared>| {
            let shared = shared.clone();
            // A reader is told of what is stale, and gets nothing by its queue.
            let readers = Lanes::new(1, move |lane| {
                if let Some(shared) = shared.upgrade() {
                    start_reader(Self(shared), lane);
                }
            });
            ChannelsShared { keys, open: Mutex::default(), stale: Mutex::default(), readers }
        }))
    }

    /// Watches a resource until the subscription is dropped. When this returns, everything published from now on reaches the
    /// outbox.
    pub(super) async fn join(
        &self,
        broker: &Broker,
        subscriber: &Subscriber,
        resource: &Resource,
        outbox: Arc<Outbox>,
    ) -> Result<Subscription, BrokerError> {
        let mut subscription =
            Subscription { channels: self.clone(), channel: self.acquire(resource), outbox: None, first: 0 };
        // One of those who come at once reads and subscribes; the others wait for it.
        subscription.channel.opened.get_or_try_init(|| open(broker, subscriber, &subscription.channel)).await?;
        subscription.first = subscription.channel.add(outbox.clone());
        subscription.outbox = Some(outbox);
        Ok(subscription)
    }

    fn acquire(&self, resource: &Resource) -> Arc<Channel> {
        let mut open = self.open();
        let entry = open.entry(resource.clone()).or_insert_with(|| ChannelEntry {
            channel: Arc::new(Channel::new(resource.clone())),
            references: 0,
            idle: Instant::now(),
        });
        entry.references += 1;
        Arc::clone(&entry.channel)
    }

    /// The channel of a resource that is watched.
    pub(super) fn get(&self, resource: &Resource) -> Option<Arc<Channel>> {
        self.open().get(resource).map(|entry| Arc::clone(&entry.channel))
    }

    /// One channel has to be read again.
    pub(super) fn mark_stale(&self, channel: &Arc<Channel>) {
        let partition = self.0.keys.partition(&channel.resource.tenant);
        self.note_stale(partition, channel);
        self.0.readers.missed(partition);
    }

    /// Every channel has to be read again; with `partitions`, every one of those.
    pub(super) fn mark_all_stale(&self, partitions: Option<&[Partition]>) {
        let channels: Vec<Arc<Channel>> = self.open().values().map(|entry| Arc::clone(&entry.channel)).collect();
        let mut told = HashSet::new();
        for channel in channels {
            let partition = self.0.keys.partition(&channel.resource.tenant);
            if partitions.is_none_or(|some| some.contains(&partition)) {
                self.note_stale(partition, &channel);
                told.insert(partition);
            }
        }
        told.into_iter().for_each(|partition| self.0.readers.missed(partition));
    }

    /// Tells those who watch resources of tenants of which `of` says that news may not come.
    pub(super) fn interrupt(&self, of: impl Fn(&TenantId) -> Option<Utf8Bytes>) {
        for entry in self.open().values() {
            if let Some(text) = of(&entry.channel.resource.tenant) {
                entry.channel.interrupt(&text);
            }
        }
    }

    /// Where news come again: reads what is watched of these partitions by those who were told otherwise, and tells them then. Whether
    /// there is anybody.
    pub(super) fn resume(&self, is_fine: impl Fn(Partition) -> bool) -> bool {
        let channels: Vec<Arc<Channel>> = self.open().values().map(|entry| Arc::clone(&entry.channel)).collect();
        let mut any = false;
        for channel in channels {
            let partition = self.0.keys.partition(&channel.resource.tenant);
            if is_fine(partition) && channel.begin_resuming() {
                any = true;
                self.mark_stale(&channel);
            }
        }
        any
    }

    fn note_stale(&self, partition: Partition, channel: &Arc<Channel>) {
        if channel.mark_stale() {
            self.0.stale.lock().entry(partition).or_default().push(Arc::clone(channel));
        }
    }

    /// The channels of a partition that have to be read again; whoever takes them sees to it.
    pub(super) fn take_stale(&self, partition: Partition) -> Vec<Arc<Channel>> {
        let stale = self.0.stale.lock().remove(&partition).unwrap_or_default();
        stale.iter().for_each(|channel| channel.take_stale());
        stale
    }

    /// The right to hear this resource was taken away: its sockets are closed, and told to come back. Then they are told
    /// what Redis says; left open they would hear nothing and not know it.
    pub(super) fn close_denied(&self, resource: &Resource) {
        if let Some(entry) = self.open().remove(resource) {
            entry.channel.close_all();
        }
    }

    /// Gives up channels that nobody has watched for a while.
    pub(super) fn remove_idle(&self, subscriber: &Subscriber) {
        let mut open = self.open();
        open.retain(|resource, entry| {
            if entry.references > 0 || entry.idle.elapsed() < IDLE_TIMEOUT {
                return true;
            }
            // Asked under the lock: whoever comes next subscribes after it. Without room to ask, it is kept until the
            // next round.
            !subscriber.unsubscribe(vec![updates_channel(resource), reply_channel(resource)])
        });
        open.shrink_to(64);
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Resource, ChannelEntry>> {
        self.0.open.lock()
    }
}

/// Reads what has ended already, so that a repeated message of it says nothing, then subscribes.
async fn open(broker: &Broker, subscriber: &Subscriber, channel: &Channel) -> Result<(), BrokerError> {
    let resource = &channel.resource;
    let old = broker.recent_results(resource, RECENT).await?;
    subscriber.subscribe(vec![updates_channel(resource), reply_channel(resource)]).await?;
    channel.mark_delivered(old.into_iter().map(|ended| ended.command));
    Ok(())
}

/// A place on a resource's channel, given up when dropped.
pub struct Subscription {
    channels: Channels,
    channel: Arc<Channel>,
    outbox: Option<Arc<Outbox>>,
    /// Number of the first result handed out after this subscription was taken.
    first: u64,
}

impl Subscription {
    /// Whether the command's result was put into this subscription's outbox.
    pub fn was_delivered_here(&self, command: CommandId) -> bool {
        self.channel.position(command).is_some_and(|position| position >= self.first)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(outbox) = &self.outbox {
            self.channel.remove(outbox);
        }
        // Not where another channel has taken its place, because this one was no longer permitted.
        if let Some(entry) = self.channels.open().get_mut(&self.channel.resource)
            && Arc::ptr_eq(&entry.channel, &self.channel)
        {
            entry.references = entry.references.saturating_sub(1);
            entry.idle = Instant::now();
        }
    }
}
