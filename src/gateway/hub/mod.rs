//! Fan-out: one subscription of the gateway for each watched resource, shared by every socket on it.
//!
//! Channels are counted by reference. What comes on them only wakes: a result is looked up in the record and
//! the recorded bytes are handed out, once for each command (`results`); after a gap every watched resource
//! is read again (`resync`). [`channel`] holds what is known of one resource.
//!
//! A tenant-wide socket hears everything of its tenant by a pattern instead: `feeds` knows the tenants that are watched,
//! `coverage_keeper` has patterns for each of them or for all together, `dispatch` takes what comes in order and looks up what it needs, and `feed` hands it to those who want it.
//!
//! Everything that asks Redis does so in one lane for each partition (`lanes`): one server of a cluster that is away holds
//! up its own tenants alone.

pub mod channel;
mod channels;
mod coverage;
mod coverage_keeper;
mod dispatch;
mod feed;
mod feeds;
mod lanes;
mod recent;
mod results;
mod resync;
mod update;

use std::sync::Arc;

use metrics::counter;
use tokio::sync::{Semaphore, mpsc};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::channels::Subscription;
pub use self::feed::FeedSubscriber;
pub use self::feeds::FeedSubscription;
pub use self::recent::RecentMap;

use self::channel::Channel;
use self::channels::Channels;
use self::dispatch::FeedDispatcher;
use self::feeds::{Feeds, IDLE_TIMEOUT};
use self::lanes::Lanes;
use super::access::Access;
use super::outbox::Outbox;
use super::results::follower::ResultFollower;
use super::snapshot::SnapshotReader;
use crate::broker::keys::{ChannelContent, PERMISSIONS_CHANNEL, is_everything_pattern, read_resource_channel};
use crate::broker::{Broker, BrokerError, Event, Keys, Partition, Subscriber};
use crate::domain::{CommandId, Resource, TenantId};
use crate::store::Store;
use crate::telemetry::metrics::SUBSCRIPTION_GAPS;

/// Results of one partition that may wait to be looked up. The resource of one more is read again as a whole.
const MAX_LOOKUPS: usize = 8_192;

/// A handle on the fan-out; cheap to clone.
#[derive(Clone)]
pub struct Hub {
    broker: Broker,
    subscriber: Subscriber,
    channels: Channels,
    feeds: Feeds,
}

/// What comes of the subscription, on its way to whom it is for.
struct Dispatcher {
    access: Access,
    channels: Channels,
    feeds: Feeds,
    keys: Keys,
    lookups: Lanes<(Arc<Channel>, CommandId)>,
}

impl Hub {
    /// Starts the tasks that serve it.
    pub fn start(
        broker: Broker,
        store: Store,
        snapshots: SnapshotReader,
        (subscriber, events): (Subscriber, mpsc::Receiver<Event>),
        (access, results): (Access, ResultFollower),
        tracker: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let run = {
            let (tracker, stop) = (tracker.clone(), stop.clone());
            move |task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
                tracker.spawn(stop.clone().run_until_cancelled_owned(task));
            }
        };
        let keys = broker.keys();
        let channels = {
            let (run, broker, reads) = (run.clone(), broker.clone(), Arc::new(Semaphore::new(resync::MAX_READS)));
            Channels::new(keys, move |channels, lane| {
                let reading = resync::run(broker.clone(), snapshots.clone(), channels, reads.clone(), lane);
                run(Box::pin(reading));
            })
        };
        let feeds = {
            let (run, dispatcher) = (run.clone(), FeedDispatcher::new(broker.clone(), store));
            Feeds::new(keys, move |feeds, lane| run(Box::pin(dispatcher.clone().run(feeds, lane))))
        };
        let lookups = {
            let (run, broker) = (run.clone(), broker.clone());
            Lanes::new(MAX_LOOKUPS, move |lane| run(Box::pin(results::look_up(broker.clone(), results.clone(), lane))))
        };
        let dispatcher = Dispatcher { access, channels: channels.clone(), feeds: feeds.clone(), keys, lookups };
        run(Box::pin(dispatcher.run(events)));
        let watched = feeds.clone();
        subscriber.filter_patterns(Box::new(move |channel| watched.are_about(channel)));
        run(Box::pin(feeds.clone().keep_coverage(subscriber.clone())));
        run(Box::pin(remove_idle(subscriber.clone(), channels.clone(), feeds.clone())));
        Self { broker, subscriber, channels, feeds }
    }

    /// Watches a resource until the subscription is dropped. When this returns, everything published from now on
    /// reaches the outbox.
    pub async fn join(&self, resource: &Resource, outbox: Arc<Outbox>) -> Result<Subscription, BrokerError> {
        self.channels.join(&self.broker, &self.subscriber, resource, outbox).await
    }

    /// As [`Self::join`], for everything of a tenant that the subscriber wants.
    pub async fn subscribe_tenant(
        &self,
        tenant: &TenantId,
        subscriber: Arc<FeedSubscriber>,
    ) -> Result<FeedSubscription, BrokerError> {
        self.feeds.join(&self.broker, &self.subscriber, tenant, subscriber).await
    }

    /// Tells the sockets that asked for it, of tenants of which `of` says so, that what they show may be old.
    pub fn interrupt(&self, of: impl Fn(&TenantId) -> Option<Utf8Bytes>) {
        self.channels.interrupt(&of);
        self.feeds.interrupt(&of);
    }

    /// Where news come again, those who were told otherwise are told so as soon as nothing is left that they have missed. Whether there
    /// are any: then it is to be called again, for what is read meanwhile may fail.
    pub fn resume(&self, is_fine: impl Fn(Partition) -> bool) -> bool {
        let (of_one, of_all) = (self.channels.resume(&is_fine), self.feeds.resume(&is_fine));
        of_one || of_all
    }
}

/// Gives up channels and feeds that nobody has watched for a while.
async fn remove_idle(subscriber: Subscriber, channels: Channels, feeds: Feeds) {
    loop {
        tokio::time::sleep(IDLE_TIMEOUT / 2).await;
        feeds.remove_idle(&subscriber);
        channels.remove_idle(&subscriber);
    }
}

impl Dispatcher {
    /// Hears the subscription. Nothing is awaited here but the next event: a slow Redis must not hold up
    /// what needs no Redis.
    async fn run(self, mut events: mpsc::Receiver<Event>) {
        while let Some(event) = events.recv().await {
            match event {
                Event::Message { channel, payload, by_pattern: true } => self.feeds.heard(&channel, payload),
                Event::Message { channel, payload, .. } if channel == PERMISSIONS_CHANNEL => {
                    match std::str::from_utf8(&payload).ok().and_then(|user| user.parse().ok()) {
                        Some(user) => self.access.user_changed(user),
                        None => self.access.everyone_changed(),
                    }
                }
                Event::Message { channel, payload, .. } => self.message(&channel, payload),
                Event::Denied(names) => {
                    for name in &names {
                        match read_resource_channel(name) {
                            _ if is_everything_pattern(name) => self.feeds.everything_denied(),
                            _ if name.ends_with('*') => self.feeds.close_denied(name),
                            Some((resource, _)) => self.channels.close_denied(&resource),
                            None => {}
                        }
                    }
                }
                Event::Gap => {
                    counter!(SUBSCRIPTION_GAPS).increment(1);
                    tracing::info!("gateway.subscription_gap");
                    self.channels.mark_all_stale(None);
                    self.feeds.missed(None);
                    self.access.everyone_changed();
                }
                Event::PartitionGap(partitions) => {
                    counter!(SUBSCRIPTION_GAPS).increment(1);
                    tracing::info!(partitions = partitions.len(), "gateway.partition_gap");
                    self.channels.mark_all_stale(Some(&partitions));
                    self.feeds.missed(Some(&partitions));
                    // Word of changed permissions may have been published at that server, too.
                    self.access.everyone_changed();
                }
            }
        }
    }

    fn message(&self, name: &str, payload: bytes::Bytes) {
        let Some((resource, carries)) = read_resource_channel(name) else { return };
        let Some(channel) = self.channels.get(&resource) else { return };
        if carries == ChannelContent::Replies {
            let Some(command) = results::command_of(&payload) else { return };
            let partition = self.keys.partition(&resource.tenant);
            if !channel.was_delivered(command) && !self.lookups.send(partition, (channel.clone(), command)) {
                self.channels.mark_stale(&channel);
            }
        } else if channel.update(payload) == channel::UpdateOutcome::Backwards {
            self.channels.mark_stale(&channel);
        }
    }
}
