//! The keeper: a small process of this same binary between a host (`wheelhouse run`) and the program it runs.
//!
//! It is the program's parent, and on Linux the foster parent of everything that comes from it (a "child
//! subreaper"): a grandchild that leaves the group or outlives its parent is found all the same. As only a
//! parent can, it keeps the program's id from being given to another process until nothing of the program is
//! left: so a signal can never hit a stranger. And it lives in a group of its own: when the host is gone,
//! however it went, the keeper's socket closes, and it kills what it keeps.

use std::ffi::OsString;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::Pid;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};

use super::super::signals::Signals;
use super::tree::Tree;
use super::wire::{self, End, KEEP, Wanted, Word};

/// Whether this program's `main` begins with [`keeper_entry`]: only then can it be its own keeper.
pub(super) static ENTERED: AtomicBool = AtomicBool::new(false);

/// Runs the keeper if this is how the binary was called: `wheelhouse keep-process GRACE_MS PROGRAM ARGS…`.
/// Asked before anything else starts, so that the keeper stays a small process.
pub fn keeper_entry() -> Option<ExitCode> {
    ENTERED.store(true, Ordering::Relaxed);
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != KEEP {
        return None;
    }
    let grace = arguments.next().and_then(|text| text.to_str()?.parse().ok()).map(Duration::from_millis);
    let (Some(grace), Some(program)) = (grace, arguments.next()) else {
        eprintln!("wheelhouse: {KEEP} is for `wheelhouse run` only");
        return Some(ExitCode::from(2));
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Some(failed(&error)),
    };
    Some(match runtime.block_on(keep(grace, &program, arguments.collect())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    })
}

fn failed(error: &io::Error) -> ExitCode {
    eprintln!("wheelhouse: cannot look after the program: {error}");
    ExitCode::FAILURE
}

async fn keep(grace: Duration, program: &OsString, arguments: Vec<OsString>) -> io::Result<()> {
    let host = StdUnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let stdin = receive_stdin(&host)?;
    host.set_nonblocking(true)?;
    let host = UnixStream::from_std(host)?;
    // Heard before there is a child: none of its news is missed. Ctrl-C and the like are the host's business,
    // but whoever ends the keeper means the program. What was ignored at the start stays ignored in the program too.
    let mut child_news = signal(SignalKind::child())?;
    let mut end_signals = Signals::of(&[SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()])?;
    #[cfg(target_os = "linux")]
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;

    let (reading, mut writing) = host.into_split();
    let mut orders = BufReader::new(reading).lines();
    let spawned = Command::new(program).args(arguments).stdin(Stdio::from(stdin)).process_group(0).spawn();
    let child = match spawned {
        Ok(child) => child,
        Err(error) => {
            let missing = error.kind() == io::ErrorKind::NotFound;
            let word = Word::NotStarted { error: error.to_string(), missing };
            return writing.write_all(wire::line(&word).as_bytes()).await;
        }
    };
    let leader = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
    let mut keeper = Keeper::new(Tree::new(leader), grace);
    let mut words = vec![Word::Started { pid: leader.as_raw_nonzero().get() }];
    loop {
        let next = keeper.step(&mut words);
        for word in words.drain(..) {
            // A host that is gone is noticed where its orders are read.
            let _ = writing.write_all(wire::line(&word).as_bytes()).await;
        }
        let Next::In(wait) = next else { return Ok(()) };
        tokio::select! {
            order = orders.next_line() => keeper.hear(order),
            _ = child_news.recv() => {}
            _ = end_signals.next() => keeper.end(End::Ask),
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

/// When to look again.
enum Next {
    In(Duration),
    Gone,
}

/// Long, because whatever matters comes as news.
const IDLE: Duration = Duration::from_secs(3_600);
/// While paused: someone else may send SIGCONT to a grandchild, of which no news comes.
const WATCH_PAUSED: Duration = Duration::from_secs(1);
/// What a program leaves running gets this long to end by itself: `foo > >(tee log)` in a shell does.
const LINGER: Duration = Duration::from_secs(1);
/// Between the first SIGKILLs, for processes that were being made while the last one was sent; then ever
/// longer: what does not die is not the keeper's to kill (another user's), or waits in the kernel.
const KILL_AGAIN: Duration = Duration::from_millis(10);
/// While waiting for the end of processes whose parent is not the keeper.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Brings the program to what is wanted of it. Every step looks at what is there and does what is missing,
/// so it does not matter why it is called or how often.
struct Keeper {
    tree: Tree,
    grace: Duration,
    wanted: Wanted,
    /// The number whose signal has been sent, and when.
    acted: u64,
    acted_at: Instant,
    /// The number that the host was told it is reached.
    told: u64,
    /// How often the program was looked at, and was not there yet.
    tries: u32,
    ending: Option<Ending>,
}

struct Ending {
    by_order: bool,
    began: Instant,
    left_behind: usize,
    asked_at: Option<Instant>,
}

impl Keeper {
    fn new(tree: Tree, grace: Duration) -> Self {
        let acted_at = Instant::now();
        Self { tree, grace, wanted: Wanted::default(), acted: 0, acted_at, told: 0, tries: 0, ending: None }
    }

    fn hear(&mut self, order: io::Result<Option<String>>) {
        match order.ok().flatten().map(|line| serde_json::from_str::<Wanted>(&line)) {
            Some(Ok(wanted)) => self.wanted = Wanted { end: wanted.end.max(self.wanted.end), ..wanted },
            // The host is gone, or no host of this version.
            Some(Err(_)) | None => self.end(End::Kill),
        }
    }

    fn end(&mut self, how: End) {
        self.wanted.end = self.wanted.end.max(how);
    }

    fn step(&mut self, words: &mut Vec<Word>) -> Next {
        self.tree.look_at_leader();
        if self.ending.is_none() && (self.tree.has_ended() || self.wanted.end != End::No) {
            let by_order = !self.tree.has_ended();
            self.ending = Some(Ending { by_order, began: Instant::now(), left_behind: 0, asked_at: None });
        }
        if self.ending.is_some() { self.step_to_end(words) } else { self.step_to_wanted(words) }
    }

    fn step_to_wanted(&mut self, words: &mut Vec<Word>) -> Next {
        let number = self.wanted.number;
        if self.acted != number {
            (self.acted, self.acted_at, self.tries) = (number, Instant::now(), 0);
            if self.wanted.paused {
                self.tree.stop();
            } else {
                self.tree.resume();
                self.told = number;
                words.push(Word::Reached { number });
            }
        }
        if !self.wanted.paused {
            self.tree.reap();
            return Next::In(IDLE);
        }
        if !self.tree.stands_still(self.acted_at) {
            self.tries += 1;
            // The leader's stop comes as news; this is for the others, which mostly stop within microseconds.
            return Next::In(Duration::from_millis(u64::from(self.tries.min(20))));
        }
        if self.told != number {
            self.told = number;
            words.push(Word::Reached { number });
        }
        Next::In(WATCH_PAUSED)
    }

    fn step_to_end(&mut self, words: &mut Vec<Word>) -> Next {
        let others = self.tree.others();
        let Some(ending) = &mut self.ending else { return Next::In(IDLE) };
        if self.tree.has_ended() && others == 0 && self.tree.release() {
            let (code, signal) = self.tree.how_it_ended();
            words.push(Word::Ended { code, signal, by_order: ending.by_order, left_behind: ending.left_behind });
            return Next::Gone;
        }
        let now = Instant::now();
        if self.wanted.end == End::Kill || ending.asked_at.is_some_and(|at| now >= at + self.grace) {
            self.tree.kill();
            self.tries = self.tries.saturating_add(1);
            return Next::In(KILL_AGAIN * self.tries.min(100));
        }
        let lingers = !ending.by_order && self.wanted.end == End::No && now < ending.began + LINGER;
        if ending.asked_at.is_none() && !lingers {
            (ending.asked_at, self.tries) = (Some(now), 0);
            ending.left_behind = if ending.by_order { 0 } else { others };
            self.tree.ask_to_end();
        }
        Next::In(LOOK_AGAIN)
    }
}
