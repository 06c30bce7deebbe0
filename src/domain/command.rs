//! What an operator can ask for.

use std::fmt;
use std::str::FromStr;

use super::fnv1a;
use super::ids::IdError;
use super::permission::Permission;
use super::resource::{Resource, ResourceKind};

/// Cancel, pause or resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
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
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }

    /// The inverse of [`Self::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.as_str() == text)
    }

    /// The permission it takes: `jobs.cancel`, `campaigns.pause`, …
    pub fn permission(self, kind: ResourceKind) -> Permission {
        Permission::of(kind, self.as_str())
    }
}

/// When a command shall run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum When {
    /// At once.
    #[default]
    Now,
    /// At this time, Unix ms. One that has passed means at once.
    At(i64),
    /// So many seconds after it is taken in.
    After(u32),
    /// It was scheduled, and its time has come.
    Due,
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

    /// The id of the command that follows from this one for a resource (a campaign's cancel cancels its jobs, a
    /// batch is a command for each of its resources): always the same, so that carrying the first out twice asks
    /// each resource once. A UUID of version 5.
    pub fn derive_for(self, resource: &Resource) -> Self {
        Self(uuid::Uuid::new_v5(&self.0, resource.to_string().as_bytes()))
    }

    /// The same, in the way in which it was done when the first one was submitted.
    pub fn derive_as(self, derivation: IdDerivation, resource: &Resource) -> Self {
        match derivation {
            IdDerivation::Uuid5 => self.derive_for(resource),
            IdDerivation::Fnv => {
                let hash = fnv1a(&format!("{}:{resource}", self.0.simple()));
                // Time and version as in the first; the variant's two bits, then the hash.
                let high = u64::from_be_bytes(self.0.as_bytes()[..8].try_into().unwrap_or_default());
                Self(uuid::Uuid::from_u64_pair(high, (hash & 0x3fff_ffff_ffff_ffff) | 0x8000_0000_0000_0000))
            }
        }
    }
}

/// How the ids of commands follow from that of another one. What a version before began must go on under the ids that it
/// gave, or a resource would be asked twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IdDerivation {
    /// UUIDs of version 5.
    #[default]
    Uuid5,
    /// 62 bits of FNV, as versions before did. Nothing new is begun so.
    Fnv,
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
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        text.parse().map(Self).map_err(|_| IdError::Command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_command_id_is_refused_in_words_that_show_one() {
        let refused = "x".parse::<CommandId>().expect_err("no id").to_string();
        assert!(refused.starts_with("a command id is a UUID, such as"), "{refused}");
    }

    #[test]
    fn the_command_that_follows_has_one_id_for_each_resource() {
        let (one, other) = (CommandId::generate(), CommandId::generate());
        let jobs: Vec<Resource> = (0..50).filter_map(|n| Resource::parse(&format!("t:job:j{n}"))).collect();
        let ids: std::collections::HashSet<CommandId> = jobs.iter().map(|job| one.derive_for(job)).collect();
        assert_eq!(ids.len(), jobs.len());
        assert_eq!(one.derive_for(&jobs[0]), one.derive_for(&jobs[0]));
        assert_ne!(one.derive_for(&jobs[0]), other.derive_for(&jobs[0]));
        assert!(!ids.contains(&one));
    }

    #[test]
    fn ids_that_follow_are_the_same_in_every_version_that_derives_them_so() {
        let first: CommandId = "01890a5d-ac96-774b-bcce-b302099a8057".parse().expect("id");
        let job = Resource::parse("acme:job:j1").expect("resource");
        let (now, before) = (first.derive_for(&job), first.derive_as(IdDerivation::Fnv, &job));
        assert_eq!(now, first.derive_as(IdDerivation::Uuid5, &job));
        assert_eq!(now.to_string(), "d71b5128-653c-5896-9289-4dbf5e0c380e");
        assert_eq!(before.to_string(), "01890a5d-ac96-774b-a88c-5885c787586b");
    }
}
