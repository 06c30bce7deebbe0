//! Everything that the command line prints goes through here. Titles, reasons, names and errors were written by others,
//! so each line is made safe for a terminal as a whole: no caller has to remember which part of it is foreign.

use std::fmt::Arguments;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::api::Object;
use crate::domain::{printable, printable_json};

/// Prints one line on standard output, as `println!` does.
macro_rules! say {
    ($($text:tt)*) => { $crate::cli::out::line(format_args!($($text)*)) };
}
/// Prints one line on standard error, after the program's name, as its messages are.
macro_rules! tell {
    ($($text:tt)*) => { $crate::cli::out::warning(format_args!($($text)*)) };
}
/// Prints one line of a measurement on standard output. Where that cannot be written, the measurement goes on: it takes
/// its rows out of the database at its end.
macro_rules! report {
    ($($text:tt)*) => {{ use std::io::Write as _; let _ = writeln!(std::io::stdout(), $($text)*); }};
}
pub(in crate::cli) use {report, say, tell};

/// See [`say`].
pub(in crate::cli) fn line(text: Arguments<'_>) {
    write_line(&printable(&text.to_string()));
}

/// See [`tell`].
pub(in crate::cli) fn warning(text: Arguments<'_>) {
    // Where standard error cannot be written to, nobody is there to hear it, and the exit code still says how it went:
    // `eprintln!` would panic.
    let _ = writeln!(io::stderr(), "wheelhouse: {}", printable(&text.to_string()));
}

/// Writes one line to standard output. Where that fails the program ends, as other tools do: whoever closed the pipe has
/// seen enough (`wheelhouse job ls | head -1`), which is no fault; a full disk is one, since what was asked for is lost.
fn write_line(line: &str) {
    let mut out = io::stdout().lock();
    let Err(error) = writeln!(out, "{line}") else { return };
    if error.kind() == io::ErrorKind::BrokenPipe {
        std::process::exit(0);
    }
    warning(format_args!("cannot write to standard output: {error}"));
    std::process::exit(1);
}

/// A JSON value on a line of its own. A program that reads it gets the bytes as they always were; on a terminal the
/// characters that would do something there are written as escapes of JSON, which mean the same.
pub(in crate::cli) fn json(value: &impl Serialize) {
    // Whatever is printed here came as JSON, or has nothing but texts and whole numbers: it can be written.
    let text = serde_json::to_string(value).unwrap_or_default();
    if io::stdout().is_terminal() {
        write_line(&printable_json(&text));
    } else {
        write_line(&text);
    }
}

/// Text of several lines for another program, or, on a terminal, `shown`. An error is that of writing.
pub(in crate::cli) fn export(text: &str, shown: impl FnOnce() -> String) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if out.is_terminal() {
        out.write_all(shown().as_bytes())?;
    } else {
        out.write_all(text.as_bytes())?;
    }
    out.flush()
}

/// A time of the API in RFC 3339, always with three digits of a second, so that columns stand under one another.
pub(in crate::cli) fn time(text: &str) -> String {
    text.parse::<jiff::Timestamp>().map_or_else(|_| text.to_owned(), |time| format!("{time:.3}"))
}

/// Whether a person looks at what is printed.
pub(in crate::cli) fn is_for_people() -> bool {
    io::stdout().is_terminal()
}

/// Whether there is a person who can be asked.
pub(in crate::cli) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks that person. Whatever is not a clear yes is a no.
pub(in crate::cli) fn confirmed(question: Arguments<'_>) -> io::Result<bool> {
    // The line stays open for the answer.
    write!(io::stderr(), "{} [y/N] ", printable(&question.to_string()))?;
    // Reading a line blocks; nothing else runs here.
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// An object's fields, a line each, but those that are null: these first, then the rest.
pub(in crate::cli) fn fields(row: &Object, first: &[&str]) {
    let rest = row.names().filter(|name| !first.contains(name));
    for name in first.iter().copied().chain(rest) {
        let Some(value) = row.get(name) else { continue };
        let is_time = name.ends_with("_at") || name == "run_after";
        match row.text(name) {
            Some(text) if is_time => say!("{name:<17} {}", time(&text)),
            Some(text) => say!("{name:<17} {text}"),
            None => say!("{name:<17} {value}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_one_width() {
        for (text, shown) in [
            ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00.000Z"),
            ("2026-01-31T12:00:00.12Z", "2026-01-31T12:00:00.120Z"),
            ("2026-01-31T12:00:00.123Z", "2026-01-31T12:00:00.123Z"),
            ("2026-01-31T13:00:00.5+01:00", "2026-01-31T12:00:00.500Z"),
            ("soon", "soon"),
        ] {
            assert_eq!(time(text), shown);
        }
    }
}
