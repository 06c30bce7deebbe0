//! What a command is about: one job or one campaign of one tenant.

use std::fmt;

use super::ids::{ResourceId, TenantId};

/// Job or campaign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceKind {
    /// One piece of work.
    Job,
    /// Many jobs, dispatched while it is active.
    Campaign,
}

impl ResourceKind {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::Job, Self::Campaign];

    /// `job` or `campaign`, as in channels, keys and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Job => "job",
            Self::Campaign => "campaign",
        }
    }

    /// `jobs` or `campaigns`, as in permissions and paths.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Job => "jobs",
            Self::Campaign => "campaigns",
        }
    }

    /// `job_id` or `campaign_id`, as in messages.
    pub fn id_field(self) -> &'static str {
        match self {
            Self::Job => "job_id",
            Self::Campaign => "campaign_id",
        }
    }

    /// The inverse of [`Self::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.as_str() == text)
    }
}

/// One job or campaign of one tenant.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource {
    /// Whose it is.
    pub tenant: TenantId,
    /// Job or campaign.
    pub kind: ResourceKind,
    /// Its id, unique within the tenant and kind.
    pub id: ResourceId,
}

impl Resource {
    /// A job of a tenant.
    pub fn job(tenant: TenantId, id: ResourceId) -> Self {
        Self { tenant, kind: ResourceKind::Job, id }
    }

    /// A campaign of a tenant.
    pub fn campaign(tenant: TenantId, id: ResourceId) -> Self {
        Self { tenant, kind: ResourceKind::Campaign, id }
    }

    /// The inverse of `Display`: `tenant:kind:id`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (tenant, kind, id) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        Some(Self { tenant: tenant.parse().ok()?, kind: ResourceKind::parse(kind)?, id: id.parse().ok()? })
    }
}

/// `tenant:kind:id`: the member of the ready set and the name of the resource's channel.
impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.tenant, self.kind.as_str(), self.id)
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
