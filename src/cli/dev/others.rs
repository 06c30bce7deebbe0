//! What else there is to see in the demo: a job that fails, a campaign of which a part fails, a row of another system, a
//! cancel for later, and a second operator who now and then does something.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;

use super::ask::post;
use crate::auth::{self, Claims};
use crate::cli::out::tell;
use crate::config::Auth;
use crate::domain::{JobStatus, JsonText, Resource, ResourceId, TenantId, UserId};
use crate::store::{NewCampaign, NewJob, Store};

/// The kind of the other system's job; no worker knows it.
pub(super) const EXTERNAL_TYPE: &str = "mailing";
/// A new round as often as the import begins anew.
const ROUND: Duration = Duration::from_secs(24 * 60);
/// The cancel for later comes before the round is over.
const CANCEL_IN_SECONDS: u64 = 20 * 60;
/// Between two visits of the second operator, and how long a pause of theirs lasts.
const VISITS: Duration = Duration::from_secs(150);
const PAUSE_SECONDS: u64 = 20;
/// Jobs of the campaign, and those of them whose file is missing.
const PARTS: u64 = 12;
const MISSING: [u64; 3] = [4, 7, 11];

/// Makes all of it, round after round.
pub(super) struct Others {
    pub(super) store: Store,
    pub(super) tenant: TenantId,
    pub(super) gateway: SocketAddr,
    /// The second operator's.
    pub(super) token: String,
}

impl Others {
    /// `user` is the second operator.
    pub(super) fn new(
        store: Store,
        tenant: TenantId,
        gateway: SocketAddr,
        auth: &Auth,
        user: UserId,
    ) -> anyhow::Result<Self> {
        let ttl = Duration::from_secs(86_400);
        let token = auth::sign(auth, &Claims { user, tenant: tenant.clone(), ttl, permissions: None })?;
        Ok(Self { store, tenant, gateway, token })
    }

    /// What a worker fails soon: made before the large campaign, which it would wait for otherwise.
    pub(super) async fn make(&self, orders: &str) -> anyhow::Result<()> {
        let failing = self.job(
            "Digest of returns.csv, which nobody has sent",
            json!({
                "path": "returns.csv", "first_row": 1, "rows": 100
            }),
        );
        self.store.create_job(&failing).await?;
        let id = ResourceId::generate();
        let jobs = (1..=PARTS).map(|part| {
            let path = if MISSING.contains(&part) { "returns.csv" } else { orders };
            let parameters = json!({"path": path, "first_row": 1, "rows": 100, "rows_per_second": 10});
            NewJob {
                campaign: Some(id.clone()),
                max_retries: 0,
                ..self.job(&format!("Check of part {part}"), parameters)
            }
        });
        let campaign = NewCampaign {
            id: id.clone(),
            tenant: self.tenant.clone(),
            name: Some(format!("Nightly checks, of which {} find no file", MISSING.len())),
            created_by: None,
            jobs: jobs.collect(),
        };
        self.store.create_campaign(&campaign).await?;
        Ok(())
    }

    fn job(&self, title: &str, parameters: serde_json::Value) -> NewJob {
        let job = NewJob::new(self.tenant.clone(), ResourceId::generate(), "demo_step");
        NewJob { title: Some(title.to_owned()), parameters: JsonText::of(&parameters).unwrap_or_default(), ..job }
    }

    /// A row that another system put there, and its end, for which there is a time.
    async fn make_external(&self) -> anyhow::Result<()> {
        let job = NewJob::new(self.tenant.clone(), ResourceId::generate(), EXTERNAL_TYPE);
        let job = NewJob { title: Some("Letters, sent by the old system".to_owned()), ..job };
        self.store.create_external_job(&job).await?;
        let body = json!({"delay_seconds": CANCEL_IN_SECONDS, "reason": "the old system is switched off at night"});
        self.command(&job.id, "cancel", &body).await;
        Ok(())
    }

    /// Until it is dropped. `import` gives the job that the second operator looks after.
    pub(super) async fn keep_going(&self, orders: &str, mut has_external: bool, import: impl Fn() -> ResourceId) {
        loop {
            if !std::mem::take(&mut has_external)
                && let Err(error) = self.make_external().await
            {
                tell!("cannot make the row of another system: {error:#}");
            }
            let round = async {
                loop {
                    tokio::time::sleep(VISITS).await;
                    let job = import();
                    // What somebody else has paused is theirs to resume.
                    if !self.is_running(&job).await {
                        continue;
                    }
                    self.command(&job, "pause", &json!({"reason": "looking at the disk"})).await;
                    // Scheduled: it also comes where the demo is ended meanwhile and started again.
                    let resume = json!({"reason": "the disk is well", "delay_seconds": PAUSE_SECONDS});
                    self.command(&job, "resume", &resume).await;
                }
            };
            let _over = tokio::time::timeout(ROUND, round).await;
            if let Err(error) = self.make(orders).await {
                tell!("cannot make the demo's other work: {error:#}");
            }
        }
    }

    async fn is_running(&self, job: &ResourceId) -> bool {
        let job = self.store.job(&Resource::job(self.tenant.clone(), job.clone())).await;
        matches!(job, Ok(Some(job)) if job.status == JobStatus::Running)
    }

    /// Somebody else may have ended the job meanwhile, and the gateway may be starting: the next visit comes.
    async fn command(&self, job: &ResourceId, action: &str, body: &serde_json::Value) {
        let path = format!("/api/v1/jobs/{job}/{action}");
        let _told = post(self.gateway, &path, &self.token, body).await;
    }
}
