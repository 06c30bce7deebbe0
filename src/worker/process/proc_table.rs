//! Which processes belong to a program, and what each is doing: from `/proc`, or from `ps` where there is none.

use std::collections::HashSet;
use std::io;
use std::path::Path;

/// One process, as the system shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProcessEntry {
    pub(super) pid: i32,
    pub(super) parent: i32,
    pub(super) group: i32,
    pub(super) session: i32,
    /// The letter of `ps`: R, S, D, T, Z…
    pub(super) state: u8,
    threads: u32,
    /// When it was started, in the system's own unit: with the id, this names one process for good.
    pub(super) started: u64,
}

impl ProcessEntry {
    /// Ended, and only waiting for its parent to ask how. A process whose first thread has ended while others go on
    /// has the same letter, but is not dead.
    pub(super) fn is_dead(&self) -> bool {
        has_ended(self.state) && self.threads <= 1
    }

    /// None of its threads runs: stopped (or held by a debugger), or dead.
    pub(super) fn is_stopped_or_dead(&self) -> bool {
        self.is_dead() || self.states().into_iter().all(|state| is_stopped(state) || has_ended(state))
    }

    /// At least one of its threads waits in the kernel and cannot be interrupted, the others stand still, and the stop
    /// signal has arrived: none of them runs an instruction of the program before it stops. Without the signal such a
    /// process goes on as soon as its wait is over, so the letter D alone proves nothing.
    pub(super) fn is_held(&self) -> bool {
        let states = self.states();
        let waits = |state: &u8| *state == b'D';
        states.iter().any(waits)
            && states.iter().all(|state| waits(state) || is_stopped(*state) || has_ended(*state))
            // One thread takes the signal, and with that all of them are to stop: then it is not pending any more.
            && (states.iter().any(|state| is_stopped(*state)) || is_pending(self.pid, SIGSTOP))
    }

    /// Stopped by a signal, whoever sent it. A process held by a debugger is the debugger's business.
    pub(super) fn is_stopped_by_signal(&self) -> bool {
        self.state == b'T'
    }

    /// It waits for something to happen.
    pub(super) fn sleeps(&self) -> bool {
        self.state == b'S'
    }

    /// It has not taken notice yet of what has become of a child.
    pub(super) fn has_pending_sigchld(&self) -> bool {
        is_pending(self.pid, SIGCHLD)
    }

    /// This very process, as it is now; `None` if it is gone.
    pub(super) fn now(&self) -> Option<Self> {
        entry(self.pid).filter(|now| now.started == self.started)
    }

    /// For tests: a process that sleeps.
    #[cfg(test)]
    pub(super) fn of(pid: i32, parent: i32) -> Self {
        Self { pid, parent, group: pid, session: pid, state: b'S', threads: 1, started: 1 }
    }

    /// One letter for each thread: a process stops thread by thread, and its own letter is only that of the first.
    fn states(&self) -> Vec<u8> {
        if self.threads <= 1 {
            return vec![self.state];
        }
        let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", self.pid)) else { return vec![self.state] };
        // A thread that has ended meanwhile is missing in the answer.
        let stats = threads.flatten().filter_map(|thread| std::fs::read(thread.path().join("stat")).ok());
        stats.filter_map(|stat| parse_stat(&stat)).map(|entry| entry.state).collect()
    }
}

fn is_stopped(state: u8) -> bool {
    matches!(state, b'T' | b't')
}

fn has_ended(state: u8) -> bool {
    matches!(state, b'Z' | b'X' | b'x')
}

const SIGCHLD: i32 = rustix::process::Signal::CHILD.as_raw();
const SIGSTOP: i32 = rustix::process::Signal::STOP.as_raw();

/// Whether the signal has been sent to the process and not been taken by any of its threads. False where the system
/// does not tell (macOS).
fn is_pending(pid: i32, signal: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    pending_in(&status).any(|set| set >> (signal - 1) & 1 == 1)
}

/// The sets of pending signals in a `status` file: the thread's own, and those of the whole process.
fn pending_in(status: &str) -> impl Iterator<Item = u64> {
    let sets = status.lines().filter_map(|line| line.strip_prefix("SigPnd:").or(line.strip_prefix("ShdPnd:")));
    sets.filter_map(|set| u64::from_str_radix(set.trim(), 16).ok())
}

/// Every process that comes from `ancestor` (not itself), and every one in that group or that session. Each may be -1:
/// none.
///
/// A process that forks while the list is read may be missing in it; once all that are listed stand still, the
/// next list is complete.
pub(super) fn members(ancestor: i32, group: i32, session: i32) -> io::Result<Vec<ProcessEntry>> {
    let all = all()?;
    let mut family = HashSet::from([ancestor]);
    loop {
        let before = family.len();
        family.extend(all.iter().filter(|e| family.contains(&e.parent)).map(|e| e.pid).collect::<Vec<_>>());
        if family.len() == before {
            break;
        }
    }
    let belongs =
        |e: &ProcessEntry| e.pid != ancestor && (family.contains(&e.pid) || e.group == group || e.session == session);
    Ok(all.into_iter().filter(belongs).collect())
}

/// The number of a process's group: 0 where the group is led by a process that cannot be seen from here, as in a container
/// that was entered from outside. `None`: there is no such process.
pub fn group_of(pid: i32) -> Option<i32> {
    entry(pid).map(|entry| entry.group)
}

/// The process with this id now.
pub(super) fn entry(pid: i32) -> Option<ProcessEntry> {
    if has_proc() {
        parse_stat(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
    } else {
        all().ok()?.into_iter().find(|e| e.pid == pid)
    }
}

const ENFILE: i32 = rustix::io::Errno::NFILE.raw_os_error();
const EMFILE: i32 = rustix::io::Errno::MFILE.raw_os_error();
const ENOMEM: i32 = rustix::io::Errno::NOMEM.raw_os_error();

fn has_proc() -> bool {
    Path::new("/proc/self/stat").exists()
}

fn all() -> io::Result<Vec<ProcessEntry>> {
    if !has_proc() {
        return from_ps();
    }
    let mut found = Vec::new();
    for item in std::fs::read_dir("/proc")? {
        let name = item?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        match std::fs::read(format!("/proc/{pid}/stat")) {
            Ok(stat) => found.extend(parse_stat(&stat)),
            // A list that lacks a process because no file can be opened any more would say that it stands still.
            Err(error) if matches!(error.raw_os_error(), Some(ENFILE | EMFILE | ENOMEM)) => return Err(error),
            // Gone meanwhile, or hidden (`hidepid`): not in the list.
            Err(_) => {}
        }
    }
    Ok(found)
}

/// `pid (name) state ppid pgrp …`: the name may hold anything, so fields are counted from its last bracket.
fn parse_stat(stat: &[u8]) -> Option<ProcessEntry> {
    let open = stat.iter().position(|b| *b == b'(')?;
    let close = stat.iter().rposition(|b| *b == b')')?;
    let pid = std::str::from_utf8(&stat[..open]).ok()?.trim().parse().ok()?;
    let fields: Vec<&str> = std::str::from_utf8(stat.get(close + 1..)?).ok()?.split_ascii_whitespace().collect();
    Some(ProcessEntry {
        pid,
        state: *fields.first()?.as_bytes().first()?,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        threads: fields.get(17)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

/// Without `/proc` (macOS): slower, and without threads and times.
fn from_ps() -> io::Result<Vec<ProcessEntry>> {
    let child = std::process::Command::new("ps")
        .args(["-A", "-o", "pid=", "-o", "ppid=", "-o", "pgid=", "-o", "stat="])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    let itself = i32::try_from(child.id()).unwrap_or(0);
    let listed = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&listed.stdout);
    Ok(text.lines().filter_map(parse_ps).filter(|e| e.pid != itself).collect())
}

fn parse_ps(line: &str) -> Option<ProcessEntry> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|text| text.parse().ok());
    let state = *fields.get(3)?.as_bytes().first()?;
    let group = number(2)?;
    Some(ProcessEntry { pid: number(0)?, parent: number(1)?, group, session: 0, state, threads: 1, started: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let stat = b"71 (a) b) (c) T 70 71 70 0 -1 4194560 95 0 0 0 0 0 0 0 20 0 3 0 8123 2519040 188 1844";
        let entry = parse_stat(stat).expect("read");
        let whole =
            ProcessEntry { pid: 71, parent: 70, group: 71, session: 70, state: b'T', threads: 3, started: 8123 };
        assert_eq!(entry, whole);
        assert_eq!(parse_stat(b"71 (short) T 70"), None);
        assert_eq!(parse_stat(b""), None);
    }

    #[test]
    fn a_group_and_a_session_that_are_led_from_outside_a_container_have_the_number_0() {
        let stat = b"2 (sh) S 1 0 0 0 -1 4194560 95 0 0 0 0 0 0 0 20 0 1 0 8123 2519040 188 1844";
        let entry = parse_stat(stat).expect("read");
        assert_eq!((entry.group, entry.session), (0, 0));
    }

    #[test]
    fn a_first_thread_that_has_ended_does_not_mean_that_the_process_has() {
        let stat = |threads| format!("71 (java) Z 70 71 70 0 -1 4194560 95 0 0 0 0 0 0 0 20 0 {threads} 0 8123 25 188");
        assert!(parse_stat(stat(1).as_bytes()).expect("read").is_dead());
        assert!(!parse_stat(stat(3).as_bytes()).expect("read").is_dead());
    }

    #[test]
    fn a_process_that_waits_in_the_kernel_is_not_held_without_a_stop_signal() {
        let own = entry(i32::try_from(std::process::id()).expect("pid")).expect("this process");
        let waits = ProcessEntry { state: b'D', threads: 1, ..own };
        assert!(!waits.is_held() && !waits.is_stopped_or_dead(), "no SIGSTOP has been sent to this process");
    }

    #[test]
    fn pending_signals_are_read_from_both_sets() {
        let status = "Name:\tcp\nState:\tD (disk sleep)\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000040000\n";
        let sets: Vec<u64> = pending_in(status).collect();
        assert_eq!(sets, [0, 1 << 18], "SIGSTOP is the nineteenth");
    }

    #[test]
    fn a_line_of_ps_is_read_as_on_macos() {
        let entry = parse_ps("  501   400   501 T+").expect("read");
        assert_eq!((entry.pid, entry.parent, entry.group, entry.state), (501, 400, 501, b'T'));
        assert!(entry.is_stopped_or_dead());
        assert_eq!(parse_ps("no process"), None);
    }

    #[test]
    fn a_child_is_found_and_a_stranger_is_not() {
        let mut child = std::process::Command::new("sleep").arg("30").spawn().expect("sleep");
        let pid = i32::try_from(child.id()).expect("pid");
        let ours = i32::try_from(std::process::id()).expect("pid");
        let found = members(ours, -1, -1).expect("list");
        child.kill().expect("kill");
        child.wait().expect("wait");
        assert!(found.iter().any(|e| e.pid == pid && e.parent == ours), "{found:?}");
        assert!(!found.iter().any(|e| e.pid == ours || e.pid == 1), "{found:?}");
    }
}
