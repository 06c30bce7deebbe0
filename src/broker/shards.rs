//! What a program hears on sharded channels: each partition by itself (`broker/shard_lane.rs`), so that a server that is away costs
//! its own tenants their messages and nobody else.
//!
//! Callers name plain channels and patterns, as everywhere, and hear messages as these would have brought them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::events::{Event, NODE_TIMEOUT, REQUEST_QUEUE, confirmed};
use super::hearing::SharedFilter;
use super::keys::{Partition, read_shard_channel};
use super::shard_connection::{OnMessage, ShardConnections};
use super::shard_lane::{LaneState, ShardLane, ShardRequest};
use super::shard_names::{HeardOf, NamesHeard, heard_of, is_control_name, is_probe, read_message};
use super::{Broker, BrokerError, Keys};

/// A handle; cheap to clone.
#[derive(Clone)]
pub(super) struct ShardSubscriber {
    keys: Keys,
    lanes: Arc<BTreeMap<Partition, LaneHandle>>,
}

struct LaneHandle {
    requests: mpsc::Sender<ShardRequest>,
    state: Arc<LaneState>,
}

impl ShardSubscriber {
    /// Nothing is subscribed yet, and no connection made.
    pub(super) fn start(
        broker: &Broker,
        events: &mpsc::Sender<Event>,
        filter: SharedFilter,
        tracker: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let keys = broker.keys();
        let states: Arc<BTreeMap<Partition, Arc<LaneState>>> =
            Arc::new(keys.partitions().map(|partition| (partition, Arc::default())).collect());
        let on_message = deliver_to(events.clone(), filter, states.clone());
        let connections = Arc::new(ShardConnections::new(on_message, tracker.clone()));
        let lanes = states.iter().map(|(partition, state)| {
            let (requests, hear_requests) = mpsc::channel(REQUEST_QUEUE);
            let (connections, events) = (connections.clone(), events.clone());
            let lane = ShardLane::new(broker.clone(), *partition, connections, state.clone(), hear_requests, events);
            tracker.spawn(lane.run(stop.clone()));
            (*partition, LaneHandle { requests, state: state.clone() })
        });
        Self { keys, lanes: Arc::new(lanes.collect()) }
    }

    /// Divides names of channels and patterns into those that are heard here and the others.
    pub(super) fn divide(&self, names: Vec<String>) -> (Vec<NamesHeard>, Vec<String>) {
        let (mut here, mut others) = (Vec::<NamesHeard>::new(), Vec::new());
        for name in names {
            match heard_of(self.keys, &name) {
                HeardOf::None => others.push(name),
                of => match here.iter_mut().find(|known| known.of == of) {
                    Some(known) => known.names.push(name),
                    None => here.push(NamesHeard { of, names: vec![name] }),
                },
            }
        }
        (here, others)
    }

    /// Subscribes; confirmed when it returns. What is heard of all partitions, or wakes workers, is confirmed by those whose servers answer
    /// soon, and heard of the others as soon as they do.
    pub(super) async fn subscribe(&self, all: &[NamesHeard]) -> Result<(), BrokerError> {
        join_all(all.iter().map(|heard| self.subscribe_in_lanes(heard))).await.into_iter().collect()
    }

    async fn subscribe_in_lanes(&self, heard: &NamesHeard) -> Result<(), BrokerError> {
        // A worker begins although the server of a tenant is away.
        let is_of_one = matches!(heard.of, HeardOf::Partition(_));
        let keep = !is_of_one || heard.names.iter().all(|name| is_control_name(name));
        let asked = self.lanes_of(&heard.of).map(async |lane| {
            let (done, wait) = oneshot::channel();
            let request = ShardRequest::Subscribe { names: heard.names.clone(), keep, done };
            let asked = confirmed(&lane.requests, request, wait);
            match keep {
                true => tokio::time::timeout(NODE_TIMEOUT, asked).await.unwrap_or(Ok(())),
                false => asked.await,
            }
        });
        let asked: Result<(), BrokerError> = join_all(asked).await.into_iter().collect();
        if asked.is_err() && !is_of_one {
            // Refused by one server: the others need not go on.
            self.unsubscribe(std::slice::from_ref(heard));
        }
        asked
    }

    /// Gives names up. `false`: there is no room to ask just now.
    pub(super) fn unsubscribe(&self, all: &[NamesHeard]) -> bool {
        let ask = |heard: &NamesHeard, lane: &LaneHandle| {
            lane.requests.try_send(ShardRequest::Unsubscribe { names: heard.names.clone() }).is_ok()
        };
        // What is given up twice does no harm.
        all.iter().all(|heard| self.lanes_of(&heard.of).all(|lane| ask(heard, lane)))
    }

    /// The partitions of which something is to be heard and cannot be just now.
    pub(super) fn unheard(&self) -> Vec<Partition> {
        let deaf = self.lanes.iter().filter(|(_, lane)| lane.state.is_deaf.load(Ordering::Relaxed));
        deaf.map(|(partition, _)| *partition).collect()
    }

    fn lanes_of(&self, of: &HeardOf) -> impl Iterator<Item = &LaneHandle> {
        let is_meant = move |partition: &Partition| match of {
            HeardOf::Partition(one) => one == partition,
            HeardOf::AllPartitions | HeardOf::Program => true,
            HeardOf::None => false,
        };
        self.lanes.iter().filter(move |(partition, _)| is_meant(partition)).map(|(_, lane)| lane)
    }
}

/// What comes of a connection is an event, if somebody wants it.
fn deliver_to(
    events: mpsc::Sender<Event>,
    filter: SharedFilter,
    states: Arc<BTreeMap<Partition, Arc<LaneState>>>,
) -> OnMessage {
    Arc::new(move |channel, payload| {
        let Some((partition, name)) = std::str::from_utf8(channel).ok().and_then(read_shard_channel) else { return };
        let Some((channel, payload, by_pattern)) = read_message(name, payload) else { return };
        // That it stands is all there is to know of a probe.
        if is_probe(channel) || by_pattern && filter.get().is_some_and(|wants| !wants(channel)) {
            return;
        }
        let payload = Bytes::copy_from_slice(payload);
        let event = Event::Message { channel: channel.to_owned(), payload, by_pattern };
        if events.try_send(event).is_err()
            && let Some(state) = states.get(&partition)
        {
            state.is_lagging.store(true, Ordering::Relaxed);
        }
    })
}
