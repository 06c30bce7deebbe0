//! Programs as controlled work: each in a process group of its own, under a keeper.
//!
//! - `keeper` is the process between: parent of the program, and the one who ends it when the host is gone.
//! - `tree` signals all that belongs to the program, and sees whether all of it stands still.
//! - `table` reads the process table.
//! - `wire` is what host and keeper say to each other.
//! - [`progress`] reads progress out of the program's output.
//! - [`output`] passes the output through.
//!
//! # What belongs to a program
//! On Linux everything that comes from it, whatever group or session it moves to. Elsewhere its process group.
//! What another service starts on its behalf (a container, a systemd unit) does not: give it a program that
//! stays in front and obeys SIGTERM.

mod keeper;
pub mod output;
pub mod progress;
mod table;
mod tree;
mod wire;

use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use futures_util::future::BoxFuture;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::hosted::{Controlled, Reached};
pub use keeper::keeper_entry;
use wire::{End, Wanted, Word};

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
    /// The `wheelhouse` binary, which is its own keeper. See [`Program::own_binary`].
    pub keeper: PathBuf,
}

impl Program {
    /// A program that reads nothing and has this binary as its keeper; ten seconds from SIGTERM to SIGKILL.
    pub fn new<A: Into<OsString>>(
        name: impl Into<OsString>,
        arguments: impl IntoIterator<Item = A>,
    ) -> io::Result<Self> {
        Self::kept_by(Self::own_binary()?, name, arguments)
    }

    /// As [`Self::new`], with another binary as its keeper: one whose `main` begins with [`keeper_entry`].
    pub fn kept_by<A: Into<OsString>>(
        keeper: PathBuf,
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
            keeper,
        })
    }

    /// This very binary, also after a newer one has been installed in its place. Its `main` must begin with
    /// [`keeper_entry`]; without that it would be started as a second copy of itself, so this is an error.
    pub fn own_binary() -> io::Result<PathBuf> {
        if !keeper::ENTERED.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(io::Error::other(
                "a program that starts others under control must begin its main with wheelhouse::worker::process::keeper_entry()",
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
    Keeper(#[from] io::Error),
}

/// How a program ended; nothing of it is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The way it went.
    pub how: How,
    /// It was running until its end was asked for.
    pub by_order: bool,
    /// Processes that it had left running, and that had to be ended.
    pub left_behind: usize,
}

/// The way a program went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It exited, with this code.
    Exited(i32),
    /// This signal ended it.
    Signalled(i32),
    /// Its keeper was killed; the program has been killed after it.
    Unkept,
}

impl How {
    /// As a shell says it: a signal is 128 and its number.
    pub fn code(self) -> u8 {
        match self {
            Self::Exited(code) => u8::try_from(code).unwrap_or(1),
            Self::Signalled(signal) => u8::try_from(signal).unwrap_or(0).saturating_add(128),
            Self::Unkept => 137,
        }
    }
}

impl std::fmt::Display for How {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit code {code}"),
            Self::Signalled(signal) => write!(f, "ended by {}", signal_name(*signal)),
            Self::Unkept => f.write_str("killed, because the process that kept it was killed"),
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

/// A running program under control. Dropped, it is killed, with all that belongs to it.
#[derive(Debug)]
pub struct Process {
    wanted: watch::Sender<Wanted>,
    told: watch::Receiver<Told>,
    pid: i32,
    _end: DropGuard,
}

/// What the keeper has said so far.
#[derive(Debug, Clone, Default)]
struct Told {
    reached: u64,
    ended: Option<Ended>,
}

impl Process {
    /// Starts it. Its output must be read: a program whose pipe is full stands still.
    pub async fn start(program: Program) -> Result<(Self, ChildStdout, ChildStderr), ProcessError> {
        let (ours, theirs) = StdUnixStream::pair()?;
        send_stdin(&ours, &program.stdin)?;
        ours.set_nonblocking(true)?;
        let mut command = Command::new(&program.keeper);
        command
            .arg0("wheelhouse")
            .arg(wire::KEEP)
            .arg(program.grace.as_millis().to_string())
            .arg(&program.name)
            .args(&program.arguments)
            .envs(program.set)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C in the terminal is for the host alone, which then ends the program properly.
            .process_group(0);
        for name in &program.unset {
            command.env_remove(name);
        }
        let mut keeper = command.spawn()?;
        drop(command); // It holds the keeper's end of the socket: open here, its closing would not be seen.
        let (Some(stdout), Some(stderr)) = (keeper.stdout.take(), keeper.stderr.take()) else {
            return Err(io::Error::other("no pipes").into());
        };
        let (reading, writing) = UnixStream::from_std(ours)?.into_split();
        let mut words = BufReader::new(reading).lines();
        let pid = match words.next_line().await?.map(|line| serde_json::from_str(&line)) {
            Some(Ok(Word::Started { pid })) => pid,
            Some(Ok(Word::NotStarted { error, missing })) => {
                let _ = keeper.wait().await;
                return Err(ProcessError::NotStarted { program: program.name, error, missing });
            }
            _ => return Err(io::Error::other("the keeper ended before it had started the program").into()),
        };
        let (wanted, hear_wanted) = watch::channel(Wanted::default());
        let (tell, told) = watch::channel(Told::default());
        let end = CancellationToken::new();
        let started = table::entry(pid).map(|entry| entry.started);
        let host = Host { keeper, words, writing, wanted: hear_wanted, tell, pid, started };
        // Not in a TaskTracker: it ends with the program, or when this handle is dropped, whichever is first.
        tokio::spawn(host.talk(end.clone()));
        Ok((Self { wanted, told, pid, _end: end.drop_guard() }, stdout, stderr))
    }

    /// Its process id, which is its group's as well.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Returns when nothing of it is left.
    pub async fn ended(&self) -> Ended {
        let mut told = self.told.clone();
        match told.wait_for(|told| told.ended.is_some()).await {
            Ok(told) => told.ended.clone().unwrap_or(UNKEPT),
            Err(_) => UNKEPT,
        }
    }

    /// SIGTERM (after SIGKILL's grace, that) to all of it; returns at once.
    pub fn ask_to_end(&self) {
        self.end(End::Ask);
    }

    /// SIGKILL to all of it; returns at once.
    pub fn kill(&self) {
        self.end(End::Kill);
    }

    fn end(&self, how: End) {
        self.wanted.send_if_modified(|wanted| {
            let stronger = how > wanted.end;
            wanted.end = wanted.end.max(how);
            stronger
        });
    }

    /// Wants it paused or running, and gives the number under which the keeper will say that it is.
    fn want(&self, paused: bool) -> u64 {
        self.wanted.send_if_modified(|wanted| {
            let changes = wanted.paused != paused;
            if changes {
                (wanted.paused, wanted.number) = (paused, wanted.number + 1);
            }
            changes
        });
        self.wanted.borrow().number
    }

    /// Waits until it is as `number` wanted it, or ended.
    async fn reached(&self, number: u64) -> Reached {
        let mut told = self.told.clone();
        let there = told.wait_for(|told| told.ended.is_some() || told.reached == number).await;
        match there {
            Ok(told) if told.ended.is_none() => Reached::Yes,
            _ => Reached::EndedItself,
        }
    }
}

const UNKEPT: Ended = Ended { how: How::Unkept, by_order: false, left_behind: 0 };

impl Controlled for Process {
    fn pause(&self) -> BoxFuture<'_, Reached> {
        Box::pin(async move { self.reached(self.want(true)).await })
    }

    fn resume(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.reached(self.want(false)).await;
        })
    }

    fn cancel<'a>(&'a self, _by: &'a str, _reason: Option<&'a str>) -> BoxFuture<'a, Reached> {
        Box::pin(async move {
            self.ask_to_end();
            if self.ended().await.by_order { Reached::Yes } else { Reached::EndedItself }
        })
    }
}

/// The host's end of the talk with the keeper.
struct Host {
    keeper: Child,
    words: Lines<BufReader<OwnedReadHalf>>,
    writing: OwnedWriteHalf,
    wanted: watch::Receiver<Wanted>,
    tell: watch::Sender<Told>,
    pid: i32,
    /// When the program was started, which together with its id names it for good.
    started: Option<u64>,
}

impl Host {
    async fn talk(mut self, end: CancellationToken) {
        let ended = loop {
            tokio::select! {
                biased;
                // The socket closes, and so the keeper kills what it keeps.
                () = end.cancelled() => return,
                Ok(()) = self.wanted.changed() => {
                    let wanted = *self.wanted.borrow_and_update();
                    // A keeper that is gone is noticed where its words are read.
                    let _ = self.writing.write_all(wire::line(&wanted).as_bytes()).await;
                }
                line = self.words.next_line() => match line.ok().flatten().map(|line| serde_json::from_str(&line)) {
                    Some(Ok(Word::Reached { number })) => self.tell.send_modify(|told| told.reached = number),
                    Some(Ok(Word::Ended { code, signal, by_order, left_behind })) => {
                        let how = signal.map(How::Signalled).or(code.map(How::Exited)).unwrap_or(How::Unkept);
                        break Ended { how, by_order, left_behind };
                    }
                    Some(Ok(Word::Started { .. } | Word::NotStarted { .. })) => {}
                    Some(Err(_)) | None => {
                        self.kill_unkept().await;
                        break UNKEPT;
                    }
                }
            }
        };
        self.tell.send_modify(|told| told.ended = Some(ended));
        let _ = self.keeper.wait().await;
    }

    /// The keeper was killed. Its program's group still is, if any of it lives; another group may have the
    /// number only if its leader was started later.
    async fn kill_unkept(&mut self) {
        let _ = self.keeper.start_kill();
        let _ = self.keeper.wait().await;
        let Some(group) = rustix::process::Pid::from_raw(self.pid) else { return };
        for _ in 0..100 {
            let members = table::members(-1, self.pid).unwrap_or_default();
            let stranger = members.iter().any(|e| e.pid == self.pid && Some(e.started) != self.started);
            if stranger || members.iter().all(table::Entry::is_dead) {
                return;
            }
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Puts the program's standard input into the socket: the keeper's own standard input is the socket.
fn send_stdin(host: &StdUnixStream, stdin: &OwnedFd) -> io::Result<()> {
    let descriptors = [stdin.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(host, &[IoSlice::new(b"\n")], &mut ancillary, SendFlags::empty())?;
    Ok(())
}
