//! Lines of a measurement. Where they cannot be written, the measurement goes on.

/// Prints one line on standard output.
macro_rules! report {
    ($($text:tt)*) => {{ use std::io::Write as _; let _ = writeln!(std::io::stdout(), $($text)*); }};
}
/// Prints one line on standard error.
macro_rules! remark {
    ($($text:tt)*) => {{ use std::io::Write as _; let _ = writeln!(std::io::stderr(), $($text)*); }};
}
pub(crate) use {remark, report};
