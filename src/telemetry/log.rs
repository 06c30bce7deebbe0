//! Logs on stderr: lines for people or one JSON object a line for machines. Panics are logged as well.
//!
//! Errors and names in a log were often written by others, and whoever reads a log does it on a terminal: what would do
//! something there, or begin a line that nobody logged, is written as an escape.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use tracing::field::Field;
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

use crate::config::{Log, LogFormat};
use crate::domain::{printable, printable_json};

/// Lines are gathered for so long before they are written together: a call to the system for each line of a busy
/// gateway would cost more than making the line. Warnings and errors are written at once, with all before them.
const FLUSH_DELAY: Duration = Duration::from_millis(20);
/// Bytes that may be gathered; whoever adds more writes them out.
const BUFFER_SIZE: usize = 64 * 1024;

/// Starts logging for this process, once; a second call (several gateways in one test) changes nothing.
/// The filter has been checked with the settings; one that is wrong all the same becomes `info`.
pub fn init(settings: &Log) {
    let filter = EnvFilter::builder().parse(&settings.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let terminal = io::stderr().is_terminal();
    let lines = BufferedWriter { gathers: !terminal, json: settings.format == LogFormat::Json };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(lines);
    let started = match settings.format {
        LogFormat::Pretty => {
            let fields = debug_fn(pretty).delimited(" ");
            builder.with_ansi(terminal && std::env::var_os("NO_COLOR").is_none()).fmt_fields(fields).try_init()
        }
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
    };
    if started.is_ok() {
        log_panics();
        // Lives as long as the process does.
        let writing = std::thread::Builder::new().name("log".to_owned()).spawn(|| {
            loop {
                BUFFER_FILLED.wait_while(&mut gathered(), |lines| lines.is_empty());
                std::thread::sleep(FLUSH_DELAY);
                flush();
            }
        });
        if let Err(error) = writing {
            tracing::error!(%error, "log.thread_not_started");
        }
        for setting in &settings.renamed {
            let (old, new, source) = (&setting.old, setting.new, &setting.source);
            tracing::warn!(old, new, source, "settings.old_name_used");
        }
    }
}

/// One field of a line for people: the message alone, anything else with its name.
fn pretty(out: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let value = format!("{value:?}");
    // A stack trace has lines of its own. Each is set in, so that none can pass for a line of the log.
    let value = value.lines().map(printable).collect::<Vec<_>>().join("\n    ");
    match field.name() {
        "message" => out.write_str(&value),
        // Of the crate `log`: where its line comes from.
        name if name.starts_with("log.") => Ok(()),
        name => {
            let name = name.strip_prefix("r#").unwrap_or(name);
            if out.has_ansi_escapes() {
                write!(out, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m{value}")
            } else {
                write!(out, "{name}={value}")
            }
        }
    }
}

/// Writes out what is gathered: before the process ends.
pub fn flush() {
    write_out(&mut gathered());
}

static BUFFER: Mutex<Vec<u8>> = Mutex::new(Vec::new());
/// The first line was put in.
static BUFFER_FILLED: Condvar = Condvar::new();

fn gathered() -> MutexGuard<'static, Vec<u8>> {
    BUFFER.lock()
}

fn write_out(lines: &mut Vec<u8>) {
    if !lines.is_empty() {
        // There is nowhere to say that it failed.
        let _ = io::stderr().write_all(lines);
        lines.clear();
    }
}

/// Where lines go.
struct BufferedWriter {
    gathers: bool,
    json: bool,
}

/// One line on its way; the subscriber writes it in one piece.
struct LineWriter {
    at_once: bool,
    json: bool,
}

impl<'a> MakeWriter<'a> for BufferedWriter {
    type Writer = LineWriter;

    fn make_writer(&'a self) -> LineWriter {
        LineWriter { at_once: !self.gathers, json: self.json }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> LineWriter {
        LineWriter { at_once: !self.gathers || *event.level() <= Level::WARN, json: self.json }
    }
}

impl Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut lines = gathered();
        let first = lines.is_empty();
        match std::str::from_utf8(line) {
            // What a writer of JSON leaves as it is can still do something to a terminal.
            Ok(text) if self.json => lines.extend_from_slice(printable_json(text).as_bytes()),
            _ => lines.extend_from_slice(line),
        }
        if self.at_once || lines.len() > BUFFER_SIZE {
            write_out(&mut lines);
        } else if first {
            BUFFER_FILLED.notify_one();
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
            panic_message(panic.payload())
        );
    }));
}

/// What `panic!` was given.
fn panic_message(payload: &(dyn std::any::Any + Send)) -> &str {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "no words",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a log with this text in a field, an error and the message looks like.
    fn logged(foreign: &str, json: bool) -> String {
        use std::sync::Arc;

        #[derive(Clone, Default)]
        struct Kept(Arc<Mutex<Vec<u8>>>);
        impl Write for Kept {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let kept = Kept::default();
        let into = kept.clone();
        let builder = tracing_subscriber::fmt().with_ansi(false).with_writer(move || into.clone());
        let log = || tracing::info!(error = %foreign, r#type = foreign, number = 7, "words {foreign}");
        if json {
            tracing::subscriber::with_default(builder.json().flatten_event(true).finish(), log);
        } else {
            tracing::subscriber::with_default(builder.fmt_fields(debug_fn(pretty).delimited(" ")).finish(), log);
        }
        let bytes = kept.0.lock().clone();
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn foreign_text_neither_acts_on_a_terminal_nor_begins_a_line() {
        let foreign = "x\u{1b}]52;c;eA==\u{7}\u{9b}2J\u{202e}\u{200b}\n2026-01-01T00:00:00Z  INFO forged";
        let text = logged(foreign, false);
        assert_eq!(text.lines().filter(|line| !line.starts_with("    ")).count(), 1, "{text}");
        let odd = |c: char| c != '\n' && printable(c.encode_utf8(&mut [0; 4])) != c.to_string();
        assert!(!text.contains(odd), "{text:?}");
        assert!(
            text.contains("error=x\\u{1b}]52") && text.contains(" type=\"x") && text.contains("number=7"),
            "{text}"
        );
        // JSON passes through the writer.
        let line = logged(foreign, true);
        let written = printable_json(&line);
        assert!(!written.contains(odd) && written.lines().count() == 1, "{written:?}");
        let value: serde_json::Value = serde_json::from_str(&written).expect("JSON");
        assert_eq!((&value["error"], &value["number"]), (&foreign.into(), &7.into()));
    }

    #[test]
    fn the_message_of_a_panic_is_found_in_both_forms() {
        let fixed = std::panic::catch_unwind(|| panic!("fixed")).expect_err("panic");
        assert_eq!(panic_message(fixed.as_ref()), "fixed");
        let number = 7;
        let formatted = std::panic::catch_unwind(|| panic!("number {number}")).expect_err("panic");
        assert_eq!(panic_message(formatted.as_ref()), "number 7");
    }
}
