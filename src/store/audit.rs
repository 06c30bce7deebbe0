//! The audit trail: append-only, each row with the hash of the row before it.

use sha2::{Digest, Sha256};

use super::sql::{Row, Value, without_nul};
use super::{AuditFilter, AuditRow, Page, Store, StoreError};
use crate::domain::AuditEntry;

impl Store {
    /// The id of the last entry of a stream that is in SQL (`0` for none).
    pub async fn audit_position(&self, stream: &str) -> Result<String, StoreError> {
        let text = "SELECT last FROM audit_position WHERE stream = $1";
        let row = self.database.read().await?.row(text, &[stream.into()]).await?;
        row.map_or(Ok("0".to_owned()), |row| row.needed("last"))
    }

    /// Appends entries and moves the position from `after` in one transaction. `false`: another writer was first.
    pub async fn append_audit(&self, stream: &str, after: &str, entries: &[AuditEntry]) -> Result<bool, StoreError> {
        let Some(newest) = entries.last() else { return Ok(true) };
        let entries: Vec<AuditEntry> = entries.iter().map(storable).collect();
        let mut tx = self.database.write().await?;
        // The head is the lock of the chain: whoever holds it writes the next rows.
        let head = tx.row("SELECT last_id, hash FROM audit_head WHERE id = 1 {lock}", &[]).await?;
        let head = head.ok_or_else(|| StoreError::Refused("audit_head is empty".to_owned()))?;
        let position = tx.row("SELECT last FROM audit_position WHERE stream = $1", &[stream.into()]).await?;
        if position.map_or(Ok("0".to_owned()), |row| row.needed("last"))? != after {
            tx.rollback().await?;
            return Ok(false);
        }
        let (mut id, mut hash) = (head.int("last_id")?.unwrap_or(0), head.needed("hash")?);
        let mut rows = Vec::with_capacity(entries.len());
        for entry in &entries {
            id += 1;
            let next = chained(&hash, entry);
            rows.push(Vec::from(values(id, entry, &hash, &next)));
            hash = next;
        }
        tx.insert_many(
            "INSERT INTO command_audit (id, at, tenant_id, user_id, resource_kind, resource_id, action, command_id,
               request_id, event, reason, outcome, worker_id, attempts, latency_ms, address, token_id, stream_id,
               previous_hash, hash)",
            "(?, {time:?}, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            &rows,
        )
        .await?;
        tx.execute("UPDATE audit_head SET last_id = $1, hash = $2 WHERE id = 1", &[id.into(), hash.into()]).await?;
        tx.execute(
            "INSERT INTO audit_position (stream, last) VALUES ($1, $2) ON CONFLICT (stream) DO UPDATE SET last = excluded.last",
            &[stream.into(), newest.id.as_str().into()],
        )
        .await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Rows of the audit trail, oldest first after the cursor.
    pub async fn audit(&self, filter: &AuditFilter) -> Result<Page<AuditRow>, StoreError> {
        let after = filter.after.as_deref().unwrap_or("0").parse::<i64>();
        let after = after.map_err(|_| StoreError::Conflict("\"after\" is not a cursor".to_owned()))?;
        let mut values: Vec<Value> = vec![after.into()];
        let mut wheres = "id > $1".to_owned();
        if let Some(tenant) = &filter.tenant {
            values.push(tenant.as_str().into());
            wheres.push_str(&format!(" AND tenant_id = ${}", values.len()));
        }
        if let Some(resource) = &filter.resource {
            values.push(resource.as_str().into());
            wheres.push_str(&format!(" AND resource_id = ${}", values.len()));
        }
        let limit = filter.limit.clamp(1, 1_000) as usize;
        let text = format!(
            "SELECT id, CAST(at AS TEXT) AS at, tenant_id, user_id, resource_kind, resource_id, action, command_id, request_id,
               event, reason, outcome, worker_id, attempts, latency_ms, address, token_id, stream_id, previous_hash, hash
             FROM command_audit WHERE {wheres} ORDER BY id LIMIT {}",
            limit + 1
        );
        let found = self.database.read().await?.rows(&text, &values).await?;
        let items = found.iter().take(limit).map(audit_row).collect::<Result<Vec<_>, _>>()?;
        let next = items.last().filter(|_| found.len() > limit).map(|row| row.id.to_string());
        Ok(Page { items, next })
    }
}

impl AuditRow {
    /// Whether the row is as it was written: its hash is the one of what it says and of the row before it.
    pub fn is_intact(&self) -> bool {
        self.hash == chained(&self.previous_hash, &self.entry)
    }
}

/// The entry as both databases can hold it, so that what is read back gives the same hash.
fn storable(entry: &AuditEntry) -> AuditEntry {
    let clean = || serde_json::from_value(without_nul(&serde_json::to_value(entry).ok()?)).ok();
    let mut entry: AuditEntry = clean().unwrap_or_else(|| entry.clone());
    if jiff::Timestamp::from_millisecond(entry.at).is_err() {
        entry.at = 0;
    }
    entry
}

/// SHA-256 over the hash before and the entry as JSON, hex.
fn chained(previous: &str, entry: &AuditEntry) -> String {
    let mut hasher = Sha256::new();
    hasher.update(previous.as_bytes());
    hasher.update(b"\n");
    hasher.update(serde_json::to_string(entry).unwrap_or_default().as_bytes());
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn values(id: i64, entry: &AuditEntry, previous: &str, hash: &str) -> Vec<Value> {
    let at = jiff::Timestamp::from_millisecond(entry.at).unwrap_or_default().to_string();
    let texts: [Value; 5] = [&entry.tenant_id, &entry.user_id, &entry.resource_kind, &entry.resource_id, &entry.action]
        .map(|t| t.as_str().into());
    let mut values: Vec<Value> = vec![id.into(), at.into()];
    values.extend(texts);
    values.extend([entry.command_id.clone().into(), entry.request_id.clone().into(), entry.event.as_str().into()]);
    values.extend([entry.reason.clone().into(), entry.outcome.clone().into(), entry.worker_id.clone().into()]);
    values.extend([entry.attempts.into(), entry.latency_ms.into()]);
    values.extend([entry.address.clone().into(), entry.token_id.clone().into(), entry.id.as_str().into()]);
    values.extend([previous.into(), hash.into()]);
    values
}

fn audit_row(row: &Row) -> Result<AuditRow, StoreError> {
    let at = super::rows::time(row.text("at")?).unwrap_or_default();
    let at_ms = at.parse::<jiff::Timestamp>().map_or(0, |t| t.as_millisecond());
    Ok(AuditRow {
        id: row.int("id")?.unwrap_or(0),
        time: at,
        entry: AuditEntry {
            id: row.needed("stream_id")?,
            at: at_ms,
            event: row.needed("event")?,
            tenant_id: row.needed("tenant_id")?,
            user_id: row.needed("user_id")?,
            resource_kind: row.needed("resource_kind")?,
            resource_id: row.needed("resource_id")?,
            action: row.needed("action")?,
            command_id: row.text("command_id")?,
            request_id: row.text("request_id")?,
            reason: row.text("reason")?,
            address: row.text("address")?,
            token_id: row.text("token_id")?,
            outcome: row.text("outcome")?,
            worker_id: row.text("worker_id")?,
            attempts: row.int("attempts")?,
            latency_ms: row.int("latency_ms")?,
        },
        previous_hash: row.needed("previous_hash")?,
        hash: row.needed("hash")?,
    })
}
