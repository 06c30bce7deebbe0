//! The guard: the parent of the supervisor, which does nothing but wait for its end.
//!
//! If the supervisor is killed (by hand, or for want of memory), whatever came from the program becomes the guard's child,
//! also what has left its group and its session; and the guard kills it. If the guard is killed, the supervisor is told
//! (its "parent death signal" is SIGTERM) and ends the program properly. So no single kill leaves anything running. If
//! both are killed at once, the host still kills what is in the program's control group ([`super::cgroup`]), or, where
//! none can be made, in its process group and session.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use rustix::process::Pid;
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::cgroup::Cgroup;
use super::supervisor_protocol::SUPERVISOR_ARGUMENT;
use super::tree::ProcessTree;

/// Between two rounds of SIGKILL: for processes that were being made during the last one.
const KILL_INTERVAL: Duration = Duration::from_millis(10);
/// How long it is tried with processes that may not be signalled.
const REFUSED_TIMEOUT: Duration = Duration::from_secs(1);

/// Starts the supervisor with the same arguments, and waits until nothing is left to be looked after.
pub(super) fn run(arguments: impl Iterator<Item = OsString>) -> io::Result<ExitCode> {
    // No terminal from here on. Ctrl-C in the host's is for the host alone, which then ends the program properly.
    rustix::process::setsid()?;
    #[cfg(target_os = "linux")]
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let cgroup = cgroup();
    let path = cgroup.as_ref().map(|group| group.path().as_os_str().to_owned()).unwrap_or_default();
    let mut supervisor =
        Command::new(own_binary()?).arg0("wheelhouse").arg(SUPERVISOR_ARGUMENT).arg(path).args(arguments).spawn()?;
    // The supervisor's socket and the program's output: open here, their closing would not be seen.
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&nothing)?;
    dup2_stdout(&nothing)?;
    dup2_stderr(&nothing)?;
    let status = supervisor.wait()?;
    if status.code().is_none()
        && let Some(pid) = i32::try_from(supervisor.id()).ok().and_then(Pid::from_raw)
    {
        kill_all_below(&ProcessTree::below(pid));
    }
    if let Some(cgroup) = cgroup {
        super::cgroup::end(cgroup.path());
    }
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

#[cfg(target_os = "linux")]
fn cgroup() -> Option<Cgroup> {
    Cgroup::make()
}

#[cfg(not(target_os = "linux"))]
fn cgroup() -> Option<Cgroup> {
    None
}

fn kill_all_below(tree: &ProcessTree) {
    let begun = Instant::now();
    loop {
        let refused = tree.kill().unwrap_or_default();
        match tree.others() {
            Ok(alive) if alive.iter().all(|entry| refused.iter().any(|other| other.pid == entry.pid)) => {
                // Another user's processes; the host was told of them while there was a supervisor.
                if alive.is_empty() || begun.elapsed() > REFUSED_TIMEOUT {
                    return;
                }
            }
            Ok(_) | Err(_) => {}
        }
        std::thread::sleep(KILL_INTERVAL);
    }
}

/// The very same binary, also when a newer one has been installed in its place.
fn own_binary() -> io::Result<std::path::PathBuf> {
    let proc = std::path::PathBuf::from("/proc/self/exe");
    if proc.exists() { Ok(proc) } else { std::env::current_exe() }
}

/// For the supervisor: SIGTERM comes when the guard is gone.
#[cfg(target_os = "linux")]
pub(super) fn wait_for_parent_exit() -> io::Result<()> {
    use rustix::process::{Signal, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::TERM))?;
    // If it has gone before, no signal will come.
    if is_gone() { Err(io::Error::other("its guard is gone")) } else { Ok(()) }
}

/// For the supervisor: whether its parent is no longer the guard, which leads the session.
#[cfg(target_os = "linux")]
pub(super) fn is_gone() -> bool {
    rustix::process::getppid() != rustix::process::getsid(None).ok()
}
