//! A Redis Cluster: one [`Connection`] for each master, and which of them has which slot.
//!
//! A command is sent again only after an answer that says that nothing was done; what was sent and not answered is the
//! caller's business, as with one server. The client library's own cluster connection does not keep to that
//! (`docs/decisions/0006-cluster-client.md`).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::{Cmd, ConnectionInfo, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::sync::{Notify, watch};

use super::connection::{Connection, not_connected};
use super::discovery::{self, Discovery};
use super::error::BrokerError;
use super::slots::{self, SlotOwner, SlotRange};
use super::topology::{self, Topology, View};
use super::waits::Waits;

/// How long a command is sent after its slot (MOVED, ASK), or waits for one that is on its way (TRYAGAIN) or for
/// the cluster to come to its senses (CLUSTERDOWN).
const REDIRECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Between two looks at the slots while all is well, and while something is amiss.
const SLOTS_INTERVAL: Duration = Duration::from_secs(1);
const SLOTS_RETRY_DELAY: Duration = Duration::from_millis(100);

/// What to do where keys of a call are on two masters, because their slot is just moved.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OnTryAgain {
    /// Send it again for a while.
    Wait,
    /// Say so: the caller can divide it.
    Tell,
}

/// A handle; cheap to clone.
#[derive(Clone)]
pub(super) struct Cluster {
    shared: Arc<ClusterShared>,
}

struct ClusterShared {
    /// The nodes in `redis.url`: for the start, and for when no other is left.
    seeds: Vec<ConnectionInfo>,
    waits: Waits,
    map: watch::Sender<SlotMap>,
    /// How often the map has changed, for those who only want to know that it has.
    changes: watch::Sender<u64>,
    /// Something was seen that the map does not say.
    stale: Arc<Notify>,
    /// Slots that nobody serves, each since when. Whoever comes later does not wait until somebody does.
    unserved: Mutex<HashMap<u16, Instant>>,
    /// There are such slots: else the lock is not taken.
    has_unserved: AtomicBool,
}

/// Which slots are where. Never without a master.
#[derive(Clone, Default)]
struct SlotMap {
    masters: HashMap<SlotOwner, Connection>,
    ranges: Vec<SlotRange>,
    /// What MOVED told since the last look.
    moved: BTreeMap<u16, SlotOwner>,
    /// Nodes that are cut off from most others: what is published there is heard by nobody else.
    isolated: HashSet<SlotOwner>,
}

impl SlotMap {
    fn of(&self, slot: u16) -> Option<(SlotOwner, Connection)> {
        let range = || self.ranges.iter().find(|range| range.slots.contains(&slot)).map(|range| &range.master);
        let place = self.moved.get(&slot).or_else(range)?;
        self.masters.get_key_value(place).map(|(place, node)| (place.clone(), node.clone()))
    }

    /// Every master that is connected, in any order.
    fn connected(&self) -> Vec<(SlotOwner, Connection)> {
        let mut up: Vec<_> =
            self.masters.iter().filter(|(_, node)| node.is_up()).map(|(p, n)| (p.clone(), n.clone())).collect();
        fastrand::shuffle(&mut up);
        up
    }

    /// Those of them that the others hear; all, where that is none.
    fn up(&self) -> Vec<(SlotOwner, Connection)> {
        let (isolated, up): (Vec<_>, Vec<_>) =
            self.connected().into_iter().partition(|(place, _)| self.isolated.contains(place));
        if up.is_empty() { isolated } else { up }
    }
}

impl Cluster {
    /// Asks the seeds (at least one) for the slots, connects to every master, and checks each.
    pub(super) async fn connect(seeds: Vec<ConnectionInfo>, waits: Waits) -> Result<Self, BrokerError> {
        let found = topology::merge(vec![view_of_seeds(&seeds).await?]);
        let shared = ClusterShared {
            seeds,
            waits,
            map: watch::Sender::new(SlotMap::default()),
            changes: watch::Sender::new(0),
            stale: Arc::new(Notify::new()),
            unserved: Mutex::default(),
            has_unserved: AtomicBool::new(false),
        };
        let places: BTreeSet<&SlotOwner> = found.ranges.iter().map(|range| &range.master).collect();
        let connected = join_all(places.into_iter().map(async |place| {
            let address = Discovery::Single(Box::new(shared.at(place)));
            let node = match Connection::connect(address.clone(), waits).await {
                // One shard that is away is no reason not to serve the others: it is connected to as soon as it is back.
                Err(BrokerError::Unavailable(_) | BrokerError::NotServing(_) | BrokerError::Unknown(_)) => {
                    Connection::start(address, waits)
                }
                node => node?,
            };
            Ok::<_, BrokerError>((place.clone(), node))
        }));
        let masters = connected.await.into_iter().collect::<Result<_, _>>()?;
        shared.map.send_replace(SlotMap { masters, ..SlotMap::default() });
        shared.apply(found);
        let shared = Arc::new(shared);
        // Not in a TaskTracker: it ends by itself soon after the last handle is gone.
        tokio::spawn(run_slot_refresh(Arc::downgrade(&shared), shared.stale.clone()));
        Ok(Self { shared })
    }

    /// Whether any master is believed to be up.
    pub(super) fn is_up(&self) -> bool {
        self.shared.map.borrow().masters.values().any(Connection::is_up)
    }

    /// Waits until the master that has this key is connected, at most so long.
    pub(super) async fn wait_up(&self, key: &str, within: Duration) -> bool {
        let (slot, mut map) = (slots::slot_of_key(key.as_bytes()), self.shared.map.subscribe());
        let wait = async {
            loop {
                let master = map.borrow_and_update().of(slot);
                tokio::select! {
                    true = async { match &master { Some((_, node)) => node.wait_up(within).await, None => false } } => return true,
                    changed = map.changed() => if changed.is_err() { return false },
                }
            }
        };
        tokio::time::timeout(within, wait).await.unwrap_or(false)
    }

    /// Whether more than half of the masters answer that the cluster is up, each asked by itself.
    pub(super) async fn ping(&self) -> Result<(), BrokerError> {
        let masters: Vec<Connection> = self.shared.map.borrow().masters.values().cloned().collect();
        let answers = join_all(masters.iter().map(slots::cluster_is_up)).await;
        let serving = answers.iter().filter(|answer| matches!(answer, Ok(true))).count();
        if serving * 2 > masters.len() {
            return Ok(());
        }
        let error = answers.into_iter().find_map(Result::err).map(BrokerError::from);
        let down = || BrokerError::NotServing("CLUSTERDOWN the cluster says that it is down".to_owned());
        Err(error.unwrap_or_else(down))
    }

    /// Sends a command to the master of its first key, and follows it where that has gone. One without a key goes
    /// to any master.
    pub(super) async fn send(&self, command: &Cmd) -> RedisResult<Value> {
        self.send_held(command, None, OnTryAgain::Wait).await
    }

    /// The same, and does not wait for a slot that is on its way to another master.
    pub(super) async fn send_at_once(&self, command: &Cmd) -> RedisResult<Value> {
        self.send_held(command, None, OnTryAgain::Tell).await
    }

    /// The same, and holds the answer until replicas of that master have what it speaks of. `key`: the first of the command.
    pub(super) async fn send_replicated(&self, command: &Cmd, key: &str) -> RedisResult<Value> {
        self.send_held(command, Some(key), OnTryAgain::Wait).await
    }

    async fn send_held(&self, command: &Cmd, held_for: Option<&str>, on_try_again: OnTryAgain) -> RedisResult<Value> {
        let Some(slot) = slots::slot_of_command(command) else {
            let any = self.shared.map.borrow().up().into_iter().next();
            return match any {
                Some((_, node)) => node.send(command, false).await,
                None => Err(not_connected()),
            };
        };
        let (begun, mut redirected, mut asking) = (Instant::now(), false, None);
        loop {
            let is_asking = asking.is_some();
            let Some((place, node)) = asking.take().or_else(|| self.shared.map.borrow().of(slot)) else {
                self.shared.stale.notify_one();
                return Err(not_connected());
            };
            let answer = match held_for {
                Some(key) => node.send_replicated(command, is_asking, key).await,
                None => node.send(command, is_asking).await,
            };
            let error = match answer {
                Ok(answer) => {
                    self.shared.note_served(slot);
                    return Ok(answer);
                }
                Err(error) => error,
            };
            self.shared.stale.notify_one();
            let left = REDIRECT_TIMEOUT.saturating_sub(begun.elapsed());
            let pause = tokio::time::sleep(Duration::from_millis(fastrand::u64(20..60)));
            match (error.kind(), node_at(&error, &place)) {
                (ErrorKind::Server(ServerErrorKind::Moved), Some(to)) => {
                    // Two that send it to each other must not be asked as fast as they can answer.
                    if redirected {
                        pause.await;
                    }
                    redirected = true;
                    self.apply_slots(&to, Some(slot)).wait_up(left).await;
                }
                (ErrorKind::Server(ServerErrorKind::Ask), Some(to)) => {
                    let node = self.apply_slots(&to, None);
                    node.wait_up(left).await;
                    asking = Some((to, node));
                }
                (ErrorKind::Server(ServerErrorKind::TryAgain), _) if on_try_again == OnTryAgain::Wait => pause.await,
                (ErrorKind::Server(ServerErrorKind::ClusterDown), _) => {
                    // One waits until somebody serves the slot; all that come later would wait in vain, and others for them.
                    if self.shared.unserved_for(slot) >= REDIRECT_TIMEOUT {
                        return Err(error);
                    }
                    pause.await;
                }
                _ => return Err(error),
            }
            if begun.elapsed() >= REDIRECT_TIMEOUT {
                return Err(error);
            }
        }
    }

    /// The node that another one named; with the slot that has moved there.
    fn apply_slots(&self, place: &SlotOwner, moved: Option<u16>) -> Connection {
        let known = self.shared.map.borrow().masters.get(place).cloned();
        let node = known.unwrap_or_else(|| self.shared.start(place));
        self.shared.map.send_modify(|map| {
            map.masters.insert(place.clone(), node.clone());
            map.moved.extend(moved.map(|slot| (slot, place.clone())));
        });
        node
    }

    /// The master of a key, where one is known.
    pub(super) fn node(&self, key: &str) -> Option<Connection> {
        self.shared.map.borrow().of(slots::slot_of_key(key.as_bytes())).map(|(_, node)| node)
    }

    /// Masters that are up and have no append-only file.
    pub(super) fn without_append_only_file(&self) -> Vec<String> {
        let up = self.shared.map.borrow().up();
        up.iter().filter_map(|(_, node)| node.without_append_only_file()).collect()
    }

    /// A master that the others hear, another one than `but` where there is one.
    pub(super) fn server_for_pubsub(&self, but: Option<&str>) -> Option<(String, ConnectionInfo)> {
        let up = self.shared.map.borrow().up();
        let other = up.iter().find(|(place, _)| Some(place.to_string().as_str()) != but);
        other.or(up.first()).map(|(place, _)| (place.to_string(), self.shared.at(place)))
    }

    /// Where the master of a key is, in the words of the cluster; `None`: no master is known.
    pub(super) fn server_of(&self, key: &str) -> Option<String> {
        self.shared.map.borrow().of(slots::slot_of_key(key.as_bytes())).map(|(place, _)| place.to_string())
    }

    /// The master of a key, by its name and where it is; `None`: no master is known.
    pub(super) fn address_of(&self, key: &str) -> Option<(String, ConnectionInfo)> {
        let (place, _) = self.shared.map.borrow().of(slots::slot_of_key(key.as_bytes()))?;
        Some((place.to_string(), self.shared.at(&place)))
    }

    /// Whether a node is cut off from most others.
    pub(super) fn is_isolated(&self, server: &str) -> bool {
        self.shared.map.borrow().isolated.iter().any(|place| place.to_string() == server)
    }

    /// Every connected master, always in the same order.
    pub(super) fn connected(&self) -> Vec<(String, Connection)> {
        let connected = self.shared.map.borrow().connected();
        let by_name: BTreeMap<String, Connection> =
            connected.into_iter().map(|(place, node)| (place.to_string(), node)).collect();
        by_name.into_iter().collect()
    }

    /// Hears when another master has some slots, or other nodes are isolated.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }
}

impl ClusterShared {
    /// All nodes have user, password and TLS in common.
    fn at(&self, place: &SlotOwner) -> ConnectionInfo {
        discovery::at(&self.seeds[0], &place.host, place.port)
    }

    fn start(&self, place: &SlotOwner) -> Connection {
        Connection::start(Discovery::Single(Box::new(self.at(place))), self.waits)
    }

    /// Takes over what a look at the cluster has found. Connections to masters that are still there stay.
    fn apply(&self, found: Topology) {
        let Topology { ranges, isolated } = found;
        let is_known = {
            let map = self.map.borrow();
            map.ranges == ranges && map.isolated == isolated && map.moved.is_empty()
        };
        if is_known {
            return;
        }
        let names: Vec<String> = isolated.iter().map(ToString::to_string).collect();
        tracing::info!(isolated = ?names, "redis.cluster_changed");
        self.map.send_modify(|map| {
            let mut masters = HashMap::new();
            for range in &ranges {
                let known = || map.masters.get(&range.master).cloned().unwrap_or_else(|| self.start(&range.master));
                masters.entry(range.master.clone()).or_insert_with(known);
            }
            *map = SlotMap { masters, ranges, moved: BTreeMap::new(), isolated };
        });
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Asks every master that is connected, and the seeds where none is: each by itself, so that a hung one costs no more
    /// than the others' time for an answer.
    async fn views(&self) -> Result<Vec<View>, BrokerError> {
        let connected = self.map.borrow().connected();
        let asked = connected.iter().map(|(place, node)| topology::view(node, place));
        let views: Vec<View> = join_all(asked).await.into_iter().filter_map(Result::ok).collect();
        if views.is_empty() { Ok(vec![view_of_seeds(&self.seeds).await?]) } else { Ok(views) }
    }

    /// What changes when anything of the cluster does; `None`: somebody did not say, so all are to be asked.
    async fn fingerprint(&self) -> Option<Vec<(SlotOwner, String)>> {
        let connected = self.map.borrow().connected();
        let asked = connected.iter().map(|(_, node)| topology::fingerprint(node));
        let said: Option<Vec<String>> = join_all(asked).await.into_iter().map(Result::ok).collect();
        let mut all: Vec<_> = connected.iter().map(|(place, _)| place.clone()).zip(said?).collect();
        all.sort();
        Some(all)
    }

    /// For how long nobody has served a slot, from the first who noticed.
    fn unserved_for(&self, slot: u16) -> Duration {
        let mut unserved = self.unserved.lock();
        self.has_unserved.store(true, Ordering::Relaxed);
        unserved.entry(slot).or_insert_with(Instant::now).elapsed()
    }

    fn note_served(&self, slot: u16) {
        if self.has_unserved.load(Ordering::Relaxed) {
            let mut unserved = self.unserved.lock();
            unserved.remove(&slot);
            self.has_unserved.store(!unserved.is_empty(), Ordering::Relaxed);
        }
    }
}

/// Asks one node after the other for its view.
async fn view_of_seeds(seeds: &[ConnectionInfo]) -> Result<View, BrokerError> {
    let mut order: Vec<&ConnectionInfo> = seeds.iter().collect();
    fastrand::shuffle(&mut order);
    let mut last = BrokerError::Unavailable("no node to ask".to_owned());
    for seed in order {
        let asked = async {
            let node = Connection::connect(Discovery::Single(Box::new(seed.clone())), Waits::default()).await?;
            let of = SlotOwner { host: discovery::host(seed).to_owned(), port: discovery::port(seed) };
            topology::view(&node, &of).await.map_err(|error| match error.to_string() {
                text if text.contains("cluster support disabled") => BrokerError::Refused(format!(
                    "{} is not a node of a cluster: write redis:// in redis.url, not redis+cluster://",
                    seed.addr()
                )),
                _ => BrokerError::of_connecting(seed.addr(), &error),
            })
        };
        match asked.await {
            Ok(view) => return Ok(view),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Keeps the map true, until nobody holds the cluster any more. While all is well the nodes are asked only whether anything
/// has changed.
async fn run_slot_refresh(shared: Weak<ClusterShared>, stale: Arc<Notify>) {
    let mut known = None;
    loop {
        let Some(held) = shared.upgrade() else { return };
        let all_up = held.map.borrow().masters.values().all(Connection::is_up);
        drop(held);
        // However much is amiss, no more often than this.
        tokio::time::sleep(SLOTS_RETRY_DELAY).await;
        let is_calm = all_up && tokio::time::timeout(SLOTS_INTERVAL, stale.notified()).await.is_err();
        let Some(held) = shared.upgrade() else { return };
        let now = held.fingerprint().await;
        if is_calm && now.is_some() && now == known {
            continue;
        }
        match held.views().await {
            Ok(views) => {
                held.apply(topology::merge(views));
                known = now;
            }
            Err(error) => tracing::debug!(%error, "redis.cluster_not_seen"),
        }
    }
}

/// The node that MOVED or ASK names, in the words of the node at `from`.
fn node_at(error: &RedisError, from: &SlotOwner) -> Option<SlotOwner> {
    let (place, _) = error.redirect_node()?;
    let (host, port) = place.rsplit_once(':')?;
    Some(SlotOwner { host: slots::host_or_default(host, &from.host), port: port.parse().ok()? })
}
