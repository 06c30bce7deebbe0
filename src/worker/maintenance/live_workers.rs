//! Which worker takes up a command: whoever hears of it finds out by itself which one is chosen, and all come to the same.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::broker::Broker;
use crate::domain::{Resource, TenantId, WorkerId, fnv1a};

/// How long a list of live workers is believed. An old one costs a poll's delay, nothing else.
const CACHE_TTL: Duration = Duration::from_secs(3);
/// Tenants remembered; beyond it the memory starts anew.
const CACHE_CAPACITY: usize = 4_096;

/// The live workers of each tenant, as last seen.
#[derive(Default)]
pub(crate) struct LiveWorkers {
    seen: Mutex<HashMap<TenantId, (Instant, Vec<Candidate>)>>,
}

impl LiveWorkers {
    /// The worker that is to claim a resource at once; `None`: Redis has to be asked ([`Self::ask`]).
    pub(crate) fn chosen(&self, resource: &Resource) -> Option<Chosen> {
        let seen = self.seen.lock();
        let (_, workers) = seen.get(&resource.tenant).filter(|(at, _)| at.elapsed() < CACHE_TTL)?;
        Some(Chosen(rendezvous_pick(workers, resource).cloned()))
    }

    /// The same, by asking Redis. Not where messages are heard: the server of one tenant must not hold up those of others.
    pub(crate) async fn ask(&self, broker: &Broker, resource: &Resource) -> Chosen {
        let Ok(workers) = broker.live_workers(&resource.tenant).await else {
            return Chosen(None); // Claiming decides; better twice than not at all.
        };
        let workers: Vec<Candidate> = workers.into_iter().map(Candidate::new).collect();
        let chosen = Chosen(rendezvous_pick(&workers, resource).cloned());
        let mut seen = self.seen.lock();
        if seen.len() >= CACHE_CAPACITY {
            seen.clear();
        }
        seen.insert(resource.tenant.clone(), (Instant::now(), workers));
        chosen
    }
}

/// Whoever is to claim a resource; `None` where nobody is known, so that any worker may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chosen(pub(crate) Option<WorkerId>);

/// A live worker, with the hash of its name: every worker scores all of them for every command that it hears of.
struct Candidate {
    id: WorkerId,
    hash: u64,
}

impl Candidate {
    fn new(id: WorkerId) -> Self {
        Self { hash: hash_of(&id), id }
    }
}

fn hash_of(worker: &WorkerId) -> u64 {
    mixed(fnv1a(worker.as_str()))
}

/// Rendezvous hashing: the worker with the highest score for this resource. When one comes or goes, only
/// the resources it had or gets change hands.
fn rendezvous_pick<'a>(workers: &'a [Candidate], resource: &Resource) -> Option<&'a WorkerId> {
    highest(workers.iter().map(|worker| (&worker.id, worker.hash)), resource)
}

/// Whether this worker has the highest score for a resource among these, or there are none.
pub(crate) fn is_picked(me: &WorkerId, among: &BTreeSet<WorkerId>, resource: &Resource) -> bool {
    highest(among.iter().map(|worker| (worker, hash_of(worker))), resource).is_none_or(|picked| picked == me)
}

/// `workers`: each with the hash of its name.
fn highest<'a>(workers: impl Iterator<Item = (&'a WorkerId, u64)>, resource: &Resource) -> Option<&'a WorkerId> {
    let hash = fnv1a(&resource.to_string());
    workers.max_by_key(|(_, worker)| score(*worker, hash)).map(|(id, _)| id)
}

fn score(worker: u64, what: u64) -> u64 {
    mixed(worker ^ what)
}

/// FNV alone hardly stirs the high bits with its last bytes.
pub(crate) fn mixed(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources() -> impl Iterator<Item = Resource> {
        (0..900).filter_map(|n| Resource::parse(&format!("t:job:j{n}")))
    }

    #[test]
    fn work_is_shared_evenly_and_only_a_lost_workers_share_moves() {
        let three: Vec<Candidate> =
            ["w1", "w2", "w3"].iter().map(|id| Candidate::new(id.parse().expect("id"))).collect();
        for worker in &three {
            let share = resources().filter(|r| rendezvous_pick(&three, r) == Some(&worker.id)).count();
            assert!((200..400).contains(&share), "{} got {share} of 900", worker.id);
        }
        let two = &three[..2];
        for resource in resources() {
            let before = rendezvous_pick(&three, &resource).expect("someone");
            if before != &three[2].id {
                assert_eq!(rendezvous_pick(two, &resource), Some(before));
            }
        }
        assert_eq!(rendezvous_pick(&[], &resources().next().expect("one")), None);
    }
}
