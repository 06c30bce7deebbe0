//! Nothing outlives a test process, however it ends: SIGKILL too.

use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A shell that waits for the end of this process; in a group of its own, so that what ends a whole group of
/// processes (Ctrl-C) leaves it its work.
pub struct Watchdog(Child);

impl Watchdog {
    /// Kills every process whose id stands in a `*.pid` file of the folder, and removes the folder.
    pub fn over(folder: &Path) -> Self {
        let folder = folder.display();
        // A process that was starting just then gets a second to write its file.
        Self::then(&format!(
            "sleep 1; for file in '{folder}'/*.pid; do kill -9 $(cat \"$file\"); done; sleep 1; rm -rf '{folder}'"
        ))
    }

    /// Runs a shell command.
    pub fn then(command: &str) -> Self {
        use std::os::unix::process::CommandExt;
        let started = Command::new("sh")
            .args(["-c", &format!("read _; {command}")])
            .current_dir("/")
            // Its pipe stays open until this process is gone.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        Self(started.expect("start sh"))
    }
}

impl Drop for Watchdog {
    /// Everything has been ended in order.
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
