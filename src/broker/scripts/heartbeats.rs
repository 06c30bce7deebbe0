//! `lua/heartbeat.lua`, `count_worker.lua`, `live_workers.lua`: which workers are alive.
//!
//! A worker that serves all tenants says in one partition, its home, that it lives. In all others it is only counted, for a
//! longer time, and taken out there by the leader of its home when its heartbeats have ended: so that a heartbeat costs the same
//! however many partitions there are.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::{bytes, lua, texts};
use crate::broker::{Broker, BrokerError, Partition};
use crate::domain::{TenantId, WorkerId};

/// How long a worker counts as alive after one heartbeat.
pub const HEARTBEAT_TTL: Duration = Duration::from_secs(4);

/// For how long a worker that serves all tenants is counted in each partition. It is counted anew long before, and taken out
/// as soon as its heartbeats have ended; only where nobody is there to do that does it count for so long.
pub const COUNTED_FOR: Duration = Duration::from_secs(55);
/// A worker that is counted for less than this is counted anew at once.
pub const COUNTED_AT_LEAST: Duration = Duration::from_secs(12);

/// For how long a set of workers lasts in which nobody is counted any more; `count_worker.lua` has the same.
const SETS_LAST_MS: i64 = 300_000;

/// What Redis says to a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeartbeatAnswer {
    /// The worker is counted in its home, for a while to come.
    pub is_counted: bool,
    /// Redis's clock, Unix µs.
    pub now_us: i64,
    /// Whether it is to hear the control channels of all tenants; `None`: that was not asked.
    pub seat: Option<Seat>,
}

/// What it comes to when a worker is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerCount {
    /// About how many workers there are.
    pub workers: usize,
    /// Every server has counted it.
    pub is_complete: bool,
}

/// Whether a worker is to hear the control channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seat {
    /// There are few workers, and all of them hear.
    Everyone,
    /// It is one of the few that hear for many.
    Taken,
    /// Others hear.
    None,
}

/// What a heartbeat asks for beside saying that the worker lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeatWish {
    /// Nothing.
    NotAsked,
    /// Whether it is to hear the control channels; it keeps its seat if it has one.
    Keep,
    /// The same for a worker that leads a partition: others shall hear, if there are any.
    IfNobodyHasOne,
}

impl Seat {
    /// What `lua/lib/seats.lua` says. What is not known is taken for the safe one: a worker that hears too much only costs.
    fn read(word: &str) -> Self {
        match word {
            "seat" => Self::Taken,
            "none" => Self::None,
            _ => Self::Everyone,
        }
    }
}

/// What Redis says where a worker is counted.
struct Counted {
    tenant: Option<TenantId>,
    workers: usize,
    seat: Seat,
}

impl Broker {
    /// When each of the workers of a tenant had its last heartbeat (Unix ms, by Redis's clock), as far as the servers that
    /// know it answer.
    pub async fn last_heartbeats(&self, tenant: &TenantId) -> Result<HashMap<String, i64>, BrokerError> {
        let names = self.keys();
        let (ttl, now) = (HEARTBEAT_TTL.as_millis() as i64, self.tenant_now_ms(tenant));
        let mut last = HashMap::new();
        for set in [names.workers(names.partition(tenant)), names.tenant_workers(tenant)] {
            // Of a worker with a home this is not its last heartbeat, and lies ahead. While it is counted it had one lately.
            let ends = self.ends(set).await?.into_iter();
            last.extend(ends.map(|(id, until)| (id, (until - ttl).min(now))));
        }
        let homes =
            futures_util::future::join_all(names.partitions().map(|home| self.ends(names.heartbeats(home)))).await;
        let mut in_home = HashMap::new();
        for (id, until) in homes.into_iter().flatten().flatten() {
            let at = in_home.entry(id).or_insert(until - ttl);
            *at = (*at).max(until - ttl);
        }
        last.extend(in_home);
        Ok(last)
    }

    /// The members of a set of workers, each with the time until which it counts.
    async fn ends(&self, set: String) -> Result<Vec<(String, i64)>, BrokerError> {
        let mut command = redis::cmd("ZRANGE");
        command.arg(set).arg(0).arg(-1).arg("WITHSCORES");
        let found: Vec<(String, f64)> = self.client.query(&command).await?;
        // Whole milliseconds: far from where a double loses any.
        Ok(found.into_iter().map(|(id, until)| (id, until as i64)).collect())
    }

    /// A worker that serves all tenants is alive: said in one partition. With a wish for a seat it is also asked whether it is still
    /// counted there for a while; without one it is only known to be counted where its heartbeats have not ended meanwhile.
    pub async fn heartbeat_at(
        &self,
        home: Partition,
        worker: &WorkerId,
        wish: SeatWish,
    ) -> Result<HeartbeatAnswer, BrokerError> {
        let names = self.keys();
        let args = [
            worker.to_string(),
            HEARTBEAT_TTL.as_millis().to_string(),
            if wish == SeatWish::NotAsked { 0 } else { COUNTED_AT_LEAST.as_millis() }.to_string(),
            names.listeners_of_home().to_string(),
            u8::from(wish == SeatWish::IfNobodyHasOne).to_string(),
        ];
        let keys = [names.heartbeats(home), names.workers(home), names.listeners(home)];
        let asked = Instant::now();
        let (counted, now, seat): (String, String, String) =
            self.client.script(&lua::HEARTBEAT, &texts(&keys), &bytes(&args)).await?;
        let now_us = now.parse().map_err(|_| BrokerError::Refused("heartbeat answered oddly".to_owned()))?;
        self.observe_clock(home, asked, now_us / 1_000);
        if !self.is_cluster() {
            self.client.learn_clock(&names.heartbeats(home), now_us);
        }
        Ok(HeartbeatAnswer {
            is_counted: counted == "1",
            now_us,
            seat: (wish != SeatWish::NotAsked).then(|| Seat::read(&seat)),
        })
    }

    /// This worker counts as alive for `ttl` more, in every partition (or for those tenants), as far as their servers answer: one
    /// that is away says nothing of its own, and the others go on. Gives about how many workers there are; an error where none
    /// has answered.
    pub async fn heartbeat(
        &self,
        worker: &WorkerId,
        tenants: Option<&[TenantId]>,
        ttl: Duration,
    ) -> Result<WorkerCount, BrokerError> {
        let counted = self.count_worker(worker, tenants, ttl).await?;
        let asked = tenants.map_or_else(|| self.keys().partitions().count(), <[TenantId]>::len);
        let is_complete = counted.len() == asked;
        Ok(WorkerCount { workers: counted.into_iter().map(|one| one.workers).max().unwrap_or_default(), is_complete })
    }

    /// The same for a worker of named tenants. Gives of each of them whose server has answered whether the worker is to hear its
    /// control channels.
    pub async fn heartbeat_of_tenants(
        &self,
        worker: &WorkerId,
        tenants: &[TenantId],
        ttl: Duration,
    ) -> Result<Vec<(TenantId, Seat)>, BrokerError> {
        let counted = self.count_worker(worker, Some(tenants), ttl).await?;
        Ok(counted.into_iter().filter_map(|counted| Some((counted.tenant?, counted.seat))).collect())
    }

    async fn count_worker(
        &self,
        worker: &WorkerId,
        tenants: Option<&[TenantId]>,
        ttl: Duration,
    ) -> Result<Vec<Counted>, BrokerError> {
        let names = self.keys();
        let seats = names.listeners_of_tenant().to_string();
        let args = [worker.to_string(), ttl.as_millis().to_string(), seats];
        let args = bytes(&args);
        let sets: Vec<(Partition, Option<TenantId>, Vec<String>)> = match tenants {
            None => names.partitions().map(|partition| (partition, None, vec![names.workers(partition)])).collect(),
            Some(tenants) => {
                let keys = |tenant| vec![names.tenant_workers(tenant), names.tenant_listeners(tenant)];
                tenants.iter().map(|t| (names.partition(t), Some(t.clone()), keys(t))).collect()
            }
        };
        let beats = sets.into_iter().map(|(partition, tenant, keys)| {
            let args = &args;
            async move {
                let asked = Instant::now();
                let (workers, now, seat): (usize, i64, String) =
                    self.client.script(&lua::COUNT_WORKER, &texts(&keys), args).await?;
                self.observe_clock(partition, asked, now);
                Ok(Counted { tenant, workers, seat: Seat::read(&seat) })
            }
        });
        // Sent together: one round trip, whatever the number of partitions. All of them, even where one fails: it
        // must not count as dead in the others.
        let fleet = self.keys().fleet();
        let in_fleet = async {
            // Whoever serves all tenants is known in each partition.
            if tenants.is_some()
                && let Err(error) =
                    self.client.script::<(usize, i64, String)>(&lua::COUNT_WORKER, &[&fleet], &args).await
            {
                tracing::debug!(%error, "redis.fleet_not_told"); // It only says how many there are.
            }
        };
        let (beats, ()) = tokio::join!(futures_util::future::join_all(beats), in_fleet);
        those_answered(beats, "redis.heartbeat_not_taken")
    }

    /// A worker that is counted everywhere stays so for [`COUNTED_FOR`] from now on: what [`Self::heartbeat`] does, with one or two
    /// plain commands for each partition but its home. `keeps_sets`: so that the sets last; every few minutes at least. Gives about how
    /// many workers there are.
    pub async fn count_on(
        &self,
        home: Partition,
        worker: &WorkerId,
        keeps_sets: bool,
    ) -> Result<WorkerCount, BrokerError> {
        let names = self.keys();
        let counted = names.partitions().filter(|partition| *partition != home).map(async |partition| {
            let set = names.workers(partition);
            let until = self.client.now_us(&set) / 1_000 + COUNTED_FOR.as_millis() as i64;
            let mut pipeline = redis::pipe();
            pipeline.zadd(&set, worker.as_str(), until).ignore();
            if keeps_sets {
                pipeline.pexpire(&set, SETS_LAST_MS).ignore();
            }
            self.client.pipeline(&pipeline).await
        });
        let args = [worker.to_string(), COUNTED_FOR.as_millis().to_string()];
        let (set, args) = (names.workers(home), bytes(&args));
        let in_home = async { self.client.script::<(usize, i64, String)>(&lua::COUNT_WORKER, &[&set], &args).await };
        let (in_home, others) = tokio::join!(in_home, futures_util::future::join_all(counted));
        let mut is_complete = true;
        for error in others.into_iter().filter_map(Result::err) {
            tracing::debug!(%error, "redis.heartbeat_not_taken");
            is_complete = false;
        }
        Ok(WorkerCount { workers: in_home?.0, is_complete })
    }

    /// This worker is gone, at once.
    pub async fn leave(&self, worker: &WorkerId, tenants: Option<&[TenantId]>) -> Result<(), BrokerError> {
        let mut pipeline = redis::pipe();
        for (partition, set) in self.heartbeat_keys(tenants) {
            pipeline.zrem(set, worker.as_str()).ignore();
            if tenants.is_none() {
                pipeline.zrem(self.keys().heartbeats(partition), worker.as_str()).ignore();
            }
        }
        pipeline.zrem(self.keys().fleet(), worker.as_str()).ignore();
        for listeners in self.listener_keys(tenants) {
            pipeline.zrem(listeners, worker.as_str()).ignore();
        }
        self.client.pipeline(&pipeline).await
    }

    /// A worker whose heartbeats in its home have ended: it is counted nowhere any more, unless it has found another home.
    /// One that lives all the same is counted again at its next heartbeat.
    pub async fn remove_dead_worker(&self, home: Partition, worker: &str) -> Result<(), BrokerError> {
        let names = self.keys();
        let others = names.partitions().filter(|other| *other != home).map(async |other| {
            let key = names.heartbeats(other);
            let now = self.client.now_us(&key) / 1_000;
            let until: Option<f64> = self.client.query(redis::cmd("ZSCORE").arg(&key).arg(worker)).await.ok()?;
            until.filter(|until| *until as i64 > now)
        });
        let has_moved = futures_util::future::join_all(others).await.into_iter().flatten().next().is_some();
        if !has_moved {
            let removed = names.partitions().map(async |partition| {
                self.client.query::<i64>(redis::cmd("ZREM").arg(names.workers(partition)).arg(worker)).await
            });
            // Where a server does not answer, the entry ends by itself (`COUNTED_FOR`).
            let _ = those_answered(futures_util::future::join_all(removed).await, "redis.worker_not_removed");
            tracing::info!(worker_id = worker, "redis.worker_gone");
        }
        self.client.query::<i64>(redis::cmd("ZREM").arg(names.heartbeats(home)).arg(worker)).await.map(drop)
    }

    /// Does what the leaders of partitions do about dead workers, where there is no leader, because no worker lives.
    pub async fn remove_dead_workers_without_leader(&self) -> Result<(), BrokerError> {
        let names = self.keys();
        let first = names.partitions().next().map(|partition| names.leader(partition)).unwrap_or_default();
        // Where the server of that partition is away, those of the others may have dead workers.
        if self.client.query::<i64>(redis::cmd("EXISTS").arg(first)).await.unwrap_or_default() > 0 {
            return Ok(());
        }
        let swept = names.partitions().map(async |home| {
            let key = names.heartbeats(home);
            let mut dead = redis::cmd("ZRANGEBYSCORE");
            dead.arg(&key)
                .arg("-inf")
                .arg(format!("({}", self.client.now_us(&key) / 1_000))
                .arg("LIMIT")
                .arg(0)
                .arg(100);
            let dead: Vec<String> = self.client.query(&dead).await?;
            for worker in dead {
                self.remove_dead_worker(home, &worker).await?;
            }
            Ok(())
        });
        those_answered(futures_util::future::join_all(swept).await, "redis.dead_workers_unknown").map(drop)
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

    /// Live workers as one partition counts them, the first that answers: each worker that serves all tenants is counted in
    /// all of them. Whoever is not among these may still be counted elsewhere ([`Self::live_workers`]).
    pub async fn live_workers_anywhere(&self) -> Result<Vec<WorkerId>, BrokerError> {
        let mut last = BrokerError::Unavailable("there is no partition".to_owned());
        for partition in self.keys().partitions() {
            let set = self.keys().workers(partition);
            match self.client.script::<Vec<String>>(&lua::LIVE_WORKERS, &[&set, &set], &[]).await {
                Ok(ids) => return Ok(sorted(ids)),
                Err(error) => last = error,
            }
            if !self.is_cluster() {
                break;
            }
        }
        Err(last)
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
