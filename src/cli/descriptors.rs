//! How many files and sockets this process may have open: every socket of a client takes one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit as far as it goes; gives what it is then.
pub fn raise_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Refused where the system's own maximum is lower: then it stays as it was.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// What to tell somebody who has too few.
pub fn too_few(have: u64, sockets: usize) -> String {
    format!(
        "{sockets} sockets need as many file descriptors and some more, and this process may have {have}: raise it with `ulimit -n`, or LimitNOFILE of its systemd unit"
    )
}
