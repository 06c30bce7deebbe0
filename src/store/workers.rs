//! Who the programs are that host jobs, for people: leases and rows know them by their ids.

use std::collections::HashMap;

use super::sql::{Row, Value, time_text};
use super::{Store, StoreError, rows};
use crate::domain::WorkerId;

/// What is not said again for so long is forgotten, unless a job is there.
const KEPT_MS: i64 = 7 * 24 * 3_600 * 1_000;
/// A worker says again who it is after so long.
pub const WORKER_SAYS_AGAIN: std::time::Duration = std::time::Duration::from_secs(3_600);

/// A program that hosts jobs, or a foreign process whose jobs it hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerInfo {
    /// As leases and rows have it; of a foreign process its session.
    pub id: String,
    /// For people.
    pub name: String,
    /// The machine or container that it runs on; empty of a foreign process that does not say.
    pub machine: String,
    /// Its process.
    pub pid: i64,
    /// Of Wheelhouse.
    pub version: String,
    /// How many jobs it runs at once.
    pub slots: i64,
    /// Of a foreign process: its client software; empty where it does not say.
    pub client: Option<String>,
    /// When it said who it is for the first time: RFC 3339.
    pub started_at: Option<String>,
}

/// What a worker has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkerLoad {
    /// Jobs that run in it, with those of its foreign processes.
    pub running: i64,
    /// Jobs that stand paused in it.
    pub paused: i64,
    /// How many of both are not its own: of foreign processes, and of `wheelhouse run`.
    pub attached: i64,
}

/// A foreign process with jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerSession {
    /// The worker that it is connected to.
    pub worker: String,
    /// Who it is, where it has said so.
    pub info: WorkerInfo,
    /// Jobs of it that have not ended.
    pub jobs: i64,
}

impl Store {
    /// Notes who a worker is, and forgets those that are long gone.
    pub async fn register_worker(&self, info: &WorkerInfo) -> Result<(), StoreError> {
        let mut tx = self.database.write().await?;
        tx.execute(
            "INSERT INTO workers (id, name, machine, pid, version, slots, client) VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (id) DO UPDATE SET name = excluded.name, machine = excluded.machine, pid = excluded.pid,
               version = excluded.version, slots = excluded.slots, client = excluded.client, seen_at = {now}",
            &[
                info.id.as_str().into(),
                info.name.as_str().into(),
                info.machine.as_str().into(),
                info.pid.into(),
                info.version.as_str().into(),
                info.slots.into(),
                info.client.clone().into(),
            ],
        )
        .await?;
        if info.client.is_none() {
            // Sessions come by the thousands, and workers one by one: these look what is old.
            let text = "DELETE FROM workers WHERE {ms:seen_at} < {time:$1} AND NOT EXISTS (
                          SELECT 1 FROM jobs j WHERE j.host IS NOT NULL AND j.host = workers.id)";
            tx.execute(text, &[time_text(self.now_ms() - KEPT_MS).into()]).await?;
        }
        tx.commit().await
    }

    /// Those of these workers that have said who they are.
    pub async fn workers(&self, ids: &[WorkerId]) -> Result<HashMap<String, WorkerInfo>, StoreError> {
        let Some((list, values)) = listed(ids) else { return Ok(HashMap::new()) };
        let text = format!("SELECT {INFO} FROM workers w WHERE w.id IN ({list})");
        let found = self.database.read().await?.rows(&text, &values).await?;
        found.iter().map(|row| info(row).map(|info| (info.id.clone(), info))).collect()
    }

    /// How many jobs these workers have.
    pub async fn worker_loads(&self, ids: &[WorkerId]) -> Result<HashMap<String, WorkerLoad>, StoreError> {
        let Some((list, values)) = listed(ids) else { return Ok(HashMap::new()) };
        let text = format!(
            "SELECT host, status, CAST(CASE WHEN origin = 'attached' OR remote_session IS NOT NULL THEN 1 ELSE 0 END AS BIGINT) AS attached,
               COUNT(*) AS n
             FROM jobs WHERE host IS NOT NULL AND host IN ({list}) AND status IN ('running', 'paused') GROUP BY 1, 2, 3"
        );
        let mut loads: HashMap<String, WorkerLoad> = HashMap::new();
        for row in self.database.read().await?.rows(&text, &values).await? {
            let n = row.int("n")?.unwrap_or(0);
            let load = loads.entry(row.required("host")?).or_default();
            match row.required("status")?.as_str() {
                "running" => load.running += n,
                _ => load.paused += n,
            }
            if row.int("attached")? == Some(1) {
                load.attached += n;
            }
        }
        Ok(loads)
    }

    /// The foreign processes that have jobs in these workers.
    pub async fn worker_sessions(&self, ids: &[WorkerId]) -> Result<Vec<WorkerSession>, StoreError> {
        let Some((list, values)) = listed(ids) else { return Ok(Vec::new()) };
        let text = format!(
            "SELECT s.host, s.n, {INFO} FROM (
               SELECT host, remote_session, COUNT(*) AS n FROM jobs
               WHERE host IS NOT NULL AND host IN ({list}) AND remote_session IS NOT NULL
                 AND status IN ('pending', 'running', 'paused') GROUP BY host, remote_session) s
             JOIN workers w ON w.id = s.remote_session ORDER BY w.name, w.id LIMIT 1000"
        );
        let found = self.database.read().await?.rows(&text, &values).await?;
        let session = |row: &Row| {
            Ok(WorkerSession { worker: row.required("host")?, info: info(row)?, jobs: row.int("n")?.unwrap_or(0) })
        };
        found.iter().map(session).collect()
    }
}

const INFO: &str =
    "w.id, w.name, w.machine, w.pid, w.version, w.slots, w.client, CAST(w.started_at AS TEXT) AS started_at";

fn info(row: &Row) -> Result<WorkerInfo, StoreError> {
    Ok(WorkerInfo {
        id: row.required("id")?,
        name: row.required("name")?,
        machine: row.required("machine")?,
        pid: row.int("pid")?.unwrap_or(0),
        version: row.required("version")?,
        slots: row.int("slots")?.unwrap_or(0),
        client: row.text("client")?,
        started_at: rows::time(row.text("started_at")?),
    })
}

/// `$1, $2, …`, and the ids as values; `None`: there are none.
fn listed(ids: &[WorkerId]) -> Option<(String, Vec<Value>)> {
    // Both databases take that many values, and no fleet is larger.
    let ids = &ids[..ids.len().min(30_000)];
    let list = (1..=ids.len()).map(|n| format!("${n}")).collect::<Vec<_>>().join(", ");
    (!ids.is_empty()).then(|| (list, ids.iter().map(|id| Value::from(id.as_str())).collect()))
}
