//! A command has one end, and SQL decides which: `applied_commands` has one row for each, whoever was first. Redis may bring
//! another one after a failover, when a command that had ended comes again from a replica that did not know it.

use std::collections::{HashMap, HashSet};

use super::storable::StorableEntry;
use crate::domain::AuditEntry;
use crate::store::sql::{MultiRowInsert, Tx, Value, time_text};
use crate::store::{Store, StoreError, rows};

/// What SQL itself puts into the audit trail comes from here, as other entries come from the streams of Redis.
pub const APPLIED_STREAM: &str = "applied";

/// Events that are a command's one end.
const ENDS: [&str; 3] = ["succeeded", "failed", "expired"];

/// A command that was applied, and whose end is not known to be in the audit trail.
#[derive(Debug, Clone)]
pub struct UnauditedEnd {
    /// Its id.
    pub command: String,
    /// What its entries begin with; `None`: it cannot be read.
    pub base: Option<AuditEntry>,
    /// The status that it led to, or `refused`.
    pub outcome: String,
    /// When it was applied, Unix ms by the database's clock.
    pub at: i64,
    /// The trail says that it was accepted.
    pub is_accepted: bool,
    /// The trail has its end all the same.
    pub is_ended: bool,
}

/// What SQL notes when entries are appended: for which commands nothing is owed any more.
#[derive(Default)]
pub(super) struct EndWrites {
    /// Their ends were applied here, and are in the trail now.
    audited: Vec<Vec<Value>>,
    /// They have ended without being applied, and never will be.
    refused: Vec<Vec<Value>>,
}

impl EndWrites {
    /// Leaves out the ends of commands that have one, and what this program has put into the trail without Redis.
    pub(super) async fn sort_out<'a>(
        tx: &mut Tx,
        stream: &str,
        entries: Vec<&'a StorableEntry>,
    ) -> Result<(Vec<&'a StorableEntry>, Self), StoreError> {
        let records = records_of(tx, &entries).await?;
        let (mut kept, mut writes, mut ended) = (Vec::with_capacity(entries.len()), Self::default(), HashSet::new());
        for entry in entries {
            let event = entry.entry.event.as_str();
            let Some(command) = entry.entry.command_id.as_deref().filter(|_| is_of_command(event)) else {
                kept.push(entry);
                continue;
            };
            let record = records.get(command);
            if matches!(record, Some(Some(record)) if record.is_empty()) {
                continue;
            }
            // Redis may have brought it since SQL was looked through for what the trail lacks.
            if event == "accepted"
                && stream == APPLIED_STREAM
                && events_of(tx, &entry.entry, command).await?.iter().any(|event| event == "accepted")
            {
                continue;
            }
            if ENDS.contains(&event) {
                if !ended.insert(command) {
                    continue;
                }
                match record {
                    Some(Some(_)) => writes.audited.push(vec![command.into()]),
                    // A version before applied it, which writes no record.
                    Some(None) => {}
                    None if event == "succeeded" => {}
                    None => writes.refused.push(vec![command.into()]),
                }
            }
            kept.push(entry);
        }
        Ok((kept, writes))
    }

    /// `false`: something has changed since it was read; the caller takes everything back.
    pub(super) async fn write(&self, tx: &mut Tx) -> Result<bool, StoreError> {
        let audited = MultiRowInsert {
            before: "UPDATE applied_commands SET record = '' WHERE record <> '' AND command_id IN (VALUES ",
            row: "(?)",
            after: ")",
            rows: &self.audited,
        };
        let refused = MultiRowInsert {
            before: "INSERT INTO applied_commands (command_id, outcome, record) VALUES ",
            row: "(?, 'refused', '')",
            after: " ON CONFLICT DO NOTHING",
            rows: &self.refused,
        };
        let wanted = (self.audited.len() + self.refused.len()) as u64;
        Ok(wanted == 0 || tx.execute_many(&[audited, refused]).await? == wanted)
    }
}

/// Denied and rate limited is what was never a command.
fn is_of_command(event: &str) -> bool {
    event == "accepted" || ENDS.contains(&event)
}

/// `record` of those of these commands that have a row.
async fn records_of(tx: &mut Tx, entries: &[&StorableEntry]) -> Result<HashMap<String, Option<String>>, StoreError> {
    let commands: HashSet<&str> = entries.iter().filter_map(|entry| entry.entry.command_id.as_deref()).collect();
    if commands.is_empty() {
        return Ok(HashMap::new());
    }
    let values: Vec<Value> = commands.into_iter().map(Value::from).collect();
    let placeholders: Vec<_> = (1..=values.len()).map(|n| tx.placeholder(n)).collect();
    let text =
        format!("SELECT command_id, record FROM applied_commands WHERE command_id IN ({})", placeholders.join(", "));
    let found = tx.rows(&text, &values).await?;
    found.iter().map(|row| Ok((row.required("command_id")?, row.text("record")?))).collect()
}

impl Store {
    /// Commands that were applied before this moment (Unix ms, by the database's clock), and whose ends are not known to be in
    /// the audit trail; the oldest, so many at most.
    pub async fn unaudited_ends(&self, before: i64, limit: usize) -> Result<Vec<UnauditedEnd>, StoreError> {
        let mut tx = self.database.read().await?;
        // Three digits, as SQLite writes them: there it is a comparison of texts.
        let text = format!(
            "SELECT command_id, outcome, record, CAST(at AS TEXT) AS at FROM applied_commands
             WHERE record <> '' AND at < {{time:$1}} ORDER BY at LIMIT {limit}"
        );
        let found = tx.rows(&text, &[time_text(before).into()]).await?;
        let mut ends = Vec::with_capacity(found.len());
        for row in &found {
            let command: String = row.required("command_id")?;
            let at = rows::time(row.text("at")?).and_then(|time| time.parse::<jiff::Timestamp>().ok());
            let record = row.required("record")?;
            let base = serde_json::from_str(&record).ok();
            let events = match &base {
                Some(base) => events_of(&mut tx, base, &command).await?,
                None => Vec::new(),
            };
            ends.push(UnauditedEnd {
                command,
                base,
                outcome: row.required("outcome")?,
                at: at.map_or(before, jiff::Timestamp::as_millisecond),
                is_accepted: events.iter().any(|event| event == "accepted"),
                is_ended: events.iter().any(|event| ENDS.contains(&event.as_str())),
            });
        }
        Ok(ends)
    }

    /// Nothing is owed to the audit trail for these commands any more.
    pub async fn forget_unaudited(&self, commands: &[String]) -> Result<(), StoreError> {
        let audited = commands.iter().map(|command| vec![command.as_str().into()]).collect();
        let mut tx = self.database.write().await?;
        EndWrites { audited, refused: Vec::new() }.write(&mut tx).await?;
        tx.commit().await
    }
}

/// What the trail says of a command. By the resource, for which there is an index.
async fn events_of(tx: &mut Tx, base: &AuditEntry, command: &str) -> Result<Vec<String>, StoreError> {
    let text = "SELECT event FROM command_audit WHERE tenant_id = $1 AND resource_id = $2 AND command_id = $3";
    let values = [base.tenant_id.as_str(), base.resource_id.as_str(), command].map(Value::from);
    tx.rows(text, &values).await?.iter().map(|row| row.required("event")).collect()
}
