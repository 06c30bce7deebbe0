//! What an operator can ask for.

use std::fmt;
use std::str::FromStr;

use super::permission::Permission;
use super::resource::ResourceKind;

/// Cancel, pause or resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// End it for good.
    Cancel,
    /// Stop it until resumed.
    Pause,
    /// Let it go on.
    Resume,
}

impl Action {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Cancel, Self::Pause, Self::Resume];

    /// `cancel`, `pause`, `resume`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }

    /// The inverse of [`Self::word`].
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.word() == word)
    }

    /// The permission it takes: `jobs.cancel`, `campaigns.pause`, …
    pub fn permission(self, kind: ResourceKind) -> Permission {
        Permission::of(kind, self.word())
    }
}

/// One accepted command: a UUID (version 7), made by the gateway before it submits, so that
/// submitting the same one again after a lost answer is safe.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandId(uuid::Uuid);

impl CommandId {
    /// A new id.
    pub fn generate() -> Self {
        Self(uuid::Uuid::now_v7())
    }
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for CommandId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        Ok(Self(text.parse()?))
    }
}
