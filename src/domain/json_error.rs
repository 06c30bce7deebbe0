//! Why a JSON value is refused, and the limits that it went beyond.

/// Arrays and objects inside one another, at most: the JSON reader of the worker, and of many others, reads no more.
pub const DEEPEST: usize = 127;
/// Characters of one number, at most: PostgreSQL keeps no number of any length.
pub(super) const LONGEST_NUMBER: usize = 1_000;
/// Largest exponent, in either direction: PostgreSQL writes numbers out digit by digit, so that a few characters with a
/// large exponent would become a text of any length.
pub(super) const LARGEST_EXPONENT: u32 = 400;

/// Why a value is refused. Reads as the rest of a sentence that begins with the value's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// It is no JSON at all.
    #[error("is not JSON: {0}")]
    NotJson(String),
    /// Its own code that writes it says so.
    #[error("cannot be written as JSON: {0}")]
    Unwritable(String),
    /// Readers would give it up.
    #[error("has more than {DEEPEST} arrays and objects inside one another, which JSON readers refuse")]
    TooDeep,
    /// JSON has no such number: a writer would put null in its place.
    #[error("has a number that JSON cannot hold ({number}){}", place(at))]
    NoNumber {
        /// `NaN`, `infinity`.
        number: &'static str,
        /// The way to it, `.rows[3].rate`.
        at: String,
    },
    /// Many readers would read another number, or none.
    #[error("has a whole number that does not fit into 64 bits ({number}){}: keep it as text", place(at))]
    Beyond64Bits {
        /// Its digits.
        number: String,
        /// The way to it.
        at: String,
    },
    /// The databases cannot keep it.
    #[error(
        "has a number with more than {LONGEST_NUMBER} characters or an exponent beyond {LARGEST_EXPONENT}: {0}; give it as text"
    )]
    OddNumber(String),
    /// No text has half of a character.
    #[error("has a text with half a surrogate pair ({0})")]
    HalfCharacter(String),
}

fn place(at: &str) -> String {
    if at.is_empty() { String::new() } else { format!(" at {at}") }
}
