//! By which patterns the watched tenants are heard: what is known of it. `coverage_keeper` changes it.

use std::time::Instant;

use crate::broker::keys::{everything_pattern, tenant_pattern};
use crate::domain::{ResourceKind, TenantId};

/// How tenants are heard that somebody begins to watch now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coverage {
    /// Each by two patterns of its own.
    Each,
    /// About to hear all together: worth a moment's wait, because Redis never makes its table of patterns smaller again.
    Widening,
    /// All together.
    Everything,
}

/// What is remembered between two changes.
#[derive(Default)]
pub(super) struct CoverageState {
    /// The patterns for all tenants stand, or may.
    pub(super) together: bool,
    /// Since when.
    pub(super) since: Option<Instant>,
    /// How often Redis has taken the right to them away.
    pub(super) denials: u64,
    /// They were taken away, and somebody may have missed something since.
    pub(super) is_deaf: bool,
    /// All together: not before this time.
    pub(super) widen_after: Option<Instant>,
    /// Each by itself: not before this time.
    pub(super) narrow_after: Option<Instant>,
    /// It has been said that Redis does not permit it.
    pub(super) is_told: bool,
}

/// Of one tenant.
pub(super) fn patterns(tenant: &TenantId) -> Vec<String> {
    ResourceKind::ALL.into_iter().map(|kind| tenant_pattern(tenant, kind)).collect()
}

/// Of all tenants.
pub(super) fn everything() -> Vec<String> {
    ResourceKind::ALL.into_iter().map(everything_pattern).collect()
}
