//! How much memory a request takes until its answer is made, before anything is read for it.

use super::request::INCLUDED_BODY;
use super::routes::Endpoint;
use crate::domain::ResourceKind;
use crate::gateway::memory::READ_SNAPSHOT;

const MIB: usize = 1024 * 1024;
/// Rows, their texts, and the answer that is put together from them: each byte of a page is there up to four times.
const PAGE_WITH_CONTENTS: usize = 16 * MIB;
/// A page of a thousand rows without parameters and results, whose texts are cut down.
const PAGE: usize = 4 * MIB;
/// What has an answer of a few lines, and mostly a body of as many: so that a command does not have to ask for more in the middle,
/// which is refused at once where others wait.
const LITTLE: usize = 64 * 1024 + INCLUDED_BODY;

impl Endpoint {
    /// Bytes that are kept for a request with this query. A longer body than [`INCLUDED_BODY`] comes on top, as it arrives.
    pub(super) fn weight(self, query: Option<&str>) -> usize {
        match self {
            // Only a list that names its fields can have contents.
            Self::List(ResourceKind::Job) if query.is_some_and(|query| query.contains("fields")) => PAGE_WITH_CONTENTS,
            Self::List(_)
            | Self::Audit
            | Self::VerifyAudit
            | Self::Waiting
            | Self::Failed
            | Self::Schedules
            | Self::FailedItems => PAGE,
            Self::Show(ResourceKind::Job) | Self::JobError => READ_SNAPSHOT,
            _ => LITTLE,
        }
    }
}
