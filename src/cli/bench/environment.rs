//! Where a bench takes place: a tenant of its own in a deployment, with jobs and people.

use std::time::Duration;

use anyhow::Context;

use crate::auth::{self, Claims};
use crate::broker::Broker;
use crate::config::Settings;
use crate::domain::{Resource, ResourceId, TenantId, UserId};
use crate::store::Store;

/// Longer than any bench.
const TOKEN: Duration = Duration::from_secs(4 * 3_600);
/// Rows put there in one transaction: others want to write too.
const ROWS: usize = 2_000;

pub struct BenchEnvironment {
    pub settings: Settings,
    pub store: Store,
    pub broker: Broker,
    pub tenant: TenantId,
}

impl BenchEnvironment {
    /// With the settings of the deployment; `name` becomes part of the tenant's id.
    pub async fn open(settings: Settings, name: &str) -> anyhow::Result<Self> {
        let store = Store::open(&settings.database).await?;
        let broker = Broker::connect(&settings.redis).await?;
        let tenant = format!("bench-{name}-{:08x}", fastrand::u32(..)).parse()?;
        Ok(Self { settings, store, broker, tenant })
    }

    /// A second tenant in the same place.
    pub fn beside_running(&self, name: &str) -> anyhow::Result<Self> {
        let tenant = format!("bench-{name}-{:08x}", fastrand::u32(..)).parse()?;
        Ok(Self { settings: self.settings.clone(), store: self.store.clone(), broker: self.broker.clone(), tenant })
    }

    /// So many running jobs, and so many people who may control them.
    pub async fn fill(&self, jobs: usize, users: usize) -> anyhow::Result<(Vec<ResourceId>, Vec<UserId>)> {
        let jobs: Vec<ResourceId> =
            (0..jobs).map(|n| format!("job-{n:06}").parse()).collect::<Result<_, _>>().context("an id")?;
        let users: Vec<UserId> = (0..users)
            .map(|n| format!("{}-user-{n:06}", self.tenant).parse())
            .collect::<Result<_, _>>()
            .context("an id")?;
        for some in jobs.chunks(ROWS) {
            self.store.insert_bench_rows(&self.tenant, some, &[]).await?;
        }
        for some in users.chunks(ROWS) {
            self.store.insert_bench_rows(&self.tenant, &[], some).await?;
        }
        Ok((jobs, users))
    }

    pub fn token(&self, user: &UserId) -> anyhow::Result<String> {
        let claims = Claims { user: user.clone(), tenant: self.tenant.clone(), ttl: TOKEN, permissions: None };
        auth::sign(&self.settings.auth, &claims).context("`wheelhouse bench` signs tokens with auth.hs256_secret")
    }

    pub fn job(&self, id: &ResourceId) -> Resource {
        Resource::job(self.tenant.clone(), id.clone())
    }
}
