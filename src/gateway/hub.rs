//! Fan-out: one subscription for each resource that somebody watches, however many do.
//!
//! A message on a channel only wakes. Updates are passed on by their number; a result is passed on as the
//! record in Redis has it, once, so that a forged or repeated message says nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OnceCell, mpsc};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::outbox::{Outbox, Update};
use super::snapshot;
use crate::broker::keys::{reply_channel, updates_channel};
use crate::broker::{Broker, BrokerError, Event, Subscriber};
use crate::domain::{CommandId, Resource, ResourceKind};
use crate::store::Store;

/// Results are looked up by this many tasks, each resource always by the same one: they stay in order.
const LANES: usize = 8;
/// Look-ups that may wait in one lane. When it is full the hub waits too, and the subscriber reports a gap
/// in the end, which is repaired from the record.
const LANE: usize = 1_024;
/// Results remembered for each watched resource, to pass on each once.
const REMEMBERED: usize = 64;
/// Results read again after a gap.
const AFTER_GAP: usize = 50;
/// How far this machine's idea of Redis's clock may be off, ms.
const CLOCK_SLACK: i64 = 100;
/// Between two attempts to read a result while Redis does not answer, and how many there are.
const RETRY: (Duration, u32) = (Duration::from_millis(250), 40);

/// The fan-out of one gateway; cheap to clone.
#[derive(Clone)]
pub struct Hub(Arc<Shared>);

struct Shared {
    broker: Broker,
    store: Store,
    subscriber: Subscriber,
    channels: Mutex<HashMap<Resource, Arc<Channel>>>,
    lanes: Vec<mpsc::Sender<Task>>,
}

/// A watched resource.
struct Channel {
    subscribed: OnceCell<()>,
    watchers: Mutex<Watchers>,
}

#[derive(Default)]
struct Watchers {
    sockets: Vec<Watcher>,
    next: u64,
    /// Number of the newest update passed on.
    seq: i64,
    delivered: VecDeque<CommandId>,
}

struct Watcher {
    id: u64,
    outbox: Arc<Outbox>,
    /// Unix ms by Redis's clock, about.
    since: i64,
}

enum Task {
    /// A result was announced.
    Result(Resource, CommandId),
    /// Messages may have been lost.
    Resync(Resource),
}

/// A socket's place in the fan-out; leaves when dropped.
pub struct Membership {
    hub: Hub,
    resource: Resource,
    id: u64,
    /// Unix ms by Redis's clock, about: results completed later have been passed on to this socket.
    pub since: i64,
}

impl Hub {
    /// Starts its tasks.
    pub fn start(
        broker: Broker,
        store: Store,
        subscriber: Subscriber,
        tracker: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..LANES).map(|_| mpsc::channel(LANE)).unzip();
        let hub = Self(Arc::new(Shared { broker, store, subscriber, channels: Mutex::default(), lanes: senders }));
        for mut receiver in receivers {
            let (hub, stop) = (hub.clone(), stop.clone());
            tracker.spawn(async move {
                while let Some(Some(task)) = stop.run_until_cancelled(receiver.recv()).await {
                    let work = async {
                        match task {
                            Task::Result(resource, command) => hub.deliver(&resource, command).await,
                            Task::Resync(resource) => hub.resync(&resource).await,
                        }
                    };
                    stop.run_until_cancelled(work).await;
                }
            });
        }
        hub
    }

    /// Adds a socket, and returns when Redis has confirmed the subscription.
    pub async fn join(&self, resource: &Resource, outbox: Arc<Outbox>) -> Result<Membership, BrokerError> {
        let since = self.0.broker.redis_now_ms();
        let (channel, id) = {
            let mut channels = lock(&self.0.channels);
            let channel = channels
                .entry(resource.clone())
                .or_insert_with(|| Arc::new(Channel { subscribed: OnceCell::new(), watchers: Mutex::default() }));
            let mut watchers = lock(&channel.watchers);
            watchers.next += 1;
            let id = watchers.next;
            watchers.sockets.push(Watcher { id, outbox, since });
            (channel.clone(), id)
        };
        // From here on dropping it takes the socket out again.
        let member = Membership { hub: self.clone(), resource: resource.clone(), id, since };
        let names = vec![updates_channel(resource), reply_channel(resource)];
        channel.subscribed.get_or_try_init(|| self.0.subscriber.subscribe(names)).await?;
        Ok(member)
    }

    /// One event of the subscriber that is about a resource.
    pub async fn hear(&self, event: Event) {
        match event {
            Event::Message { channel, payload } => {
                if let Some(channel) = channel.strip_suffix(":reply") {
                    if let (Some(resource), Some(command)) = (Resource::parse(channel), command_of(&payload)) {
                        self.enqueue(Task::Result(resource, command)).await;
                    }
                } else if let Some(resource) = Resource::parse(&channel) {
                    self.update(&resource, payload);
                }
            }
            Event::Gap => {
                let watched: Vec<Resource> = lock(&self.0.channels).keys().cloned().collect();
                for resource in watched {
                    self.enqueue(Task::Resync(resource)).await;
                }
            }
        }
    }

    async fn enqueue(&self, task: Task) {
        let resource = match &task {
            Task::Result(resource, _) | Task::Resync(resource) => resource,
        };
        let lane = crate::broker::keys::fnv1a(resource.id.as_str()) as usize % LANES;
        // Fails only when the gateway ends.
        let _ = self.0.lanes[lane].send(task).await;
    }

    fn channel(&self, resource: &Resource) -> Option<Arc<Channel>> {
        lock(&self.0.channels).get(resource).cloned()
    }

    fn update(&self, resource: &Resource, payload: Bytes) {
        let Some(channel) = self.channel(resource) else { return };
        let Some(update) = read_update(resource, payload) else { return };
        let mut watchers = lock(&channel.watchers);
        if let Some(seq) = update.seq {
            if seq <= watchers.seq {
                return;
            }
            watchers.seq = seq;
        }
        for watcher in &watchers.sockets {
            watcher.outbox.update(&update);
        }
    }

    /// Passes a result on as it is recorded.
    async fn deliver(&self, resource: &Resource, command: CommandId) {
        for _ in 0..RETRY.1 {
            let Some(channel) = self.channel(resource) else { return };
            if lock(&channel.watchers).delivered.contains(&command) {
                return;
            }
            match self.0.broker.result_of(resource, command).await {
                Ok(Some(message)) => return channel.pass_on(command, &message.into(), None),
                // Announced by somebody who did not record it.
                Ok(None) => return,
                Err(_) => tokio::time::sleep(RETRY.0).await,
            }
        }
    }

    /// After a gap: results not passed on yet, and the state as it is now.
    async fn resync(&self, resource: &Resource) {
        let Some(channel) = self.channel(resource) else { return };
        for _ in 0..RETRY.1 {
            let results = self.0.broker.recent_results(resource, AFTER_GAP).await;
            let now = snapshot::read(&self.0.broker, &self.0.store, resource).await;
            let (Ok(results), Ok(now)) = (results, now) else {
                tokio::time::sleep(RETRY.0).await;
                continue;
            };
            for done in results {
                channel.pass_on(done.command, &done.message.into(), Some(done.at));
            }
            if let Some(now) = now {
                let mut watchers = lock(&channel.watchers);
                // Also lower than before, if Redis came back empty.
                let changed = now.seq != watchers.seq;
                watchers.seq = now.seq;
                if changed {
                    for text in now.as_updates() {
                        let update = Update { seq: None, is_progress: false, text };
                        for watcher in &watchers.sockets {
                            watcher.outbox.update(&update);
                        }
                    }
                }
            }
            return;
        }
    }
}

impl Channel {
    /// To every socket, once; where it is known when the command ended, only to sockets that were there then.
    fn pass_on(&self, command: CommandId, message: &Utf8Bytes, ended_at: Option<i64>) {
        let mut watchers = lock(&self.watchers);
        if watchers.delivered.contains(&command) {
            return;
        }
        watchers.delivered.push_back(command);
        if watchers.delivered.len() > REMEMBERED {
            watchers.delivered.pop_front();
        }
        for watcher in &watchers.sockets {
            if ended_at.is_none_or(|at| at + CLOCK_SLACK >= watcher.since) {
                watcher.outbox.result(message);
            }
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut channels = lock(&self.hub.0.channels);
        let Some(channel) = channels.get(&self.resource) else { return };
        let mut watchers = lock(&channel.watchers);
        watchers.sockets.retain(|watcher| watcher.id != self.id);
        watchers.sockets.shrink_to(4);
        if !watchers.sockets.is_empty() {
            return;
        }
        drop(watchers);
        // Under the lock, so that it is asked for before anyone else's subscribing. Where there is no room to
        // ask, the channel stays without watchers until the next one of this resource leaves.
        let names = vec![updates_channel(&self.resource), reply_channel(&self.resource)];
        if self.hub.0.subscriber.unsubscribe(names) {
            channels.remove(&self.resource);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn command_of(payload: &[u8]) -> Option<CommandId> {
    #[derive(serde::Deserialize)]
    struct Reply<'a> {
        #[serde(borrow)]
        command_id: std::borrow::Cow<'a, str>,
    }
    serde_json::from_slice::<Reply>(payload).ok()?.command_id.parse().ok()
}

/// An update of section 4 that is about this very resource; anything else is nobody's business.
fn read_update(resource: &Resource, payload: Bytes) -> Option<Update> {
    #[derive(serde::Deserialize)]
    struct Head<'a> {
        #[serde(borrow, rename = "type")]
        kind: std::borrow::Cow<'a, str>,
        #[serde(borrow)]
        tenant_id: std::borrow::Cow<'a, str>,
        #[serde(borrow)]
        job_id: Option<std::borrow::Cow<'a, str>>,
        #[serde(borrow)]
        campaign_id: Option<std::borrow::Cow<'a, str>>,
        seq: Option<i64>,
    }
    let head: Head = serde_json::from_slice(&payload).ok()?;
    let id = match resource.kind {
        ResourceKind::Job => head.job_id?,
        ResourceKind::Campaign => head.campaign_id?,
    };
    let word = head.kind.strip_prefix(resource.kind.word())?;
    let is_progress = word == "_progress";
    if (!is_progress && word != "_status") || head.tenant_id != resource.tenant.as_str() || id != resource.id.as_str() {
        return None;
    }
    let seq = head.seq;
    let text = Utf8Bytes::try_from(payload.clone()).ok()?;
    Some(Update { seq, is_progress, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_updates_about_the_channels_own_resource_are_passed_on() {
        let resource = Resource::parse("T:job:ID").expect("resource");
        let read = |text: &'static str| read_update(&resource, Bytes::from_static(text.as_bytes()));
        let good = read(r#"{"type":"job_progress","job_id":"ID","tenant_id":"T","seq":7}"#).expect("an update");
        assert_eq!((good.seq, good.is_progress), (Some(7), true));
        for bad in [
            "",
            "x",
            r#"{"type":"cancel_succeeded","job_id":"ID","tenant_id":"T"}"#,
            r#"{"type":"job_status","job_id":"OTHER","tenant_id":"T"}"#,
            r#"{"type":"job_status","job_id":"ID","tenant_id":"U"}"#,
            r#"{"type":"campaign_status","campaign_id":"ID","tenant_id":"T"}"#,
        ] {
            assert!(read(bad).is_none(), "{bad}");
        }
    }
}
