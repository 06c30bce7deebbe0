//! Which types of job the live workers know.

use std::collections::HashSet;
use std::time::Duration;

use crate::broker::{Broker, BrokerError};
use crate::domain::{TenantId, WorkerId};

/// Beside the types of a worker that takes no more jobs just now. A version that does not know it takes it for one more
/// type, which no job has.
const FULL: &str = "@full";

/// What the live workers of a tenant know.
#[derive(Debug, Default)]
pub struct KnownJobTypes {
    /// By any of them.
    pub all: HashSet<String>,
    /// By one that takes jobs just now.
    pub with_room: HashSet<String>,
}

impl Broker {
    /// This worker knows these types of job, for `ttl` from now on. `has_room`: it takes jobs just now.
    pub async fn announce_job_types(
        &self,
        worker: &WorkerId,
        types: &[String],
        has_room: bool,
        ttl: Duration,
    ) -> Result<(), BrokerError> {
        let types: Vec<&str> = types.iter().map(String::as_str).chain((!has_room).then_some(FULL)).collect();
        let mut command = redis::cmd("SET");
        // Texts are always written.
        let types = serde_json::to_string(&types).unwrap_or_else(|_| "[]".to_owned());
        command.arg(self.keys().job_types(worker)).arg(types).arg("PX").arg(ttl.as_millis() as u64);
        self.client.query(&command).await
    }

    /// The types of job that any live worker of this tenant knows. `None`: not every one of them has said (one of an
    /// older version does not), so a type that is missing says nothing.
    pub async fn known_job_types(&self, tenant: &TenantId) -> Result<Option<KnownJobTypes>, BrokerError> {
        let workers = self.live_workers(tenant).await?;
        let Some(said) = self.said_by(&workers).await.into_iter().collect::<Option<Vec<_>>>() else { return Ok(None) };
        let mut known = KnownJobTypes::default();
        for types in said {
            if !types.iter().any(|job_type| job_type == FULL) {
                known.with_room.extend(types.iter().cloned());
            }
            known.all.extend(types);
        }
        Ok(Some(known))
    }

    /// The types of job that each of these workers knows, in their order; `None` of one that has not said, or whose word is on
    /// a server that is away.
    pub async fn job_types_of(&self, workers: &[WorkerId]) -> Vec<Option<Vec<String>>> {
        let types = |said: Vec<String>| said.into_iter().filter(|job_type| job_type != FULL).collect();
        self.said_by(workers).await.into_iter().map(|said| said.map(types)).collect()
    }

    async fn said_by(&self, workers: &[WorkerId]) -> Vec<Option<Vec<String>>> {
        // One by one, not MGET: on a cluster they lie on different nodes.
        let said = workers.iter().map(|worker| async move {
            let said: Result<Option<String>, _> =
                self.client.query(redis::cmd("GET").arg(self.keys().job_types(worker))).await;
            serde_json::from_str(&said.ok().flatten()?).ok()
        });
        futures_util::future::join_all(said).await
    }
}
