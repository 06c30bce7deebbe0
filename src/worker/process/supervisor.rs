//! The supervisor: a small process of this same binary between a host (`wheelhouse run`) and the program it runs.
//!
//! It is the program's parent, and on Linux the foster parent of everything that comes from it (a "child
//! subreaper"): a grandchild that leaves the group or outlives its parent is found all the same. As only a
//! parent can, it keeps the program's id from being given to another process until nothing of the program is
//! left: so a signal can never hit a stranger. When the host is gone, however it went, the supervisor's socket
//! closes, and it kills what it keeps. When the supervisor itself is killed, its own parent does ([`super::guard`]).
//!
//! The session that both live in has no terminal, and so neither has the program: one that asks on `/dev/tty` (as
//! `ssh` and `git` do) is told at once that there is none. With the host's terminal it would be stopped by the system
//! for reading from the background, and never go on.

use std::ffi::OsString;
use std::io::{self, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::Pid;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};

use super::super::signals::Signals;
use super::cgroup::Cgroup;
use super::end::NextStep;
use super::guard;
use super::supervisor_protocol::{self, EndRequest, GUARD_ARGUMENT, SUPERVISOR_ARGUMENT, SupervisorEvent};
use super::supervisor_state::Supervisor;
use super::tree::ProcessTree;

/// Whether this program's `main` begins with [`supervisor_entry`]: only then can it be its own supervisor.
pub(super) static ENTRY_CALLED: AtomicBool = AtomicBool::new(false);

/// Runs the supervisor, or the guard above it, if this is how the binary was called: `wheelhouse guard-process GRACE_MS
/// PROGRAM ARGS…`. Asked before anything else starts, so that both stay small processes.
pub fn supervisor_entry() -> Option<ExitCode> {
    ENTRY_CALLED.store(true, Ordering::Relaxed);
    let mut arguments = std::env::args_os().skip(1);
    let called = arguments.next()?;
    if called == GUARD_ARGUMENT {
        return Some(guard::run(arguments).unwrap_or_else(|error| failed(&error)));
    }
    if called != SUPERVISOR_ARGUMENT {
        return None;
    }
    // Empty, where no control group could be made.
    let cgroup = arguments.next().map(PathBuf::from).and_then(Cgroup::hold);
    let grace = arguments.next().and_then(|text| text.to_str()?.parse().ok()).map(Duration::from_millis);
    let (Some(grace), Some(program)) = (grace, arguments.next()) else {
        let _ = writeln!(io::stderr(), "wheelhouse: {SUPERVISOR_ARGUMENT} is for `wheelhouse run` only");
        return Some(ExitCode::from(2));
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Some(failed(&error)),
    };
    Some(match runtime.block_on(supervise(grace, cgroup, &program, arguments.collect())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    })
}

fn failed(error: &io::Error) -> ExitCode {
    // Whoever looks at the exit code hears of it also where standard error is a full disk: `eprintln!` would panic.
    let _ = writeln!(io::stderr(), "wheelhouse: cannot look after the program: {error}");
    ExitCode::FAILURE
}

async fn supervise(
    grace: Duration,
    cgroup: Option<Cgroup>,
    program: &OsString,
    arguments: Vec<OsString>,
) -> io::Result<()> {
    let host = StdUnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let stdin = receive_stdin(&host)?;
    host.set_nonblocking(true)?;
    let host = UnixStream::from_std(host)?;
    // Heard before there is a child: none of its news is missed. Ctrl-C and the like are the host's business,
    // but whoever ends the supervisor means the program. What was ignored at the start stays ignored in the program too.
    let mut child_news = signal(SignalKind::child())?;
    let mut end_signals = Signals::of(&[SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()])?;
    #[cfg(target_os = "linux")]
    {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        guard::wait_for_parent_exit()?;
    }

    let (reading, mut writing) = host.into_split();
    let mut orders = BufReader::new(reading).lines();
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::from(stdin)).process_group(0);
    let spawned = match &cgroup {
        Some(cgroup) => cgroup.within(|| command.spawn()),
        None => command.spawn(),
    };
    drop(command); // It holds the program's standard input, which is the program's alone.
    let child = match spawned {
        Ok(child) => child,
        Err(error) => {
            let missing = error.kind() == io::ErrorKind::NotFound;
            let event = SupervisorEvent::NotStarted { error: error.to_string(), missing };
            return writing.write_all(supervisor_protocol::encode(&event).as_bytes()).await;
        }
    };
    let leader = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
    let cgroup_path = cgroup.as_ref().map(|cgroup| cgroup.path().to_owned());
    let mut supervisor = Supervisor::new(ProcessTree::new(leader), cgroup_path.clone(), grace);
    let mut events = vec![SupervisorEvent::Started { pid: leader.as_raw_nonzero().get(), cgroup: cgroup_path }];
    loop {
        // Its signal does not come where SIGTERM was ignored at the start.
        #[cfg(target_os = "linux")]
        if guard::is_gone() {
            supervisor.end(EndRequest::Ask);
        }
        let next = supervisor.step(&mut events);
        for event in events.drain(..) {
            // A host that is gone is noticed where its orders are read.
            let _ = writing.write_all(supervisor_protocol::encode(&event).as_bytes()).await;
        }
        let NextStep::In(wait) = next else { return Ok(()) };
        tokio::select! {
            order = orders.next_line() => supervisor.on_event(order.ok().flatten().as_deref()),
            _ = child_news.recv() => {}
            _ = end_signals.next() => supervisor.end(EndRequest::Ask),
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// The program's standard input travels over the socket, because this process's own is the socket.
fn receive_stdin(host: &StdUnixStream) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0_u8; 1];
    // The descriptor must not stay open in the program beside its standard input.
    #[cfg(target_os = "linux")]
    let flags = RecvFlags::CMSG_CLOEXEC;
    #[cfg(not(target_os = "linux"))]
    let flags = RecvFlags::empty();
    recvmsg(host, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, flags)?;
    let received = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    received.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "the host is gone"))
}
