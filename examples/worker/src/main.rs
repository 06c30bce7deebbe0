//! A worker with a kind of job of its own. Copy this folder, and replace `checksum.rs` by work of yours.
//!
//! To see it beside `wheelhouse dev`, give it the settings that this `dev` keeps in its folder as long as it runs:
//!
//! ```text
//! WHEELHOUSE__WORKER__FILES_ROOT=/usr cargo run -- --config ../../.wheelhouse/settings.toml
//! wheelhouse job submit checksum --title "What is in /usr/bin" --parameters '{"folder":"bin"}' --wait
//! ```

mod checksum;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Kinds that this worker does not know are left to others, which do. At SIGTERM or Ctrl-C its jobs are handed back at
    // their next checkpoint, other workers go on with them, and this returns.
    wheelhouse_worker::run(|worker| worker.job(checksum::Checksum))
}
