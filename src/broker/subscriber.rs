//! One pub/sub connection, kept alive: subscriptions are confirmed, survive reconnection, and a gap is
//! reported so that the receiver can look at the record.
//!
//! In a cluster it is a connection to any node: what is published at one is heard at all. A node that dies, hangs, or is
//! cut off from the others is left for another within about a second; a server whose messages alone do not come through
//! costs its own tenants a look at the record.
//!
//! Where `redis.heard_channels` says so, that connection hears only what is of no partition, and everything else comes on sharded channels
//! (`broker/shards.rs`).
//!
//! One task owns the connection and the set of subscriptions. It also publishes to itself (`broker/probes.rs`) and waits to
//! hear it: a connection that looks healthy and delivers nothing is cut and made anew.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use parking_lot::Mutex;
use redis::ConnectionAddr;
use redis::aio::{PubSubSink, PubSubStream};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::discovery::Discovery;
use super::error::BrokerError;
use super::events::{ANSWER, Done, Event, NODE_TIMEOUT, PING_INTERVAL, PING_TIMEOUT, REQUEST_QUEUE, confirmed};
use super::hearing::{ChannelFilter, PatternMessages, SharedFilter};
use super::keys::{
    IsFormer, Partition, RESOURCE_PROBE_PATTERN, is_dispensable, probe_channel, read_resource_probe_channel,
    resource_probe_channel, subscriber_name,
};
use super::probes::Probes;
use super::shard_names::NamesHeard;
use super::shards::ShardSubscriber;
use super::subscribing::{Refused, subscribe_permitted};
use super::{Broker, WriteCheck};
use crate::config::{HeardChannels, PublishedChannels};

/// Events that may wait for the receiver. A receiver that falls further behind loses messages and is told
/// of a gap, which it repairs from the record.
const EVENT_QUEUE: usize = 8_192;
/// Silence after which the connection is taken for dead where there is no other server to go to.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two words of a gap while a server's messages are lost.
const GAP_INTERVAL: Duration = Duration::from_secs(1);

enum Request {
    Subscribe { channels: Vec<String>, patterns: bool, done: Done },
    Unsubscribe { channels: Vec<String>, patterns: bool },
}

/// One command to Redis.
enum LoopStep {
    Subscribe(Vec<String>),
    SubscribePatterns(Vec<String>),
    Unsubscribe(Vec<String>),
    UnsubscribePatterns(Vec<String>),
}

/// A handle on the connection; cheap to clone.
#[derive(Clone)]
pub struct Subscriber {
    requests: mpsc::Sender<Request>,
    delivers: Arc<AtomicBool>,
    trouble: LastError,
    proof: WriteCheck,
    filter: SharedFilter,
    broker: Broker,
    probes: Probes,
    /// Where sharded channels are heard.
    shards: Option<ShardSubscriber>,
}

/// Why the connection cannot be made just now, in words for the operator.
type LastError = Arc<Mutex<Option<BrokerError>>>;

impl Subscriber {
    /// Connects and stays connected until the token is cancelled. Events come out of the receiver. Also begins to
    /// look whether Redis does what commands need ([`Self::proof`]): a right that is missing is an error at once.
    pub async fn start(
        broker: &Broker,
        tracker: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<(Self, mpsc::Receiver<Event>), BrokerError> {
        let (requests, hear_requests) = mpsc::channel(REQUEST_QUEUE);
        let (events, hear_events) = mpsc::channel(EVENT_QUEUE);
        let delivers = Arc::new(AtomicBool::new(false));
        let (trouble, filter) = (LastError::default(), SharedFilter::default());
        let (name, probes) = (subscriber_name(), Probes::default());
        let mut owner = SubscriberTask {
            address: broker.client.discovery(),
            broker: broker.clone(),
            server: None,
            probes: probes.clone(),
            tracker: tracker.clone(),
            probe: probe_channel(&name),
            resource_probe: resource_probe_channel(&name),
            channels: BTreeSet::new(),
            patterns: BTreeSet::new(),
            by_pattern: PatternMessages::new(filter.clone()),
            requests: hear_requests,
            waiting: Vec::new(),
            events: events.clone(),
            lagging: false,
            lost: Vec::new(),
            stale: BTreeSet::new(),
            delivers: delivers.clone(),
            trouble: trouble.clone(),
        };
        let first = owner.open().await;
        let (first, _) = first.map_err(|error| BrokerError::of_connecting(&owner.address, &error))?;
        tracker.spawn(owner.run(first, stop.clone()));
        let proof = WriteCheck::start(broker.clone(), resource_probe_channel(&name), tracker, stop.clone()).await?;
        if broker.is_cluster() {
            tracker.spawn(stop.clone().run_until_cancelled_owned(broker.clone().keep_announcing_channels()));
        }
        let shards = (broker.heard == HeardChannels::Sharded)
            .then(|| ShardSubscriber::start(broker, &events, filter.clone(), tracker, &stop));
        if let Some(shards) = &shards {
            // A right that is missing is known at the start, and a server that is not heard from then on.
            shards.subscribe(&shards.divide(vec![resource_probe_channel(&name)]).0).await?;
        }
        let broker = broker.clone();
        Ok((Self { requests, delivers, trouble, proof, filter, broker, probes, shards }, hear_events))
    }

    /// Whether Redis does what commands need.
    pub fn proof(&self) -> &WriteCheck {
        &self.proof
    }

    /// From now on the probe is also about what is heard by a pattern, on a channel of the form of a resource's
    /// to which a script publishes: for those who serve whole tenants. Confirmed when it returns.
    /// Where nothing is published on plain channels, nobody could hear it.
    pub async fn probe_by_pattern(&self) -> Result<(), BrokerError> {
        if self.broker.client.published() == PublishedChannels::Sharded {
            return Ok(());
        }
        self.psubscribe(vec![RESOURCE_PROBE_PATTERN.to_owned()]).await
    }

    /// From now on only those messages come by patterns whose channel passes this. Set once; the others cost next to nothing.
    pub fn filter_patterns(&self, wants: ChannelFilter) {
        let _ = self.filter.set(wants);
    }

    /// Why it cannot connect just now.
    pub fn trouble(&self) -> Option<BrokerError> {
        self.trouble.lock().clone()
    }

    /// Subscribes and returns when Redis has confirmed. Many callers at once share one round trip.
    /// The caller counts references; subscribing twice is harmless.
    pub async fn subscribe(&self, channels: Vec<String>) -> Result<(), BrokerError> {
        self.ask(channels, false).await
    }

    /// As [`Self::subscribe`], for patterns.
    pub async fn psubscribe(&self, patterns: Vec<String>) -> Result<(), BrokerError> {
        self.ask(patterns, true).await
    }

    async fn ask(&self, names: Vec<String>, patterns: bool) -> Result<(), BrokerError> {
        let (sharded, channels) = self.divide(names);
        let in_shards = async {
            match &self.shards {
                Some(shards) => shards.subscribe(&sharded).await,
                None => Ok(()),
            }
        };
        let here = async {
            if channels.is_empty() {
                return Ok(());
            }
            let (done, wait) = oneshot::channel();
            let asked = confirmed(&self.requests, Request::Subscribe { channels, patterns, done }, wait).await;
            asked.map_err(|error| match error {
                late @ BrokerError::Unavailable(_) => self.trouble().unwrap_or(late),
                error => error,
            })
        };
        let (here, in_shards) = tokio::join!(here, in_shards);
        here.and(in_shards)
    }

    /// Unsubscribes after everything that was asked before. `false`: there is no room to ask just now.
    pub fn unsubscribe(&self, channels: Vec<String>) -> bool {
        self.give_up(channels, false)
    }

    /// As [`Self::unsubscribe`], for patterns.
    pub fn punsubscribe(&self, patterns: Vec<String>) -> bool {
        self.give_up(patterns, true)
    }

    fn give_up(&self, names: Vec<String>, patterns: bool) -> bool {
        let (sharded, channels) = self.divide(names);
        let is_asked = self.shards.as_ref().is_none_or(|shards| shards.unsubscribe(&sharded));
        is_asked && (channels.is_empty() || self.requests.try_send(Request::Unsubscribe { channels, patterns }).is_ok())
    }

    /// What is heard on sharded channels, and what on this connection.
    fn divide(&self, names: Vec<String>) -> (Vec<NamesHeard>, Vec<String>) {
        match &self.shards {
            Some(shards) => shards.divide(names),
            None => (Vec::new(), names),
        }
    }

    /// Whether a message published to itself was heard in the last few seconds: the truth behind `/readyz`.
    /// With sharded channels, also whether more than half of the partitions are heard.
    pub fn is_delivering(&self) -> bool {
        let is_heard = |shards: &ShardSubscriber| shards.unheard().len() * 2 < self.broker.keys().partitions().count();
        self.delivers.load(Ordering::Relaxed) && self.shards.as_ref().is_none_or(is_heard)
    }

    /// The partitions of whose tenants nothing may be heard just now, though their servers may be well: known sooner than the
    /// connection is given up.
    pub fn unheard_partitions(&self) -> Vec<Partition> {
        if let Some(shards) = &self.shards {
            return shards.unheard();
        }
        let servers = self.broker.client.servers().into_iter().map(|(name, _)| name);
        let unheard = self.probes.unheard(&servers.collect::<Vec<_>>());
        let is_unheard = |server: &Option<String>| server.as_ref().is_some_and(|server| unheard.contains(server));
        let of = self.broker.servers_of_partitions().into_iter();
        of.filter(|(_, server)| !self.is_delivering() || is_unheard(server)).map(|(partition, _)| partition).collect()
    }
}

struct Connection {
    sink: PubSubSink,
    stream: PubSubStream,
    /// To where.
    address: ConnectionAddr,
}

struct SubscriberTask {
    address: Arc<Discovery>,
    broker: Broker,
    /// In a cluster, the node that is connected to, or was tried last.
    server: Option<String>,
    probes: Probes,
    tracker: TaskTracker,
    probe: String,
    resource_probe: String,
    channels: BTreeSet<String>,
    patterns: BTreeSet<String>,
    by_pattern: PatternMessages,
    requests: mpsc::Receiver<Request>,
    /// Callers whose subscriptions are noted and not confirmed yet, with what they asked for: no more than one batch.
    waiting: Vec<(Vec<String>, Done)>,
    events: mpsc::Sender<Event>,
    /// The receiver has missed something and has not been told.
    lagging: bool,
    /// What may no longer be heard, and the receiver has not been told.
    lost: Vec<String>,
    /// Partitions of which messages may have been lost, and the receiver has not been told.
    stale: BTreeSet<Partition>,
    delivers: Arc<AtomicBool>,
    trouble: LastError,
}

impl SubscriberTask {
    /// A connection on which everything noted stands, but for what Redis does not permit (any more) and the program can do
    /// without: that is given back. Without any other the program is of no use, so that it is an error. In a cluster
    /// another node than the last one is asked.
    async fn open(&mut self) -> redis::RedisResult<(Connection, Refused)> {
        let chosen = self.broker.client.server_for_pubsub(self.server.as_deref());
        let within = if chosen.is_some() { NODE_TIMEOUT } else { ANSWER };
        let (name, server) = chosen.unzip();
        self.server = name;
        let connecting = async {
            let server = match server {
                Some(server) => server,
                None => self.address.resolve().await?,
            };
            let client = redis::Client::open(server)?;
            let address = client.get_connection_info().addr().clone();
            let (mut sink, stream) = client.get_async_pubsub().await?.split();
            sink.subscribe(&self.probe).await?;
            Ok((sink, stream, address))
        };
        let connected = tokio::time::timeout(within, connecting).await;
        let (mut sink, stream, address) = connected.unwrap_or_else(|_| Err(late()))?;
        let subscribing = async {
            let mut refused = Refused::default();
            for (known, patterns) in [(&self.channels, false), (&self.patterns, true)] {
                for some in chunks(known) {
                    refused.add(subscribe_permitted(&mut sink, &some, patterns).await?);
                }
            }
            match refused.names.iter().all(|name| is_dispensable(name)) {
                true => Ok(refused),
                false => Err(refused.error.unwrap_or_else(late)),
            }
        };
        let refused = tokio::time::timeout(ANSWER, subscribing).await.unwrap_or_else(|_| Err(late()))?;
        Ok((Connection { sink, stream, address }, refused))
    }

    async fn run(mut self, first: Connection, stop: CancellationToken) {
        let mut connection = first;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.serve(&mut connection) => {}
            }
            self.delivers.store(false, Ordering::Relaxed);
            self.broker.former_programs.stop_listening();
            tracing::warn!("redis.subscriber_disconnected");
            let mut wait = Duration::from_millis(20);
            let refused;
            (connection, refused) = loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    opened = self.open() => match opened {
                        Ok(opened) => break opened,
                        Err(error) => self.note_trouble(BrokerError::of_connecting(&self.address, &error)),
                    }
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(wait.mul_f64(0.5 + fastrand::f64())) => {}
                }
                wait = (wait * 2).min(Duration::from_millis(400));
            };
            tracing::info!("redis.subscriber_connected");
            *self.trouble.lock() = None;
            let callers: Vec<String> = self.waiting.iter().flat_map(|(names, _)| names.clone()).collect();
            self.lost.extend(refused.names.iter().filter(|name| !callers.contains(name)).cloned());
            self.confirm(refused);
            self.lagging = true;
            self.report_gap();
        }
    }

    /// Said once for each reason, and not for each of many tries.
    fn note_trouble(&self, error: BrokerError) {
        let mut trouble = self.trouble.lock();
        if trouble.as_ref().is_none_or(|known| known.to_string() != error.to_string()) {
            tracing::warn!(%error, "redis.subscriber_reconnect_failed");
        }
        *trouble = Some(error);
    }

    /// Until the connection is lost, or is to be left for one to another server.
    async fn serve(&mut self, Connection { sink, stream, address }: &mut Connection) {
        let (client, discovery) = (self.broker.client.clone(), self.address.clone());
        let mut deposed = std::pin::pin!(discovery.is_deposed(address));
        let is_cluster = client.is_cluster();
        let silent = until_silent(sink.clone());
        tokio::pin!(silent);
        let (mut turn, mut next_probe, mut gap_told) = (0, tokio::time::Instant::now(), Instant::now());
        let (mut changes, mut servers) = (None, self.broker.servers_of_partitions());
        self.probes.reset();
        let mut heard = Instant::now();
        // By the pattern; nothing yet on this connection.
        let mut heard_by_pattern: Option<Instant> = None;
        let mut batch = Vec::new();
        let mut asked = true;
        loop {
            tokio::select! {
                message = stream.next() => {
                    let Some(message) = message else { return };
                    let channel = message.get_channel_name();
                    if channel == self.resource_probe {
                        heard_by_pattern = Some(Instant::now());
                        self.broker.former_programs.note_listening();
                        continue;
                    }
                    if channel == self.probe {
                        heard = Instant::now();
                        let server = std::str::from_utf8(message.get_payload_bytes()).unwrap_or_default();
                        if self.probes.heard(server) {
                            self.note_stale([server.to_owned()].as_slice());
                        }
                        if client.published() == PublishedChannels::Sharded {
                            // No program of the version before hears anything of this one, so that none can run beside it.
                            self.broker.former_programs.note_listening();
                        }
                        let by_pattern = heard_by_pattern.is_some_and(|heard| heard.elapsed() < PROBE_TIMEOUT);
                        let delivers = by_pattern || !self.patterns.contains(RESOURCE_PROBE_PATTERN);
                        self.delivers.store(delivers, Ordering::Relaxed);
                        self.report_gap();
                        continue;
                    }
                    if let Some(IsFormer(is_former)) = read_resource_probe_channel(channel) {
                        if is_former {
                            self.broker.former_programs.note_heard();
                        }
                        continue;
                    }
                    let by_pattern = message.from_pattern();
                    let payload = match by_pattern {
                        true => self.by_pattern.take(&message),
                        false => Some(bytes::Bytes::copy_from_slice(message.get_payload_bytes())),
                    };
                    let Some(payload) = payload else { continue };
                    let event = Event::Message { channel: channel.to_owned(), payload, by_pattern };
                    if self.events.try_send(event).is_err() {
                        self.lagging = true;
                    }
                }
                count = self.requests.recv_many(&mut batch, 512), if asked => {
                    // Zero: every handle is gone. What is subscribed goes on, until `stop`.
                    asked = count > 0;
                    let answered = tokio::select! {
                        answered = self.answer(sink, &mut batch) => answered.is_ok(),
                        // What was asked is noted, and the next connection begins with it.
                        () = &mut silent, if is_cluster => false,
                    };
                    if !answered {
                        return;
                    }
                }
                // What is published from now on is published at another master.
                () = &mut deposed => return,
                () = &mut silent, if is_cluster => return,
                () = client.changed(&mut changes) => {
                    // What the former server of a partition said last may have been heard by nobody.
                    let before = std::mem::replace(&mut servers, self.broker.servers_of_partitions());
                    let moved = before.iter().zip(&servers).filter(|(before, now)| before != now);
                    self.note_stale_partitions(moved.map(|(_, (partition, _))| *partition));
                    self.report_gap();
                    if self.is_isolated() {
                        return;
                    }
                }
                () = tokio::time::sleep_until(next_probe) => {
                    if heard.elapsed() > PROBE_TIMEOUT || self.hears_nobody_else() {
                        return;
                    }
                    if gap_told.elapsed() >= GAP_INTERVAL {
                        gap_told = Instant::now();
                        let names: Vec<String> = client.servers().into_iter().map(|(name, _)| name).collect();
                        let unheard = if is_cluster { self.probes.unheard(&names) } else { Vec::new() };
                        self.note_stale(&unheard);
                        self.report_gap();
                    }
                    turn += 1;
                    let (server, pause) = Probes::next(&client, turn);
                    next_probe = tokio::time::Instant::now() + pause;
                    if let Some((name, node)) = server {
                        // Beside this loop, which must keep reading; it ends within the client's time for an answer.
                        self.tracker.spawn(self.probes.clone().publish(name, node, self.probe.clone()));
                    }
                }
            }
        }
    }

    /// Whether the node that is connected to is cut off from the others of its cluster.
    fn is_isolated(&self) -> bool {
        self.server.as_deref().is_some_and(|server| self.broker.client.is_isolated(server))
    }

    /// Whether nothing comes through that is published at any other node of the cluster: then it is this one that is cut off.
    fn hears_nobody_else(&self) -> bool {
        let Some(own) = &self.server else { return false };
        let servers = self.broker.client.servers().into_iter().map(|(name, _)| name);
        let others: Vec<String> = servers.filter(|name| name != own).collect();
        self.is_isolated() || (!others.is_empty() && self.probes.unheard(&others).len() == others.len())
    }

    /// Messages may have been lost that are about tenants of the partitions of these servers.
    fn note_stale(&mut self, servers: &[String]) {
        if servers.is_empty() || !self.broker.is_cluster() {
            return;
        }
        let of = self.broker.servers_of_partitions().into_iter();
        let stale = of.filter(|(_, server)| server.as_ref().is_some_and(|server| servers.contains(server)));
        self.note_stale_partitions(stale.map(|(partition, _)| partition));
    }

    /// The same of these partitions. What comes on sharded channels is not lost here: each partition tells of its own gaps.
    fn note_stale_partitions(&mut self, partitions: impl Iterator<Item = Partition>) {
        if self.broker.heard == HeardChannels::Plain {
            self.stale.extend(partitions);
        }
    }

    /// Carries requests out in their order. What is wanted is noted first: if the connection is lost on the
    /// way, the next one begins with what was noted, and its callers are told then.
    async fn answer(&mut self, sink: &mut PubSubSink, batch: &mut Vec<Request>) -> redis::RedisResult<()> {
        let steps = self.note(batch);
        let mut refused = Refused::default();
        let sending = async {
            for step in &steps {
                match step {
                    LoopStep::Subscribe(names) => refused.add(subscribe_permitted(sink, names, false).await?),
                    LoopStep::SubscribePatterns(names) => refused.add(subscribe_permitted(sink, names, true).await?),
                    LoopStep::Unsubscribe(names) => sink.unsubscribe(names).await?,
                    LoopStep::UnsubscribePatterns(names) => sink.punsubscribe(names).await?,
                }
            }
            Ok(())
        };
        tokio::time::timeout(ANSWER, sending).await.unwrap_or_else(|_| Err(late()))?;
        self.confirm(refused);
        Ok(())
    }

    /// Brings the sets up to date; gives the commands that bring the connection up to date, neighbours of one
    /// kind as one.
    fn note(&mut self, batch: &mut Vec<Request>) -> Vec<LoopStep> {
        let mut steps: Vec<LoopStep> = Vec::new();
        for request in batch.drain(..) {
            match request {
                // Its caller has given up, and was told that nothing is subscribed.
                Request::Subscribe { done, .. } if done.is_closed() => {}
                Request::Subscribe { channels, patterns, done } => {
                    self.waiting.push((channels.clone(), done));
                    let known = if patterns { &mut self.patterns } else { &mut self.channels };
                    let new = channels.into_iter().filter(|name| known.insert(name.clone()));
                    let new: Vec<String> = new.collect();
                    match steps.last_mut() {
                        _ if new.is_empty() => {}
                        Some(LoopStep::SubscribePatterns(names)) if patterns => names.extend(new),
                        Some(LoopStep::Subscribe(names)) if !patterns => names.extend(new),
                        _ if patterns => steps.push(LoopStep::SubscribePatterns(new)),
                        _ => steps.push(LoopStep::Subscribe(new)),
                    }
                }
                Request::Unsubscribe { channels, patterns } => {
                    let known = if patterns { &mut self.patterns } else { &mut self.channels };
                    let gone: Vec<String> = channels.into_iter().filter(|name| known.remove(name)).collect();
                    match steps.last_mut() {
                        _ if gone.is_empty() => {}
                        Some(LoopStep::UnsubscribePatterns(names)) if patterns => names.extend(gone),
                        Some(LoopStep::Unsubscribe(names)) if !patterns => names.extend(gone),
                        _ if patterns => steps.push(LoopStep::UnsubscribePatterns(gone)),
                        _ => steps.push(LoopStep::Unsubscribe(gone)),
                    }
                }
            }
        }
        steps
    }

    /// Everything noted stands at Redis, but for what it refused. That is forgotten: asked for again with each new
    /// connection it would keep everything else from being heard for ever.
    fn confirm(&mut self, refused: Refused) {
        for name in &refused.names {
            self.channels.remove(name);
            self.patterns.remove(name);
        }
        let error = refused.error.map(BrokerError::from);
        if let Some(error) = &error {
            tracing::warn!(%error, names = ?refused.names, "redis.subscription_denied");
        }
        for (names, done) in self.waiting.drain(..) {
            let denied = error.clone().filter(|_| names.iter().any(|name| refused.names.contains(name)));
            let _ = done.send(denied.map_or(Ok(()), Err)); // A caller that gave up meanwhile need not know.
        }
    }

    fn report_gap(&mut self) {
        if !self.lost.is_empty() && self.events.try_send(Event::Denied(self.lost.clone())).is_ok() {
            self.lost.clear();
        }
        if self.lagging && self.events.try_send(Event::Gap).is_ok() {
            self.lagging = false;
            self.stale.clear();
        }
        let stale = self.stale.iter().copied().collect::<Vec<_>>();
        if !stale.is_empty() && self.events.try_send(Event::PartitionGap(stale)).is_ok() {
            self.stale.clear();
        }
    }
}

/// Ends when the server does not answer any more.
async fn until_silent(mut sink: PubSubSink) {
    loop {
        tokio::time::sleep(PING_INTERVAL).await;
        let answered = tokio::time::timeout(PING_TIMEOUT, sink.ping::<redis::Value>()).await;
        if !matches!(answered, Ok(Ok(_))) {
            return;
        }
    }
}

fn late() -> redis::RedisError {
    (redis::ErrorKind::Io, "no answer to SUBSCRIBE in time").into()
}

fn chunks(names: &BTreeSet<String>) -> Vec<Vec<String>> {
    let all: Vec<String> = names.iter().cloned().collect();
    all.chunks(500).map(<[_]>::to_vec).collect()
}
