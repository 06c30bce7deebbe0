//! Permissions: `jobs.cancel`, patterns `jobs.*` and `*`.

use super::resource::ResourceKind;

/// A permission somebody needs: area and verb, never a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Permission(String);

impl Permission {
    /// `jobs.cancel`, `campaigns.read`, …
    pub fn of(kind: ResourceKind, verb: &str) -> Self {
        Self(format!("{}.{verb}", kind.plural()))
    }

    /// What it takes to watch a resource of this kind.
    pub fn read(kind: ResourceKind) -> Self {
        Self::of(kind, "read")
    }

    /// What it takes to create a resource of this kind.
    pub fn create(kind: ResourceKind) -> Self {
        Self::of(kind, "create")
    }

    /// What it takes to read the audit trail.
    pub fn read_audit() -> Self {
        Self("audit.read".to_owned())
    }

    /// The permission as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Everything that grants it: itself, its area's pattern, and `*`.
    pub fn granted_by(&self) -> [String; 3] {
        let area = self.0.split('.').next().unwrap_or_default();
        [self.0.clone(), format!("{area}.*"), "*".to_owned()]
    }

    /// Whether one of the held permissions or patterns grants it.
    pub fn is_granted<'a>(&self, held: impl IntoIterator<Item = &'a str>) -> bool {
        let grants = self.granted_by();
        held.into_iter().any(|h| grants.iter().any(|g| g == h))
    }
}

/// What SQL says of a user, at a version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PermissionSet {
    /// Grows with every change of any user's permissions; read in the same snapshot as `held`.
    pub version: i64,
    /// Permissions and patterns.
    pub held: Vec<String>,
}

/// Whether a text can be granted: `area.verb`, `area.*` or `*`, lower-case letters, digits and `_`.
pub fn is_grantable(text: &str) -> bool {
    let word = |w: &str| {
        !w.is_empty() && w.len() <= 64 && w.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    match text.split_once('.') {
        None => text == "*",
        Some((area, verb)) => word(area) && (verb == "*" || word(verb)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permission_is_granted_by_itself_its_area_or_everything() {
        let cancel = Permission::of(ResourceKind::Job, "cancel");
        assert!(cancel.is_granted(["jobs.cancel"]));
        assert!(cancel.is_granted(["jobs.read", "jobs.*"]));
        assert!(cancel.is_granted(["*"]));
        assert!(!cancel.is_granted(["jobs.pause", "campaigns.*", "jobs", "job.cancel", "*.cancel"]));
        assert!(!cancel.is_granted([]));
    }

    #[test]
    fn only_permissions_and_patterns_can_be_granted() {
        for good in ["*", "jobs.*", "jobs.cancel", "campaigns.read"] {
            assert!(is_grantable(good), "{good}");
        }
        for bad in ["", "jobs", "jobs.", ".read", "*.read", "Jobs.read", "jobs.re ad", "jobs.a.b"] {
            assert!(!is_grantable(bad), "{bad}");
        }
    }
}
