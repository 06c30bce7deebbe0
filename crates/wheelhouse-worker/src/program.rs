//! What stands around a worker: its process.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use wheelhouse::worker::process::supervisor_entry;
use wheelhouse::worker::{BoxError, WorkerBuilder};

use crate::WorkerSettings;

/// How long tasks that are stuck in a blocking call may hold the exit up.
const EXIT_DELAY: Duration = Duration::from_secs(1);

/// A whole `main` for a worker: its function says which kinds of job it knows.
///
/// ```no_run
/// # use wheelhouse_worker::{Job, JobContext, JobError};
/// # struct Letters;
/// # impl Job for Letters {
/// #     const TYPE: &'static str = "letters";
/// #     async fn run(&self, _: JobContext) -> Result<serde_json::Value, JobError> { Ok(().into()) }
/// # }
/// fn main() -> std::process::ExitCode {
///     wheelhouse_worker::run(|worker| worker.job(Letters))
/// }
/// ```
///
/// It works until the program gets SIGTERM, SIGINT or SIGHUP; then the jobs are handed back at their next checkpoint, and
/// other workers go on with them. For the command line and the exit code see [`main`].
pub fn run(teach: impl FnOnce(WorkerBuilder) -> WorkerBuilder) -> ExitCode {
    main(async |settings| teach(WorkerBuilder::new(settings)).build().run().await)
}

/// A `main` for a worker that has something to set up first, or other work beside.
///
/// ```no_run
/// # use wheelhouse_worker::{BoxError, Job, JobContext, JobError};
/// # struct Pool;
/// # impl Pool { async fn connect() -> Result<Self, BoxError> { Ok(Self) } }
/// # struct Letters(Pool);
/// # impl Job for Letters {
/// #     const TYPE: &'static str = "letters";
/// #     async fn run(&self, _: JobContext) -> Result<serde_json::Value, JobError> { Ok(().into()) }
/// # }
/// use wheelhouse_worker::WorkerBuilder;
///
/// fn main() -> std::process::ExitCode {
///     wheelhouse_worker::main(async |settings| {
///         let pool = Pool::connect().await?;
///         WorkerBuilder::new(settings).job(Letters(pool)).build().run().await?;
///         Ok::<(), BoxError>(())
///     })
/// }
/// ```
///
/// It takes one option, `--config FILE`: a file of [settings](WorkerSettings), over the defaults and under the
/// environment. When the function returns, the exit code is 0, or 1 after an error, which is written to stderr; it is 2
/// for a wrong option or setting.
///
/// Call it first, and nothing before it: a job that starts a [`Program`](crate::Program) has this binary started once
/// more as the small process that looks after the program, and this function finds out which of the two it is.
pub fn main<E: Into<BoxError>>(program: impl AsyncFnOnce(WorkerSettings) -> Result<(), E>) -> ExitCode {
    if let Some(code) = supervisor_entry() {
        return code;
    }
    let settings = match settings_file(std::env::args_os().skip(1)) {
        Ok(file) => WorkerSettings::load(file.as_deref()).map_err(|error| error.to_string()),
        Err(problem) => Err(problem),
    };
    let settings = match settings {
        Ok(settings) => settings,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::from(2);
        }
    };
    settings.start_logs();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("cannot start the worker's threads: {error}")),
    };
    let ended = runtime.block_on(program(settings)).map_err(Into::into);
    runtime.shutdown_timeout(EXIT_DELAY);
    wheelhouse::telemetry::log::flush();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&with_sources(error.as_ref())),
    }
}

fn failed(problem: &str) -> ExitCode {
    eprintln!("{problem}");
    ExitCode::FAILURE
}

/// The error and what caused it, each named once: many errors say in their own text what caused them.
fn with_sources(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}

fn settings_file(arguments: impl Iterator<Item = OsString>) -> Result<Option<PathBuf>, String> {
    let (mut arguments, mut file) = (arguments, None);
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy();
        let value = match text.strip_prefix("--config=") {
            Some(path) => Some(PathBuf::from(path)),
            None if text == "--config" => arguments.next().map(PathBuf::from),
            None => return Err(format!("{text:?} is not an option of this worker: it takes --config FILE alone")),
        };
        match value {
            Some(path) if file.is_none() => file = Some(path),
            Some(_) => return Err("--config is given twice".to_owned()),
            None => return Err("--config needs the path of a file of settings".to_owned()),
        }
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(arguments: &[&str]) -> Result<Option<PathBuf>, String> {
        settings_file(arguments.iter().map(OsString::from))
    }

    #[test]
    fn the_file_of_settings_is_named_once_and_nothing_else_is() {
        assert_eq!(file(&[]), Ok(None));
        assert_eq!(file(&["--config", "a.toml"]), Ok(Some("a.toml".into())));
        assert_eq!(file(&["--config=a.toml"]), Ok(Some("a.toml".into())));
        for wrong in [&["--config"][..], &["a.toml"], &["--config", "a", "--config", "b"]] {
            assert!(file(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_error_names_each_of_its_causes_once() {
        #[derive(Debug)]
        struct Outer(std::io::Error);
        impl std::fmt::Display for Outer {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("cannot begin")
            }
        }
        impl std::error::Error for Outer {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                Some(&self.0)
            }
        }
        assert_eq!(with_sources(&Outer(std::io::Error::other("no disk"))), "cannot begin: no disk");
    }
}
