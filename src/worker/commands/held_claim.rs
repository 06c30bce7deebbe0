//! A command that this worker has claimed: its claim is renewed while the worker waits for work, its change is applied in
//! SQL, and a cancel that comes in behind it is noticed.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::Notify;

use super::outcome::CommandOutcome;
use crate::broker::scripts::claim::{Claim, RenewOutcome};
use crate::domain::Action;
use crate::protocol::CommandError;
use crate::store::{ApplyOutcome, CommandChange, Run, StoreError};
use crate::worker::context::{WorkerContext, full_jitter_backoff};
use crate::worker::notify::updates::{Desired, publish_status};
use crate::worker::run::active_run::{ActiveRun, Phase};
use crate::worker::run::control::ControlOutcome;

/// Where work that stops takes longer than this, the status to which the command takes it is published.
const DESIRED_DELAY: Duration = Duration::from_millis(50);
/// The first wait after SQL did not answer. It is doubled each time, up to the longest.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(250);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(30);

pub(crate) struct HeldClaim<'a> {
    pub(crate) ctx: &'a WorkerContext,
    pub(crate) claim: &'a Claim,
    /// Notified when another command may wait behind this one.
    pub(crate) notify: &'a Notify,
}

/// How waiting ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitOutcome<T> {
    /// What was waited for has happened.
    Done(T),
    /// A cancel waits behind this pause or resume.
    CancelPending,
    /// Another worker holds the claim now: this one changes nothing and answers nothing.
    ClaimLost,
    /// This worker is leaving.
    ShuttingDown,
    /// The command has been waiting longer than `command.ttl`.
    TimedOut,
}

impl<T> WaitOutcome<T> {
    /// What a wait that was broken off means for the command.
    pub(crate) fn to_command_outcome(&self) -> CommandOutcome {
        match self {
            Self::CancelPending => CommandOutcome::Superseded,
            Self::TimedOut => CommandOutcome::Failed(CommandError::NoAnswer),
            Self::ShuttingDown => CommandOutcome::Retry(Duration::ZERO),
            Self::ClaimLost | Self::Done(_) => CommandOutcome::ClaimLost,
        }
    }
}

impl HeldClaim<'_> {
    /// Waits for `goal` and renews the claim meanwhile. Only the loss of its claim interrupts a cancel.
    pub(crate) async fn wait<T>(&self, goal: impl Future<Output = T>) -> WaitOutcome<T> {
        let Self { ctx, claim, notify } = self;
        let mut goal = std::pin::pin!(goal);
        let lease = ctx.settings.command.lease;
        let mut renew = tokio::time::interval_at(tokio::time::Instant::now() + lease / 3, lease / 3);
        renew.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let can_yield = claim.action != Action::Cancel;
        let mut timeout = std::pin::pin!(tokio::time::sleep(ctx.settings.command.ttl.max(lease)));
        loop {
            tokio::select! {
                biased;
                done = &mut goal => return WaitOutcome::Done(done),
                () = ctx.stop.cancelled(), if can_yield => return WaitOutcome::ShuttingDown,
                () = &mut timeout, if can_yield => return WaitOutcome::TimedOut,
                _ = renew.tick() => {}
                () = notify.notified() => {}
            }
            match ctx.broker.renew_claim(claim, lease).await {
                Ok(RenewOutcome::Held { cancel_waiting: true }) if can_yield => return WaitOutcome::CancelPending,
                Ok(RenewOutcome::Held { .. }) => {}
                Ok(RenewOutcome::Lost) => return WaitOutcome::ClaimLost,
                // Whether it is lost is decided by the fence, when something is to be written.
                Err(error) => tracing::debug!(resource = %claim.resource, %error, "worker.claim_renewal_delayed"),
            }
        }
    }

    /// As [`Self::wait`], for pausing or ending a run of this worker. Where that takes longer than a moment, the status to
    /// which the command takes it is published.
    pub(crate) async fn drive_to_state(
        &self,
        run: &ActiveRun,
        desired: &str,
        goal: BoxFuture<'_, ControlOutcome>,
    ) -> WaitOutcome<ControlOutcome> {
        let publishing = async {
            tokio::time::sleep(DESIRED_DELAY).await;
            let status = *run.status.borrow();
            publish_status(&self.ctx.broker, run.resource(), status, Desired::Is(desired)).await;
            std::future::pending::<()>().await;
        };
        let goal = async {
            tokio::select! {
                biased;
                outcome = goal => outcome,
                () = run.exited() => ControlOutcome::EndedItself,
                () = publishing => ControlOutcome::EndedItself,
            }
        };
        // In a box, for the sake of commands on jobs that do not run here: it is most of what their future would be.
        Box::pin(self.wait(goal)).await
    }

    /// Waits until the end of a run that is just being recorded has been recorded.
    pub(crate) async fn wait_until_recorded(&self, run: &ActiveRun) -> WaitOutcome<()> {
        let mut phase = run.phase.subscribe();
        self.wait(async move {
            let _ = phase.wait_for(|phase| *phase != Phase::Closing).await;
        })
        .await
    }

    /// Whether the same request was carried out as another command, which a failover of Redis has lost. Where SQL does not
    /// answer, what the command changes will find that out.
    pub(crate) async fn is_repeated_request(&self) -> bool {
        self.ctx.store.is_repeated_request(&self.change(None)).await.unwrap_or(false)
    }

    /// Applies the command's change in SQL. `run` is the run of this worker that the command has reached.
    pub(crate) async fn apply(&self, run: Option<&Run>) -> Result<ApplyOutcome, StoreError> {
        self.ctx.store.apply(&self.change(run)).await
    }

    /// A cancel waits behind this pause or resume, so it is superseded, unless SQL says that an earlier try has applied it
    /// (`None`). What such a try may still write is void from then on.
    pub(crate) async fn supersede(&self) -> Option<CommandOutcome> {
        if self.claim.attempt > 1 || self.claim.cancel_waits {
            match self.ctx.store.void_older_claims(&self.change(None)).await {
                Ok(true) => return None,
                Ok(false) => {}
                Err(error) => return Some(self.after_error(&error)),
            }
        }
        Some(CommandOutcome::Failed(CommandError::Superseded))
    }

    /// What SQL's failure means for the command.
    pub(crate) fn after_error(&self, error: &StoreError) -> CommandOutcome {
        let claim = self.claim;
        if !error.is_transient() {
            tracing::error!(command_id = %claim.command, resource = %claim.resource, %error, "worker.command_error");
            return CommandOutcome::Failed(CommandError::NotStored);
        }
        tracing::warn!(command_id = %claim.command, resource = %claim.resource, attempt = claim.attempt, %error, "worker.command_delayed");
        if claim.attempt >= self.ctx.settings.command.max_attempts {
            return CommandOutcome::Failed(CommandError::DatabaseUnavailable);
        }
        CommandOutcome::Retry(full_jitter_backoff(MIN_RETRY_DELAY, MAX_RETRY_DELAY, claim.attempt - 1))
    }

    fn change(&self, run: Option<&Run>) -> CommandChange {
        let claim = self.claim;
        CommandChange {
            command: claim.command,
            resource: claim.resource.clone(),
            action: claim.action,
            user: claim.user.clone(),
            fence: claim.fence,
            run: run.cloned(),
            request_id: claim.request_name(),
            record: Some(claim.record(&self.ctx.id)),
        }
    }
}
