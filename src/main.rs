//! `wheelhouse`: reads the command line, does what it says, and ends with 0 (done), 1 (failed) or 2 (wrong usage).

use std::process::ExitCode;

use clap::Parser;

/// A third of a gateway's time went into the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before anything else, so that the process between `wheelhouse run` and its program stays small.
    if let Some(code) = wheelhouse::worker::process::keeper_entry() {
        return code;
    }
    leave_quietly_when_nobody_reads();
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

/// `wheelhouse job ls | head -1`: whoever reads has seen enough, and that is no fault of anybody's. The standard library
/// panics where the system would have ended the process.
fn leave_quietly_when_nobody_reads() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let words = info.payload().downcast_ref::<String>().map_or("", String::as_str);
        if words.starts_with("failed printing to stdout") && words.contains("Broken pipe") {
            std::process::exit(0);
        }
        usual(info);
    }));
}
