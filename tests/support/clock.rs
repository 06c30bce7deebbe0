//! A wall clock that a test sets, for programs that it starts: `redis-server` or the program itself.

use std::path::PathBuf;

use super::preload;

/// One clock, shared by all programs that were started with [`Self::env`].
pub struct Clock {
    folder: tempfile::TempDir,
    library: PathBuf,
}

impl Clock {
    /// A clock that goes right.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder for the clock");
        let library = preload::compile("clock", folder.path());
        let clock = Self { folder, library };
        clock.set(0);
        clock
    }

    /// From now on it is so many seconds ahead of (or, below 0, behind) this machine's clock.
    pub fn set(&self, seconds: i64) {
        // Written beside it and moved there: nobody reads half a number.
        let new = self.folder.path().join("new");
        std::fs::write(&new, seconds.to_string()).expect("write the offset");
        std::fs::rename(new, self.offset()).expect("move the offset");
    }

    /// What a program needs to be started with.
    pub fn env(&self) -> Vec<(String, PathBuf)> {
        vec![("LD_PRELOAD".to_owned(), self.library.clone()), ("CLOCK_OFFSET_FILE".to_owned(), self.offset())]
    }

    fn offset(&self) -> PathBuf {
        self.folder.path().join("offset")
    }
}
