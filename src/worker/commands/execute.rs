//! One claimed command, from the claim to its one result.
//!
//! First the work is brought to where the command wants it, then SQL commits, then the result is recorded and sent, with the
//! new status right before it. So nobody hears of a success that is not true, and a socket sees the new status before the
//! result. Whatever breaks off in between is done again by the next claim, and `Store::apply` gives a repeated command its
//! first outcome.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::campaign_command::CampaignCommands;
use super::held_claim::HeldClaim;
use super::job_command::JobCommands;
use super::outcome::{CommandOutcome, CommandPermit};
use crate::broker::scripts::claim::{Claim, CompleteOutcome};
use crate::domain::{Action, Control, ResourceKind};
use crate::protocol::{CommandError, Outcome, server};
use crate::telemetry::metrics;
use crate::worker::context::{WorkerContext, retry_idempotent};
use crate::worker::notify::job_notifier::JobNotifier;
use crate::worker::run::active_run::ExitReason;
use crate::worker::run::registry::RunRegistry;

pub(crate) struct CommandExecutor {
    ctx: Arc<WorkerContext>,
    runs: Arc<RunRegistry>,
    notifier: Arc<JobNotifier>,
    jobs: JobCommands,
    campaigns: CampaignCommands,
}

impl CommandExecutor {
    pub(crate) fn new(
        ctx: Arc<WorkerContext>,
        runs: Arc<RunRegistry>,
        notifier: Arc<JobNotifier>,
        jobs: JobCommands,
        campaigns: CampaignCommands,
    ) -> Self {
        Self { ctx, runs, notifier, jobs, campaigns }
    }

    /// Carries out a claimed command. `true`: more of them wait on this resource.
    pub(crate) async fn execute(&self, claim: &Claim, notify: &Notify, permit: &mut CommandPermit) -> bool {
        let claimed = Instant::now();
        tracing::info!(
            command_id = %claim.command, tenant_id = %claim.resource.tenant, resource = %claim.resource, action = claim.action.as_str(),
            user_id = %claim.user, attempt = claim.attempt, worker_id = %self.ctx.id, "worker.command_claimed"
        );
        let held = HeldClaim { ctx: &self.ctx, claim, notify };
        let early = if self.is_expired(claim) {
            Some(CommandOutcome::Failed(CommandError::Expired))
        } else if claim.action != Action::Cancel && claim.cancel_waits {
            // Nobody who could hear of that cancel had claimed this command when it came.
            let outcome = held.supersede().await;
            if matches!(outcome, Some(CommandOutcome::Failed(_)))
                && let Some(run) = self.runs.get(&claim.resource)
            {
                self.jobs.undo_pause(&run).await; // An earlier try of this worker may have paused it.
            }
            outcome
        } else {
            None
        };
        let mut outcome = match early {
            Some(outcome) => outcome,
            None => match claim.resource.kind {
                ResourceKind::Job => self.jobs.carry_out(&held, permit).await,
                ResourceKind::Campaign => self.campaigns.carry_out(&held, permit).await,
            },
        };
        if matches!(outcome, CommandOutcome::Superseded) {
            // If it was applied after all, the next claim finds that out and answers so.
            outcome = held.supersede().await.unwrap_or(CommandOutcome::Retry(Duration::ZERO));
        }
        self.record_outcome(claim, claimed, outcome).await
    }

    /// Only at the first try: a command that was claimed in time may have been applied already.
    fn is_expired(&self, claim: &Claim) -> bool {
        let WorkerContext { settings, broker, .. } = &*self.ctx;
        let partition = broker.keys().partition(&claim.resource.tenant);
        let ttl = broker.ttl_adjusted_for_clock_steps(partition, settings.command.ttl);
        let waited = claim.claimed_at.saturating_sub(claim.accepted_at);
        claim.attempt == 1 && u128::try_from(waited).is_ok_and(|ms| ms > ttl.as_millis())
    }

    async fn record_outcome(&self, claim: &Claim, claimed: Instant, outcome: CommandOutcome) -> bool {
        let resource = &claim.resource;
        // For a command that was not applied this says whether it would have reached the work.
        let here = Control::of(resource.kind, self.runs.get(resource).is_some());
        let (outcome, control, shown, ended) = match outcome {
            CommandOutcome::Succeeded { status, shown, ended, control } => {
                (Outcome::Succeeded(status), control.or(here), shown, ended)
            }
            CommandOutcome::Failed(error) => (Outcome::Failed(error), here, None, None),
            CommandOutcome::Retry(delay) => {
                tracing::info!(command_id = %claim.command, %resource, delay_ms = delay.as_millis(), "worker.command_put_back");
                let retried = retry_idempotent(|| self.ctx.broker.retry_later(claim, delay)).await;
                if let Err(error) = retried {
                    tracing::debug!(%resource, %error, "worker.put_back_failed"); // The lease's end does the same.
                }
                return false;
            }
            // `execute` has turned the first of them into one of the others.
            CommandOutcome::Superseded | CommandOutcome::ClaimLost => {
                tracing::info!(command_id = %claim.command, %resource, "worker.claim_lost");
                return false;
            }
        };
        let shown = shown.map(|status| server::job_status(resource, status, None));
        let (broker, worker) = (&self.ctx.broker, &self.ctx.id);
        let completed = retry_idempotent(|| broker.complete(claim, worker, &outcome, control, shown.as_deref())).await;
        if let Some(run) = ended {
            self.notifier.end_run(resource, run.run().number).await;
            self.runs.remove(&run, ExitReason::Cancelled);
            self.notifier.campaigns.mark_campaign_of(&run.job.job);
            self.notifier.slot_freed();
        }
        match completed {
            Ok(CompleteOutcome::Done { more }) => {
                log_outcome(claim, claimed, &outcome);
                more
            }
            Ok(CompleteOutcome::Lost) => {
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
}

fn log_outcome(claim: &Claim, claimed: Instant, outcome: &Outcome) {
    // Redis's clock up to the claim, this machine's from there: two clocks are never compared.
    let waited = Duration::from_millis(u64::try_from(claim.claimed_at - claim.accepted_at).unwrap_or(0));
    let latency = waited + claimed.elapsed();
    metrics::command_ended(claim.resource.kind, claim.action, matches!(outcome, Outcome::Succeeded(_)), latency);
    let (command_id, tenant_id, user_id) = (claim.command, &claim.resource.tenant, &claim.user);
    let (kind, id) = (claim.resource.kind, &claim.resource.id);
    let (job_id, campaign_id) = match kind {
        ResourceKind::Job => (Some(id.as_str()), None),
        ResourceKind::Campaign => (None, Some(id.as_str())),
    };
    let (action, latency_ms) = (claim.action.as_str(), latency.as_millis());
    match outcome {
        Outcome::Succeeded(status) => {
            tracing::info!(%command_id, job_id, campaign_id, %tenant_id, %user_id, action, latency_ms, status, "worker.command_applied");
        }
        Outcome::Failed(error) => {
            let error = error.message(claim.action, kind);
            tracing::info!(%command_id, job_id, campaign_id, %tenant_id, %user_id, action, latency_ms, %error, "worker.command_failed");
        }
    }
}
