//! A program and everything that came from it: signals to all of it, and what all of it is doing.
//!
//! The group is signalled as a whole, which no fork can escape. Processes that have left the group are found
//! in the process table and signalled one by one, through a pidfd whose process has been looked at again:
//! never by a number that may have been given to another meanwhile.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, getpid, kill_process_group, waitid};

use super::table::{self, Entry};

/// A process that has been in an uninterruptible wait for so long since SIGSTOP is held by the kernel (a file
/// server that does not answer, or a vfork whose child stands still). It runs no instruction of its own before
/// the signal stops it: it stands still.
const HELD: Duration = Duration::from_millis(100);

pub(super) struct Tree {
    /// Also the number of the group; nobody else's while the leader is not released.
    leader: Pid,
    itself: i32,
    ended: Option<WaitIdStatus>,
    released: bool,
}

impl Tree {
    pub(super) fn new(leader: Pid) -> Self {
        Self { leader, itself: getpid().as_raw_nonzero().get(), ended: None, released: false }
    }

    /// Whether the program itself has ended. It stays as a zombie: its id, and its group's, remain taken.
    pub(super) fn look_at_leader(&mut self) {
        if self.ended.is_none() {
            let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            self.ended = waitid(WaitId::Pid(self.leader), look).ok().flatten();
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// Exit code, or signal.
    pub(super) fn how_it_ended(&self) -> (Option<i32>, Option<i32>) {
        self.ended.map_or((None, None), |status| (status.exit_status(), status.terminating_signal()))
    }

    /// The group at once; whoever has left it is found and stopped by [`Self::stands_still`]. Reading the process
    /// table takes longer than all the rest, so it is read once for both.
    pub(super) fn stop(&self) {
        if !self.released {
            let _ = kill_process_group(self.leader, Signal::STOP);
        }
    }

    pub(super) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGTERM, then SIGCONT: a stopped process runs no handler.
    pub(super) fn ask_to_end(&self) {
        self.signal(Signal::TERM);
        self.signal(Signal::CONT);
    }

    pub(super) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Whether all of it stands still; stops what does not.
    pub(super) fn stands_still(&self, since: Instant) -> bool {
        let held = since.elapsed() >= HELD;
        let still = |entry: &Entry| entry.stands_still() || (held && entry.state == b'D');
        loop {
            let members = self.members();
            let moving: Vec<&Entry> = members.iter().filter(|entry| !still(entry)).collect();
            for entry in &moving {
                signal_one(entry, Signal::STOP);
            }
            if !moving.is_empty() {
                return false;
            }
            let outside = |members: &[Entry]| -> Vec<i32> {
                members.iter().filter(|e| e.group != self.group()).map(|e| e.pid).collect()
            };
            let first = outside(&members);
            // Outside the group a fork may have slipped through while the table was read; now that all that were
            // seen stand still, a second look sees it.
            if first.is_empty() || first == outside(&self.members()) {
                return true;
            }
        }
    }

    /// Takes leave of dead processes that were left to the keeper. Returns how many others than the leader live.
    pub(super) fn others(&self) -> usize {
        self.reap();
        // What is dead but not the keeper's child is its parent's to take leave of, and does nothing any more.
        self.members().iter().filter(|e| e.pid != self.group() && !e.is_dead()).count()
    }

    pub(super) fn reap(&self) {
        for entry in self.members() {
            if entry.parent == self.itself
                && entry.pid != self.group()
                && entry.is_dead()
                && let Some(pid) = Pid::from_raw(entry.pid)
            {
                let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
            }
        }
    }

    /// Takes leave of the leader: call it when nothing else lives. False if something does after all.
    pub(super) fn release(&mut self) -> bool {
        if !self.released {
            let _ = waitid(WaitId::Pid(self.leader), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
            self.released = true;
        }
        // The kernel's own word: no child, and so (on Linux, where all that is orphaned becomes one) nothing left.
        loop {
            match waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
                Ok(Some(_)) => {}
                Ok(None) => return false,
                Err(_) => return true,
            }
        }
    }

    fn group(&self) -> i32 {
        self.leader.as_raw_nonzero().get()
    }

    fn members(&self) -> Vec<Entry> {
        // Once the leader is released, its group's number may be another's: only children count.
        let group = if self.released { -1 } else { self.group() };
        table::members(self.itself, group).unwrap_or_default()
    }

    fn signal(&self, signal: Signal) {
        if !self.released {
            let _ = kill_process_group(self.leader, signal);
        }
        for entry in self.members() {
            if (self.released || entry.group != self.group()) && !entry.is_dead() {
                signal_one(&entry, signal);
            }
        }
    }
}

#[cfg(target_os = "linux")]
fn signal_one(entry: &Entry, signal: Signal) {
    use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};
    let Some(pid) = Pid::from_raw(entry.pid) else { return };
    let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    // The handle is some process's for good; that it is this one's is certain once it is seen to be still there.
    if table::entry(entry.pid).is_some_and(|now| now.started == entry.started) {
        let _ = pidfd_send_signal(&handle, signal);
    }
}

#[cfg(not(target_os = "linux"))]
fn signal_one(entry: &Entry, signal: Signal) {
    if let Some(pid) = Pid::from_raw(entry.pid) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}
