//! Waiting for something while holding a command: the claim is renewed, what is wanted is told, and
//! whatever outranks the command is noticed.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::Notify;

use super::core::{Core, Desired};
use super::hosted::Reached;
use super::hosts::{Hosted, Phase};
use crate::broker::scripts::claim::{Claim, Renewed};
use crate::domain::Action;

/// Work that stops faster than this needs no word about where it is going.
const QUICK: Duration = Duration::from_millis(50);

/// How waiting ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited<T> {
    /// What was waited for came.
    Done(T),
    /// A cancel waits behind this pause or resume.
    CancelWaits,
    /// The claim is another's now: change nothing, answer nothing.
    ClaimLost,
    /// This worker is leaving.
    Stopping,
    /// The command has been waiting longer than `command.ttl`.
    TooLong,
}

impl Core {
    /// Waits for `goal`, keeping the claim. A cancel is not interrupted by anything but the loss of its claim.
    pub(crate) async fn keeping<T>(&self, claim: &Claim, poke: &Notify, goal: impl Future<Output = T>) -> Waited<T> {
        let mut goal = std::pin::pin!(goal);
        let lease = self.settings.command.lease;
        let mut renew = tokio::time::interval_at(tokio::time::Instant::now() + lease / 3, lease / 3);
        renew.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let yields = claim.action != Action::Cancel;
        let patience = self.settings.command.ttl.max(lease);
        let mut too_long = std::pin::pin!(tokio::time::sleep(patience));
        loop {
            tokio::select! {
                biased;
                done = &mut goal => return Waited::Done(done),
                () = self.stop.cancelled(), if yields => return Waited::Stopping,
                () = &mut too_long, if yields => return Waited::TooLong,
                _ = renew.tick() => {}
                () = poke.notified() => {}
            }
            match self.broker.renew_claim(claim, lease).await {
                Ok(Renewed::Held { cancel_waiting: true }) if yields => return Waited::CancelWaits,
                Ok(Renewed::Held { .. }) => {}
                Ok(Renewed::Lost) => return Waited::ClaimLost,
                // Whether it is lost is decided by the fence, when something is to be written.
                Err(error) => tracing::debug!(resource = %claim.resource, %error, "worker.claim_renewal_delayed"),
            }
        }
    }

    /// As [`Self::keeping`], for bringing hosted work to a stop or to its end; says where it is going
    /// when that takes longer than a moment.
    pub(crate) async fn bring(
        &self,
        claim: &Claim,
        poke: &Notify,
        hosted: &Hosted,
        desired: &str,
        goal: BoxFuture<'_, Reached>,
    ) -> Waited<Reached> {
        let telling = async {
            tokio::time::sleep(QUICK).await;
            let status = *hosted.status.borrow();
            self.publish_status(hosted.resource(), status, Desired::Is(desired)).await;
            std::future::pending::<()>().await;
        };
        let goal = async {
            tokio::select! {
                biased;
                reached = goal => reached,
                () = hosted.gone() => Reached::EndedItself,
                () = telling => Reached::EndedItself,
            }
        };
        // In a box, for the sake of commands on what is not hosted here: it is most of what a command's future would be.
        Box::pin(self.keeping(claim, poke, goal)).await
    }

    /// Waits until the end that is being recorded just now is.
    pub(crate) async fn until_settled(&self, claim: &Claim, poke: &Notify, hosted: &Hosted) -> Waited<()> {
        let mut phase = hosted.phase.subscribe();
        self.keeping(claim, poke, async move {
            let _ = phase.wait_for(|phase| *phase != Phase::Closing).await;
        })
        .await
    }
}
