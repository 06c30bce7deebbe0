//! Audit entries: written to a stream by the same scripts that decide, read by the writer to SQL.

use super::heartbeats::those_answered;
use super::{lua, texts};
use crate::broker::{Broker, BrokerError, Partition};
pub use crate::domain::AuditEntry;
use crate::domain::{AuditEvent, TenantId};

/// As many at a time as `MAX_PER_CALL` of `write_refusals.lua`.
const MOST_LOOKED_AT: usize = 100;

/// What one entry of the stream looks like to the client library.
type Raw = (String, Vec<(String, String)>);

impl Broker {
    /// Entries of a partition after an id (`0` for all), oldest first. One that cannot be read is given as an
    /// entry with its text as the outcome: a gap in an audit trail must be visible. Where the settings say so, replicas have
    /// them: SQL keeps what it is given, and must not be given a command that is gone with its master.
    pub async fn audit_after(
        &self,
        partition: Partition,
        after: &str,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, BrokerError> {
        let key = self.keys().audit(partition);
        // Mostly there are none, and then there is nothing to wait for.
        if self.client.query::<u64>(redis::cmd("XLEN").arg(&key)).await? == 0 {
            return Ok(Vec::new());
        }
        let mut command = redis::cmd("XRANGE");
        command.arg(&key).arg(format!("({after}")).arg("+").arg("COUNT").arg(limit);
        let raw: Vec<Raw> = self.client.query_replicated(&command, &key).await?;
        Ok(raw.into_iter().map(entry).collect())
    }

    /// Adds entries of a tenant, in their order, as the scripts do.
    pub async fn audit_append(
        &self,
        tenant: &TenantId,
        entries: &[(AuditEvent, AuditEntry)],
    ) -> Result<(), BrokerError> {
        if entries.is_empty() {
            return Ok(());
        }
        let (stream, now) = (self.keys().audit(self.keys().partition(tenant)), self.tenant_now_ms(tenant));
        let mut pipeline = redis::pipe();
        for (event, entry) in entries {
            // Texts and numbers are always written.
            let text = serde_json::to_string(entry).unwrap_or_default();
            pipeline.cmd("XADD").arg(&stream).arg("*").arg("event").arg(event.as_str());
            pipeline.arg("at").arg(now).arg("entry").arg(text).ignore();
        }
        self.client.pipeline(&pipeline).await
    }

    /// Forgets these entries: they are in SQL. By their ids, and never "up to" one: after a failover there may be
    /// others before it that nobody has read.
    pub async fn audit_forget(&self, partition: Partition, entries: &[AuditEntry]) -> Result<(), BrokerError> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut command = redis::cmd("XDEL");
        command.arg(self.keys().audit(partition));
        for entry in entries {
            command.arg(&entry.id);
        }
        self.client.query::<i64>(&command).await.map(|_| ())
    }

    /// Writes the entries of refusals that were counted lately: `lua/write_refusals.lua`. Safe to call from any number of
    /// gateways.
    pub async fn write_refusals(&self, partition: Partition) -> Result<(), BrokerError> {
        let names = self.keys();
        let keys = [names.refusals(partition), names.refusals_due(partition), names.audit(partition)];
        loop {
            let looked_at: usize = self.client.script(&lua::WRITE_REFUSALS, &texts(&keys), &[]).await?;
            if looked_at < MOST_LOOKED_AT {
                return Ok(());
            }
        }
    }

    /// How many entries wait in each partition that answers. An error where none does.
    pub async fn audit_backlog(&self) -> Result<Vec<(Partition, u64)>, BrokerError> {
        let asked = self.keys().partitions().map(async |partition| {
            let length = self.client.query(redis::cmd("XLEN").arg(self.keys().audit(partition))).await?;
            Ok((partition, length))
        });
        those_answered(futures_util::future::join_all(asked).await, "redis.audit_backlog_unknown")
    }
}

pub(super) fn entry((id, fields): Raw) -> AuditEntry {
    let field = |name: &str| fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).unwrap_or_default();
    let (event, text, kept) = (field("event"), field("entry"), field("kept") == "1");
    // The stream's ids never go back, its entries' own times do where Redis's clock was set back. Entries of a version
    // that did not write the time have the id alone.
    let of_id = || id.split('-').next().and_then(|ms| ms.parse().ok());
    let at = field("at").parse().ok().or_else(of_id).unwrap_or(0);
    let read = serde_json::from_str::<AuditEntry>(&text).map(|read| AuditEntry {
        id: id.clone(),
        at,
        event: event.clone(),
        ..read
    });
    let mut entry = read.unwrap_or_else(|_| AuditEntry {
        id,
        at,
        event,
        outcome: Some(format!("unreadable entry: {text}")),
        ..AuditEntry::default()
    });
    // An id was made for it, but no such command was ever accepted; unless it was scheduled, and denied when it
    // was to run: `kept` says so.
    let (denied, limited) = (AuditEvent::Denied.as_str(), AuditEvent::RateLimited.as_str());
    if entry.event == limited || (entry.event == denied && !kept) {
        entry.command_id = None;
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[(&str, &str)]) -> AuditEntry {
        let common = r#"{"tenant_id":"acme","user_id":"ann","resource_kind":"job","resource_id":"j","action":"pause","command_id":"c""#;
        let whole = |(name, value): &(&str, &str)| match *name {
            "entry" => ("entry".to_owned(), format!("{common}{value}}}")),
            name => (name.to_owned(), (*value).to_owned()),
        };
        entry(("1767225600000-3".to_owned(), fields.iter().map(whole).collect()))
    }

    #[test]
    fn what_was_recorded_keeps_its_command_and_what_was_refused_has_none() {
        let command = |fields: &[(&str, &str)]| read(fields).command_id;
        for event in ["accepted", "scheduled", "withdrawn", "succeeded", "failed", "expired"] {
            assert_eq!(command(&[("event", event), ("entry", "")]).as_deref(), Some("c"), "{event}");
        }
        assert_eq!(command(&[("event", "denied"), ("entry", "")]), None);
        assert_eq!(command(&[("event", "rate_limited"), ("entry", "")]), None);
        assert_eq!(command(&[("event", "denied"), ("entry", ""), ("kept", "1")]).as_deref(), Some("c"));
        let scheduled = read(&[("event", "scheduled"), ("entry", ",\"run_at\":1767225660000")]);
        assert_eq!((scheduled.at, scheduled.run_at), (1_767_225_600_000, Some(1_767_225_660_000)));
    }

    #[test]
    fn an_entry_that_cannot_be_read_is_shown_and_not_dropped() {
        let odd = entry(("5-0".to_owned(), vec![("event".to_owned(), "accepted".to_owned())]));
        assert_eq!((odd.id.as_str(), odd.at, odd.event.as_str()), ("5-0", 5, "accepted"));
        assert!(odd.outcome.is_some_and(|text| text.starts_with("unreadable entry")));
    }
}
