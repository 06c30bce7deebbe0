//! A message of an updates channel, read.

use std::sync::Arc;

use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::domain::{Resource, ResourceKind};
use crate::gateway::outbox::Push;

/// Longest update that is passed on, in bytes: somebody else's mistake must not fill every outbox.
const MAX_UPDATE: usize = 64 * 1024;

pub(super) struct Update {
    pub(super) seq: Option<i64>,
    /// As it says.
    pub(super) status: Option<Box<str>>,
    is_progress: bool,
    text: Utf8Bytes,
}

#[derive(serde::Deserialize)]
struct RawMessage<'a> {
    #[serde(rename = "type", borrow)]
    kind: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    job_id: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow)]
    campaign_id: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow)]
    tenant_id: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    status: Option<std::borrow::Cow<'a, str>>,
    seq: Option<i64>,
}

impl Update {
    /// Only an object about this very resource, of one of the two types, is one.
    pub(super) fn read(payload: bytes::Bytes, resource: &Resource) -> Option<Self> {
        if payload.len() > MAX_UPDATE || payload.first() != Some(&b'{') {
            return None;
        }
        let text = Utf8Bytes::try_from(payload).ok()?;
        let raw: RawMessage<'_> = serde_json::from_str(&text).ok()?;
        let id = match resource.kind {
            ResourceKind::Job => raw.job_id?,
            ResourceKind::Campaign => raw.campaign_id?,
        };
        let is_progress = match raw.kind.strip_prefix(resource.kind.as_str())? {
            "_progress" => true,
            "_status" => false,
            _ => return None,
        };
        let fits = id == resource.id.as_str() && raw.tenant_id == resource.tenant.as_str();
        let (seq, status) = (raw.seq, raw.status.map(Into::into));
        fits.then_some(Self { seq, status, is_progress, text })
    }

    pub(super) fn push(self, resource: &Arc<Resource>) -> Push {
        match self.is_progress {
            true => Push::Progress { resource: resource.clone(), seq: self.seq, text: self.text },
            false => Push::Status { seq: self.seq, text: self.text },
        }
    }
}
