//! Programs as controlled work: each in a process group of its own, in a session without terminal, under a supervisor.
//!
//! - `handle` starts the supervisor and talks with it; [`Process`] is the handle of that.
//! - `supervisor` is the process between: parent of the program, and the one who ends it when the host is gone. What it
//!   does with the program is in `supervisor_state` and, for its end, in `end`.
//! - `guard` is the supervisor's parent, and the one who ends the program when the supervisor is gone. `cgroup` is what ends it
//!   when both are.
//! - `tree` signals all that belongs to the program, and sees whether all of it stands still.
//! - `proc_table` reads the process table; `names` puts processes into words.
//! - `supervisor_protocol` is what host and supervisor say to each other.
//! - [`progress`] reads progress out of the program's output.
//! - [`output`] passes the output through.
//!
//! # What belongs to a program
//! On Linux everything that comes from it, whatever group or session it moves to. Elsewhere its process group.
//! What another service starts on its behalf (a container, a systemd unit) does not: give it a program that
//! stays in front and obeys SIGTERM.
//!
//! Processes of other users (what `sudo` starts) belong to it as well. If one of them may not be signalled, a pause or
//! a cancel is refused, in words that name it. They must be visible for that: where `/proc` is mounted with `hidepid`,
//! they are not.

mod cgroup;
mod end;
mod guard;
mod handle;
mod names;
pub mod output;
mod proc_table;
pub mod progress;
mod supervisor;
mod supervisor_protocol;
mod supervisor_state;
mod tree;

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

pub use handle::Process;
pub use proc_table::group_of;
pub use supervisor::supervisor_entry;

/// A program to be run.
#[derive(Debug)]
pub struct Program {
    /// What to call, looked up in `PATH`.
    pub name: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Variables to add to the environment it inherits.
    pub set: Vec<(OsString, OsString)>,
    /// Variables to leave out of it.
    pub unset: Vec<OsString>,
    /// Its standard input.
    pub stdin: OwnedFd,
    /// Between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// The `wheelhouse` binary, which is its own supervisor. See [`Program::own_binary`].
    pub supervisor: PathBuf,
}

impl Program {
    /// A program that reads nothing and has this binary as its supervisor; ten seconds from SIGTERM to SIGKILL.
    pub fn new<A: Into<OsString>>(
        name: impl Into<OsString>,
        arguments: impl IntoIterator<Item = A>,
    ) -> io::Result<Self> {
        Self::with_supervisor(Self::own_binary()?, name, arguments)
    }

    /// As [`Self::new`], with another binary as its supervisor: one whose `main` begins with [`supervisor_entry`].
    pub fn with_supervisor<A: Into<OsString>>(
        supervisor: PathBuf,
        name: impl Into<OsString>,
        arguments: impl IntoIterator<Item = A>,
    ) -> io::Result<Self> {
        Ok(Self {
            name: name.into(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            set: Vec::new(),
            unset: Vec::new(),
            stdin: std::fs::File::open("/dev/null")?.into(),
            grace: Duration::from_secs(10),
            supervisor,
        })
    }

    /// This very binary, also after a newer one has been installed in its place. Its `main` must begin with
    /// [`supervisor_entry`]; without that it would be started as a second copy of itself, so this is an error.
    pub fn own_binary() -> io::Result<PathBuf> {
        if !supervisor::ENTRY_CALLED.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(io::Error::other(
                "a program that starts others under control must begin its main with wheelhouse::worker::process::supervisor_entry()",
            ));
        }
        let proc = PathBuf::from("/proc/self/exe");
        if proc.exists() { Ok(proc) } else { std::env::current_exe() }
    }
}

/// Why a program does not run.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// There is none of that name, or it may not be run.
    #[error("cannot start {program:?}: {error}")]
    NotStarted {
        /// Its name.
        program: OsString,
        /// What the system says.
        error: String,
        /// Whether there is none of that name.
        missing: bool,
    },
    /// Before it came to that.
    #[error("cannot look after a program: {0}")]
    Supervisor(#[from] io::Error),
}

/// How a program ended; nothing of it is left but what could not be ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The way it went.
    pub how: ExitKind,
    /// It was running until its end was asked for.
    pub by_order: bool,
    /// Processes that it had left running, and that had to be ended.
    pub left_behind: usize,
    /// Processes of it that could not be ended and run on, in words: another user's, or held by the kernel.
    pub left_running: Vec<String>,
}

impl Ended {
    fn unsupervised() -> Self {
        Self { how: ExitKind::Unsupervised, by_order: false, left_behind: 0, left_running: Vec::new() }
    }

    /// A sentence about what could not be ended, if there is any such thing.
    pub fn cannot_end(&self) -> Option<String> {
        let all = names::list(&self.left_running);
        (!all.is_empty()).then(|| format!("could not be ended and runs on: {all}"))
    }
}

/// The way a program went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitKind {
    /// It exited, with this code.
    Exited(i32),
    /// This signal ended it.
    Signalled(i32),
    /// Its supervisor was killed; the program has been killed after it.
    Unsupervised,
    /// It has not ended: it could not be made to. See [`Ended::left_running`].
    RunsOn,
}

impl ExitKind {
    /// As a shell says it: a signal is 128 and its number.
    pub fn code(self) -> u8 {
        match self {
            Self::Exited(code) => u8::try_from(code).unwrap_or(1),
            Self::Signalled(signal) => u8::try_from(signal).unwrap_or(0).saturating_add(128),
            Self::Unsupervised => 137,
            Self::RunsOn => 1,
        }
    }
}

impl std::fmt::Display for ExitKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit code {code}"),
            Self::Signalled(signal) => write!(f, "ended by {}", signal_name(*signal)),
            Self::Unsupervised => f.write_str("killed, because the process that kept it was killed"),
            Self::RunsOn => f.write_str("it could not be ended"),
        }
    }
}

/// The name of the signals that end programs; the numbers that differ between systems are left as numbers.
fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}
