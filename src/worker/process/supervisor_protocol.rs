//! What the host of a program and its supervisor say to each other: one JSON object a line, over a socket pair.
//!
//! The host always says the whole of what it wants, never a step: a newer line replaces an older one, so
//! nothing has to be queued and nothing is out of date.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The word on the command line that makes this binary a guard, which starts a supervisor.
pub(super) const GUARD_ARGUMENT: &str = "guard-process";
/// The word that makes it a supervisor.
pub(super) const SUPERVISOR_ARGUMENT: &str = "keep-process";

/// How far the program is to be ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum EndRequest {
    /// Not at all.
    #[default]
    No,
    /// SIGTERM, and SIGKILL after the grace.
    Ask,
    /// SIGKILL at once.
    Kill,
}

/// What the host wants of the program.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SupervisorCommand {
    /// Grows with each change between paused and running, and comes back in [`SupervisorEvent::Reached`] or [`SupervisorEvent::NotPaused`].
    pub(super) number: u64,
    /// Stand still, or run.
    pub(super) paused: bool,
    /// Grows with each question whether all of the program can be ended, and comes back in [`SupervisorEvent::Probed`].
    pub(super) probe: u64,
    /// Cannot be taken back.
    pub(super) end: EndRequest,
}

/// What the supervisor tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "word", rename_all = "snake_case")]
pub(super) enum SupervisorEvent {
    /// It runs; the first word.
    Started {
        /// The program's process id, which is its group's as well.
        pid: i32,
        /// The folder of its control group, where one could be made.
        cgroup: Option<PathBuf>,
    },
    /// It could not be started; the first and last word.
    NotStarted {
        /// The reason, as the operating system words it.
        error: String,
        /// Whether there is no such program.
        missing: bool,
    },
    /// It is as that number wanted it.
    Reached {
        /// Of [`SupervisorCommand`].
        number: u64,
    },
    /// It could not be paused. What had been stopped runs again.
    NotPaused {
        /// Of [`SupervisorCommand`].
        number: u64,
        /// Why, in words for people.
        error: String,
    },
    /// Whether all of it can be ended.
    Probed {
        /// Of [`SupervisorCommand::probe`].
        number: u64,
        /// Why not, in words for people.
        hindered: Option<String>,
    },
    /// Something of the program does not run although it should: somebody else has stopped it.
    Notice {
        /// In words for people; `None` when that is over.
        text: Option<String>,
    },
    /// Nothing is left of it but what cannot be ended; the last word.
    Ended {
        /// Its exit code, if it exited.
        code: Option<i32>,
        /// The signal that ended it, if one did.
        signal: Option<i32>,
        /// It was still running when its end was asked for.
        by_order: bool,
        /// Processes that it had left behind and that had to be ended.
        left_behind: usize,
        /// Processes that could not be ended, in words.
        left_running: Vec<String>,
    },
}

/// One line.
pub(super) fn encode(message: &impl Serialize) -> String {
    let mut line = serde_json::to_string(message).unwrap_or_default();
    line.push('\n');
    line
}
