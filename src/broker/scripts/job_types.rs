//! Which types of job the live workers know.

use std::collections::HashSet;
use std::time::Duration;

use crate::broker::{Broker, BrokerError};
use crate::domain::{TenantId, WorkerId};

impl Broker {
    /// This worker knows these types of job, for `ttl` from now on.
    pub async fn announce_job_types(
        &self,
        worker: &WorkerId,
        types: &[String],
        ttl: Duration,
    ) -> Result<(), BrokerError> {
        let mut command = redis::cmd("SET");
        // Texts are always written.
        let types = serde_json::to_string(types).unwrap_or_else(|_| "[]".to_owned());
        command.arg(self.keys().job_types(worker)).arg(types).arg("PX").arg(ttl.as_millis() as u64);
        self.client.query(&command).await
    }

    /// The types of job that any live worker of this tenant knows. `None`: not every one of them has said (one of an
    /// older version does not), so a type that is missing says nothing.
    pub async fn known_job_types(&self, tenant: &TenantId) -> Result<Option<HashSet<String>>, BrokerError> {
        let workers = self.live_workers(tenant).await?;
        let said = self.job_types_of(&workers).await?;
        Ok(said.into_iter().collect::<Option<Vec<_>>>().map(|types| types.into_iter().flatten().collect()))
    }

    /// The types of job that each of these workers knows, in their order; `None` of one that has not said.
    pub async fn job_types_of(&self, workers: &[WorkerId]) -> Result<Vec<Option<Vec<String>>>, BrokerError> {
        // One by one, not MGET: on a cluster they lie on different nodes.
        let said = workers.iter().map(|worker| async move {
            let said: Option<String> = self.client.query(redis::cmd("GET").arg(self.keys().job_types(worker))).await?;
            Ok::<_, BrokerError>(said.and_then(|types| serde_json::from_str::<Vec<String>>(&types).ok()))
        });
        futures_util::future::try_join_all(said).await
    }
}
