//! One thing that was looked at, and how bad it is.

use serde::Serialize;

/// For which program the place is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `wheelhouse gateway`.
    Gateway,
    /// `wheelhouse worker`, or one of the user's own.
    Worker,
}

impl Program {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Worker => "worker",
        }
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, and something may be lost or open to somebody.
    Warning,
    /// The program does not start, or does not do its work.
    Error,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at: `redis.append_only`.
    pub check: &'static str,
    /// How it is.
    pub level: Level,
    /// What was found, in one sentence.
    pub message: String,
    /// The line that mends it: of a shell, of a configuration file, or of SQL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

impl Finding {
    /// All is well.
    pub fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, message: message.into(), mend: None }
    }

    /// It works, and should be otherwise.
    pub fn warning(check: &'static str, message: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check, level: Level::Warning, message: message.into(), mend: Some(mend.into()) }
    }

    /// It does not work.
    pub fn error(check: &'static str, message: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check, level: Level::Error, message: message.into(), mend: Some(mend.into()) }
    }
}
