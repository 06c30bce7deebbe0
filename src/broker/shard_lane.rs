//! What is heard of one partition on sharded channels: at the server that has it, and at its next one when that changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redis::RedisResult;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::events::{Done, Event};
use super::keys::{Partition, is_dispensable, shard_channel};
use super::shard_connection::{ShardConnection, ShardConnections};
use super::shard_names::{HeardOf, heard_of, is_control_name, shard_name};
use super::{Broker, BrokerError};

/// Between two looks whether the partition is still where it is heard; the second where nobody watches.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
const LONG_LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// A connection that lasted less goes on with the waits of the one before.
const STABLE_AFTER: Duration = Duration::from_secs(2);
/// Wait before the second try to connect; it doubles up to [`MAX_RETRY_DELAY`].
const MIN_RETRY_DELAY: Duration = Duration::from_millis(20);
const MAX_RETRY_DELAY: Duration = Duration::from_millis(400);

/// What a lane is asked for, by the names of plain channels and patterns.
pub(super) enum ShardRequest {
    /// Confirmed by `done`. `keep`: also where nobody waits for that any more.
    Subscribe {
        names: Vec<String>,
        keep: bool,
        done: Done,
    },
    Unsubscribe {
        names: Vec<String>,
    },
}

/// What everybody sees of a lane.
#[derive(Default)]
pub(super) struct LaneState {
    /// Something is wanted, and not heard just now.
    pub(super) is_deaf: AtomicBool,
    /// The receiver of events has missed some.
    pub(super) is_lagging: AtomicBool,
}

pub(super) struct ShardLane {
    broker: Broker,
    partition: Partition,
    connections: Arc<ShardConnections>,
    state: Arc<LaneState>,
    requests: mpsc::Receiver<ShardRequest>,
    events: mpsc::Sender<Event>,
    /// The sharded channels, each with the names of what is heard on it.
    wanted: BTreeMap<String, BTreeSet<String>>,
    /// Callers who are to be told when all that is wanted stands, with what they asked for.
    waiting: Vec<(Vec<String>, Done)>,
    /// The program may not hear what it is of no use without.
    is_denied: bool,
    /// What may no longer be heard, and the receiver has not been told.
    lost: Vec<String>,
    /// The receiver has not been told that it may have missed something.
    has_gap: bool,
}

impl ShardLane {
    /// Nothing is wanted yet.
    pub(super) fn new(
        broker: Broker,
        partition: Partition,
        connections: Arc<ShardConnections>,
        state: Arc<LaneState>,
        requests: mpsc::Receiver<ShardRequest>,
        events: mpsc::Sender<Event>,
    ) -> Self {
        Self {
            broker,
            partition,
            connections,
            state,
            requests,
            events,
            wanted: BTreeMap::new(),
            waiting: Vec::new(),
            is_denied: false,
            lost: Vec::new(),
            has_gap: false,
        }
    }

    /// Until the token is cancelled.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.hear() => {}
        }
    }

    async fn hear(&mut self) {
        let mut wait = MIN_RETRY_DELAY;
        loop {
            if self.wanted.is_empty() {
                self.state.is_deaf.store(false, Ordering::Relaxed);
                let Some(request) = self.requests.recv().await else { return std::future::pending().await };
                self.note(vec![request]);
                continue;
            }
            let opened = self.open().await;
            self.state.is_deaf.store(opened.is_err(), Ordering::Relaxed);
            let error = match opened {
                Ok(connection) => {
                    self.report();
                    let begun = Instant::now();
                    let served = self.serve(&connection).await;
                    if begun.elapsed() > STABLE_AFTER {
                        wait = MIN_RETRY_DELAY;
                    }
                    // What is published from now on may be heard by nobody.
                    self.has_gap = !self.wanted.is_empty();
                    self.state.is_deaf.store(self.has_gap, Ordering::Relaxed);
                    served.err()
                }
                Err(error) => Some(error),
            };
            if let Some(error) = error {
                tracing::debug!(partition = %self.partition, %error, "redis.partition_not_heard");
                self.find().await;
            }
            self.take_requests_for(wait.mul_f64(0.5 + fastrand::f64())).await;
            wait = (wait * 2).min(MAX_RETRY_DELAY);
        }
    }

    /// Notes what is asked for, so long.
    async fn take_requests_for(&mut self, time: Duration) {
        let end = tokio::time::Instant::now() + time;
        while let Ok(Some(request)) = tokio::time::timeout_at(end, self.requests.recv()).await {
            self.note(vec![request]);
        }
        // Every handle may be gone; what is wanted is heard all the same, until it is stopped.
        tokio::time::sleep_until(end).await;
    }

    /// A connection to the server that has the partition, on which all that is wanted stands.
    async fn open(&mut self) -> RedisResult<Arc<ShardConnection>> {
        let server = self.broker.client.address_of(&self.key());
        let Some((name, info)) = server else {
            return Err((redis::ErrorKind::Io, "no server has this partition").into());
        };
        let connection = self.connections.to(&name, info).await?;
        let channels: Vec<String> = self.wanted.keys().cloned().collect();
        self.subscribe(&connection, &channels).await?;
        // A cluster that is down takes subscriptions all the same.
        connection.is_on_its_way(&self.key()).await?;
        Ok(connection)
    }

    /// Asks for the partition where it is believed to be: what is sent there is sent on to where it is by now, and the map of slots
    /// follows.
    async fn find(&self) {
        let _: Result<i64, _> = self.broker.client.query(redis::cmd("EXISTS").arg(self.key())).await;
    }

    /// A key of the partition that nobody writes: a question about it tells where the partition is.
    fn key(&self) -> String {
        shard_channel(self.partition, "")
    }

    /// Until the connection is lost, or the partition is elsewhere; an error: where, is to be found out.
    async fn serve(&mut self, connection: &Arc<ShardConnection>) -> RedisResult<()> {
        let client = self.broker.client.clone();
        let (mut changes, mut batch, mut is_asked) = (None, Vec::new(), true);
        let mut looked_at = Instant::now();
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = connection.gone() => return Ok(()),
                count = self.requests.recv_many(&mut batch, 512), if is_asked => {
                    // Zero: every handle is gone. What is subscribed goes on, until it is stopped.
                    is_asked = count > 0;
                    let requests = std::mem::take(&mut batch);
                    self.answer(connection, requests).await?;
                    if self.wanted.is_empty() {
                        return Ok(());
                    }
                }
                () = client.changed(&mut changes) => if self.is_elsewhere(connection) {
                    let channels: Vec<String> = self.wanted.keys().cloned().collect();
                    // It may be the one that is cut off, and not know that it has lost the partition.
                    let _ = connection.unsubscribe(&channels).await;
                    return Ok(());
                },
                _ = look.tick() => {
                    // The change may have been before this began to hear of changes.
                    if self.is_elsewhere(connection) {
                        return Ok(());
                    }
                    if self.is_watched() || looked_at.elapsed() > LONG_LOOK_INTERVAL {
                        looked_at = Instant::now();
                        let key = self.key();
                        self.has_gap |= tokio::select! {
                            () = connection.gone() => return Ok(()),
                            is_on_its_way = connection.is_on_its_way(&key) => is_on_its_way?,
                        };
                    }
                    self.has_gap |= self.state.is_lagging.swap(false, Ordering::Relaxed);
                    self.report();
                }
            }
        }
    }

    /// Whether updates or results are heard, and not only what wakes a worker: a thousand workers would ask every partition each second,
    /// and they find by themselves what they have not heard.
    fn is_watched(&self) -> bool {
        let mut names = self.wanted.values().flatten();
        names.any(|name| !is_control_name(name) && heard_of(self.broker.keys(), name) != HeardOf::Program)
    }

    /// Whether another server has the partition by now.
    fn is_elsewhere(&self, connection: &ShardConnection) -> bool {
        self.broker.client.server_of(&self.key()).is_some_and(|server| server != connection.server)
    }

    async fn answer(&mut self, connection: &ShardConnection, requests: Vec<ShardRequest>) -> RedisResult<()> {
        let (new, gone) = self.note(requests);
        if !gone.is_empty() {
            connection.unsubscribe(&gone).await?;
        }
        self.subscribe(connection, &new).await
    }

    /// Brings what is wanted up to date; gives the channels to subscribe to and to give up.
    fn note(&mut self, requests: Vec<ShardRequest>) -> (Vec<String>, Vec<String>) {
        let (mut new, mut gone) = (BTreeSet::new(), BTreeSet::new());
        for request in requests {
            match request {
                // Its caller has given up, and was told that nothing is subscribed.
                ShardRequest::Subscribe { keep: false, done, .. } if done.is_closed() => {}
                ShardRequest::Subscribe { names, done, .. } => {
                    for name in &names {
                        let channel = shard_channel(self.partition, &shard_name(name));
                        let known = self.wanted.entry(channel.clone()).or_default();
                        if known.is_empty() && !gone.remove(&channel) {
                            new.insert(channel);
                        }
                        known.insert(name.clone());
                    }
                    self.waiting.push((names, done));
                }
                ShardRequest::Unsubscribe { names } => {
                    for channel in names.iter().filter_map(|name| self.forget(name)) {
                        if !new.remove(&channel) {
                            gone.insert(channel);
                        }
                    }
                }
            }
        }
        (new.into_iter().collect(), gone.into_iter().collect())
    }

    /// The channel on which nothing else is wanted.
    fn forget(&mut self, name: &str) -> Option<String> {
        let channel = shard_channel(self.partition, &shard_name(name));
        let names = self.wanted.get_mut(&channel)?;
        names.remove(name);
        names.is_empty().then(|| {
            self.wanted.remove(&channel);
            channel
        })
    }

    /// Subscribes, and tells those who wait. What is not permitted is forgotten, but for what the program is of no use without: that is
    /// tried again.
    async fn subscribe(&mut self, connection: &ShardConnection, channels: &[String]) -> RedisResult<()> {
        let mut denied: BTreeMap<String, BrokerError> = BTreeMap::new();
        let mut needed = None;
        for (channel, error) in connection.subscribe(channels).await? {
            let problem = BrokerError::from(error.clone());
            if problem.code() != Some("NOPERM") {
                return Err(error);
            }
            if !self.is_denied {
                tracing::warn!(%error, channel, "redis.subscription_denied");
            }
            let names = self.wanted.get(&channel).into_iter().flatten();
            denied.extend(names.map(|name| (name.clone(), problem.clone())));
            needed = Some(error);
        }
        let mut told = BTreeSet::new();
        for (names, done) in self.waiting.drain(..) {
            let error = names.iter().find_map(|name| denied.get(name)).cloned();
            match done.send(error.map_or(Ok(()), Err)) {
                Ok(()) => told.extend(names),
                // A caller that gave up meanwhile goes on without what was published until now.
                Err(_) => self.has_gap = true,
            }
        }
        let (lost, missing): (Vec<String>, Vec<String>) =
            denied.into_keys().partition(|name| told.contains(name) || is_dispensable(name));
        lost.iter().for_each(|name| drop(self.forget(name)));
        self.lost.extend(lost.into_iter().filter(|name| !told.contains(name)));
        // Said once, and not for each of many tries.
        self.is_denied = !missing.is_empty();
        match needed {
            Some(error) if !missing.is_empty() => Err(error),
            _ => Ok(()),
        }
    }

    /// Tells the receiver what it has missed, as far as it has room.
    fn report(&mut self) {
        if !self.lost.is_empty() && self.events.try_send(Event::Denied(self.lost.clone())).is_ok() {
            self.lost.clear();
        }
        if self.has_gap && self.events.try_send(Event::PartitionGap(vec![self.partition])).is_ok() {
            self.has_gap = false;
        }
    }
}
