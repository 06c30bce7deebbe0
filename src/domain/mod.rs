//! The field's own terms: who, which resource, what may happen to it. Pure: no I/O of any kind.

pub mod audit;
pub mod backoff;
pub mod campaign;
pub mod command;
pub mod ids;
pub mod job;
mod json_error;
mod json_numbers;
pub mod json_text;
mod output;
pub mod permission;
pub mod printable;
pub mod resource;
pub mod text;
pub mod transition;

pub use audit::{AuditEntry, AuditEvent, ChainLink};
pub use backoff::full_jitter_backoff;
pub use campaign::{Campaign, CampaignStatus, JobCounts};
pub use command::{Action, CommandId, IdDerivation, When};
pub use ids::{IdError, RequestId, ResourceId, TenantId, UserId, WorkerId};
pub use job::{Control, FailedItem, Job, JobFacts, JobStatus, JobWorker, Progress};
pub use json_error::JsonError;
pub use json_text::JsonText;
pub use output::{MAX_OUTPUT_LINE, MAX_OUTPUT_LINES, OutputLine, OutputStream};
pub use permission::{Permission, PermissionSet};
pub use printable::{printable, printable_json};
pub use resource::{Resource, ResourceKind};

/// SHA-256 of a text, as 64 hexadecimal digits: two texts with the same one are the same text.
pub fn sha256_hex(text: &str) -> String {
    hex::encode(sha256(text))
}

/// SHA-256 of a text.
pub fn sha256(text: &str) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(text).into()
}

/// FNV-1a, 64 bits: the same in every program, language and version. It spreads what nobody has chosen in order to make two
/// texts collide; whether two texts are the same is a question for [`sha256_hex`].
pub fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}
