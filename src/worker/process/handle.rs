//! The host's side: starts a program's supervisor, tells it what is wanted, and hears what has become of it.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::supervisor_protocol::{self, EndRequest, SupervisorCommand, SupervisorEvent};
use super::{Ended, ExitKind, ProcessError, Program, cgroup, proc_table, tree};
use crate::worker::run::control::{ControlOutcome, Controlled};

/// Longest wait for the guard to kill what a killed supervisor has left.
const GUARD_TIMEOUT: Duration = Duration::from_secs(10);

/// A running program under control. Dropped, it is killed, with all that belongs to it.
#[derive(Debug)]
pub struct Process {
    wanted: watch::Sender<SupervisorCommand>,
    told: watch::Receiver<SupervisorState>,
    pid: i32,
    _end: DropGuard,
}

/// What the supervisor has said so far.
#[derive(Debug, Clone, Default)]
struct SupervisorState {
    reached: u64,
    not_paused: Option<(u64, String)>,
    /// Whether all of it can be ended, and if not, why.
    probed: (u64, Option<String>),
    /// What hinders the program, though nobody has paused it.
    notice: Option<String>,
    ended: Option<Ended>,
}

impl Process {
    /// Starts it. Its output must be read: a program whose pipe is full stands still.
    pub async fn start(program: Program) -> Result<(Self, ChildStdout, ChildStderr), ProcessError> {
        let (ours, theirs) = StdUnixStream::pair()?;
        send_stdin(&ours, &program.stdin)?;
        ours.set_nonblocking(true)?;
        let mut command = Command::new(&program.supervisor);
        command
            .arg0("wheelhouse")
            .arg(supervisor_protocol::GUARD_ARGUMENT)
            .arg(program.grace.as_millis().to_string())
            .arg(&program.name)
            .args(&program.arguments)
            .envs(program.set)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for name in &program.unset {
            command.env_remove(name);
        }
        let mut guard = command.spawn()?; // It starts the supervisor, which starts the program.
        drop(command); // It holds the supervisor's end of the socket: open here, its closing would not be seen.
        let (Some(stdout), Some(stderr)) = (guard.stdout.take(), guard.stderr.take()) else {
            return Err(io::Error::other("no pipes").into());
        };
        let (reading, writing) = UnixStream::from_std(ours)?.into_split();
        let mut lines = BufReader::new(reading).lines();
        let (pid, cgroup) = match lines.next_line().await?.map(|line| serde_json::from_str(&line)) {
            Some(Ok(SupervisorEvent::Started { pid, cgroup })) => (pid, cgroup),
            Some(Ok(SupervisorEvent::NotStarted { error, missing })) => {
                let _ = guard.wait().await;
                return Err(ProcessError::NotStarted { program: program.name, error, missing });
            }
            _ => return Err(io::Error::other("the supervisor ended before it had started the program").into()),
        };
        let (wanted, wanted_changes) = watch::channel(SupervisorCommand::default());
        let (tell, told) = watch::channel(SupervisorState::default());
        let end = CancellationToken::new();
        let started = proc_table::entry(pid).map(|entry| entry.started);
        let session = guard.id().and_then(|id| i32::try_from(id).ok()).unwrap_or(-1);
        let connection =
            SupervisorConnection { guard, session, lines, writing, wanted: wanted_changes, tell, pid, cgroup, started };
        // Not in a TaskTracker: it ends with the program, or when this handle is dropped, whichever is first.
        tokio::spawn(connection.run(end.clone()));
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
            Ok(told) => told.ended.clone().unwrap_or_else(Ended::unsupervised),
            Err(_) => Ended::unsupervised(),
        }
    }

    /// SIGTERM (after SIGKILL's grace, that) to all of it; returns at once.
    pub fn ask_to_end(&self) {
        self.end(EndRequest::Ask);
    }

    /// SIGKILL to all of it; returns at once.
    pub fn kill(&self) {
        self.end(EndRequest::Kill);
    }

    fn end(&self, how: EndRequest) {
        self.wanted.send_if_modified(|wanted| {
            let stronger = how > wanted.end;
            wanted.end = wanted.end.max(how);
            stronger
        });
    }

    /// Wants it paused or running, and gives the number under which the supervisor will say that it is.
    fn request(&self, paused: bool) -> u64 {
        // Somebody else has stopped something of it: a resume, or a pause and a resume, continues that as well.
        let hindered = self.told.borrow().notice.is_some();
        self.wanted.send_if_modified(|wanted| {
            let changes = wanted.paused != paused || (hindered && !paused);
            if changes {
                (wanted.paused, wanted.number) = (paused, wanted.number + 1);
            }
            changes
        });
        self.wanted.borrow().number
    }

    /// Waits until it is as `number` wanted it, or cannot be, or has ended.
    async fn wait_for(&self, number: u64) -> ControlOutcome {
        let mut told = self.told.clone();
        let refused = |told: &SupervisorState| told.not_paused.clone().filter(|(refused, _)| *refused == number);
        let there = |told: &SupervisorState| told.ended.is_some() || told.reached == number || refused(told).is_some();
        match told.wait_for(there).await {
            Ok(told) if told.ended.is_none() => match refused(&told) {
                Some((_, error)) => ControlOutcome::Refused(error),
                None => ControlOutcome::Done,
            },
            _ => ControlOutcome::EndedItself,
        }
    }

    /// Whether all of it can be ended; `Err` says in words what hinders that. Nothing is done to it.
    pub(crate) async fn check_can_end(&self) -> Result<(), String> {
        self.wanted.send_modify(|wanted| wanted.probe += 1);
        let number = self.wanted.borrow().probe;
        let mut told = self.told.clone();
        match told.wait_for(|told| told.ended.is_some() || told.probed.0 >= number).await.as_deref() {
            Ok(SupervisorState { ended: None, probed: (_, Some(why)), .. }) => {
                Err(format!("Not cancelled: {why}. Nothing of the program was ended, it runs on"))
            }
            _ => Ok(()),
        }
    }

    /// A pause that was refused is not wanted any more: the next one is another.
    fn withdraw(&self, number: u64) {
        self.wanted.send_if_modified(|wanted| {
            let still = wanted.paused && wanted.number == number;
            if still {
                (wanted.paused, wanted.number) = (false, number + 1);
            }
            still
        });
    }
}

impl Controlled for Process {
    fn pause(&self) -> BoxFuture<'_, ControlOutcome> {
        Box::pin(async move {
            let number = self.request(true);
            let reached = self.wait_for(number).await;
            if matches!(reached, ControlOutcome::Refused(_)) {
                self.withdraw(number);
            }
            reached
        })
    }

    fn resume(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.wait_for(self.request(false)).await;
        })
    }

    fn cancel<'a>(&'a self, _by: &'a str, _reason: Option<&'a str>) -> BoxFuture<'a, ControlOutcome> {
        Box::pin(async move {
            if let Err(error) = self.check_can_end().await {
                return ControlOutcome::Refused(error);
            }
            self.ask_to_end();
            let ended = self.ended().await;
            // What could not be ended after all is told with the end of the work.
            if ended.by_order && ended.left_running.is_empty() {
                ControlOutcome::Done
            } else {
                ControlOutcome::EndedItself
            }
        })
    }

    fn control_problem(&self) -> BoxStream<'static, Option<String>> {
        let changes = futures_util::stream::unfold((self.told.clone(), None), |(mut told, before)| async move {
            let now = told.wait_for(|told| told.ended.is_some() || told.notice != before).await.ok()?.clone();
            now.ended.is_none().then_some((now.notice.clone(), (told, now.notice)))
        });
        Box::pin(changes)
    }
}

/// The host's end of the talk with the supervisor.
struct SupervisorConnection {
    guard: Child,
    /// The session of guard, supervisor and program.
    session: i32,
    lines: Lines<BufReader<OwnedReadHalf>>,
    writing: OwnedWriteHalf,
    wanted: watch::Receiver<SupervisorCommand>,
    tell: watch::Sender<SupervisorState>,
    pid: i32,
    /// The folder of the program's control group.
    cgroup: Option<PathBuf>,
    /// When the program was started, which together with its id names it for good.
    started: Option<u64>,
}

impl SupervisorConnection {
    async fn run(mut self, end: CancellationToken) {
        let ended = loop {
            tokio::select! {
                biased;
                // The socket closes, and so the supervisor kills what it keeps.
                () = end.cancelled() => return,
                Ok(()) = self.wanted.changed() => {
                    let wanted = *self.wanted.borrow_and_update();
                    // A supervisor that is gone is noticed where its words are read.
                    let _ = self.writing.write_all(supervisor_protocol::encode(&wanted).as_bytes()).await;
                }
                line = self.lines.next_line() => match line.ok().flatten().map(|line| serde_json::from_str(&line)) {
                    Some(Ok(SupervisorEvent::Reached { number })) => self.tell.send_modify(|told| told.reached = number),
                    Some(Ok(SupervisorEvent::NotPaused { number, error })) => {
                        self.tell.send_modify(|told| told.not_paused = Some((number, error)));
                    }
                    Some(Ok(SupervisorEvent::Probed { number, hindered })) => {
                        self.tell.send_modify(|told| told.probed = (number, hindered));
                    }
                    Some(Ok(SupervisorEvent::Notice { text })) => self.tell.send_modify(|told| told.notice = text),
                    Some(Ok(SupervisorEvent::Ended { code, signal, by_order, left_behind, left_running })) => {
                        let how = signal.map(ExitKind::Signalled).or(code.map(ExitKind::Exited)).unwrap_or(ExitKind::RunsOn);
                        break Ended { how, by_order, left_behind, left_running };
                    }
                    Some(Ok(SupervisorEvent::Started { .. } | SupervisorEvent::NotStarted { .. })) => {}
                    Some(Err(_)) | None => {
                        self.kill_orphaned().await;
                        break Ended::unsupervised();
                    }
                }
            }
        };
        self.tell.send_modify(|told| told.ended = Some(ended));
        let _ = self.guard.wait().await;
    }

    /// The supervisor was killed. Its guard kills what it kept. If the guard was killed as well, this kills what is in the
    /// program's control group, process group and session. Others may have the numbers of the last two only if they
    /// were started later.
    async fn kill_orphaned(&mut self) {
        if tokio::time::timeout(GUARD_TIMEOUT, self.guard.wait()).await.is_err() {
            let _ = self.guard.start_kill();
            let _ = self.guard.wait().await;
        }
        if let Some(cgroup) = self.cgroup.take() {
            let _ = tokio::task::spawn_blocking(move || cgroup::end(&cgroup)).await;
        }
        for _ in 0..100 {
            let mut members = proc_table::members(-1, self.pid, self.session).unwrap_or_default();
            members.retain(|entry| !entry.is_dead() && Some(entry.started) >= self.started);
            let stranger = members.iter().any(|e| e.pid == self.pid && Some(e.started) != self.started);
            if stranger || members.is_empty() {
                return;
            }
            for entry in &members {
                tree::kill_one(entry);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Puts the program's standard input into the socket: the supervisor's own standard input is the socket.
fn send_stdin(host: &StdUnixStream, stdin: &OwnedFd) -> io::Result<()> {
    let descriptors = [stdin.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(host, &[IoSlice::new(b"\n")], &mut ancillary, SendFlags::empty())?;
    Ok(())
}
