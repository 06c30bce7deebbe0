//! A Redis Cluster: one [`Connection`] for each master, and which of them has which slot.
//!
//! A command is sent again only after an answer that says that nothing was done; what was sent and not answered is the
//! caller's business, as with one server. The client library's own cluster connection does not keep to that
//! (`docs/decisions/0006-cluster-client.md`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::future::{join_all, select_ok};
use redis::{Cmd, ConnectionInfo, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::sync::{Notify, watch};

use super::connection::{Connection, not_connected};
use super::discovery::{self, Discovery};
use super::error::BrokerError;
use super::slots::{self, SlotOwner, SlotRange};

/// How long a command is sent after its slot (MOVED, ASK), or waits for one that is on its way (TRYAGAIN) or for
/// the cluster to come to its senses (CLUSTERDOWN).
const REDIRECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Between two looks at the slots while all is well, and while something is amiss.
const SLOTS_INTERVAL: Duration = Duration::from_secs(1);
const SLOTS_RETRY_DELAY: Duration = Duration::from_millis(100);

/// A handle; cheap to clone.
#[derive(Clone)]
pub(super) struct Cluster {
    shared: Arc<ClusterShared>,
}

struct ClusterShared {
    /// The nodes in `redis.url`: for the start, and for when no other is left.
    seeds: Vec<ConnectionInfo>,
    map: watch::Sender<SlotMap>,
    /// Something was seen that the map does not say.
    stale: Arc<Notify>,
}

/// Which slots are where. Never without a master.
#[derive(Clone, Default)]
struct SlotMap {
    masters: HashMap<SlotOwner, Connection>,
    ranges: Vec<SlotRange>,
    /// What MOVED told since the last look.
    moved: BTreeMap<u16, SlotOwner>,
}

impl SlotMap {
    fn of(&self, slot: u16) -> Option<(SlotOwner, Connection)> {
        let range = || self.ranges.iter().find(|range| range.slots.contains(&slot)).map(|range| &range.master);
        let place = self.moved.get(&slot).or_else(range)?;
        self.masters.get_key_value(place).map(|(place, node)| (place.clone(), node.clone()))
    }

    fn up(&self) -> Vec<(SlotOwner, Connection)> {
        let mut up: Vec<_> =
            self.masters.iter().filter(|(_, node)| node.is_up()).map(|(p, n)| (p.clone(), n.clone())).collect();
        fastrand::shuffle(&mut up);
        up
    }
}

impl Cluster {
    /// Asks the seeds (at least one) for the slots, connects to every master, and checks each.
    pub(super) async fn connect(seeds: Vec<ConnectionInfo>) -> Result<Self, BrokerError> {
        let ranges = fetch_slots_from_seeds(&seeds).await?;
        let shared =
            ClusterShared { seeds, map: watch::Sender::new(SlotMap::default()), stale: Arc::new(Notify::new()) };
        let places: BTreeSet<&SlotOwner> = ranges.iter().map(|range| &range.master).collect();
        let connected = join_all(places.into_iter().map(async |place| {
            let node = Connection::connect(Discovery::Single(Box::new(shared.at(place)))).await?;
            Ok::<_, BrokerError>((place.clone(), node))
        }));
        let masters = connected.await.into_iter().collect::<Result<_, _>>()?;
        shared.map.send_replace(SlotMap { masters, ranges, moved: BTreeMap::new() });
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

    /// Whether any master answers that the cluster is up.
    pub(super) async fn ping(&self) -> Result<(), BrokerError> {
        let up = self.shared.map.borrow().up();
        let asked: Vec<_> = up.iter().map(|(_, node)| Box::pin(slots::cluster_is_up(node))).collect();
        if asked.is_empty() {
            return Err(not_connected().into());
        }
        match select_ok(asked).await? {
            (true, _) => Ok(()),
            (false, _) => Err(BrokerError::NotServing("CLUSTERDOWN the cluster says that it is down".to_owned())),
        }
    }

    /// Sends a command to the master of its first key, and follows it where that has gone. One without a key goes
    /// to any master.
    pub(super) async fn send(&self, command: &Cmd) -> RedisResult<Value> {
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
            let error = match node.send(command, is_asking).await {
                Ok(answer) => return Ok(answer),
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
                (ErrorKind::Server(ServerErrorKind::TryAgain | ServerErrorKind::ClusterDown), _) => pause.await,
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

    /// Any master that is up.
    pub(super) fn any_server(&self) -> Option<ConnectionInfo> {
        let up = self.shared.map.borrow().up();
        up.first().map(|(place, _)| self.shared.at(place))
    }
}

impl ClusterShared {
    /// All nodes have user, password and TLS in common.
    fn at(&self, place: &SlotOwner) -> ConnectionInfo {
        discovery::at(&self.seeds[0], &place.host, place.port)
    }

    fn start(&self, place: &SlotOwner) -> Connection {
        Connection::start(Discovery::Single(Box::new(self.at(place))))
    }

    /// Takes over what a look at the slots has found. Connections to masters that are still there stay.
    fn slots_changed(&self, ranges: Vec<SlotRange>) {
        self.map.send_modify(|map| {
            let mut masters = HashMap::new();
            for range in &ranges {
                let known = || map.masters.get(&range.master).cloned().unwrap_or_else(|| self.start(&range.master));
                masters.entry(range.master.clone()).or_insert_with(known);
            }
            *map = SlotMap { masters, ranges, moved: BTreeMap::new() };
        });
    }

    /// Asks the masters that are up, and the seeds where none is. A master that is cut off from the others
    /// believes what was true once, so one that says that its cluster is up goes before.
    async fn fetch_slots(&self) -> Result<Vec<SlotRange>, BrokerError> {
        let up = self.map.borrow().up();
        let mut doubtful = None;
        for (place, node) in up {
            let (Ok(is_up), Ok(ranges)) = (slots::cluster_is_up(&node).await, slots::ask(&node, &place.host).await)
            else {
                continue;
            };
            if is_up {
                return Ok(ranges);
            }
            doubtful.get_or_insert(ranges);
        }
        match doubtful {
            Some(ranges) => Ok(ranges),
            None => fetch_slots_from_seeds(&self.seeds).await,
        }
    }
}

/// Asks one node after the other for the slots.
async fn fetch_slots_from_seeds(seeds: &[ConnectionInfo]) -> Result<Vec<SlotRange>, BrokerError> {
    let mut order: Vec<&ConnectionInfo> = seeds.iter().collect();
    fastrand::shuffle(&mut order);
    let mut last = BrokerError::Unavailable("no node to ask".to_owned());
    for seed in order {
        let asked = async {
            let node = Connection::connect(Discovery::Single(Box::new(seed.clone()))).await?;
            let host = discovery::host(seed);
            slots::ask(&node, host).await.map_err(|error| match error.to_string() {
                text if text.contains("cluster support disabled") => BrokerError::Refused(format!(
                    "{} is not a node of a cluster: write redis:// in redis.url, not redis+cluster://",
                    seed.addr()
                )),
                _ => BrokerError::of_connecting(seed.addr(), &error),
            })
        };
        match asked.await {
            Ok(ranges) => return Ok(ranges),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Keeps the map true, until nobody holds the cluster any more.
async fn run_slot_refresh(shared: Weak<ClusterShared>, stale: Arc<Notify>) {
    loop {
        let Some(held) = shared.upgrade() else { return };
        let all_up = held.map.borrow().masters.values().all(Connection::is_up);
        drop(held);
        // However much is amiss, no more often than this.
        tokio::time::sleep(SLOTS_RETRY_DELAY).await;
        if all_up {
            let _ = tokio::time::timeout(SLOTS_INTERVAL, stale.notified()).await;
        }
        let Some(held) = shared.upgrade() else { return };
        match held.fetch_slots().await {
            Ok(ranges) => held.slots_changed(ranges),
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
