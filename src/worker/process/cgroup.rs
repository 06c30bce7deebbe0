//! A control group (cgroup v2) for the processes of one program, where one can be made: there the kernel itself keeps
//! the list of all that came from it, which neither `setsid` nor the death of supervisor and guard can shorten.
//!
//! One can be made by root, and by users to whom the group that they are in is delegated (systemd's `Delegate=yes`);
//! mostly not in a container. Without one, everything holds but this: what has left the program's session by `setsid`
//! runs on when supervisor and guard are killed at the same time.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

/// What the names of these groups begin with; the guard's process id follows.
const PREFIX: &str = "wheelhouse-";
/// The kernel empties a group within this time after it has been told to kill it.
const MAX_EMPTY_CHECKS: u32 = 100;

/// A group, held by this process: while anyone holds it, nobody takes it for left behind.
pub(super) struct Cgroup {
    path: PathBuf,
    _held: File,
}

impl Cgroup {
    /// A new one below the group that this process is in. `None`: none can be made here.
    pub(super) fn make() -> Option<Self> {
        let parent = own_group()?;
        end_left_behind(&parent);
        let path = parent.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir(&path).ok()?;
        // Linux before 5.14 cannot kill a group.
        let group = Self::hold(path.clone()).filter(|_| path.join("cgroup.kill").exists());
        if group.is_none() {
            let _ = fs::remove_dir(&path);
        }
        group
    }

    /// One that another process has made.
    pub(super) fn hold(path: PathBuf) -> Option<Self> {
        let held = File::open(&path).ok()?;
        flock(&held, FlockOperation::NonBlockingLockShared).ok()?;
        Some(Self { path, _held: held })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Calls this while the process is in the group: what it starts stays there.
    pub(super) fn within<T>(&self, start: impl FnOnce() -> T) -> T {
        let parent = self.path.parent().unwrap_or(&self.path);
        // If it cannot go in, the program runs without, as where no group can be made.
        let _ = fs::write(self.path.join("cgroup.procs"), "0");
        let started = start();
        let _ = fs::write(parent.join("cgroup.procs"), "0");
        started
    }
}

/// SIGKILL to all that is in the group.
pub(super) fn kill(path: &Path) -> io::Result<()> {
    fs::write(path.join("cgroup.kill"), "1")
}

/// Kills what is in the group, if anything is, and removes it.
pub(super) fn end(path: &Path) {
    for _ in 0..MAX_EMPTY_CHECKS {
        match fs::remove_dir(path) {
            // Something is in it, or was a moment ago.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                let _ = kill(path);
                std::thread::sleep(Duration::from_millis(10));
            }
            Ok(()) | Err(_) => return,
        }
    }
}

/// Groups whose guard and supervisor were both killed, and their host as well: what is in them belongs to nobody.
fn end_left_behind(parent: &Path) {
    let Ok(items) = fs::read_dir(parent) else { return };
    let ours = items.flatten().filter(|item| item.file_name().to_string_lossy().starts_with(PREFIX));
    for item in ours {
        let Ok(group) = File::open(item.path()) else { continue };
        if flock(&group, FlockOperation::NonBlockingLockExclusive).is_ok() {
            end(&item.path());
        }
    }
}

/// The folder of the group that this process is in.
fn own_group() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let folder = folder_of(&mounts, &groups)?;
    // In a namespace the path may be seen from elsewhere: this process must be in it.
    let members = fs::read_to_string(folder.join("cgroup.procs")).ok()?;
    let own = std::process::id().to_string();
    members.lines().any(|pid| pid == own).then_some(folder)
}

fn folder_of(mounts: &str, groups: &str) -> Option<PathBuf> {
    let mount = mounts.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        (fields.get(2) == Some(&"cgroup2")).then(|| fields.get(1).map(PathBuf::from)).flatten()
    })?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(mount.join(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_found_where_versions_one_and_two_are_mixed() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let groups = "4:memory:/a\n0::/system.slice/batch.service\n";
        let folder = PathBuf::from("/sys/fs/cgroup/unified/system.slice/batch.service");
        assert_eq!(folder_of(mounts, groups), Some(folder));
        assert_eq!(folder_of("tmpfs /sys/fs/cgroup tmpfs rw 0 0", groups), None);
    }
}
