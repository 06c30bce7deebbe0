//! What becomes of a command.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use crate::domain::{Control, JobStatus};
use crate::protocol::CommandError;
use crate::worker::run::active_run::ActiveRun;

/// The permit that a command holds while it is carried out; it is given back while the command only waits.
pub(crate) type CommandPermit = Option<OwnedSemaphorePermit>;

/// What becomes of a claimed command.
pub(crate) enum CommandOutcome {
    /// It has been applied.
    Succeeded {
        /// The new status, as the result shows it.
        status: String,
        /// The status of a job that is to be published before the result.
        shown: Option<JobStatus>,
        /// The run that ended with it.
        ended: Option<Arc<ActiveRun>>,
        /// Of a job: what the command reached when it was applied.
        control: Option<Control>,
    },
    /// It is refused, or was tried too often.
    Failed(CommandError),
    /// A cancel waits behind it.
    Superseded,
    /// It is to be claimed again after the delay.
    Retry(Duration),
    /// This worker does not hold the claim any more: it changes nothing and answers nothing.
    ClaimLost,
}

impl CommandOutcome {
    /// It has been applied, and no run ended with it.
    pub(crate) fn succeeded(status: String, shown: Option<JobStatus>, control: Option<Control>) -> Self {
        Self::Succeeded { status, shown, ended: None, control }
    }

    /// There is no such resource, or it has ended already.
    pub(crate) fn already_ended() -> Self {
        Self::Failed(CommandError::AlreadyEnded)
    }
}
