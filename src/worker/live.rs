//! Which worker takes a wake-up: everyone hears it, one is chosen without talking about it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::broker::Broker;
use crate::domain::{Resource, TenantId, WorkerId};

/// How long a list of live workers is believed. An old one costs a poll's delay, nothing else.
const FRESH: Duration = Duration::from_secs(1);
/// Tenants remembered; beyond it the memory starts anew.
const TENANTS: usize = 4_096;

/// The live workers of each tenant, as last seen.
#[derive(Default)]
pub(crate) struct LiveWorkers {
    seen: Mutex<HashMap<TenantId, (Instant, Vec<WorkerId>)>>,
}

impl LiveWorkers {
    /// Whether this worker is the one to claim a resource at once.
    pub(crate) async fn chosen(&self, broker: &Broker, me: &WorkerId, resource: &Resource) -> bool {
        let known = {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.get(&resource.tenant)
                .filter(|(at, _)| at.elapsed() < FRESH)
                .map(|(_, workers)| pick(workers, resource) == Some(me))
        };
        if let Some(chosen) = known {
            return chosen;
        }
        let Ok(workers) = broker.live_workers(&resource.tenant).await else {
            return true; // Claiming decides; better twice than not at all.
        };
        let chosen = pick(&workers, resource).is_none_or(|worker| worker == me);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= TENANTS {
            seen.clear();
        }
        seen.insert(resource.tenant.clone(), (Instant::now(), workers));
        chosen
    }
}

/// Rendezvous hashing: the worker with the highest score for this resource. When one comes or goes, only
/// the resources it had or gets change hands.
fn pick<'a>(workers: &'a [WorkerId], resource: &Resource) -> Option<&'a WorkerId> {
    let name = resource.to_string();
    workers.iter().max_by_key(|worker| score(worker.as_str(), &name))
}

/// FNV-1a over both, then mixed: FNV alone hardly stirs the high bits with its last bytes.
fn score(worker: &str, resource: &str) -> u64 {
    let bytes = worker.bytes().chain([0]).chain(resource.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
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
        let three: Vec<WorkerId> = ["w1", "w2", "w3"].iter().map(|id| id.parse().expect("id")).collect();
        for worker in &three {
            let share = resources().filter(|r| pick(&three, r) == Some(worker)).count();
            assert!((200..400).contains(&share), "{worker} got {share} of 900");
        }
        let two = &three[..2];
        for resource in resources() {
            let before = pick(&three, &resource).expect("someone");
            if before != &three[2] {
                assert_eq!(pick(two, &resource), Some(before));
            }
        }
        assert_eq!(pick(&[], &resources().next().expect("one")), None);
    }
}
