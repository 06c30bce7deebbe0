//! Which processes belong to a program, and what each is doing: from `/proc`, or from `ps` where there is none.

use std::collections::HashSet;
use std::io;
use std::path::Path;

/// One process, as the system shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) pid: i32,
    pub(super) parent: i32,
    pub(super) group: i32,
    /// The letter of `ps`: R, S, D, T, Z…
    pub(super) state: u8,
    threads: u32,
    /// When it was started, in the system's own unit: with the id, this names one process for good.
    pub(super) started: u64,
}

impl Entry {
    /// Ended, and only waiting for its parent to ask how.
    pub(super) fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }

    /// None of its threads runs: stopped (or held by a debugger), or dead.
    pub(super) fn stands_still(&self) -> bool {
        self.is_dead() || (is_stopped(self.state) && (self.threads <= 1 || threads_stand_still(self.pid)))
    }
}

fn is_stopped(state: u8) -> bool {
    matches!(state, b'T' | b't')
}

/// Every process that comes from `ancestor` (not itself), and every one in the group of `leader`.
///
/// A process that forks while the list is read may be missing in it; once all that are listed stand still, the
/// next list is complete.
pub(super) fn members(ancestor: i32, leader: i32) -> io::Result<Vec<Entry>> {
    let all = all()?;
    let mut family = HashSet::from([ancestor]);
    loop {
        let before = family.len();
        family.extend(all.iter().filter(|e| family.contains(&e.parent)).map(|e| e.pid).collect::<Vec<_>>());
        if family.len() == before {
            break;
        }
    }
    let belongs = |e: &Entry| e.pid != ancestor && (family.contains(&e.pid) || e.group == leader);
    Ok(all.into_iter().filter(belongs).collect())
}

/// The process with this id now.
pub(super) fn entry(pid: i32) -> Option<Entry> {
    if has_proc() {
        parse_stat(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
    } else {
        all().ok()?.into_iter().find(|e| e.pid == pid)
    }
}

fn has_proc() -> bool {
    Path::new("/proc/self/stat").exists()
}

fn all() -> io::Result<Vec<Entry>> {
    if !has_proc() {
        return from_ps();
    }
    let mut found = Vec::new();
    for item in std::fs::read_dir("/proc")? {
        let name = item?.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) {
            // Gone meanwhile: not in the list.
            found.extend(std::fs::read(format!("/proc/{pid}/stat")).ok().and_then(|stat| parse_stat(&stat)));
        }
    }
    Ok(found)
}

/// `pid (name) state ppid pgrp …`: the name may hold anything, so fields are counted from its last bracket.
fn parse_stat(stat: &[u8]) -> Option<Entry> {
    let open = stat.iter().position(|b| *b == b'(')?;
    let close = stat.iter().rposition(|b| *b == b')')?;
    let pid = std::str::from_utf8(&stat[..open]).ok()?.trim().parse().ok()?;
    let fields: Vec<&str> = std::str::from_utf8(stat.get(close + 1..)?).ok()?.split_ascii_whitespace().collect();
    Some(Entry {
        pid,
        state: *fields.first()?.as_bytes().first()?,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        threads: fields.get(17)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

/// A process stops thread by thread; its own state is only that of the first.
fn threads_stand_still(pid: i32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    threads.flatten().all(|thread| {
        let stat = std::fs::read(thread.path().join("stat")).ok();
        stat.and_then(|stat| parse_stat(&stat)).is_none_or(|e| is_stopped(e.state) || e.is_dead())
    })
}

/// Without `/proc` (macOS): slower, and without threads and times.
fn from_ps() -> io::Result<Vec<Entry>> {
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

fn parse_ps(line: &str) -> Option<Entry> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|text| text.parse().ok());
    let state = *fields.get(3)?.as_bytes().first()?;
    Some(Entry { pid: number(0)?, parent: number(1)?, group: number(2)?, state, threads: 1, started: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let stat = b"71 (a) b) (c) T 70 71 70 0 -1 4194560 95 0 0 0 0 0 0 0 20 0 3 0 8123 2519040 188 1844";
        let entry = parse_stat(stat).expect("read");
        assert_eq!(entry, Entry { pid: 71, parent: 70, group: 71, state: b'T', threads: 3, started: 8123 });
        assert_eq!(parse_stat(b"71 (short) T 70"), None);
        assert_eq!(parse_stat(b""), None);
    }

    #[test]
    fn a_line_of_ps_is_read_as_on_macos() {
        let entry = parse_ps("  501   400   501 T+").expect("read");
        assert_eq!((entry.pid, entry.parent, entry.group, entry.state), (501, 400, 501, b'T'));
        assert!(entry.stands_still());
        assert_eq!(parse_ps("no process"), None);
    }

    #[test]
    fn a_child_is_found_and_a_stranger_is_not() {
        let mut child = std::process::Command::new("sleep").arg("30").spawn().expect("sleep");
        let pid = i32::try_from(child.id()).expect("pid");
        let ours = i32::try_from(std::process::id()).expect("pid");
        let found = members(ours, -1).expect("list");
        child.kill().expect("kill");
        child.wait().expect("wait");
        assert!(found.iter().any(|e| e.pid == pid && e.parent == ours), "{found:?}");
        assert!(!found.iter().any(|e| e.pid == ours || e.pid == 1), "{found:?}");
    }
}
