//! `lua/heartbeat.lua`: which workers are alive.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::{bytes, lua, texts};
use crate::broker::{Broker, BrokerError, Partition};
use crate::domain::{TenantId, WorkerId};

/// How long a worker counts as alive after one heartbeat.
pub const HEARTBEAT_TTL: Duration = Duration::from_secs(4);

impl Broker {
    /// When each of the workers of a tenant had its last heartbeat (Unix ms, by Redis's clock).
    pub async fn last_heartbeats(&self, tenant: &TenantId) -> Result<HashMap<String, i64>, BrokerError> {
        let names = self.keys();
        let ttl = HEARTBEAT_TTL.as_millis() as i64;
        let mut last = HashMap::new();
        for set in [names.workers(names.partition(tenant)), names.tenant_workers(tenant)] {
            let mut command = redis::cmd("ZRANGE");
            command.arg(set).arg(0).arg(-1).arg("WITHSCORES");
            let found: Vec<(String, f64)> = self.client.query(&command).await?;
            // Whole milliseconds: far from where a double loses any.
            last.extend(found.into_iter().map(|(id, until)| (id, until as i64 - ttl)));
        }
        Ok(last)
    }

    /// This worker counts as alive for `ttl` more, in every partition (or for those tenants). Gives the workers that do, this
    /// one among them, of each partition that has answered (or of each tenant's): a server that is away says nothing of its
    /// own, and the others go on. An error where none has answered.
    pub async fn heartbeat(
        &self,
        worker: &WorkerId,
        tenants: Option<&[TenantId]>,
        ttl: Duration,
    ) -> Result<Vec<(Partition, Vec<WorkerId>)>, BrokerError> {
        let args = [worker.to_string(), ttl.as_millis().to_string()];
        let args = bytes(&args);
        let sets = self.heartbeat_keys(tenants);
        let beats = sets.iter().map(|(partition, set)| {
            let partition = *partition;
            let args = &args;
            async move {
                let asked = Instant::now();
                let mut answer: Vec<String> = self.client.script(&lua::HEARTBEAT, &[set], args).await?;
                let now = answer.pop().and_then(|now| now.parse().ok());
                let now = now.ok_or_else(|| BrokerError::Refused("heartbeat answered oddly".to_owned()))?;
                self.observe_clock(partition, asked, now);
                Ok((partition, sorted(answer)))
            }
        });
        // Sent together: one round trip, whatever the number of partitions. All of them, even where one fails: it
        // must not count as dead in the others.
        let fleet = self.keys().fleet();
        let in_fleet = async { self.client.script::<Vec<String>>(&lua::HEARTBEAT, &[&fleet], &args).await };
        let (beats, in_fleet) = tokio::join!(futures_util::future::join_all(beats), in_fleet);
        if let Err(error) = in_fleet {
            tracing::debug!(%error, "redis.fleet_not_told"); // It only says how many there are.
        }
        those_answered(beats, "redis.heartbeat_not_taken")
    }

    /// This worker is gone, at once.
    pub async fn leave(&self, worker: &WorkerId, tenants: Option<&[TenantId]>) -> Result<(), BrokerError> {
        let mut pipeline = redis::pipe();
        for (_, set) in self.heartbeat_keys(tenants) {
            pipeline.zrem(set, worker.as_str()).ignore();
        }
        pipeline.zrem(self.keys().fleet(), worker.as_str()).ignore();
        self.client.pipeline(&pipeline).await
    }

    /// The workers alive for a tenant, sorted.
    pub async fn live_workers(&self, tenant: &TenantId) -> Result<Vec<WorkerId>, BrokerError> {
        let names = self.keys();
        let keys = [names.workers(names.partition(tenant)), names.tenant_workers(tenant)];
        let ids: Vec<String> = self.client.script(&lua::LIVE_WORKERS, &texts(&keys), &[]).await?;
        Ok(sorted(ids))
    }

    /// How many workers are alive, whichever tenants they serve.
    pub async fn workers_alive(&self) -> Result<usize, BrokerError> {
        let names = self.keys();
        // Workers of a version before this set are in the other, where they serve all tenants.
        let first = names.partitions().next().map_or_else(|| names.fleet(), |partition| names.workers(partition));
        match self.client.script::<Vec<String>>(&lua::LIVE_WORKERS, &[&first, &names.fleet()], &[]).await {
            Ok(ids) => Ok(sorted(ids).len()),
            // The server of that set is away: those that serve all tenants are known elsewhere, too.
            Err(_) => Ok(self.all_live_workers().await?.len()),
        }
    }

    /// Every live worker that serves all tenants, sorted, each once, by the partitions that answer: each of them is known in
    /// all. An error where none answers.
    pub async fn all_live_workers(&self) -> Result<Vec<WorkerId>, BrokerError> {
        let asked = self.keys().partitions().map(async |partition| {
            let set = self.keys().workers(partition);
            self.client.script::<Vec<String>>(&lua::LIVE_WORKERS, &[&set, &set], &[]).await
        });
        let answers = those_answered(futures_util::future::join_all(asked).await, "redis.workers_unknown")?;
        Ok(sorted(answers.into_iter().flatten().collect()))
    }

    fn heartbeat_keys(&self, tenants: Option<&[TenantId]>) -> Vec<(Partition, String)> {
        let names = self.keys();
        match tenants {
            None => names.partitions().map(|p| (p, names.workers(p))).collect(),
            Some(tenants) => tenants.iter().map(|t| (names.partition(t), names.tenant_workers(t))).collect(),
        }
    }
}

/// What those said that have answered; an error where none has.
pub(super) fn those_answered<T>(answers: Vec<Result<T, BrokerError>>, event: &str) -> Result<Vec<T>, BrokerError> {
    let (mut said, mut last) = (Vec::with_capacity(answers.len()), None);
    for answer in answers {
        match answer {
            Ok(answer) => said.push(answer),
            Err(error) => {
                tracing::debug!(%error, "{event}");
                last = Some(error);
            }
        }
    }
    match last {
        Some(error) if said.is_empty() => Err(error),
        _ => Ok(said),
    }
}

fn sorted(ids: Vec<String>) -> Vec<WorkerId> {
    let mut workers: Vec<WorkerId> = ids.into_iter().filter_map(|id| id.parse().ok()).collect();
    workers.sort();
    workers.dedup();
    workers
}
