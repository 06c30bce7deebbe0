//! What the nodes of a Redis Cluster say of their cluster, and what follows from all of it together.
//!
//! No node is believed alone: one that is cut off from the others answers as well as ever, and goes on saying what was
//! true once. Of two nodes that both claim a slot the one with the higher configuration epoch has it, by the rule of Redis
//! Cluster itself, so a view from before a failover loses against one from after it, whoever answers first. A node that
//! most others miss, or that says of itself that it sees too few of them, is *isolated*: what is published there reaches
//! nobody else, and what is published elsewhere is not heard there.

use std::collections::{BTreeMap, HashMap, HashSet};

use redis::RedisResult;

use super::connection::Connection;
use super::slots::{self, SLOTS, SlotOwner, SlotRange};

/// The lines of CLUSTER INFO that change whenever slots, epochs or failures do; the others only count messages.
const FINGERPRINT: [&str; 6] = [
    "cluster_state:",
    "cluster_slots_",
    "cluster_known_nodes:",
    "cluster_size:",
    "cluster_current_epoch:",
    "cluster_my_epoch:",
];

/// What one node said.
#[derive(Debug, Clone)]
pub(super) struct View {
    /// Who said it.
    pub(super) of: SlotOwner,
    /// It takes its cluster for up: one that is cut off from most others, or misses a master, does not.
    pub(super) is_up: bool,
    /// Which master has which slots, each with the id of that master.
    pub(super) ranges: Vec<(SlotRange, String)>,
    /// What it knows of each node, by the node's id. Empty where this user may not ask.
    pub(super) nodes: HashMap<String, NodeEntry>,
}

/// One line of CLUSTER NODES.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct NodeEntry {
    /// Its address and, where it has one, the same with its host's name.
    places: Vec<SlotOwner>,
    epoch: u64,
    /// It is missed, by the node that said so or by all.
    is_missed: bool,
}

/// What follows from several views.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Topology {
    /// Which master has which slots.
    pub(super) ranges: Vec<SlotRange>,
    /// Nodes that are cut off from most others.
    pub(super) isolated: HashSet<SlotOwner>,
}

/// What changes in CLUSTER INFO when anything changes that matters here. Cheap enough to be asked each second.
pub(super) async fn fingerprint(node: &Connection) -> RedisResult<String> {
    let text = slots::info(node).await?;
    let lines = text.lines().filter(|line| FINGERPRINT.iter().any(|name| line.starts_with(name)));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// Asks a node for all it knows.
pub(super) async fn view(node: &Connection, of: &SlotOwner) -> RedisResult<View> {
    let (is_up, ranges) = (slots::cluster_is_up(node).await?, slots::ask(node, &of.host).await?);
    // A user whose rights are from before this was asked still gets a map: by what the nodes say of themselves.
    let nodes = match node.send(redis::cmd("CLUSTER").arg("NODES"), false).await {
        Ok(answer) => read_nodes(&redis::from_redis_value::<String>(answer)?, &of.host),
        Err(error) if error.code() == Some("NOPERM") => HashMap::new(),
        Err(error) => return Err(error),
    };
    Ok(View { of: of.clone(), is_up, ranges, nodes })
}

/// `id ip:port@bus[,name] flags master ping pong epoch link slots…`, one line for each node.
fn read_nodes(text: &str, asked: &str) -> HashMap<String, NodeEntry> {
    let read = |line: &str| {
        let mut words = line.split(' ');
        let (id, address, flags) = (words.next()?, words.next()?, words.next()?);
        let epoch = words.nth(3)?.parse().ok()?;
        let (address, names) = address.split_once(',').unwrap_or((address, ""));
        let (host, port) = address.split('@').next()?.rsplit_once(':')?;
        let port = port.parse().ok()?;
        let name = names.split(',').next().filter(|name| !name.is_empty());
        let hosts = std::iter::once(slots::host_or_default(host, asked)).chain(name.map(str::to_owned));
        let places = hosts.map(|host| SlotOwner { host, port }).collect();
        let is_missed = flags.split(',').any(|flag| flag == "fail" || flag == "fail?");
        Some((id.to_owned(), NodeEntry { places, epoch, is_missed }))
    };
    text.lines().filter_map(read).collect()
}

/// Puts views together. Of equal claims the one of a node goes before that takes its cluster for up.
pub(super) fn merge(mut views: Vec<View>) -> Topology {
    views.sort_by_key(|view| !view.is_up);
    let mut owners: Vec<Option<(u64, &SlotOwner)>> = vec![None; usize::from(SLOTS)];
    for view in &views {
        for (range, id) in &view.ranges {
            let epoch = view.nodes.get(id).map_or(0, |node| node.epoch);
            for slot in range.slots.clone() {
                let owner = &mut owners[usize::from(slot)];
                if owner.is_none_or(|(known, _)| epoch > known) {
                    *owner = Some((epoch, &range.master));
                }
            }
        }
    }
    Topology { ranges: to_ranges(&owners), isolated: isolated(&views) }
}

/// Neighbours of one owner as one range.
fn to_ranges(owners: &[Option<(u64, &SlotOwner)>]) -> Vec<SlotRange> {
    let mut ranges: Vec<SlotRange> = Vec::new();
    for (slot, owner) in (0..SLOTS).zip(owners) {
        let Some((_, owner)) = owner else { continue };
        match ranges.last_mut() {
            Some(last) if *last.slots.end() + 1 == slot && last.master == **owner => {
                last.slots = *last.slots.start()..=slot;
            }
            _ => ranges.push(SlotRange { slots: slot..=slot, master: (*owner).clone() }),
        }
    }
    ranges
}

fn isolated(views: &[View]) -> HashSet<SlotOwner> {
    let some_are_up = views.iter().any(|view| view.is_up);
    let mut isolated: HashSet<SlotOwner> =
        views.iter().filter(|view| some_are_up && !view.is_up).map(|view| view.of.clone()).collect();
    // How many others miss a node, of those that know it.
    let mut asked: BTreeMap<&SlotOwner, (usize, usize)> = BTreeMap::new();
    for view in views {
        for entry in view.nodes.values().filter(|entry| !entry.places.contains(&view.of)) {
            for place in &entry.places {
                let (missed, all) = asked.entry(place).or_default();
                *missed += usize::from(entry.is_missed);
                *all += 1;
            }
        }
    }
    let missed = asked.into_iter().filter(|(_, (missed, all))| missed * 2 > *all);
    isolated.extend(missed.map(|(place, _)| place.clone()));
    isolated
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SlotOwner {
        SlotOwner { host: "h".to_owned(), port }
    }

    /// By a node: who has the slots up to which, each with its epoch, and who is missed.
    fn said(of: u16, is_up: bool, owners: &[(u16, u16, u64)], missed: &[u16]) -> View {
        let mut first = 0;
        let mut nodes = HashMap::new();
        for port in 1..=9 {
            let entry = NodeEntry { places: vec![at(port)], epoch: 0, is_missed: missed.contains(&port) };
            nodes.insert(port.to_string(), entry);
        }
        let ranges = owners.iter().map(|(port, last, epoch)| {
            nodes.entry(port.to_string()).and_modify(|node| node.epoch = *epoch);
            let range = SlotRange { slots: first..=*last, master: at(*port) };
            first = last + 1;
            (range, port.to_string())
        });
        View { of: at(of), is_up, ranges: ranges.collect(), nodes }
    }

    fn owner(topology: &Topology, slot: u16) -> Option<u16> {
        topology.ranges.iter().find(|range| range.slots.contains(&slot)).map(|range| range.master.port)
    }

    const BEFORE: [(u16, u16, u64); 3] = [(1, 5_000, 1), (2, 10_000, 2), (3, 16_383, 3)];
    const AFTER: [(u16, u16, u64); 3] = [(4, 5_000, 7), (2, 10_000, 2), (3, 16_383, 3)];

    #[test]
    fn a_master_that_is_cut_off_is_not_believed_whoever_answers_first() {
        // It has not found out yet that it is alone.
        let mut views = vec![said(1, true, &BEFORE, &[]), said(2, true, &AFTER, &[1]), said(3, true, &AFTER, &[1])];
        for _ in 0..views.len() {
            views.rotate_left(1);
            let topology = merge(views.clone());
            assert_eq!([0, 5_001, 16_383].map(|slot| owner(&topology, slot)), [Some(4), Some(2), Some(3)]);
            assert_eq!(topology.isolated, HashSet::from([at(1)]));
            assert_eq!(topology.ranges.len(), 3);
        }
    }

    #[test]
    fn a_node_that_says_so_itself_is_isolated_and_one_that_a_single_other_misses_is_not() {
        let alone = said(1, false, &BEFORE, &[2, 3]);
        let topology = merge(vec![alone, said(2, true, &BEFORE, &[]), said(3, true, &BEFORE, &[])]);
        assert_eq!(topology.isolated, HashSet::from([at(1)]));
        assert_eq!(owner(&topology, 0), Some(1), "nobody has taken over");
        // Where all say that the cluster is down, none of them is cut off from the others.
        let down = [1, 2, 3].map(|of| said(of, false, &BEFORE, &[])).to_vec();
        assert!(merge(down).isolated.is_empty());
    }

    #[test]
    fn without_the_right_to_ask_for_epochs_a_node_that_takes_its_cluster_for_up_goes_before() {
        let mut views = vec![said(1, false, &BEFORE, &[]), said(2, true, &AFTER, &[])];
        views.iter_mut().for_each(|view| view.nodes.clear());
        assert_eq!(owner(&merge(views), 0), Some(4));
        assert_eq!(owner(&merge(Vec::new()), 0), None);
    }

    #[test]
    fn a_line_of_cluster_nodes_is_read_with_and_without_a_name() {
        let text = "a 10.0.0.1:7000@17000 myself,master - 0 0 3 connected 0-5460\n\
                    b 10.0.0.2:7000@17000,two.example,shard-id=x master,fail - 0 0 12 disconnected 5461-10922\n\
                    c :7001@17001 slave,fail? a 0 0 3 connected\n\
                    d half a line\n";
        let nodes = read_nodes(text, "seed");
        let place = |host: &str, port| SlotOwner { host: host.to_owned(), port };
        let entry =
            |places: &[SlotOwner], epoch, is_missed| Some(NodeEntry { places: places.to_vec(), epoch, is_missed });
        assert_eq!(nodes.get("a").cloned(), entry(&[place("10.0.0.1", 7000)], 3, false));
        assert_eq!(nodes.get("b").cloned(), entry(&[place("10.0.0.2", 7000), place("two.example", 7000)], 12, true));
        assert_eq!(nodes.get("c").cloned(), entry(&[place("seed", 7001)], 3, true));
        assert_eq!(nodes.len(), 3);
    }
}
