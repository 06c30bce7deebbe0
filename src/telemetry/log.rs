//! Logs on stderr: lines for people or one JSON object a line for machines. Panics are logged as well.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Starts logging for this process, once; a second call (several gateways in one test) changes nothing.
/// The filter has been checked with the settings; one that is wrong all the same becomes `info`.
pub fn init(settings: &Log) {
    let filter = EnvFilter::builder().parse(&settings.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match settings.format {
        LogFormat::Pretty => {
            let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            builder.with_ansi(colours).try_init()
        }
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
    };
    if started.is_ok() {
        log_panics();
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
