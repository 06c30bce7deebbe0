//! Fan-out: one subscription of the gateway for each watched resource, shared by every socket on it.
//!
//! Channels are counted by reference. What comes on them only wakes: a result is looked up in the record and
//! the recorded bytes are handed out, once for each command (`results`); after a gap every watched resource
//! is read again (`resync`). [`channel`] holds what is known of one resource.
//!
//! A tenant-wide socket hears everything of its tenant by a pattern instead: `feeds` has one subscription for each
//! tenant, `listen` takes what comes in order and looks up what it needs, and `feed` hands it to those who want it.

pub mod channel;
mod feed;
mod feeds;
mod listen;
mod recent;
mod results;
mod resync;
mod update;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::counter;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::feed::Member;
pub use self::feeds::FeedSeat;
pub use self::recent::Recent;

use self::channel::Channel;
use self::feeds::Feeds;
use super::access::Access;
use super::outbox::Outbox;
use super::results::Results;
use crate::broker::keys::{ChannelContent, PERMISSIONS_CHANNEL, read_resource_channel, reply_channel, updates_channel};
use crate::broker::{Broker, BrokerError, Event, Subscriber};
use crate::domain::{CommandId, Resource, TenantId};
use crate::store::Store;
use crate::telemetry::metrics::SUBSCRIPTION_GAPS;

/// Results that may wait to be looked up. More are found by reading every watched resource again.
const LOOKUPS: usize = 8_192;
/// How long a channel nobody watches is kept: a client that reconnects finds it.
const LINGER: Duration = Duration::from_secs(2);
/// Results read back after a gap, and known as old before a subscription begins.
const RECENT: usize = 256;

/// A handle on the fan-out; cheap to clone.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

struct Inner {
    broker: Broker,
    store: Store,
    subscriber: Subscriber,
    access: Access,
    results: Results,
    channels: Mutex<HashMap<Resource, Entry>>,
    /// Some channel has to be read again.
    stale: Notify,
    lookups: mpsc::Sender<(Arc<Channel>, CommandId)>,
    feeds: Feeds,
}

struct Entry {
    channel: Arc<Channel>,
    references: usize,
    /// Since when there are none.
    idle: Instant,
}

impl Hub {
    /// Starts the tasks that serve it.
    pub fn start(
        broker: Broker,
        store: Store,
        (subscriber, events): (Subscriber, mpsc::Receiver<Event>),
        (access, results): (Access, Results),
        tracker: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let (lookups, waiting) = mpsc::channel(LOOKUPS);
        let (feeds, heard) = Feeds::new();
        let hub = Self(Arc::new(Inner {
            broker,
            store,
            subscriber,
            access,
            results,
            channels: Mutex::new(HashMap::new()),
            stale: Notify::new(),
            lookups,
            feeds,
        }));
        let run = |task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
            tracker.spawn(stop.clone().run_until_cancelled_owned(task));
        };
        run(Box::pin(hub.clone().hear(events)));
        run(Box::pin(results::look_up(hub.clone(), waiting)));
        run(Box::pin(resync::run(hub.clone())));
        run(Box::pin(listen::run(hub.clone(), heard)));
        run(Box::pin(hub.clone().sweep()));
        hub
    }

    /// Watches a resource until the seat is dropped. When this returns, everything published from now on
    /// reaches the outbox.
    pub async fn join(&self, resource: &Resource, outbox: Arc<Outbox>) -> Result<Seat, BrokerError> {
        let mut seat = Seat { hub: self.clone(), channel: self.take_reference(resource), outbox: None, first: 0 };
        // One of those who come at once reads and subscribes; the others wait for it.
        seat.channel.opened.get_or_try_init(|| self.open(&seat.channel)).await?;
        seat.first = seat.channel.add(outbox.clone());
        seat.outbox = Some(outbox);
        Ok(seat)
    }

    /// As [`Self::join`], for everything of a tenant that the member wants.
    pub async fn join_tenant(&self, tenant: &TenantId, member: Arc<Member>) -> Result<FeedSeat, BrokerError> {
        self.0.feeds.join(&self.0.broker, &self.0.subscriber, tenant, member).await
    }

    fn take_reference(&self, resource: &Resource) -> Arc<Channel> {
        let mut channels = self.channels();
        let entry = channels.entry(resource.clone()).or_insert_with(|| Entry {
            channel: Arc::new(Channel::new(resource.clone())),
            references: 0,
            idle: Instant::now(),
        });
        entry.references += 1;
        Arc::clone(&entry.channel)
    }

    /// Reads what has ended already, so that a repeated message of it says nothing, then subscribes.
    async fn open(&self, channel: &Channel) -> Result<(), BrokerError> {
        let resource = &channel.resource;
        let old = self.0.broker.recent_results(resource, RECENT).await?;
        self.0.subscriber.subscribe(vec![updates_channel(resource), reply_channel(resource)]).await?;
        channel.note_old(old.into_iter().map(|ended| ended.command));
        Ok(())
    }

    /// Hears the subscription. Nothing is awaited here but the next event: a slow Redis must not hold up
    /// what needs no Redis.
    async fn hear(self, mut events: mpsc::Receiver<Event>) {
        while let Some(event) = events.recv().await {
            match event {
                Event::Message { channel, payload, by_pattern: true } => self.0.feeds.heard(&channel, payload),
                Event::Message { channel, payload, .. } if channel == PERMISSIONS_CHANNEL => {
                    match std::str::from_utf8(&payload).ok().and_then(|user| user.parse().ok()) {
                        Some(user) => self.0.access.user_changed(user),
                        None => self.0.access.everyone_changed(),
                    }
                }
                Event::Message { channel, payload, .. } => self.message(&channel, payload),
                Event::Gap => {
                    counter!(SUBSCRIPTION_GAPS).increment(1);
                    tracing::info!("gateway.subscription_gap");
                    self.resync_all();
                    self.0.feeds.missed();
                    self.0.access.everyone_changed();
                }
            }
        }
    }

    fn message(&self, name: &str, payload: bytes::Bytes) {
        let Some((resource, carries)) = read_resource_channel(name) else { return };
        let Some(channel) = self.channels().get(&resource).map(|entry| Arc::clone(&entry.channel)) else { return };
        if carries == ChannelContent::Replies {
            let Some(command) = results::command_of(&payload) else { return };
            if !channel.knows(command) && self.0.lookups.try_send((channel, command)).is_err() {
                self.resync_all();
            }
        } else if channel.update(payload) == channel::Heard::Backwards {
            channel.mark_stale();
            self.0.stale.notify_one();
        }
    }

    fn resync_all(&self) {
        for entry in self.channels().values() {
            entry.channel.mark_stale();
        }
        self.0.stale.notify_one();
    }

    /// Gives up channels that nobody has watched for a while.
    async fn sweep(self) {
        loop {
            tokio::time::sleep(LINGER / 2).await;
            self.0.feeds.sweep(&self.0.subscriber);
            let mut channels = self.channels();
            channels.retain(|resource, entry| {
                if entry.references > 0 || entry.idle.elapsed() < LINGER {
                    return true;
                }
                // Asked under the lock: whoever comes next subscribes after it. Without room to ask, it is
                // kept until the next round.
                !self.0.subscriber.unsubscribe(vec![updates_channel(resource), reply_channel(resource)])
            });
            channels.shrink_to(64);
        }
    }

    fn channels(&self) -> MutexGuard<'_, HashMap<Resource, Entry>> {
        self.0.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place on a resource's channel, given up when dropped.
pub struct Seat {
    hub: Hub,
    channel: Arc<Channel>,
    outbox: Option<Arc<Outbox>>,
    /// Number of the first result handed out after this seat was taken.
    first: u64,
}

impl Seat {
    /// Whether the command's result was put into this seat's outbox.
    pub fn was_given(&self, command: CommandId) -> bool {
        self.channel.position(command).is_some_and(|position| position >= self.first)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(outbox) = &self.outbox {
            self.channel.remove(outbox);
        }
        if let Some(entry) = self.hub.channels().get_mut(&self.channel.resource) {
            entry.references = entry.references.saturating_sub(1);
            entry.idle = Instant::now();
        }
    }
}
