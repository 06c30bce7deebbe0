//! The files of a SQLite database, as this program has them open.
//!
//! A file that somebody removes or puts another in the place of stays open here, under no name: everything would go on
//! and say that it succeeded, and no other program would ever see it. So whoever writes looks at the names first.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::StoreError;

/// A look that found all as it was counts for so long: one for each write would cost a twentieth of all of them.
const CHECK_TTL: Duration = Duration::from_millis(20);

/// Device and inode: a file that is open keeps them, whatever becomes of its name.
type FileId = (u64, u64);

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct FileIdentity {
    database: PathBuf,
    opened: Arc<Mutex<Option<OpenedFile>>>,
}

struct OpenedFile {
    database: FileId,
    /// Beside the real file, where the database's name is a link.
    log: Option<(PathBuf, FileId)>,
    /// When all was last found as it was.
    looked: Option<Instant>,
}

impl FileIdentity {
    /// Of the database with this name.
    pub fn of(database: PathBuf) -> Self {
        Self { database, opened: Arc::default() }
    }

    /// The writing connection has just been made and has read: it has them open, so that no other program takes the log
    /// away by right. It may be another than the last time: while no program has the database open there is none.
    pub fn note(&self) {
        let mut opened = self.lock();
        let Some(database) = opened.as_ref().map(|first| first.database).or_else(|| id(&self.database).ok()) else {
            return;
        };
        let log = self.database.canonicalize().ok().map(|file| {
            let mut log = file.into_os_string();
            log.push("-wal");
            PathBuf::from(log)
        });
        let log = log.and_then(|log| id(&log).ok().map(|id| (log, id)));
        *opened = Some(OpenedFile { database, log, looked: None });
    }

    /// Whether they still had their names a moment ago.
    pub fn check(&self) -> Result<(), StoreError> {
        match self.lock().as_mut() {
            Some(opened) if opened.looked.is_none_or(|looked| looked.elapsed() >= CHECK_TTL) => self.stat(opened),
            _ => Ok(()),
        }
    }

    /// Whether they have their names now.
    pub fn check_now(&self) -> Result<(), StoreError> {
        self.lock().as_mut().map_or(Ok(()), |opened| self.stat(opened))
    }

    fn lock(&self) -> MutexGuard<'_, Option<OpenedFile>> {
        self.opened.lock()
    }

    fn stat(&self, opened: &mut OpenedFile) -> Result<(), StoreError> {
        opened.looked = None;
        let log = opened.log.iter().map(|(path, known)| (path, known));
        for (path, known) in std::iter::once((&self.database, &opened.database)).chain(log) {
            let what = match id(path) {
                Ok(found) if found == *known => continue,
                Ok(_) => "is not the file that this program has open",
                Err(_) => "is gone",
            };
            return Err(StoreError::Unavailable(format!(
                "{} {what}: stop all programs that use this database, then start them again (docs/operations.md, \"Database\")",
                path.display()
            )));
        }
        opened.looked = Some(Instant::now());
        Ok(())
    }
}

fn id(path: &Path) -> io::Result<FileId> {
    let found = std::fs::metadata(path)?;
    Ok((found.dev(), found.ino()))
}
