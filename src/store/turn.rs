//! Whose turn it is to write to SQLite, among the programs on this machine.
//!
//! SQLite lets one program write at a time. The others ask again, after pauses that grow to a tenth of a second: with
//! four busy workers some wait for long although the database is free most of the time. So they queue for a lock of
//! the operating system first, which wakes the next one at once. It only orders them: SQLite's own lock decides, and
//! whoever writes without this one (another program) is waited for as ever.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Longest wait for a turn; after it SQLite's own lock is tried without.
const PATIENCE: Duration = Duration::from_secs(1);

/// The lock file beside the database.
#[derive(Clone)]
pub(super) struct Turns(Option<Arc<File>>);

/// A turn; ends when dropped.
pub(super) struct WriteTurn(Arc<File>);

impl Turns {
    /// Beside this database; without turns where that file cannot be made.
    pub fn beside(database: &Path) -> Self {
        let mut name = database.as_os_str().to_owned();
        name.push("-turns");
        Self(File::options().create(true).append(true).open(name).ok().map(Arc::new))
    }

    /// Waits for a turn. `None`: there is none to be had; writing without one is only slower.
    pub async fn wait(&self) -> Option<WriteTurn> {
        let file = self.0.clone()?;
        match file.try_lock() {
            Ok(()) => return Some(WriteTurn(file)),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(_)) => return None,
        }
        // Given up, it still ends: its turn is dropped with its answer.
        let waiting = tokio::task::spawn_blocking(move || file.lock().is_ok().then(|| WriteTurn(file)));
        tokio::time::timeout(PATIENCE, waiting).await.ok()?.ok()?
    }
}

impl Drop for WriteTurn {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}
