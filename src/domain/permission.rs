//! Permissions: `jobs.cancel`, patterns `jobs.*` and `*`.

use super::resource::ResourceKind;

/// A permission somebody needs: area and verb, never a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Permission(String);

impl Permission {
    /// `jobs.cancel`, `campaigns.read`, …
    pub fn of(kind: ResourceKind, verb: &str) -> Self {
        debug_assert!(KNOWN_VERBS.contains(&verb), "nobody could be granted {verb}: it belongs into KNOWN_VERBS");
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

    /// What it takes to revoke tokens.
    pub fn revoke_tokens() -> Self {
        Self("tokens.revoke".to_owned())
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

/// What may be done to jobs and to campaigns.
const KNOWN_VERBS: [&str; 5] = ["read", "create", "cancel", "pause", "resume"];

/// Everything that can be granted and means something: each permission, each area's pattern, and `*`.
pub fn known_permissions() -> Vec<String> {
    let mut all = Vec::new();
    for kind in ResourceKind::ALL {
        all.extend(KNOWN_VERBS.iter().map(|verb| Permission::of(kind, verb).0));
    }
    all.push(Permission::read_audit().0);
    all.push(Permission::revoke_tokens().0);
    let mut areas: Vec<String> = all.iter().filter_map(|one| Some(format!("{}.*", one.split_once('.')?.0))).collect();
    areas.dedup();
    all.extend(areas);
    all.push("*".to_owned());
    all
}

/// Whether a text has the form of a permission or a pattern: `area.verb`, `area.*` or `*`, lower-case letters, digits and
/// `_`. Another version, or plain SQL, may have granted one that is not [`known_permissions`] here.
pub fn is_well_formed(text: &str) -> bool {
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
    fn only_permissions_and_patterns_are_well_formed() {
        for good in ["*", "jobs.*", "jobs.cancel", "campaigns.read", "jobs.fly"] {
            assert!(is_well_formed(good), "{good}");
        }
        for bad in ["", "jobs", "jobs.", ".read", "*.read", "Jobs.read", "jobs.re ad", "jobs.a.b"] {
            assert!(!is_well_formed(bad), "{bad}");
        }
    }

    #[test]
    fn every_permission_that_anything_needs_is_known() {
        let known = known_permissions();
        let kinds = ResourceKind::ALL.into_iter();
        let mut needed: Vec<Permission> =
            kinds.flat_map(|kind| super::super::Action::ALL.map(|action| action.permission(kind))).collect();
        needed.extend(ResourceKind::ALL.map(Permission::read));
        needed.extend(ResourceKind::ALL.map(Permission::create));
        needed.push(Permission::read_audit());
        needed.push(Permission::revoke_tokens());
        for permission in &needed {
            for grant in permission.granted_by() {
                assert!(known.contains(&grant), "{grant} cannot be granted");
            }
        }
        for grant in &known {
            assert!(is_well_formed(grant), "{grant}");
            assert!(needed.iter().any(|permission| permission.granted_by().contains(grant)), "{grant} grants nothing");
        }
    }
}
