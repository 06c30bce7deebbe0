//! What programs and code of jobs print, line by line.

use serde::{Deserialize, Serialize};

/// Lines of a job that are kept.
pub const MAX_OUTPUT_LINES: usize = 1_000;
/// Longest line that is kept, in characters; of a longer one the beginning, and how much is missing.
pub const MAX_OUTPUT_LINE: usize = 4_000;

/// Where a line comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputStream {
    /// A program's standard output.
    Stdout,
    /// Its standard error.
    Stderr,
    /// Job code says it.
    Log,
    /// Wheelhouse says it: lines that were left out.
    Note,
}

impl OutputStream {
    /// All four.
    pub const ALL: [Self; 4] = [Self::Stdout, Self::Stderr, Self::Log, Self::Note];

    /// As it stands in SQL and in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Log => "log",
            Self::Note => "note",
        }
    }

    /// The inverse of [`Self::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stream| stream.as_str() == text)
    }
}

/// One line, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputLine {
    /// Grows by one with each line of the job.
    pub line: i64,
    /// In which run of the job.
    pub run: i64,
    /// When: RFC 3339.
    pub at: String,
    /// Where it comes from.
    pub stream: OutputStream,
    /// Without its end.
    pub text: String,
    /// Its end has not come: the same line comes again as it goes on. Left out where that is not so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub open: bool,
}
