//! JobFiles that job code reads. Who creates a job chooses the path, so the path is never trusted: everything is opened
//! beneath one folder, which the worker's own settings name (`worker.files_root`).

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::error::JobError;

/// Times a path with `..` is followed again because something was renamed while it was.
const MAX_ATTEMPTS: u32 = 100;
const NO_ROOT_MESSAGE: &str = "This worker reads no files: its setting worker.files_root names no folder";

/// The folder beneath which job code may read, if the settings name one. It is opened anew for each file: the folder
/// may be mounted, or replaced by a newer one, while the worker runs.
#[derive(Debug, Clone)]
pub(crate) struct JobFiles {
    root: Option<PathBuf>,
}

impl JobFiles {
    /// `None`: every file is refused.
    pub(crate) fn new(root: Option<PathBuf>) -> Self {
        Self { root }
    }

    /// Whether the folder can be opened: a worker says so at its start, not in the middle of its first job.
    pub(crate) fn check(&self) -> io::Result<()> {
        match &self.root {
            Some(root) => Ok(open_root(root).map(drop)?),
            None => Ok(()),
        }
    }

    /// Opens a regular file for reading.
    pub(crate) fn open(&self, path: &Path) -> Result<File, JobError> {
        // Looked at before it is opened for reading, for opening some devices does something by itself. What is put in
        // its place between the two steps is found by the second look; O_NONBLOCK, because opening a FIFO would
        // wait for its other end, and nobody could cancel that.
        let look = self.open_beneath(path, OFlags::PATH)?;
        require_regular(path, &look)?;
        let file = self.open_beneath(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        require_regular(path, &file)?;
        Ok(File::from(file))
    }

    /// The paths of the regular files in a folder, as [`Self::open`] takes them, sorted. Links are left out.
    pub(crate) fn list(&self, path: &Path) -> Result<Vec<PathBuf>, JobError> {
        let folder = self.open_beneath(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut files = Vec::new();
        for entry in Dir::read_from(&folder).map_err(|error| refusal(path, error))? {
            let entry = entry.map_err(|error| refusal(path, error))?;
            let file = path.join(OsStr::from_bytes(entry.file_name().to_bytes()));
            // Some file systems do not say what an entry is.
            let is_regular = match entry.file_type() {
                FileType::Unknown => self.open(&file).is_ok(),
                kind => kind == FileType::RegularFile,
            };
            if is_regular {
                files.push(file);
            }
        }
        files.sort();
        Ok(files)
    }

    /// The kernel itself follows the path, so that no link leads out of the folder, however it changes meanwhile.
    fn open_beneath(&self, path: &Path, how: OFlags) -> Result<OwnedFd, JobError> {
        let Some(root) = &self.root else { return Err(JobError::permanent(NO_ROOT_MESSAGE)) };
        let root = open_root(root)
            .map_err(|error| JobError::failed(format!("The folder of worker.files_root cannot be opened: {error}")))?;
        let inside = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let mut tries = 0;
        loop {
            tries += 1;
            match rustix::fs::openat2(&root, path, how | OFlags::CLOEXEC, Mode::empty(), inside) {
                // The path has a `..`, and something on the machine was renamed meanwhile.
                Err(Errno::AGAIN | Errno::INTR) if tries < MAX_ATTEMPTS => {}
                opened => return opened.map_err(|error| refusal(path, error)),
            }
        }
    }
}

fn open_root(root: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn require_regular(path: &Path, file: &OwnedFd) -> Result<(), JobError> {
    let found = rustix::fs::fstat(file).map_err(|error| refusal(path, error))?;
    match FileType::from_raw_mode(found.st_mode) {
        FileType::RegularFile => Ok(()),
        _ => Err(JobError::permanent(format!("{} is not a file", path.display()))),
    }
}

/// Names the path as the job has it, and never the folder it lies in: where a worker keeps its files is its own affair.
fn refusal(path: &Path, error: Errno) -> JobError {
    let path = path.display();
    match error {
        Errno::XDEV => JobError::permanent(format!(
            "{path} is not beneath the worker's folder of files: name it relative to that folder, without a link or `..` that leads out of it"
        )),
        Errno::NOENT | Errno::NOTDIR => JobError::permanent(format!("There is no file {path}")),
        Errno::NOSYS => JobError::permanent(
            "This worker's system cannot open files safely beneath a folder: Linux 5.6 or newer is needed",
        ),
        error => JobError::failed(format!("Cannot read {path}: {}", io::Error::from(error))),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn read(mut file: File) -> String {
        let mut text = String::new();
        file.read_to_string(&mut text).expect("read");
        text
    }

    #[test]
    fn a_folder_is_listed_without_links_and_each_of_its_files_opens() {
        let root = tempfile::tempdir().expect("folder");
        std::fs::create_dir(root.path().join("in")).expect("folder");
        for name in ["in/b", "in/a"] {
            std::fs::write(root.path().join(name), name).expect("write");
        }
        symlink("a", root.path().join("in/link")).expect("link");
        let files = JobFiles::new(Some(root.path().to_owned()));
        let listed = files.list(Path::new("in")).expect("list");
        let texts: Vec<String> = listed.iter().map(|path| read(files.open(path).expect("open"))).collect();
        assert_eq!(texts, ["in/a", "in/b"]);
        assert!(files.list(Path::new(".")).expect("list").is_empty());
        for path in ["..", "/", "in/../.."] {
            assert!(matches!(files.list(Path::new(path)), Err(JobError::Permanent(_))), "{path}");
        }
    }

    #[test]
    fn a_link_that_is_put_in_the_place_of_a_folder_meanwhile_leads_nowhere() {
        let (root, outside) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
        std::fs::write(outside.path().join("file"), "outside").expect("write");
        std::fs::create_dir(root.path().join("real")).expect("folder");
        std::fs::write(root.path().join("real/file"), "inside").expect("write");
        symlink(outside.path(), root.path().join("link")).expect("link");
        let done = AtomicBool::new(false);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    for name in ["real", "link"] {
                        let (at, shown) = (root.path().join(name), root.path().join("shown"));
                        let _ = std::fs::rename(&at, &shown);
                        let _ = std::fs::rename(&shown, &at);
                    }
                }
            });
            let files = JobFiles::new(Some(root.path().to_owned()));
            let (mut inside, mut outside) = (0, 0);
            while inside < 500 && outside == 0 {
                match files.open(Path::new("shown/file")).map(read).as_deref() {
                    Ok("inside") => inside += 1,
                    Ok(_) => outside += 1,
                    Err(_) => {}
                }
            }
            done.store(true, Ordering::Relaxed);
            assert_eq!(outside, 0);
        });
    }
}
