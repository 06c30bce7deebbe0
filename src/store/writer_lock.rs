//! Who may write to SQLite next, among the programs on this machine.
//!
//! SQLite lets one program write at a time. The others ask again, after pauses that grow to a tenth of a second: with
//! four busy workers some wait for long although the database is free most of the time. So they queue for a lock of
//! the operating system first, which wakes the next one at once. It only orders them: SQLite's own lock decides, and
//! whoever writes without this one (another program) is waited for as ever.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

/// Longest wait for the lock; after it SQLite's own lock is tried without.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The lock of the writers of one database.
#[derive(Clone)]
pub(super) struct WriterLock(Option<WaitQueue>);

#[derive(Clone)]
struct WaitQueue {
    /// The lock file beside the database.
    file: Arc<File>,
    /// A thread of this program waits for the file's lock. Whoever holds this decides alone what becomes of that lock,
    /// which everybody here has in common.
    waits: Arc<Mutex<bool>>,
}

/// The lock, held; released when dropped.
pub(super) struct WriterLockGuard(Arc<File>);

impl WriterLock {
    /// Beside this database; without a lock where that file cannot be made.
    pub fn for_file(database: &Path) -> Self {
        let mut name = database.as_os_str().to_owned();
        name.push("-turns");
        let file = File::options().create(true).append(true).open(name).ok();
        Self(file.map(|file| WaitQueue { file: Arc::new(file), waits: Arc::default() }))
    }

    /// Waits for the lock; for one caller at a time. `None`: there is none to be had; writing without one is only slower.
    pub async fn acquire(&self) -> Option<WriterLockGuard> {
        let queue = self.0.as_ref()?;
        let turn = {
            let mut waits = queue.waits();
            if *waits {
                // For the one before, in vain: somebody keeps the lock (a program that was stopped?). Nobody else here
                // waits for that.
                return None;
            }
            match queue.file.try_lock() {
                Ok(()) => return Some(WriterLockGuard(queue.file.clone())),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(_)) => return None,
            }
            let (give, turn) = oneshot::channel();
            let queue = queue.clone();
            tokio::task::spawn_blocking(move || queue.acquire_and(give));
            *waits = true;
            turn
        };
        tokio::time::timeout(TIMEOUT, turn).await.ok()?.ok()
    }
}

impl WaitQueue {
    fn waits(&self) -> MutexGuard<'_, bool> {
        self.waits.lock()
    }

    /// Blocks until this program has the lock, and gives it to who asked.
    fn acquire_and(self, give: oneshot::Sender<WriterLockGuard>) {
        let locked = self.file.lock().is_ok();
        let mut waits = self.waits();
        *waits = false;
        if locked {
            // Where nobody takes it any more it ends here, before anybody else looks at the lock.
            drop(give.send(WriterLockGuard(self.file.clone())));
        }
    }
}

impl Drop for WriterLockGuard {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn until_none_waits(locks: &WriterLock) {
        while *locks.0.as_ref().expect("a file").waits() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn who_waited_in_vain_takes_nobodys_lock_away_later() {
        let folder = tempfile::tempdir().expect("folder");
        let [here, there] = [(); 2].map(|()| WriterLock::for_file(&folder.path().join("db")));
        let theirs = there.acquire().await.expect("the lock");
        for _ in 0..100 {
            assert!(here.acquire().await.is_none(), "it is theirs"); // Only the first of these waits for it.
        }
        drop(theirs);
        until_none_waits(&here).await;
        let ours = here.acquire().await.expect("the lock");
        assert!(there.acquire().await.is_none(), "it is ours");
        drop(ours);
        until_none_waits(&there).await;
        assert!(there.acquire().await.is_some());
    }
}
