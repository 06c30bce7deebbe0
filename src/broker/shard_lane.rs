//! What is heard of one partition on sharded channels: at the server that has it, and at its next one when that changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::RedisResult;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::events::{Done, Event};
use super::keys::{Partition, shard_channel};
use super::shard_connection::{ShardConnection, ShardConnections};
use super::shard_names::shard_name;
use super::{Broker, BrokerError};

/// Between two looks whether the partition is still where it is heard.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
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
    pub(super) broker: Broker,
    pub(super) partition: Partition,
    pub(super) connections: Arc<ShardConnections>,
    pub(super) state: Arc<LaneState>,
    pub(super) requests: mpsc::Receiver<ShardRequest>,
    pub(super) events: mpsc::Sender<Event>,
    /// The sharded channels, each with the names of what is heard on it.
    pub(super) wanted: BTreeMap<String, BTreeSet<String>>,
    /// Callers who are to be told when all that is wanted stands, with what they asked for.
    pub(super) waiting: Vec<(Vec<String>, Done)>,
    /// What may no longer be heard, and the receiver has not been told.
    pub(super) lost: Vec<String>,
    /// The receiver has not been told that it may have missed something.
    pub(super) has_gap: bool,
}

impl ShardLane {
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
            match self.open().await {
                Ok(connection) => {
                    self.state.is_deaf.store(false, Ordering::Relaxed);
                    self.report();
                    wait = MIN_RETRY_DELAY;
                    self.serve(&connection).await;
                    self.state.is_deaf.store(!self.wanted.is_empty(), Ordering::Relaxed);
                    // What was published since may have been heard by nobody.
                    self.has_gap = !self.wanted.is_empty();
                }
                Err(error) => {
                    self.state.is_deaf.store(true, Ordering::Relaxed);
                    tracing::debug!(partition = %self.partition, %error, "redis.partition_not_heard");
                    self.find().await;
                }
            }
            tokio::time::sleep(wait.mul_f64(0.5 + fastrand::f64())).await;
            wait = (wait * 2).min(MAX_RETRY_DELAY);
        }
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

    /// Until the connection is lost, or the partition is elsewhere.
    async fn serve(&mut self, connection: &Arc<ShardConnection>) {
        let client = self.broker.client.clone();
        let (mut changes, mut batch, mut is_asked) = (None, Vec::new(), true);
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = connection.gone() => return,
                count = self.requests.recv_many(&mut batch, 512), if is_asked => {
                    // Zero: every handle is gone. What is subscribed goes on, until it is stopped.
                    is_asked = count > 0;
                    let requests = std::mem::take(&mut batch);
                    if self.answer(connection, requests).await.is_err() {
                        return;
                    }
                    if self.wanted.is_empty() {
                        return;
                    }
                }
                () = client.changed(&mut changes) => if self.is_elsewhere(connection) {
                    let channels: Vec<String> = self.wanted.keys().cloned().collect();
                    // It may be the one that is cut off, and not know that it has lost the partition.
                    let _ = connection.unsubscribe(&channels).await;
                    return;
                },
                _ = look.tick() => match connection.is_on_its_way(&self.key()).await {
                    // The change may have been before this began to hear of changes.
                    Ok(_) if self.is_elsewhere(connection) => return,
                    Ok(is_on_its_way) => {
                        self.has_gap |= is_on_its_way || self.state.is_lagging.swap(false, Ordering::Relaxed);
                        self.report();
                    }
                    Err(error) => {
                        tracing::debug!(partition = %self.partition, %error, "redis.partition_elsewhere");
                        return self.find().await;
                    }
                }
            }
        }
    }

    /// Whether another server has the partition by now.
    fn is_elsewhere(&self, connection: &ShardConnection) -> bool {
        let server = self.broker.client.address_of(&self.key()).map(|(name, _)| name);
        server.is_some_and(|server| server != connection.server)
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
        let before: BTreeSet<String> = self.wanted.keys().cloned().collect();
        for request in requests {
            match request {
                // Its caller has given up, and was told that nothing is subscribed.
                ShardRequest::Subscribe { keep: false, done, .. } if done.is_closed() => {}
                ShardRequest::Subscribe { names, done, .. } => {
                    for name in &names {
                        let channel = shard_channel(self.partition, &shard_name(name));
                        self.wanted.entry(channel).or_default().insert(name.clone());
                    }
                    self.waiting.push((names, done));
                }
                ShardRequest::Unsubscribe { names } => names.iter().for_each(|name| self.forget(name)),
            }
        }
        let is_new = |channel: &&String| !before.contains(*channel);
        let new = self.wanted.keys().filter(is_new).cloned().collect();
        let gone = before.into_iter().filter(|channel| !self.wanted.contains_key(channel)).collect();
        (new, gone)
    }

    fn forget(&mut self, name: &str) {
        let channel = shard_channel(self.partition, &shard_name(name));
        if let Some(names) = self.wanted.get_mut(&channel) {
            names.remove(name);
            if names.is_empty() {
                self.wanted.remove(&channel);
            }
        }
    }

    /// Subscribes, and tells those who wait. What is not permitted is forgotten: it would keep all else from being heard.
    async fn subscribe(&mut self, connection: &ShardConnection, channels: &[String]) -> RedisResult<()> {
        let refused = connection.subscribe(channels).await?;
        let mut denied: BTreeMap<String, BrokerError> = BTreeMap::new();
        for (channel, error) in refused {
            let problem = BrokerError::from(error.clone());
            if problem.code() != Some("NOPERM") {
                return Err(error);
            }
            tracing::warn!(%error, channel, "redis.subscription_denied");
            let names = self.wanted.remove(&channel).unwrap_or_default();
            denied.extend(names.into_iter().map(|name| (name, problem.clone())));
        }
        let asked: BTreeSet<String> = self.waiting.iter().flat_map(|(names, _)| names.clone()).collect();
        for (names, done) in self.waiting.drain(..) {
            let error = names.iter().find_map(|name| denied.get(name)).cloned();
            // A caller that gave up meanwhile goes on without what was published until now.
            self.has_gap |= done.send(error.map_or(Ok(()), Err)).is_err();
        }
        self.lost.extend(denied.into_keys().filter(|name| !asked.contains(name)));
        Ok(())
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
