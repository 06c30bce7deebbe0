//! Heartbeats, and what becomes of the jobs of workers that have none any more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::core::Core;
use crate::broker::BrokerError;
use crate::domain::{Resource, WorkerId};
use crate::store::Run;

/// Between two heartbeats.
const BEAT: Duration = Duration::from_secs(1);
/// How long one lasts.
const BEAT_LASTS: Duration = Duration::from_secs(4);
/// A host counts as dead when it was missing so long, while Redis answered all the time: a Redis that was
/// away or came back empty is no sign of death, and a live host needs two heartbeats to show again.
const MISSING: Duration = Duration::from_millis(3_500);
/// Between two looks.
const LOOK_MS: std::ops::Range<u64> = 400..600;
/// Time between two looks counts up to this: someone who was stopped meanwhile has seen nothing.
const SEEN: Duration = Duration::from_millis(1_500);

/// Hosts of unended jobs that have no heartbeat, as this worker sees it; and runs that name this worker
/// as their host and are not in its table: SQL gave them to it in an answer that was lost.
#[derive(Default)]
pub(crate) struct Deaths {
    missing: Mutex<HashMap<Missing, Absence>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Missing {
    Host(WorkerId),
    Orphan(Resource, i64),
}

impl Missing {
    fn orphan(run: &Run) -> Self {
        Self::Orphan(run.job.clone(), run.number)
    }
}

#[derive(Clone, Copy)]
struct Absence {
    for_long: Duration,
    looked: Instant,
}

impl Deaths {
    pub(crate) fn is_dead(&self, host: &WorkerId) -> bool {
        self.is_missing(&Missing::Host(host.clone()))
    }

    fn is_missing(&self, what: &Missing) -> bool {
        let missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        missing.get(what).is_some_and(|absence| absence.for_long >= MISSING)
    }

    /// One look: these are missing now, all others are not.
    fn look(&self, gone: &[Missing], now: Instant) {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        missing.retain(|what, _| gone.contains(what));
        for what in gone {
            let absence = missing.entry(what.clone()).or_insert(Absence { for_long: Duration::ZERO, looked: now });
            absence.for_long += now.duration_since(absence.looked).min(SEEN);
            absence.looked = now;
        }
    }

    /// Redis did not answer: whatever was seen before may have had that reason.
    fn forget(&self) {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Says that this worker lives, until everything ends.
pub(crate) async fn heartbeat(core: Arc<Core>) {
    loop {
        if let Err(error) = beat(&core).await {
            tracing::debug!(%error, "worker.heartbeat_delayed");
        }
        tokio::time::sleep(BEAT).await;
    }
}

/// One heartbeat.
pub(crate) async fn beat(core: &Core) -> Result<(), BrokerError> {
    let alive = core.broker.heartbeat(&core.id, core.tenants.as_deref(), BEAT_LASTS).await?;
    if core.tenants.is_none() {
        core.audit_shares.share_out(&core.id, core.broker.keys().partitions().zip(alive));
    }
    Ok(())
}

/// Releases the jobs of dead hosts until told to stop.
pub(crate) async fn run(core: Arc<Core>) {
    loop {
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_millis(fastrand::u64(LOOK_MS))) => {}
        }
        let runs = match core.store.hosted_runs().await {
            Ok(runs) => runs,
            Err(error) => {
                tracing::debug!(%error, "worker.reaper_delayed");
                continue;
            }
        };
        match missing(&core, &runs).await {
            Ok(gone) => core.deaths.look(&gone, Instant::now()),
            Err(error) => {
                tracing::debug!(%error, "worker.reaper_delayed");
                core.deaths.forget();
                continue;
            }
        }
        for run in &runs {
            let dead = if run.host == core.id { Missing::orphan(run) } else { Missing::Host(run.host.clone()) };
            if core.deaths.is_missing(&dead)
                && !core.hosts.holds(run)
                && let Err(error) = core.release(run).await
            {
                tracing::warn!(job = %run.job, %error, "worker.release_delayed");
            }
        }
    }
}

/// What is missing of these runs' hosts.
async fn missing(core: &Core, runs: &[Run]) -> Result<Vec<Missing>, BrokerError> {
    if runs.is_empty() {
        return Ok(Vec::new());
    }
    let live = core.broker.all_live_workers().await?;
    let mut gone: Vec<Missing> = Vec::new();
    for run in runs {
        if run.host == core.id {
            if !core.hosts.holds(run) {
                gone.push(Missing::orphan(run));
            }
            continue;
        }
        let host = Missing::Host(run.host.clone());
        let seen = live.contains(&run.host) || gone.contains(&host);
        if !seen && !core.broker.live_workers(&run.job.tenant).await?.contains(&run.host) {
            gone.push(host);
        }
    }
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(id: &str) -> WorkerId {
        id.parse().expect("id")
    }

    #[test]
    fn a_host_is_dead_after_being_missing_long_enough_in_many_looks_only() {
        let (deaths, a, b) = (Deaths::default(), worker("a"), worker("b"));
        let gone = |hosts: &[&WorkerId]| hosts.iter().map(|host| Missing::Host((*host).clone())).collect::<Vec<_>>();
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        deaths.look(&gone(&[&a, &b]), at(0));
        // One look after a long sleep proves little.
        deaths.look(&gone(&[&a, &b]), at(60_000));
        assert!(!deaths.is_dead(&a));
        deaths.look(&gone(&[&a]), at(61_000));
        deaths.look(&gone(&[&a, &b]), at(62_000));
        assert!(deaths.is_dead(&a));
        assert!(!deaths.is_dead(&b), "it was there in between");
        deaths.forget();
        assert!(!deaths.is_dead(&a));
    }
}
