//! The field's own terms: who, which resource, what may happen to it. Pure: no I/O of any kind.

pub mod audit;
pub mod campaign;
pub mod command;
pub mod ids;
pub mod job;
pub mod permission;
pub mod resource;
pub mod transition;

pub use audit::{AuditEntry, AuditEvent, ChainLink};
pub use campaign::{Campaign, CampaignStatus};
pub use command::{Action, CommandId};
pub use ids::{IdError, RequestId, ResourceId, TenantId, UserId, WorkerId};
pub use job::{Job, JobStatus, Progress};
pub use permission::{Permission, PermissionSet};
pub use resource::{Resource, ResourceKind};
