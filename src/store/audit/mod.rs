//! The audit trail: append-only, each row with the hash of the row before it.
//!
//! Here: rows are appended. `list` finds them, by what they are about and by their times (`lateness`), `verify` walks the whole
//! chain, `prune` removes what is older than the time for which rows are kept, [`export`] writes rows for other programs.

mod ends;
pub mod export;
mod lateness;
mod list;
mod prune;
mod storable;
mod verify;

use ends::EndWrites;
pub use ends::{APPLIED_STREAM, UnauditedEnd};
use lateness::Lateness;
use sha2::{Digest, Sha256};
use storable::{StorableEntry, text_of};

use super::sql::{MultiRowInsert, Row, Tx, Value, time_text};
use super::{AuditRow, Store, StoreError};
use crate::domain::AuditEntry;

/// Every column of a row. Numbers as texts: SQLite would read a text in a column of numbers as some number.
const COLUMNS: &str = "id, CAST(at AS TEXT) AS at, tenant_id, user_id, resource_kind, resource_id, action, command_id,
  request_id, event, reason, outcome, worker_id, CAST(attempts AS TEXT) AS attempts,
  CAST(latency_ms AS TEXT) AS latency_ms, CAST(run_at AS TEXT) AS run_at, batch_id,
  CAST(refusals AS TEXT) AS refusals, CAST(first_at AS TEXT) AS first_at, CAST(last_at AS TEXT) AS last_at,
  address, token_id, stream_id, previous_hash, hash";

impl Store {
    /// Appends those entries of a stream (oldest first) that are not there yet; how many those were. Any number of
    /// writers may bring the same ones: each is written once, and of a command one end. When it returns they may be forgotten.
    pub async fn append_audit(&self, stream: &str, entries: &[AuditEntry]) -> Result<usize, StoreError> {
        let entries: Vec<StorableEntry> = entries.iter().map(StorableEntry::of).collect();
        // Worked out beside the other writers, as if nobody else appended: only who writes has to wait for them.
        let mut links = ChainExtension::after_head(&mut self.database.read().await?, stream, &entries, "").await?;
        if links.rows.is_empty() {
            return Ok(0);
        }
        let mut tx = self.database.write().await?;
        if !links.move_head(&mut tx).await? {
            links = ChainExtension::after_head(&mut tx, stream, &entries, "{lock}").await?;
            if links.rows.is_empty() {
                tx.rollback().await?;
                return Ok(0);
            }
            if !links.move_head(&mut tx).await? {
                return Err(StoreError::Unavailable("audit_head changed while it was locked".to_owned()));
            }
        }
        if !links.ends.write(&mut tx).await? {
            tx.rollback().await?;
            return Err(StoreError::Unavailable("a command has ended meanwhile".to_owned()));
        }
        let rows = MultiRowInsert {
            before:
                "INSERT INTO command_audit (id, at, tenant_id, user_id, resource_kind, resource_id, action, command_id,
               request_id, event, reason, outcome, worker_id, attempts, latency_ms, address, token_id, stream_id,
               previous_hash, hash, run_at, batch_id, refusals, first_at, last_at) ",
            row: "(?, {time:?}, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            after: "",
            rows: &links.rows,
        };
        let position = MultiRowInsert {
            before: "INSERT INTO audit_position (stream, last) ",
            row: "(?, ?)",
            after: " ON CONFLICT (stream) DO UPDATE SET last = excluded.last",
            rows: links.position.as_slice(),
        };
        tx.commit_many(&[rows, position]).await?;
        Ok(links.rows.len())
    }

    /// The id of the newest row: all up to it can be seen.
    pub async fn audit_newest(&self) -> Result<i64, StoreError> {
        let row = self.database.read().await?.row("SELECT last_id FROM audit_head WHERE id = 1", &[]).await?;
        Ok(row.map(|row| row.int("last_id")).transpose()?.flatten().unwrap_or(0))
    }
}

impl Store {
    /// The times of the oldest row and of the one that was written last, Unix ms; `None`: there is no row.
    pub async fn audit_time_range(&self) -> Result<Option<(i64, i64)>, StoreError> {
        let text = "SELECT (SELECT CAST(at AS TEXT) FROM command_audit ORDER BY id LIMIT 1) AS oldest,
            (SELECT CAST(at AS TEXT) FROM command_audit ORDER BY id DESC LIMIT 1) AS newest";
        let Some(row) = self.database.read().await?.row(text, &[]).await? else { return Ok(None) };
        let time = |column: &str| {
            let time = super::rows::time(row.text(column)?).and_then(|text| text.parse::<jiff::Timestamp>().ok());
            Ok::<_, StoreError>(time.map(|time| time.as_millisecond()))
        };
        Ok(time("oldest")?.zip(time("newest")?))
    }
}

impl AuditRow {
    /// Whether the row is as it was written: its hash is the one of what it says and of the row before it.
    pub fn is_intact(&self) -> bool {
        self.exact && self.hash == chain_hash(&self.previous_hash, &text_of(&self.entry))
    }
}

/// The rows that come next, each with the hash of the one before it.
struct ChainExtension {
    /// After which row.
    head: (i64, String),
    rows: Vec<Vec<Value>>,
    last: (i64, String),
    /// How far the stream has been written then, for `audit_position`; `None`: no further than before.
    position: Option<Vec<Value>>,
    /// How far rows are from the order of their times then.
    lateness: Lateness,
    ends: EndWrites,
}

impl ChainExtension {
    /// For those of these entries that are not there yet. `lock`: `{lock}` where nobody else may append meanwhile.
    async fn after_head(tx: &mut Tx, stream: &str, entries: &[StorableEntry], lock: &str) -> Result<Self, StoreError> {
        let text = format!("SELECT hash, {} FROM audit_head WHERE id = 1 {lock}", lateness::COLUMNS);
        let head = tx.row(&text, &[]).await?;
        let head = head.ok_or_else(|| StoreError::Refused("audit_head is empty".to_owned()))?;
        let mut lateness = Lateness::read(&head)?;
        let head = (head.int("last_id")?.unwrap_or(0), head.required("hash")?);
        let position = tx.row("SELECT last FROM audit_position WHERE stream = $1", &[stream.into()]).await?;
        let position: String = position.map_or(Ok("0".to_owned()), |row| row.required("last"))?;
        let new = missing_entries(tx, &position, entries).await?;
        let (new, ends) = EndWrites::sort_out(tx, new).await?;
        if !new.is_empty() {
            lateness.catch_up(tx).await?;
        }
        let mut last = head.clone();
        let mut rows = Vec::with_capacity(new.len());
        for entry in new {
            lateness.add(entry.entry.at);
            let hash = chain_hash(&last.1, &entry.text);
            rows.push(values(last.0 + 1, &entry.entry, &last.1, &hash));
            last = (last.0 + 1, hash);
        }
        let newest = entries.last().map(|entry| entry.entry.id.clone());
        let position = newest.filter(|newest| stream_position(newest) > stream_position(&position));
        let position = position.map(|newest| vec![stream.into(), newest.into()]);
        Ok(Self { head, rows, last, position, lateness, ends })
    }

    /// The head is the lock of the chain: whoever moves it writes the next rows, and nobody sees a row before those
    /// with smaller ids. A reader that goes on after the last id it saw misses none. `false`: somebody else has moved
    /// it since it was read.
    async fn move_head(&self, tx: &mut Tx) -> Result<bool, StoreError> {
        let text = "UPDATE audit_head SET last_id = $1, hash = $2, times_to = $1, latest_at = $5, most_late = $6
                    WHERE id = 1 AND last_id = $3 AND hash = $4";
        let ((from, from_hash), (to, hash)) = (&self.head, &self.last);
        let mut values: Vec<Value> =
            vec![(*to).into(), hash.as_str().into(), (*from).into(), from_hash.as_str().into()];
        values.extend(self.lateness.values());
        Ok(tx.execute(text, &values).await? == 1)
    }
}

/// Leaves out what has been written before. Beyond the position nothing has. Up to it nearly everything has: its
/// writer died before it could forget it. Yet not all, if Redis was replaced by a replica with a slower clock or
/// with older data: the numbers of its stream then begin again below the position. So it is looked at.
async fn missing_entries<'a>(
    tx: &mut Tx,
    position: &str,
    entries: &'a [StorableEntry],
) -> Result<Vec<&'a StorableEntry>, StoreError> {
    let position = stream_position(position);
    let (behind, mut new): (Vec<_>, Vec<_>) = entries.iter().partition(|e| stream_position(&e.entry.id) <= position);
    if behind.is_empty() {
        return Ok(new);
    }
    let mut times: Vec<i64> = behind.iter().map(|e| e.entry.at).collect();
    times.dedup();
    let marks: Vec<String> = (1..=times.len()).map(|n| format!("{{time:${n}}}")).collect();
    let times: Vec<Value> = times.into_iter().map(|at| time_text(at).into()).collect();
    let text = format!("SELECT {COLUMNS} FROM command_audit WHERE {{ms:at}} IN ({})", marks.join(", "));
    let there: Vec<AuditEntry> =
        tx.rows(&text, &times).await?.iter().filter_map(|row| audit_row(row).ok()).map(|row| row.entry).collect();
    let mut all: Vec<&StorableEntry> = behind.into_iter().filter(|e| !there.contains(&e.entry)).collect();
    all.append(&mut new);
    Ok(all)
}

/// A stream's id, `ms-n`, as it sorts.
fn stream_position(stream_id: &str) -> (u64, u64) {
    let (ms, n) = stream_id.split_once('-').unwrap_or((stream_id, "0"));
    (ms.parse().unwrap_or(0), n.parse().unwrap_or(0))
}

/// SHA-256 over the hash before and the entry as JSON, hex.
fn chain_hash(previous: &str, text: &str) -> String {
    let mut hasher = Sha256::new();
    hasher.update(previous.as_bytes());
    hasher.update(b"\n");
    hasher.update(text.as_bytes());
    hex::encode(hasher.finalize())
}

fn values(id: i64, entry: &AuditEntry, previous: &str, hash: &str) -> Vec<Value> {
    let texts: [Value; 5] = [&entry.tenant_id, &entry.user_id, &entry.resource_kind, &entry.resource_id, &entry.action]
        .map(|t| t.as_str().into());
    let mut values: Vec<Value> = vec![id.into(), time_text(entry.at).into()];
    values.extend(texts);
    values.extend([entry.command_id.clone().into(), entry.request_id.clone().into(), entry.event.as_str().into()]);
    values.extend([entry.reason.clone().into(), entry.outcome.clone().into(), entry.worker_id.clone().into()]);
    values.extend([entry.attempts.into(), entry.latency_ms.into()]);
    values.extend([entry.address.clone().into(), entry.token_id.clone().into(), entry.id.as_str().into()]);
    values.extend([previous.into(), hash.into(), entry.run_at.into(), entry.batch_id.clone().into()]);
    values.extend([entry.refusals.into(), entry.first_at.into(), entry.last_at.into()]);
    values
}

fn audit_row(row: &Row) -> Result<AuditRow, StoreError> {
    let mut exact = true;
    let mut whole = |column: &str| -> Result<Option<i64>, StoreError> {
        let text = row.text(column)?;
        let number = text.as_ref().and_then(|text| text.parse::<i64>().ok());
        exact &= text == number.map(|n| n.to_string());
        Ok(number)
    };
    let (attempts, latency_ms, run_at) = (whole("attempts")?, whole("latency_ms")?, whole("run_at")?);
    let (refusals, first_at, last_at) = (whole("refusals")?, whole("first_at")?, whole("last_at")?);
    let time = super::rows::time(row.text("at")?).unwrap_or_default();
    let parsed = time.parse::<jiff::Timestamp>().ok();
    exact &= parsed.is_some_and(|t| t.as_nanosecond() % 1_000_000 == 0);
    Ok(AuditRow {
        id: row.int("id")?.unwrap_or(0),
        time,
        entry: AuditEntry {
            id: row.required("stream_id")?,
            at: parsed.map_or(0, |t| t.as_millisecond()),
            event: row.required("event")?,
            tenant_id: row.required("tenant_id")?,
            user_id: row.required("user_id")?,
            resource_kind: row.required("resource_kind")?,
            resource_id: row.required("resource_id")?,
            action: row.required("action")?,
            command_id: row.text("command_id")?,
            request_id: row.text("request_id")?,
            reason: row.text("reason")?,
            address: row.text("address")?,
            token_id: row.text("token_id")?,
            outcome: row.text("outcome")?,
            worker_id: row.text("worker_id")?,
            attempts,
            latency_ms,
            run_at,
            batch_id: row.text("batch_id")?,
            refusals,
            first_at,
            last_at,
        },
        previous_hash: row.required("previous_hash")?,
        hash: row.required("hash")?,
        exact,
    })
}
