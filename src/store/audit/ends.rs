//! A command has one end, and SQL decides which: `applied_commands` has one row for each, whoever was first. Redis may bring
//! another one after a failover, when a command that had ended comes again from a replica that did not know it.

use std::collections::{HashMap, HashSet};

use super::storable::StorableEntry;
use crate::domain::{AuditEntry, AuditEvent};
use crate::store::sql::{MultiRowInsert, Tx, Value, time_text};
use crate::store::{Store, StoreError, rows};

/// What SQL itself puts into the audit trail comes from here, as other entries come from the streams of Redis.
pub const APPLIED_STREAM: &str = "applied";

/// Events that are a command's one end; denied with a command is one that was scheduled, when its time had come.
const ENDS: [&str; 4] = ["succeeded", "failed", "expired", "denied"];

/// Those of them that say that no worker has ever had it.
const WITHOUT_EFFECT: [&str; 2] = ["expired", "denied"];

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
    /// Leaves out what the trail has already of a command, whoever brings it again.
    pub(super) async fn sort_out<'a>(
        tx: &mut Tx,
        entries: Vec<&'a StorableEntry>,
    ) -> Result<(Vec<&'a StorableEntry>, Self), StoreError> {
        let mut known = known_of(tx, &entries).await?;
        let (mut kept, mut writes) = (Vec::with_capacity(entries.len()), Self::default());
        for entry in entries {
            // What was never a command (denied at once, over the budget) has no id, and may happen any number of times.
            if let Some(command) = entry.entry.command_id.as_deref() {
                let known = known.entry(command.to_owned()).or_default();
                if !known.lacks(&entry.entry.event) {
                    continue;
                }
                writes.note(command, &entry.entry.event, known);
                known.events.push(entry.entry.event.clone());
            }
            kept.push(entry);
        }
        Ok((kept, writes))
    }

    /// What this event of a command, which the trail lacked, means for the row of the command.
    fn note(&mut self, command: &str, event: &str, known: &mut Known) {
        let is_withdrawn = event == AuditEvent::Withdrawn.as_str();
        if !is_withdrawn && !ENDS.contains(&event) {
            return;
        }
        match &known.record {
            // It was carried out before the Redis that has withdrawn it knew that: its end is still to come.
            Some(_) if is_withdrawn => {}
            Some(Some(_)) => self.audited.push(vec![command.into()]),
            // A version before applied it, which writes no record.
            Some(None) => {}
            None if event == AuditEvent::Succeeded.as_str() => {}
            None => {
                self.refused.push(vec![command.into()]);
                known.record = Some(Some(String::new()));
            }
        }
    }

    /// `false`: something has changed since it was read; the caller takes everything back.
    pub(super) async fn write(&self, tx: &mut Tx) -> Result<bool, StoreError> {
        let audited = MultiRowInsert {
            before: "UPDATE applied_commands SET record = '' WHERE (record || '') <> '' AND command_id IN (",
            row: "(?)",
            after: ")",
            rows: &self.audited,
        };
        let refused = MultiRowInsert {
            before: "INSERT INTO applied_commands (command_id, outcome, record) ",
            row: "(?, 'refused', '')",
            after: " ON CONFLICT DO NOTHING",
            rows: &self.refused,
        };
        let wanted = (self.audited.len() + self.refused.len()) as u64;
        Ok(wanted == 0 || tx.execute_many(&[audited, refused]).await? == wanted)
    }
}

/// What SQL knows of a command.
#[derive(Default)]
struct Known {
    /// `record` of its row of `applied_commands`; `None`: there is no row.
    record: Option<Option<String>>,
    /// What the trail has of it.
    events: Vec<String>,
}

impl Known {
    /// Each event of a command is in the trail once, and after its end comes nothing: a Redis that a failover has put in
    /// place, or one that was cut off and is back, brings again what was there before.
    fn lacks(&self, event: &str) -> bool {
        let record = self.record.as_ref().and_then(Option::as_deref);
        let is_ended = record == Some("") || self.events.iter().any(|event| ENDS.contains(&event.as_str()));
        // A Redis that did not know of the claim says that nobody took it: what it did stands in SQL, and comes from there.
        let is_untrue = record.is_some() && WITHOUT_EFFECT.contains(&event);
        !is_ended && !is_untrue && !self.events.iter().any(|known| known == event)
    }
}

/// What SQL knows of the commands of these entries, by command.
async fn known_of(tx: &mut Tx, entries: &[&StorableEntry]) -> Result<HashMap<String, Known>, StoreError> {
    let mut known = HashMap::<String, Known>::new();
    let commands: HashSet<&str> = entries.iter().filter_map(|entry| entry.entry.command_id.as_deref()).collect();
    if commands.is_empty() {
        return Ok(known);
    }
    let values: Vec<Value> = commands.into_iter().map(Value::from).collect();
    let placeholders: Vec<_> = (1..=values.len()).map(|n| tx.placeholder(n)).collect();
    let which = format!("WHERE command_id IN ({})", placeholders.join(", "));
    for row in tx.rows(&format!("SELECT command_id, record FROM applied_commands {which}"), &values).await? {
        known.entry(row.required("command_id")?).or_default().record = Some(row.text("record")?);
    }
    for row in tx.rows(&format!("SELECT command_id, event FROM command_audit {which}"), &values).await? {
        known.entry(row.required("command_id")?).or_default().events.push(row.required("event")?);
    }
    Ok(known)
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
                Some(_) => events_of(&mut tx, &command).await?,
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

/// What the trail says of a command.
async fn events_of(tx: &mut Tx, command: &str) -> Result<Vec<String>, StoreError> {
    let text = "SELECT event FROM command_audit WHERE command_id = $1";
    tx.rows(text, &[command.into()]).await?.iter().map(|row| row.required("event")).collect()
}
