//! A program and everything that came from it: signals to all of it, and what all of it is doing.
//!
//! # The order
//! A parent that watches its children (a shell with job control, `script`, `su`) learns when one of them is stopped,
//! and acts on it: it goes on with the next command, or stops itself. So that no parent ever sees a stopped child:
//! - a pause stops parents before their children, and stops a child only when its parent has really stopped;
//! - a resume continues children before their parents.
//!
//! Some are told all the same when they go on (`script` reads the old news of its child from a queue) and stop
//! themselves then. So a resume continues a parent only when its children have read such news, and continues again
//! what has stopped itself; and afterwards the whole tree is looked at.
//!
//! # Who is signalled
//! The end is asked of the whole group at once, which no fork can escape. Everything else is found in the process
//! table and signalled one by one, through a pidfd whose process has been looked at again: never by a number that may
//! have been given to another meanwhile. A process that may not be signalled is never passed over: whoever asked is
//! told its name.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, getpid, kill_process, kill_process_group, test_kill_process,
    waitid,
};

use super::proc_table::{self, ProcessEntry};

/// A process that has been in an uninterruptible wait for so long since SIGSTOP arrived is held by the kernel (a file
/// server that does not answer, or a vfork whose child stands still): it stands still.
const HELD_TIMEOUT: Duration = Duration::from_millis(100);
/// Longest wait in one look for parents to stop, before their children are stopped.
const PARENTS_STOP_DELAY: Duration = Duration::from_millis(50);
/// Longest wait in a resume for all parents together to take notice of what became of their children.
const NOTICE_TIMEOUT: Duration = Duration::from_millis(500);
/// A parent that has taken notice and has not slept in so many looks has something else to do.
const MAX_BUSY_CHECKS: u32 = 20;
/// Between two looks at them.
const RECHECK_DELAY: Duration = Duration::from_micros(200);

pub(super) struct ProcessTree {
    /// Also the number of the group; nobody else's while the leader is not released.
    leader: Pid,
    itself: i32,
    ended: Option<WaitIdStatus>,
    released: bool,
}

/// What a look at a tree that is to stand still has shown.
pub(super) enum StopOutcome {
    /// All of it stands still.
    Stopped,
    /// Not yet all of it.
    NotYet,
    /// These may not be stopped.
    Refused(Vec<ProcessEntry>),
}

/// What a look at a tree that is to run has shown.
#[derive(Default)]
pub(super) struct RunningOutcome {
    /// Processes that were stopped by a signal.
    pub(super) stopped: Vec<ProcessEntry>,
    /// Those of them, or others, that are parents within the tree.
    pub(super) parents: Vec<i32>,
    /// A parent has yet to notice that its child was stopped and continued: it may stop itself when it does.
    pub(super) news_waits: bool,
}

impl ProcessTree {
    pub(super) fn new(leader: Pid) -> Self {
        Self { leader, itself: getpid().as_raw_nonzero().get(), ended: None, released: false }
    }

    /// Everything that comes from the supervisor itself, which is none of it.
    pub(super) fn below(supervisor: Pid) -> Self {
        Self { released: true, ..Self::new(supervisor) }
    }

    /// Whether the program itself has ended. It stays as a zombie: its id, and its group's, remain taken.
    pub(super) fn check_leader(&mut self) {
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

    /// The processes that may not be signalled: another user's, as what `sudo` starts is.
    pub(super) fn unsignallable(&self) -> io::Result<Vec<ProcessEntry>> {
        Ok(self.members()?.into_iter().filter(|entry| !entry.is_dead() && denies_signal(entry)).collect())
    }

    /// Stops what moves, parents first, and says whether all of it stands still. To be called again until it does.
    pub(super) fn stop(&self, since: Instant) -> io::Result<StopOutcome> {
        let held = since.elapsed() >= HELD_TIMEOUT;
        let still = |entry: &ProcessEntry| entry.is_stopped_or_dead() || (held && entry.is_held());
        let members = self.members()?;
        let mut moving = false;
        for generation in generations(&members) {
            let (mut sent, mut refused) = (Vec::new(), Vec::new());
            for entry in generation.iter().filter(|entry| !still(entry)) {
                match signal_one(entry, Signal::STOP) {
                    SignalOutcome::Yes => sent.push(*entry),
                    SignalOutcome::Gone => {}
                    SignalOutcome::Refused => refused.push(**entry),
                }
            }
            moving |= !sent.is_empty();
            if !refused.is_empty() {
                return Ok(StopOutcome::Refused(refused));
            }
            if !stopped_soon(sent.into_iter().copied()) {
                return Ok(StopOutcome::NotYet); // Their children are not stopped before them.
            }
        }
        if moving {
            return Ok(StopOutcome::NotYet);
        }
        // A fork may have slipped through while the table was read. Now that all that were seen stand still, a second
        // look sees whatever there is.
        let pids = |members: &[ProcessEntry]| members.iter().map(|entry| entry.pid).collect::<Vec<_>>();
        let again = self.members()?;
        Ok(if pids(&again) == pids(&members) && again.iter().all(still) {
            StopOutcome::Stopped
        } else {
            StopOutcome::NotYet
        })
    }

    /// For a program that makes processes faster than they can be stopped one by one: the whole group at once.
    pub(super) fn stop_group(&self) {
        if !self.released {
            let _ = kill_process_group(self.leader, Signal::STOP);
        }
    }

    /// Continues all of it, children first: what is a parent only when its children have taken notice of what became of
    /// theirs, so that it does not see them stop themselves.
    pub(super) fn resume(&self) -> io::Result<()> {
        let members = self.members()?;
        let begun = Instant::now();
        for generation in generations(&members).into_iter().rev() {
            // Asked before they are continued: then they take the news at once.
            let news: Vec<ProcessEntry> = generation.iter().filter(|e| e.has_pending_sigchld()).map(|e| **e).collect();
            resume_each(generation);
            wait_for_child_notice(&news, begun);
        }
        Ok(())
    }

    /// What a tree that is to run is doing.
    pub(super) fn check_running(&self) -> io::Result<RunningOutcome> {
        let members = self.members()?;
        let is_parent =
            |entry: &ProcessEntry| members.iter().any(|other| other.parent == entry.pid && !other.is_dead());
        let parents: Vec<&ProcessEntry> = members.iter().filter(|entry| !entry.is_dead() && is_parent(entry)).collect();
        let stopped = generations(&members).into_iter().rev().flatten().filter(|entry| entry.is_stopped_by_signal());
        Ok(RunningOutcome {
            stopped: stopped.copied().collect(),
            news_waits: parents.iter().any(|entry| entry.has_pending_sigchld()),
            parents: parents.iter().map(|entry| entry.pid).collect(),
        })
    }

    /// SIGCONT to those, in that order.
    pub(super) fn resume_these(&self, entries: &[ProcessEntry]) {
        for entry in entries {
            signal_one(entry, Signal::CONT);
        }
    }

    /// SIGTERM, then SIGCONT: a stopped process runs no handler.
    pub(super) fn ask_to_end(&self) -> io::Result<()> {
        self.signal(Signal::TERM)?;
        for generation in generations(&self.members()?).into_iter().rev() {
            resume_each(generation);
        }
        Ok(())
    }

    /// SIGKILL to all of it. Gives those that may not be signalled.
    pub(super) fn kill(&self) -> io::Result<Vec<ProcessEntry>> {
        self.signal(Signal::KILL)
    }

    /// Takes leave of dead processes that were left to the supervisor. Gives those that live, without the leader.
    pub(super) fn others(&self) -> io::Result<Vec<ProcessEntry>> {
        self.reap()?;
        // What is dead but not the supervisor's child is its parent's to take leave of, and does nothing any more.
        let mut members = self.members()?;
        members.retain(|e| e.pid != self.group() && !e.is_dead());
        Ok(members)
    }

    pub(super) fn reap(&self) -> io::Result<()> {
        for entry in self.members()? {
            if entry.parent == self.itself
                && entry.pid != self.group()
                && entry.is_dead()
                && let Some(pid) = Pid::from_raw(entry.pid)
            {
                let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
            }
        }
        Ok(())
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

    /// The leader, if it is still there.
    pub(super) fn leader(&self) -> Option<ProcessEntry> {
        proc_table::entry(self.group()).filter(|entry| !self.released && !entry.is_dead())
    }

    fn group(&self) -> i32 {
        self.leader.as_raw_nonzero().get()
    }

    fn members(&self) -> io::Result<Vec<ProcessEntry>> {
        // Once the leader is released, its group's number may be another's: only children count.
        let group = if self.released { -1 } else { self.group() };
        proc_table::members(self.itself, group, -1)
    }

    /// To all of it, parents first. Gives those that may not be signalled.
    fn signal(&self, signal: Signal) -> io::Result<Vec<ProcessEntry>> {
        if !self.released {
            let _ = kill_process_group(self.leader, signal);
        }
        let members = self.members()?;
        let alive = generations(&members).into_iter().flatten().filter(|entry| !entry.is_dead());
        let refused = alive.filter(|entry| {
            if !self.released && entry.group == self.group() {
                // The signal to the group says only whether it has reached anyone at all.
                return denies_signal(entry);
            }
            signal_one(entry, signal) == SignalOutcome::Refused
        });
        Ok(refused.copied().collect())
    }
}

/// The processes by their distance from the supervisor: each stands behind its parent.
fn generations(members: &[ProcessEntry]) -> Vec<Vec<&ProcessEntry>> {
    let parents: HashMap<i32, i32> = members.iter().map(|entry| (entry.pid, entry.parent)).collect();
    let mut generations: Vec<Vec<&ProcessEntry>> = Vec::new();
    for entry in members {
        let (mut depth, mut pid) = (0, entry.parent);
        // The table is not of one moment: a circle in it (a number given anew meanwhile) must end, too.
        while let Some(parent) = parents.get(&pid).filter(|_| depth < members.len()) {
            (depth, pid) = (depth + 1, *parent);
        }
        if generations.len() <= depth {
            generations.resize_with(depth + 1, Vec::new);
        }
        generations[depth].push(entry);
    }
    generations
}

/// Waits a moment until all of them stand still, or wait in the kernel with the signal pending.
fn stopped_soon(entries: impl Iterator<Item = ProcessEntry>) -> bool {
    let begun = Instant::now();
    let stands = |now: ProcessEntry| now.is_stopped_or_dead() || now.is_held();
    for entry in entries {
        while !entry.now().is_none_or(stands) {
            if begun.elapsed() > PARENTS_STOP_DELAY {
                return false;
            }
            std::thread::sleep(RECHECK_DELAY);
        }
    }
    true
}

fn resume_each(generation: Vec<&ProcessEntry>) {
    for entry in generation.into_iter().filter(|entry| !entry.is_dead()) {
        signal_one(entry, Signal::CONT);
    }
}

/// Waits until these have taken notice of what became of their children, and continues those that stop themselves for
/// it. Some never take notice; `begun` is when the waiting for all of the tree began.
fn wait_for_child_notice(parents: &[ProcessEntry], begun: Instant) {
    for entry in parents {
        let mut busy = 0;
        while begun.elapsed() < NOTICE_TIMEOUT
            && let Some(now) = entry.now()
        {
            if now.is_stopped_by_signal() {
                signal_one(&now, Signal::CONT);
                busy = 0;
            } else if !now.has_pending_sigchld() {
                // It has read the news; what it does about it, it does before it sleeps the next time.
                busy += 1;
                if now.is_dead() || now.sleeps() || busy >= MAX_BUSY_CHECKS {
                    break;
                }
            }
            std::thread::sleep(RECHECK_DELAY);
        }
    }
}

/// Whether a signal has gone out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SignalOutcome {
    Yes,
    /// The process is not there any more.
    Gone,
    /// The system does not allow it.
    Refused,
}

impl SignalOutcome {
    fn from(answer: rustix::io::Result<()>) -> Self {
        match answer {
            Ok(()) => Self::Yes,
            Err(Errno::SRCH) => Self::Gone,
            Err(_) => Self::Refused,
        }
    }
}

/// SIGKILL to one process, by whoever has lost its supervisor.
pub(super) fn kill_one(entry: &ProcessEntry) {
    signal_one(entry, Signal::KILL);
}

/// Whether the process may not be signalled.
fn denies_signal(entry: &ProcessEntry) -> bool {
    let Some(pid) = Pid::from_raw(entry.pid) else { return false };
    // Looked at again afterwards: the number may be a stranger's by now.
    SignalOutcome::from(test_kill_process(pid)) == SignalOutcome::Refused
        && entry.now().is_some_and(|now| !now.is_dead())
}

#[cfg(target_os = "linux")]
fn signal_one(entry: &ProcessEntry, signal: Signal) -> SignalOutcome {
    use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};
    let Some(pid) = Pid::from_raw(entry.pid) else { return SignalOutcome::Gone };
    let handle = pidfd_open(pid, PidfdFlags::empty());
    // The handle is some process's for good; that it is this one's is certain once it is seen to be still there.
    if entry.now().is_none() {
        return SignalOutcome::Gone;
    }
    match handle {
        Ok(handle) => SignalOutcome::from(pidfd_send_signal(&handle, signal)),
        Err(Errno::SRCH) => SignalOutcome::Gone,
        // A sandbox or an old kernel without such handles: by its number, which has just been looked at.
        Err(_) => SignalOutcome::from(kill_process(pid, signal)),
    }
}

#[cfg(not(target_os = "linux"))]
fn signal_one(entry: &ProcessEntry, signal: Signal) -> SignalOutcome {
    Pid::from_raw(entry.pid).map_or(SignalOutcome::Gone, |pid| SignalOutcome::from(kill_process(pid, signal)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_stand_before_their_children_in_whatever_order_the_table_lists_them() {
        let list = [(9, 5), (5, 7), (7, 1), (8, 5), (6, 1)];
        let members: Vec<ProcessEntry> = list.map(|(pid, parent)| ProcessEntry::of(pid, parent)).to_vec();
        let pids: Vec<Vec<i32>> =
            generations(&members).iter().map(|generation| generation.iter().map(|e| e.pid).collect()).collect();
        assert_eq!(pids, [vec![7, 6], vec![5], vec![9, 8]]);
        let circle = [ProcessEntry::of(2, 3), ProcessEntry::of(3, 2)];
        assert_eq!(generations(&circle).iter().map(Vec::len).sum::<usize>(), 2, "it comes to an end");
    }
}
