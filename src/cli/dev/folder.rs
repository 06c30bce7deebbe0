//! The folder that `wheelhouse dev` keeps everything in.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use secrecy::SecretString;

use crate::cli::usage::usage;

/// Where everything is kept, where nothing else is said.
pub(crate) const FOLDER: &str = ".wheelhouse";

/// Where a running `dev` says how its Redis, its database and its tokens are reached.
pub(super) const SETTINGS: &str = "settings.toml";

/// What the demo's jobs may read, and nothing else: the folder above it holds the key that signs tokens.
const FILES: &str = "files";

/// How often, and with which pause, the lock is tried.
const MAX_LOCK_ATTEMPTS: u32 = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// The folder, locked against a second `dev`.
pub(super) struct Folder {
    root: PathBuf,
    _lock: File,
}

impl Folder {
    pub(super) fn open(root: &Path, fresh: bool) -> anyhow::Result<Self> {
        fs::create_dir_all(root).with_context(|| format!("cannot make {}", root.display()))?;
        let root = root.canonicalize()?;
        let lock = File::create(root.join("lock"))?;
        // Commands beside it look for a moment whether it is held.
        let mut tries = MAX_LOCK_ATTEMPTS;
        while tries > 0 && lock.try_lock().is_err() {
            std::thread::sleep(LOCK_PAUSE);
            tries -= 1;
        }
        if tries == 0 {
            return Err(usage(format!(
                "another `wheelhouse dev` uses {}: choose another folder with --data-dir",
                root.display()
            )));
        }
        let folder = Self { root, _lock: lock };
        if fresh {
            for name in [
                "redis",
                "logs",
                FILES,
                "secret",
                "token",
                "url",
                SETTINGS,
                "orders.csv",
                "wheelhouse.db",
                "wheelhouse.db-wal",
                "wheelhouse.db-shm",
                "wheelhouse.db-turns",
            ] {
                let path = folder.path(name);
                let gone = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                match gone {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(error).with_context(|| format!("cannot remove {}", path.display()));
                    }
                    _ => {}
                }
            }
        }
        for name in ["redis", "logs", FILES] {
            fs::create_dir_all(folder.path(name))?;
        }
        Ok(folder)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The only folder that the demo's jobs may read.
    pub(super) fn files(&self) -> PathBuf {
        self.path(FILES)
    }

    /// The database's address. A folder may have any name; an address has no spaces and no bare `%` or `?`.
    pub(super) fn database_url(&self) -> String {
        const SAFE: AsciiSet = NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_');
        let path = self.path("wheelhouse.db");
        format!("sqlite://{}", percent_encode(path.as_os_str().as_bytes(), &SAFE))
    }

    /// The key that signs this folder's tokens, made at the first start and readable by its owner alone.
    pub(super) fn secret(&self) -> anyhow::Result<SecretString> {
        let path = self.path("secret");
        if let Ok(kept) = fs::read_to_string(&path) {
            return Ok(SecretString::from(kept.trim().to_owned()));
        }
        let mut random = [0_u8; 32];
        File::open("/dev/urandom")?.read_exact(&mut random)?;
        let secret = hex::encode(random);
        write_private(&path, &secret)?;
        Ok(SecretString::from(secret))
    }

    /// A free port for the private Redis: another Redis, or another `dev`, may have any of them.
    pub(super) fn redis_port(&self) -> anyhow::Result<u16> {
        Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
    }

    /// For `wheelhouse job …` in another shell.
    pub(super) fn save_address(&self, url: &str, token: &str) -> anyhow::Result<()> {
        write_private(&self.path("url"), url)?;
        write_private(&self.path("token"), token)
    }

    /// For `wheelhouse run`, `audit` and the like in another shell.
    pub(super) fn save_settings(&self, settings: &[(&str, String)]) -> anyhow::Result<()> {
        let line = |(key, value): &(&str, String)| format!("{key} = {}", serde_json::Value::from(value.as_str()));
        let lines: Vec<String> = settings.iter().map(line).collect();
        write_private(
            &self.path(SETTINGS),
            &format!("# Of the `wheelhouse dev` that runs just now; gone when it ends.\n{}", lines.join("\n")),
        )
    }

    pub(super) fn remove_address(&self) {
        for name in ["url", "token", SETTINGS] {
            let _ = fs::remove_file(self.path(name));
        }
    }
}

/// What a folder says of a `dev`.
#[derive(Debug)]
pub(crate) enum DataFolderState {
    /// One runs there, or somebody has put an address and a token there.
    Running {
        /// Its gateway's address; none while it starts.
        url: Option<String>,
        /// A token for that gateway.
        token: Option<String>,
    },
    /// One ran there, and does not now. A killed one leaves address and token behind: they lead nowhere.
    Stopped,
    /// None ever did.
    Never,
}

/// Looks whether a `dev` runs on a folder: it holds the lock as long as it lives.
pub(crate) fn state_of(root: &Path) -> DataFolderState {
    let read = |name: &str| Some(fs::read_to_string(root.join(name)).ok()?.trim().to_owned());
    let running = || DataFolderState::Running { url: read("url"), token: read("token") };
    match File::open(root.join("lock")) {
        // Shared, so that two commands that look at the same time do not take each other for a `dev`.
        Ok(lock) if lock.try_lock_shared().is_ok() => DataFolderState::Stopped,
        Ok(_) => running(),
        Err(_) if ["url", "token"].iter().any(|name| root.join(name).exists()) => running(),
        Err(_) => DataFolderState::Never,
    }
}

/// The settings of the `dev` that runs on a folder, if one does.
pub(crate) fn running(root: &Path) -> Option<PathBuf> {
    let file = root.join(SETTINGS);
    (matches!(state_of(root), DataFolderState::Running { .. }) && file.exists()).then_some(file)
}

/// Whether a file of settings is the one that a `dev` keeps in this folder.
pub(crate) fn is_settings_of_dev(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name == SETTINGS) && file.with_file_name("lock").exists()
}

/// What every command says that needs a `dev` which does not run.
pub(crate) fn not_running(root: &Path) -> anyhow::Error {
    let start = if root == Path::new(FOLDER) {
        "`make demo` or `wheelhouse dev`".to_owned()
    } else {
        format!("`wheelhouse dev --data-dir {}`", root.display())
    };
    anyhow::anyhow!("no `wheelhouse dev` runs on {}: start it with {start}", root.display())
}

fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let _ = fs::remove_file(path);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{text}").with_context(|| format!("cannot write {}", path.display()))
}
