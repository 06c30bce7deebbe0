//! One claimed command, from the claim to its one result.
//!
//! The order is: the work is where the command wants it, SQL commits, the result is recorded and sent, with the new
//! status right before it. So nobody hears of a success that is not true, and a socket sees the new
//! status before the result. Whatever breaks off in between is done again by the next claim, and
//! `Store::apply` gives a repeated command its first outcome.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::core::{Core, backoff, insist};
use super::hosts::{Gone, Hosted};
use crate::broker::scripts::claim::{Claim, Completed, End};
use crate::domain::{Action, Control, JobStatus, ResourceKind};
use crate::protocol::server;
use crate::store::{Applied, Change, Run, StoreError};
use crate::telemetry::metrics;

/// First wait after SQL did not answer; doubled each time.
const RETRY: Duration = Duration::from_millis(250);
/// The longest of them.
const RETRY_MOST: Duration = Duration::from_secs(30);

/// The room a command takes among those carried out at once; given back while it only waits.
pub(crate) type Room = Option<OwnedSemaphorePermit>;

/// What is to become of a command.
pub(crate) enum Verdict {
    /// It is applied.
    Succeeded {
        /// The status as a word.
        status: String,
        /// A job's status that whoever watches it is to be told.
        shown: Option<JobStatus>,
        /// What ended with it.
        ended: Option<Arc<Hosted>>,
        /// Of a job: what was reached when it was applied.
        control: Option<Control>,
    },
    /// It is refused or given up, in words.
    Failed(String),
    /// A cancel waits behind it.
    GivesWay,
    /// Nobody came to it in time.
    Expired,
    /// Someone is to try again after the delay.
    Later(Duration),
    /// It is not this claim's business any more.
    Void,
}

impl Verdict {
    /// Applied, and nothing ended with it.
    pub(crate) fn succeeded(status: String, shown: Option<JobStatus>, control: Option<Control>) -> Self {
        Self::Succeeded { status, shown, ended: None, control }
    }

    /// There is nothing (left) to command.
    pub(crate) fn refused(kind: ResourceKind) -> Self {
        Self::Failed(match kind {
            ResourceKind::Job => "Job not found or already completed".to_owned(),
            ResourceKind::Campaign => "Campaign not found or already completed".to_owned(),
        })
    }
}

impl Core {
    /// Carries out a claimed command. `true`: more wait on this resource.
    pub(crate) async fn execute(self: &Arc<Self>, claim: &Claim, poke: &Notify, room: &mut Room) -> bool {
        let claimed = Instant::now();
        tracing::info!(
            command_id = %claim.command, tenant_id = %claim.resource.tenant, resource = %claim.resource, action = claim.action.word(),
            user_id = %claim.user, attempt = claim.attempt, worker_id = %self.id, "worker.command_claimed"
        );
        let early = if self.is_expired(claim) {
            Some(Verdict::Expired)
        } else if claim.action != Action::Cancel && claim.cancel_waits {
            // Nobody who could hear of that cancel had claimed it when it came.
            let verdict = self.give_way(claim).await;
            if matches!(verdict, Some(Verdict::Failed(_)))
                && let Some(hosted) = self.hosts.get(&claim.resource)
            {
                self.undo_pause(&hosted).await; // An earlier try of this worker may have stopped it.
            }
            verdict
        } else {
            None
        };
        let mut verdict = match early {
            Some(verdict) => verdict,
            None => match claim.resource.kind {
                ResourceKind::Job => self.job_command(claim, poke, room).await,
                ResourceKind::Campaign => self.campaign_command(claim, poke, room).await,
            },
        };
        if matches!(verdict, Verdict::GivesWay) {
            // Applied after all: the next claim finds that out, and answers so.
            verdict = self.give_way(claim).await.unwrap_or(Verdict::Later(Duration::ZERO));
        }
        self.conclude(claim, claimed, verdict).await
    }

    /// A pause or resume behind which a cancel waits. It gives way, unless SQL says that an earlier try has applied it
    /// (`None`); and what that try may still write is void from then on.
    async fn give_way(&self, claim: &Claim) -> Option<Verdict> {
        if claim.attempt > 1 || claim.cancel_waits {
            match self.store.give_up(&change_of(claim, None)).await {
                Ok(true) => return None,
                Ok(false) => {}
                Err(error) => return Some(self.after_error(claim, &error)),
            }
        }
        Some(Verdict::Failed(server::SUPERSEDED.to_owned()))
    }

    /// Only at the first try: a command that was taken up in time may have been applied already.
    fn is_expired(&self, claim: &Claim) -> bool {
        let partition = self.broker.keys().partition(&claim.resource.tenant);
        let ttl = self.broker.ttl_by_its_clock(partition, self.settings.command.ttl);
        let waited = claim.claimed_at.saturating_sub(claim.accepted_at);
        claim.attempt == 1 && u128::try_from(waited).is_ok_and(|ms| ms > ttl.as_millis())
    }

    async fn conclude(self: &Arc<Self>, claim: &Claim, claimed: Instant, verdict: Verdict) -> bool {
        let (action, resource, request) = (claim.action, &claim.resource, claim.request_id.as_deref());
        // Of a command that was not applied: whether it would have reached the work.
        let here = Control::of(resource.kind, self.hosts.get(resource).is_some());
        let failed = |words: &str| server::failed(action, resource, claim.command, words, here, request);
        let (end, words, message, shown, ended) = match verdict {
            Verdict::Succeeded { status, shown, ended, control } => {
                let message = server::succeeded(action, resource, claim.command, &status, control.or(here), request);
                (End::Succeeded, status, message, shown, ended)
            }
            Verdict::Failed(words) => (End::Failed, words.clone(), failed(&words), None, None),
            Verdict::Expired => {
                let words = server::EXPIRED;
                (End::Expired, words.to_owned(), failed(words), None, None)
            }
            Verdict::Later(delay) => {
                tracing::info!(command_id = %claim.command, %resource, delay_ms = delay.as_millis(), "worker.command_put_back");
                let put_back = insist(|| self.broker.retry_later(claim, delay)).await;
                if let Err(error) = put_back {
                    tracing::debug!(%resource, %error, "worker.put_back_failed"); // The lease's end does the same.
                }
                return false;
            }
            // `execute` has turned the first of them into one of the others.
            Verdict::GivesWay | Verdict::Void => {
                tracing::info!(command_id = %claim.command, %resource, "worker.claim_lost");
                return false;
            }
        };
        let shown = shown.map(|status| server::job_status(resource, status, None));
        let completed = insist(|| self.broker.complete(claim, &self.id, end, &message, shown.as_deref())).await;
        if let Some(hosted) = ended {
            self.end_run(resource, hosted.run().number).await;
            self.hosts.close(&hosted, Gone::Cancelled);
            self.job_moved(&hosted.job.job);
            self.dispatch.notify_one();
        }
        match completed {
            Ok(Completed::Done { more }) => {
                self.note(claim, claimed, end, &words);
                more
            }
            Ok(Completed::Lost) => {
                tracing::info!(command_id = %claim.command, %resource, "worker.claim_lost");
                false
            }
            Err(error) => {
                // When the lease ends it is claimed again, found applied, and answered then.
                tracing::warn!(command_id = %claim.command, %resource, %error, "worker.result_delayed");
                false
            }
        }
    }

    fn note(&self, claim: &Claim, claimed: Instant, end: End, words: &str) {
        // Redis's clock up to the claim, this machine's from there: two clocks are never compared.
        let waited = Duration::from_millis(u64::try_from(claim.claimed_at - claim.accepted_at).unwrap_or(0));
        let latency = waited + claimed.elapsed();
        metrics::command_ended(claim.resource.kind, claim.action, end == End::Succeeded, latency);
        let (command_id, tenant_id, user_id) = (claim.command, &claim.resource.tenant, &claim.user);
        let (kind, id) = (claim.resource.kind, &claim.resource.id);
        let (job_id, campaign_id) = match kind {
            ResourceKind::Job => (Some(id.as_str()), None),
            ResourceKind::Campaign => (None, Some(id.as_str())),
        };
        let (action, latency_ms) = (claim.action.word(), latency.as_millis());
        if end == End::Succeeded {
            tracing::info!(%command_id, job_id, campaign_id, %tenant_id, %user_id, action, latency_ms, status = words, "worker.command_applied");
        } else {
            tracing::info!(%command_id, job_id, campaign_id, %tenant_id, %user_id, action, latency_ms, error = words, "worker.command_failed");
        }
    }

    /// The command's change in SQL.
    pub(crate) async fn apply(&self, claim: &Claim, run: Option<&Run>) -> Result<Applied, StoreError> {
        self.store.apply(&change_of(claim, run)).await
    }

    /// What SQL's failure means for a command.
    pub(crate) fn after_error(&self, claim: &Claim, error: &StoreError) -> Verdict {
        if !error.is_transient() {
            tracing::error!(command_id = %claim.command, resource = %claim.resource, %error, "worker.command_error");
            return Verdict::Failed(
                "The change could not be stored; nothing was changed. Ask your operator to look at the worker's log"
                    .to_owned(),
            );
        }
        tracing::warn!(command_id = %claim.command, resource = %claim.resource, attempt = claim.attempt, %error, "worker.command_delayed");
        if claim.attempt >= self.settings.command.max_attempts {
            return Verdict::Failed(
                "The database did not answer for too long. Look at the status, and send the command again".to_owned(),
            );
        }
        Verdict::Later(backoff(RETRY, RETRY_MOST, claim.attempt - 1))
    }
}

fn change_of(claim: &Claim, run: Option<&Run>) -> Change {
    Change {
        command: claim.command,
        resource: claim.resource.clone(),
        action: claim.action,
        user: claim.user.clone(),
        fence: claim.fence,
        run: run.cloned(),
    }
}
