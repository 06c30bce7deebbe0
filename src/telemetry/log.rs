//! Logs on stderr: lines for people or one JSON object a line for machines. Panics are logged as well.

use std::io::{self, IsTerminal, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{Log, LogFormat};

/// Lines are gathered for so long before they are written together: a call to the system for each line of a busy
/// gateway would cost more than making the line. Warnings and errors are written at once, with all before them.
const GATHER: Duration = Duration::from_millis(20);
/// Bytes that may be gathered; whoever adds more writes them out.
const GATHERED: usize = 64 * 1024;

/// Starts logging for this process, once; a second call (several gateways in one test) changes nothing.
/// The filter has been checked with the settings; one that is wrong all the same becomes `info`.
pub fn init(settings: &Log) {
    let filter = EnvFilter::builder().parse(&settings.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let terminal = io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(Lines { gathers: !terminal });
    let started = match settings.format {
        LogFormat::Pretty => builder.with_ansi(terminal && std::env::var_os("NO_COLOR").is_none()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
    };
    if started.is_ok() {
        log_panics();
        // Lives as long as the process does.
        let writing = std::thread::Builder::new().name("log".to_owned()).spawn(|| {
            loop {
                drop(FILLED.wait_while(gathered(), |lines| lines.is_empty()));
                std::thread::sleep(GATHER);
                flush();
            }
        });
        if let Err(error) = writing {
            tracing::error!(%error, "log.thread_not_started");
        }
    }
}

/// Writes out what is gathered: before the process ends.
pub fn flush() {
    write_out(&mut gathered());
}

static GATHERING: Mutex<Vec<u8>> = Mutex::new(Vec::new());
/// The first line was put in.
static FILLED: Condvar = Condvar::new();

fn gathered() -> MutexGuard<'static, Vec<u8>> {
    GATHERING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write_out(lines: &mut Vec<u8>) {
    if !lines.is_empty() {
        // There is nowhere to say that it failed.
        let _ = io::stderr().write_all(lines);
        lines.clear();
    }
}

/// Where lines go.
struct Lines {
    gathers: bool,
}

/// One line on its way; the subscriber writes it in one piece.
struct Line {
    at_once: bool,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { at_once: !self.gathers }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Line {
        Line { at_once: !self.gathers || *event.level() <= Level::WARN }
    }
}

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut lines = gathered();
        let first = lines.is_empty();
        lines.extend_from_slice(line);
        if self.at_once || lines.len() > GATHERED {
            write_out(&mut lines);
        } else if first {
            FILLED.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A panic as an event like any other: on its own it would be a text among lines of JSON, or lost where
/// nobody reads stderr.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current();
        let trace = std::backtrace::Backtrace::capture();
        let trace = matches!(trace.status(), std::backtrace::BacktraceStatus::Captured).then(|| trace.to_string());
        tracing::error!(
            place,
            thread = thread.name().unwrap_or("unnamed"),
            trace,
            "a bug: the program panicked: {}",
            words(panic.payload())
        );
    }));
}

/// What `panic!` was given.
fn words(payload: &(dyn std::any::Any + Send)) -> &str {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "no words",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_panic_are_found_in_both_forms() {
        let fixed = std::panic::catch_unwind(|| panic!("fixed")).expect_err("panic");
        assert_eq!(words(fixed.as_ref()), "fixed");
        let number = 7;
        let formatted = std::panic::catch_unwind(|| panic!("number {number}")).expect_err("panic");
        assert_eq!(words(formatted.as_ref()), "number 7");
    }
}
