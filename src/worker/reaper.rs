//! Heartbeats, and what becomes of the jobs of workers that have none any more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::core::Core;
use crate::broker::BrokerError;
use crate::domain::{Resource, WorkerId};
use crate::store::{Hosting, Run, StoreError};

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
        self.missing_for(what).is_some_and(|for_long| for_long >= MISSING)
    }

    /// How long it has been missing; `None`: it was there at the last look.
    fn missing_for(&self, what: &Missing) -> Option<Duration> {
        let missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        missing.get(what).map(|absence| absence.for_long)
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
    core.broker.learn_now().await?;
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
        let hostings = match core.store.hostings().await {
            Ok(hostings) => hostings,
            Err(error) => {
                tracing::debug!(%error, "worker.reaper_delayed");
                continue;
            }
        };
        match missing(&core, &hostings).await {
            Ok(gone) => core.deaths.look(&gone, Instant::now()),
            Err(error) => {
                tracing::debug!(%error, "worker.reaper_delayed");
                core.deaths.forget();
                continue;
            }
        }
        for hosting in &hostings {
            if !core.hosts.holds(&hosting.run)
                && let Err(error) = core.look_after(hosting).await
            {
                tracing::warn!(job = %hosting.run.job, %error, "worker.release_delayed");
            }
        }
    }
}

impl Core {
    /// Does what is due for a run of a host that is missing, or that is back.
    async fn look_after(self: &Arc<Self>, hosting: &Hosting) -> Result<(), StoreError> {
        let run = &hosting.run;
        if run.host == self.id {
            return if self.deaths.is_missing(&Missing::orphan(run)) { self.release(run).await } else { Ok(()) };
        }
        let missing_for = self.deaths.missing_for(&Missing::Host(run.host.clone()));
        let changed = match missing_for {
            Some(for_long) if for_long >= self.given_up_after(hosting.is_attached) => return self.release(run).await,
            Some(for_long) if hosting.is_attached && for_long >= MISSING => self.store.lose_contact(run).await?,
            None if hosting.is_contact_lost => self.store.regain_contact(run).await?,
            _ => None,
        };
        if let Some(job) = changed {
            let event = if job.contact_lost_at.is_some() { "worker.contact_lost" } else { "worker.contact_regained" };
            tracing::warn!(job_id = %job.id, tenant_id = %job.tenant_id, host = %run.host, "{event}");
            self.publish_contact(&job).await;
        }
        Ok(())
    }

    /// How long a host must have been missing before a run of it is released. Another worker can go on with a job of
    /// the queue, so that is soon. With an attached one nobody else can: its program probably runs on, and all that
    /// releasing it early would do is to end work that is well as soon as its host is back.
    fn given_up_after(&self, is_attached: bool) -> Duration {
        if is_attached { self.settings.worker.attached_lost.max(MISSING) } else { MISSING }
    }

    /// Whether a run's host has been missing for long enough to release the run.
    pub(crate) async fn is_given_up(&self, run: &Run) -> bool {
        if !self.deaths.is_dead(&run.host) {
            return false;
        }
        // Asked only about hosts that are missing; where SQL does not tell, nothing is released.
        let Ok(is_attached) = self.store.is_attached(run).await else { return false };
        let missing_for = self.deaths.missing_for(&Missing::Host(run.host.clone()));
        missing_for.is_some_and(|for_long| for_long >= self.given_up_after(is_attached))
    }
}

/// What is missing of these runs' hosts.
async fn missing(core: &Core, hostings: &[Hosting]) -> Result<Vec<Missing>, BrokerError> {
    if hostings.is_empty() {
        return Ok(Vec::new());
    }
    let live = core.broker.all_live_workers().await?;
    let mut gone: Vec<Missing> = Vec::new();
    for run in hostings.iter().map(|hosting| &hosting.run) {
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
