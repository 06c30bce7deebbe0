//! Finds hosts of unended jobs that have no heartbeat any more.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::domain::{Resource, WorkerId};
use crate::store::Run;

/// A host counts as dead when it had no heartbeat for so long while Redis answered all the time: a Redis that was away or
/// came back empty proves no death, and a live host needs two heartbeats to show again.
pub(crate) const SUSPECT_AFTER: Duration = Duration::from_millis(3_500);
/// A host whose lease in SQL was seen to be renewed within this lives, whatever Redis knows of it. As long as a heartbeat counts,
/// so that it delays nothing where a host has really died and somebody was watching it. Where the one that died watched the others, the
/// next one sees each lease for the first time, and waits for so long whether it grows.
pub(crate) const LEASE_TTL: Duration = Duration::from_secs(4);
/// The time between two observations counts up to this: a worker that was stopped meanwhile has observed nothing.
const MAX_OBSERVED_GAP: Duration = Duration::from_millis(1_500);

/// What this worker has observed of the hosts of unended jobs.
#[derive(Default)]
pub(crate) struct FailureDetector {
    suspects: Mutex<HashMap<Suspect, SuspectTime>>,
    /// How often hosts had renewed their leases in SQL when this was last seen to grow, and when that was.
    leases: Mutex<HashMap<WorkerId, (i64, Instant)>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Suspect {
    /// A worker without a heartbeat.
    Host(WorkerId),
    /// A run that names this worker as its host and is not in its registry: SQL gave it to this worker in an answer that
    /// was lost.
    Orphan(Resource, i64),
}

impl Suspect {
    pub(crate) fn orphan(run: &Run) -> Self {
        Self::Orphan(run.job.clone(), run.number)
    }
}

#[derive(Clone, Copy)]
struct SuspectTime {
    total: Duration,
    observed_at: Instant,
}

impl FailureDetector {
    pub(crate) fn is_dead(&self, host: &WorkerId) -> bool {
        self.is_gone(&Suspect::Host(host.clone()))
    }

    pub(crate) fn is_gone(&self, suspect: &Suspect) -> bool {
        self.suspected_for(suspect).is_some_and(|total| total >= SUSPECT_AFTER)
    }

    /// How long it has been missing; `None` if it was there at the last observation.
    pub(crate) fn suspected_for(&self, suspect: &Suspect) -> Option<Duration> {
        let suspects = self.suspects.lock();
        suspects.get(suspect).map(|time| time.total)
    }

    /// Takes one observation: these are missing now, and all others are not.
    pub(crate) fn observe(&self, missing: &[Suspect], now: Instant) {
        let mut suspects = self.suspects.lock();
        suspects.retain(|suspect, _| missing.contains(suspect));
        for suspect in missing {
            let first = SuspectTime { total: Duration::ZERO, observed_at: now };
            let time = suspects.entry(suspect.clone()).or_insert(first);
            time.total += now.duration_since(time.observed_at).min(MAX_OBSERVED_GAP);
            time.observed_at = now;
        }
    }

    /// Takes note of leases: which hosts live by them. `hosts`: all there are, each with the number of its renewals.
    pub(crate) fn observe_leases(&self, hosts: &HashMap<WorkerId, i64>, now: Instant) -> HashSet<WorkerId> {
        let mut leases = self.leases.lock();
        leases.retain(|host, _| hosts.contains_key(host));
        for (host, renewals) in hosts {
            match leases.get(host) {
                Some((known, _)) if known == renewals => {}
                _ => drop(leases.insert(host.clone(), (*renewals, now))),
            }
        }
        let is_live = |at: &Instant| now.duration_since(*at) < LEASE_TTL;
        leases.iter().filter(|(_, (_, at))| is_live(at)).map(|(host, _)| host.clone()).collect()
    }

    /// Redis did not answer: that may have been the reason for whatever was observed before.
    pub(crate) fn reset(&self) {
        self.suspects.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(id: &str) -> WorkerId {
        id.parse().expect("id")
    }

    #[test]
    fn a_host_is_dead_after_being_missing_long_enough_in_many_observations_only() {
        let (detector, a, b) = (FailureDetector::default(), worker("a"), worker("b"));
        let missing = |hosts: &[&WorkerId]| hosts.iter().map(|host| Suspect::Host((*host).clone())).collect::<Vec<_>>();
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        detector.observe(&missing(&[&a, &b]), at(0));
        // One observation after a long sleep proves little.
        detector.observe(&missing(&[&a, &b]), at(60_000));
        assert!(!detector.is_dead(&a));
        detector.observe(&missing(&[&a]), at(61_000));
        detector.observe(&missing(&[&a, &b]), at(62_000));
        assert!(detector.is_dead(&a));
        assert!(!detector.is_dead(&b), "it was there in between");
        detector.reset();
        assert!(!detector.is_dead(&a));
    }

    #[test]
    fn a_host_lives_while_its_lease_in_sql_grows() {
        let (detector, a, begun) = (FailureDetector::default(), worker("a"), Instant::now());
        let lives = |renewals, ms| {
            let hosts = HashMap::from([(a.clone(), renewals)]);
            detector.observe_leases(&hosts, begun + Duration::from_millis(ms)).contains(&a)
        };
        assert!(lives(7, 0), "it may have been renewed just now");
        assert!(lives(7, 3_900) && !lives(7, 4_000));
        assert!(lives(8, 60_000), "it was stopped, or cut off from SQL, and is back");
        assert!(detector.observe_leases(&HashMap::new(), begun).is_empty());
    }
}
