//! Audit entries: written to a stream by the same scripts that decide, read by the writer to SQL.

use crate::broker::{Broker, BrokerError, Partition};
pub use crate::domain::AuditEntry;

/// What one entry of the stream looks like to the client library.
type Raw = (String, Vec<(String, String)>);

impl Broker {
    /// Entries of a partition after an id (`0` for all), oldest first. One that cannot be read is given as an
    /// entry with its text as the outcome: a gap in an audit trail must be visible.
    pub async fn audit_after(
        &self,
        partition: Partition,
        after: &str,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, BrokerError> {
        let mut command = redis::cmd("XRANGE");
        command.arg(self.keys().audit(partition)).arg(format!("({after}")).arg("+").arg("COUNT").arg(limit);
        let raw: Vec<Raw> = self.link.query(&command).await?;
        Ok(raw.into_iter().map(entry).collect())
    }

    /// Forgets entries up to and including an id: they are in SQL.
    pub async fn audit_forget(&self, partition: Partition, upto: &str) -> Result<(), BrokerError> {
        let stream = self.keys().audit(partition);
        let mut pipeline = redis::pipe();
        pipeline.cmd("XTRIM").arg(&stream).arg("MINID").arg(upto).ignore();
        pipeline.cmd("XDEL").arg(&stream).arg(upto).ignore();
        self.link.pipeline(&pipeline).await
    }
}

fn entry((id, fields): Raw) -> AuditEntry {
    let field = |name: &str| fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).unwrap_or_default();
    let (event, text) = (field("event"), field("entry"));
    let at = id.split('-').next().and_then(|ms| ms.parse().ok()).unwrap_or(0);
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    if let Some(object) = value.as_object_mut() {
        object.insert("id".to_owned(), id.clone().into());
        object.insert("at".to_owned(), at.into());
        object.insert("event".to_owned(), event.clone().into());
    }
    let mut entry = serde_json::from_value(value).unwrap_or_else(|_| AuditEntry {
        id,
        at,
        event,
        tenant_id: String::new(),
        user_id: String::new(),
        resource_kind: String::new(),
        resource_id: String::new(),
        action: String::new(),
        command_id: None,
        request_id: None,
        reason: None,
        address: None,
        token_id: None,
        outcome: Some(format!("unreadable entry: {text}")),
        worker_id: None,
        attempts: None,
        latency_ms: None,
    });
    if matches!(entry.event.as_str(), "denied" | "rate_limited") {
        // An id was made for it, but no such command was ever accepted.
        entry.command_id = None;
    }
    entry
}
