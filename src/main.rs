//! `wheelhouse`: reads the command line, does what it says, and ends with 0 (done), 1 (failed) or 2 (wrong usage).

use std::process::ExitCode;

use clap::Parser;

/// A third of a gateway's time went into the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before anything else, so that the process between `wheelhouse run` and its program stays small.
    if let Some(code) = wheelhouse::worker::process::supervisor_entry() {
        return code;
    }
    let arguments = wheelhouse::cli::Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("wheelhouse: cannot start its threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(wheelhouse::cli::run(arguments));
    // A task stuck in a blocking call must not hold the exit up.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    wheelhouse::telemetry::log::flush();
    code
}
