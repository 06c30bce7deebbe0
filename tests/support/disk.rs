//! A loss of power, as a disk that keeps its word may leave it: what was confirmed to be on it is there, and nothing else.
//!
//! What a killed `redis-server` has written outlives it, since the system has it; with the machine's power that is gone as well. A
//! library that is preloaded into the server (`disk.c`, on Linux alone) notes what fsync and fdatasync have confirmed: how much of which
//! file, and which files have a name in the folder of the append-only file. Power is lost by SIGKILL, and then that folder
//! is made anew from what was noted. A write that was not confirmed is never there afterwards: a real disk may have it.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::preload;
use super::redis::RedisServer;

/// The disk of one `redis-server` that was started with [`Self::env`].
pub struct Disk {
    /// With the library, and what it notes.
    folder: tempfile::TempDir,
    library: PathBuf,
}

/// Nothing is confirmed by the disk until this is dropped.
pub struct Stall(#[expect(dead_code, reason = "holds the lock of the file")] File);

impl Disk {
    /// One that confirms what it has at once.
    pub fn new() -> Self {
        assert_eq!(
            std::env::consts::OS,
            "linux",
            "a loss of power is tried on Linux alone: it needs LD_PRELOAD and /proc"
        );
        let folder = tempfile::tempdir().expect("a folder for what the disk confirms");
        let library = preload::compile("disk", folder.path());
        Self { folder, library }
    }

    /// What the server needs to be started with.
    pub fn env(&self) -> Vec<(String, PathBuf)> {
        vec![("LD_PRELOAD".to_owned(), self.library.clone()), ("DISK_NOTES".to_owned(), self.folder.path().to_owned())]
    }

    /// From now on it confirms nothing: whoever waits for it hangs. What had begun before ends.
    pub fn stall(&self) -> Stall {
        let path = self.folder.path().join("stall");
        let file = File::options().create(true).append(true).open(path).expect("open the file to lock");
        file.lock().expect("lock it");
        Stall(file)
    }

    /// Kills the server, and takes from its append-only file what the disk has not confirmed. Gives how many bytes that was.
    pub fn lose_power(&self, redis: &mut RedisServer) -> u64 {
        redis.kill();
        let written = sizes(&redis.append_only_folder());
        let notes = Notes::read(&self.folder.path().join("log"));
        for name in written.keys() {
            std::fs::remove_file(redis.append_only_folder().join(name)).expect("remove a file");
        }
        for (name, inode) in &notes.names {
            let path = redis.append_only_folder().join(name);
            std::fs::hard_link(self.folder.path().join(inode.to_string()), &path).expect("give a file its name back");
            let (confirmed, file) = (notes.length(*inode), File::options().write(true).open(&path).expect("open it"));
            let length = file.metadata().expect("length").len();
            assert!(length >= confirmed, "{name} has {length} bytes, and {confirmed} were confirmed");
            file.set_len(confirmed).expect("cut it");
        }
        let left = sizes(&redis.append_only_folder());
        written.iter().map(|(name, size)| size.saturating_sub(left.get(name).copied().unwrap_or_default())).sum()
    }
}

/// The files of a folder, and how long they are.
fn sizes(folder: &Path) -> HashMap<String, u64> {
    let entries = std::fs::read_dir(folder).expect("the folder of the append-only file");
    let size = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.expect("entry");
        (entry.file_name().into_string().expect("a name"), entry.metadata().expect("size").len())
    };
    entries.map(size).collect()
}

/// What the library has noted: see `disk.c`.
struct Notes {
    /// By inode.
    lengths: HashMap<u64, u64>,
    names: Vec<(String, u64)>,
}

impl Notes {
    fn read(log: &Path) -> Self {
        let mut notes = Self { lengths: HashMap::new(), names: Vec::new() };
        let text = std::fs::read_to_string(log).expect("the notes of the disk");
        // A line without an end was being written when the server was killed, which then knew nothing of it.
        for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            let words: Vec<&str> = line.split(' ').collect();
            let number = |word: &str| word.parse::<u64>().unwrap_or_else(|_| panic!("a strange note: {line}"));
            match words[..] {
                // Two calls may end in another order than they began in.
                ["file", inode, length] => {
                    let known = notes.lengths.entry(number(inode)).or_default();
                    *known = number(length).max(*known);
                }
                ["cut", inode, length] => {
                    notes.lengths.entry(number(inode)).and_modify(|known| *known = number(length).min(*known));
                }
                ["folder", ref files @ ..] => {
                    notes.names = files.chunks(2).map(|file| (file[1].to_owned(), number(file[0]))).collect();
                }
                _ => panic!("a strange note: {line}"),
            }
        }
        notes
    }

    fn length(&self, inode: u64) -> u64 {
        self.lengths.get(&inode).copied().unwrap_or_default()
    }
}
